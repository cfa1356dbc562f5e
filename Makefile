# SPDX-License-Identifier: GPL-2.0-or-later
#
# Everything here works from a clean clone on Debian or Ubuntu: tools/setup.sh makes .venv and
# installs what the target needs and the machine lacks (or says which command would).

BIN := .venv/bin
# The editable install builds the native parts, so what they or the dependencies are made of renews it.
SOURCES := pyproject.toml setup.py tools/setup.sh \
	$(wildcard sysrift/native/*.S sysrift/native/*.ld sysrift/native/*.[ch])
PYTEST_ARGS ?=
BENCH_ARGS ?=
WORKERS ?= auto

.PHONY: help build test lint format demo bench bench-full fixtures clean

help:
	@echo "make test      install what is missing, lint, and run every test"
	@echo "make demo      record a program that crashes sometimes, and debug that crash"
	@echo "make bench     measure: recording, trace size, replaying, start-up"
	@echo "make bench-full  the same of 19 whole programs: about ten minutes; BENCH_ARGS='--runs 1 --only grep'"
	@echo "make lint      ruff and mypy only"
	@echo "make format    let ruff format the sources"
	@echo "make build     .venv with SysRift in it, and its native parts"
	@echo "make fixtures  the test programs of fixtures/"
	@echo "make clean     remove what the above have built"
	@echo "make test PYTEST_ARGS='-k openssl' WORKERS=0 runs a part of the tests, one at a time"

.venv/.run: $(SOURCES)
	@tools/setup.sh run
	@touch $@

.venv/.test: $(SOURCES)
	@tools/setup.sh test
	@touch $@ .venv/.run

build: .venv/.run

lint: .venv/.test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy --strict sysrift gdb

format: .venv/.test
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

test: lint
	@tools/setup.sh check
	$(BIN)/python -m pytest -n $(WORKERS) $(PYTEST_ARGS)

demo: .venv/.run
	@tools/setup.sh check-run
	@$(BIN)/python tools/demo.py

bench: .venv/.test
	@tools/setup.sh check
	@$(BIN)/python -m tools.bench

bench-full: .venv/.test
	@tools/setup.sh check
	@$(BIN)/python -m tools.benchmark $(BENCH_ARGS)

fixtures:
	$(MAKE) --no-print-directory -j -C fixtures

clean:
	$(MAKE) --no-print-directory -C fixtures clean
	rm -rf .venv build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .bench \
		sysrift/native/stub sysrift/native/agent
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
