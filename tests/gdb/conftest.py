# SPDX-License-Identifier: GPL-2.0-or-later
"""What the tests in real GDBs share: recording a fixture and replaying it under commands."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import harness
import pytest
from gdb_prompt import Prompt


@dataclass(frozen=True)
class Replayed:
    """A recording, and what a GDB printed that replayed it."""

    recording: harness.Recording
    text: str

    @property
    def values(self) -> list[str]:
        """What GDB's `print` commands printed, in order: the right sides of `$N = ...`."""
        return re.findall(r"^\$\d+ = (.*)$", self.text, re.MULTILINE)

    def count(self, pattern: str) -> int:
        """How often a regular expression matches, line by line."""
        return len(re.findall(pattern, self.text, re.MULTILINE))

    def events(self, *options: str) -> list[dict[str, Any]]:
        """The recorded events, as `sysrift dump --json` gives them."""
        done = harness.sysrift("dump", "--json", *options, self.recording.trace)
        assert done.returncode == 0, done
        lines = [json.loads(line) for line in done.stdout.splitlines()]
        return [line for line in lines if "number" in line]


@pytest.fixture
def recorded(built_fixtures: None) -> Callable[..., harness.Recording]:
    """A function that records a fixture (by its name) or another program (by its path)."""

    def record(program: str | Path, *arguments: str, **options: Any) -> harness.Recording:
        path = harness.built(program) if isinstance(program, str) else program
        recording = harness.record([path, *arguments], **options)
        assert recording.returncode not in (125, 126, 127), recording
        return recording

    return record


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Tests marked `both_gdbs` run twice."""
    if metafunc.definition.get_closest_marker("both_gdbs") is not None:
        metafunc.parametrize("gdb", ["system", "newer"], indirect=True)


@pytest.fixture
def gdb(request: pytest.FixtureRequest) -> str:
    """The GDB of this test."""
    return newer_gdb() if getattr(request, "param", "system") == "newer" else harness.GDB


def newer_gdb() -> str:
    """GDB 18; where there is no wheel of it for this Python, the test is skipped."""
    if sys.version_info >= (3, 15):
        pytest.skip("there is no gdb-for-pwndbg for this Python")
    assert harness.NEWER_GDB.exists(), "install the test dependencies: make .venv/.test"
    return str(harness.NEWER_GDB)


@pytest.fixture
def in_gdb(gdb: str) -> Callable[..., Replayed]:
    """A function that replays a recording in a GDB of its own, under the given commands.

    Whatever a test is about, GDB must never show the innards of SysRift's Python.
    """

    def replay(recording: harness.Recording, *commands: str, **options: Any) -> Replayed:
        text = harness.gdb_batch(commands, recording.trace, gdb=gdb, **options)
        for innards in ("Traceback (most recent call last)", "Python Exception", "internal error"):
            assert innards not in text, text
        return Replayed(recording, text)

    return replay


@pytest.fixture
def replayed(
    recorded: Callable[..., harness.Recording], in_gdb: Callable[..., Replayed]
) -> Callable[..., Replayed]:
    """A function that records a fixture (by its name) and replays it under the given commands."""

    def both(program: str, *commands: str, **options: Any) -> Replayed:
        return in_gdb(recorded(program), *commands, **options)

    return both


@pytest.fixture
def at_the_prompt(gdb: str) -> Iterator[Callable[..., Prompt]]:
    """A function that begins a replay in a GDB on a terminal; the GDBs end with the test."""
    begun: list[Prompt] = []

    def begin(recording: harness.Recording) -> Prompt:
        begun.append(Prompt(recording, gdb))
        return begun[-1]

    yield begin
    for prompt in begun:
        prompt.gdb.close(force=True)


@pytest.fixture
def prompt(at_the_prompt: Callable[..., Prompt], recording: harness.Recording) -> Prompt:
    """A replay of the test module's `recording` at a prompt."""
    return at_the_prompt(recording)
