# SPDX-License-Identifier: GPL-2.0-or-later
"""Looking at a replayed program: values, libraries, mappings, handlers, time, other programs."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from harness import FIXTURES, built, line_of

Replay = Callable[..., Any]


@pytest.mark.both_gdbs
def test_print_structures(replayed: Replay) -> None:
    run = replayed(
        "deep", f"break {line_of('deep.c', 'line: shape')}", "continue", "print shape",
        "print *list", "print list->next->next->value", "print shape.corner[1]", "ptype shape",
        "info locals",
    )  # fmt: skip
    assert run.values[0].startswith("{name = 0x") and '"triangle"' in run.values[0], run.text
    assert run.values[0].endswith("corner = {{x = 0, y = 0}, {x = 5, y = 5}}, area = 12.5}")
    assert run.values[1].startswith("{value = 5, next = 0x")
    assert run.values[2:] == ["3", "{x = 5, y = 5}"]
    assert "struct point corner[2];" in run.text
    assert "total = 92" in run.text


def test_shared_libraries_and_mappings(replayed: Replay) -> None:
    run = replayed("deep", "break main", "continue", "info sharedlibrary", "info proc mappings")
    libraries, _, mappings = run.text.partition("Mapped address spaces")
    assert re.search(r"^0x\S+ +0x\S+ +Yes.*libc\.so\.6$", libraries, re.MULTILINE), run.text
    assert re.search(r"^0x\S+ +0x\S+ +Yes.*ld-linux-x86-64\.so\.2$", libraries, re.MULTILINE)
    for name in (str(built("deep")), "libc.so.6", "[stack]"):
        assert name in mappings, run.text


@pytest.mark.both_gdbs
def test_dlopened_library(replayed: Replay) -> None:
    run = replayed(
        "dlopen_user", "set breakpoint pending on", "break library_scale",
        "continue", "info sharedlibrary", "backtrace", "next", "print product", "finish",
        "continue", "print value", "print library_calls", "continue",
    )  # fmt: skip
    assert run.count(r"^Breakpoint \d+, library_scale \(value=(21|33), factor=2\)") == 2, run.text
    assert re.search(r"^0x\S+ +0x\S+ +Yes.*dlopen_lib\.so$", run.text, re.MULTILINE)
    assert re.search(r"^#1 .*use_library \(value=21\)", run.text, re.MULTILINE)
    assert run.values == ["42", "33", "0"], run.text
    assert "Value returned is $2 = 42" in run.text
    assert run.recording.stdout in run.text
    assert "end of the recording: exited with status 0" in run.text


def test_breakpoint_in_a_signal_handler(replayed: Replay) -> None:
    run = replayed(
        "handlers", "break on_user", "continue", "print info->si_signo", "print users",
        "backtrace", "next", "print users", "finish", "continue", "delete", "continue",
    )  # fmt: skip
    assert run.values == ["10", "0", "1"], run.text
    assert run.count(r"^Breakpoint \d+, on_user \(number=10, ") == 2
    assert "<signal handler called>" in run.text
    assert re.search(r"^#\d+ .*to_itself \(\)", run.text, re.MULTILINE)
    assert "computation interrupted, 4 alarms" in run.text
    assert "end of the recording: exited with status 0" in run.text


@pytest.mark.both_gdbs
def test_every_alarm_reaches_its_handler(replayed: Replay) -> None:
    run = replayed("handlers", "break on_alarm", *["continue"] * 4, "backtrace", "continue")
    assert run.count(r"^Breakpoint \d+, on_alarm \(number=14\)") == 4, run.text
    # The fourth came between two instructions of a loop.
    assert re.search(r"^#2 .*in_computation \(\)", run.text, re.MULTILINE), run.text
    assert all(line in run.text for line in run.recording.stdout.splitlines())
    assert "end of the recording: exited with status 0" in run.text


def test_handled_faults_do_not_stop_gdb(replayed: Replay) -> None:
    run = replayed("sync_signals", "continue", "print faults", "print skipped")
    assert "Program received signal" not in run.text, run.text
    assert run.values == ["5", "3"]
    assert run.recording.stdout in run.text
    assert "end of the recording: exited with status 0" in run.text


def test_breakpoint_in_the_handler_of_a_fault(replayed: Replay) -> None:
    run = replayed("sync_signals", "break on_segv", "continue", "print faults", "up 2", "continue")
    assert run.count(r"^Breakpoint \d+, on_segv \(number=11, ") == 2, run.text
    assert run.values[0] == "0"


def test_time_stamps_are_the_recorded_ones(replayed: Replay) -> None:
    line = _line_containing("time_all_ways.c", "last.tv_nsec >= first.tv_nsec")
    run = replayed(
        "time_all_ways", f"break {line}", "continue", "print tsc", "print tscp", "print aux",
        "print of_day.tv_sec", "print of_day.tv_usec", "delete", "continue",
    )  # fmt: skip
    told = dict(line.split(": ", 1) for line in run.recording.stdout.splitlines())
    assert run.values[0] == told["rdtsc"], run.text
    assert f"{run.values[1]} {run.values[2]}" == told["rdtscp"]
    assert f"{run.values[3]}.{int(run.values[4]):06d}" == told["gettimeofday"]
    assert run.recording.stdout in run.text


def _line_containing(source: str, text: str) -> int:
    lines = (FIXTURES / source).read_text().splitlines()
    return next(number for number, line in enumerate(lines, 1) if text in line)


@pytest.mark.both_gdbs
def test_program_that_becomes_others(replayed: Replay) -> None:
    run = replayed(
        "execs", "break main", "continue", "next", "print part", "continue", "continue", "next",
        "print part", "continue", "info inferiors", "continue", "sysrift-when",
    )  # fmt: skip
    assert [value.split()[-1] for value in run.values] == ['"first"', '"second"'], run.text
    assert f"the program became {built('execs')} (execve)" in run.text
    assert re.search(r"the program became /\S*bin/\S+ \(execve\)", run.text)
    assert run.recording.stdout.splitlines() == ["first", "second", "third"]
    assert all(re.search(rf"^{word}$", run.text, re.MULTILINE) for word in ("first", "second"))
    assert re.search(r"^\* 1 .*/(echo|busybox|coreutils)\b", run.text, re.MULTILINE), run.text


def test_going_back_over_an_execve(replayed: Replay) -> None:
    run = replayed(
        "execs", "sysrift-goto end", "info inferiors", "sysrift-goto start", "break main",
        "continue", "print argc",
    )  # fmt: skip
    assert run.values == ["1"], run.text
    assert re.search(r"^Breakpoint \d+, main \(argc=1, ", run.text, re.MULTILINE)


def test_program_that_changed_since(tmp_path: Path, recorded: Replay, in_gdb: Replay) -> None:
    program = tmp_path / "program"
    shutil.copy(built("ends_segv"), program)
    recording = recorded(program)
    shutil.copy(built("deep"), program)
    run = in_gdb(recording, "continue", "backtrace", "print depth")
    assert "has changed since" in run.text, run.text
    assert run.values == ["3"], run.text
    assert f"ends_segv.c:{line_of('ends_segv.c', 'the crash')}" in run.text
