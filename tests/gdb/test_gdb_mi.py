# SPDX-License-Identifier: GPL-2.0-or-later
"""A front end that speaks GDB/MI over a replay."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import harness
import pytest

_SCRIPT = harness.ROOT / "gdb" / "sysrift.gdb"


def speak(gdb: str, recording: harness.Recording, *commands: str) -> str:
    """What GDB answers a front end that replays a recording and gives these commands."""
    before = [
        "-gdb-set mi-async off", f'-interpreter-exec console "source {_SCRIPT}"',
        f'-interpreter-exec console "sysrift-replay {recording.trace}"',
    ]  # fmt: skip
    done = harness.run(
        [gdb, "-nx", "-q", "--interpreter=mi3"],
        stdin="".join(f"{command}\n" for command in (*before, *commands, "-gdb-exit")),
    )
    assert "^error" not in done.stdout, done.stdout
    return done.stdout


def stops(text: str) -> list[tuple[str, str]]:
    """Why, and in which function, of each stop that the front end was told of."""
    return re.findall(r'^\*stopped,reason="([^"]*)".*?func="([^"]*)"', text, re.MULTILINE)


@pytest.mark.both_gdbs
def test_running_stepping_and_going_places_by_mi(recorded: Callable[..., Any], gdb: str) -> None:
    text = speak(
        gdb, recorded("deep"), '-interpreter-exec console "sysrift-goto 12"',
        '-data-evaluate-expression "$_event"', "-break-insert deep.c:measure", "-exec-continue",
        "-exec-next", "-exec-next", "-stack-list-variables --simple-values", "-exec-finish",
        '-data-evaluate-expression "shape.area"', '-interpreter-exec console "sysrift-back"',
        '-data-evaluate-expression "$_event"',
    )  # fmt: skip
    values = re.findall(r'\^done,value="([^"]*)"', text)
    assert values == ["12", "12.5", "1"], text
    # Going somewhere, and beginning, are told as stops, too: by the signal that the last one was.
    assert [why for why, _ in stops(text)] == [
        "signal-received", "signal-received", "breakpoint-hit", "end-stepping-range",
        "end-stepping-range", "function-finished", "end-stepping-range",
    ], text  # fmt: skip
    assert '{name="height",type="int",value="5"}' in text


@pytest.mark.both_gdbs
def test_going_back_by_mi(recorded: Callable[..., Any], gdb: str) -> None:
    line = harness.line_of("deep.c", "line: area")
    text = speak(
        gdb, recorded("deep"), f"-break-insert deep.c:{line}", "-break-insert sum_list",
        "-exec-continue", "-exec-continue", "-stack-list-locals --simple-values",
        '-interpreter-exec console "reverse-next"', "-stack-list-locals --simple-values",
        '-interpreter-exec console "reverse-finish"',
        '-interpreter-exec console "reverse-continue"', "-stack-info-frame", "-exec-next",
    )  # fmt: skip
    assert [function for _, function in stops(text)[1:]] == [
        "sum_list", "measure", "measure", "main", "sum_list", "sum_list"
    ], text  # fmt: skip
    lines = [int(n) for n in re.findall(r'^\*stopped,.*?line="(\d+)"', text, re.MULTILINE)]
    called = harness.line_of("deep.c", "line: list") + 1
    assert lines[:4] == [lines[0], line, line - 2, called], text
