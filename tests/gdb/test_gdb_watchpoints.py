# SPDX-License-Identifier: GPL-2.0-or-later
"""Watchpoints over a replayed run: hardware and software, and the user's `catch syscall`."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
from harness import line_of

Replay = Callable[..., Any]


def _new_values(text: str) -> list[int]:
    return [int(value) for value in re.findall(r"^New value = (-?\d+)$", text, re.MULTILINE)]


@pytest.mark.both_gdbs
def test_hardware_watchpoint(replayed: Replay) -> None:
    run = replayed("watch_me", "break main", "continue", "watch watched", *["continue"] * 9)
    assert "Hardware watchpoint" in run.text
    seen = [value for value in _new_values(run.text) if value]  # 0 is written by the kernel
    assert seen == [1, 2, 3, 10, 20, 30, 100, 7], run.text
    assert run.recording.stdout.splitlines()[-1] in run.text
    assert "end of the recording: exited with status 0" in run.text


def test_hardware_watchpoint_set_at_the_first_instruction(replayed: Replay) -> None:
    run = replayed("watch_me", "watch watched if watched == 20", "continue", "print watched")
    assert run.values == ["20"], run.text


def test_hardware_watchpoint_stops_on_the_line(replayed: Replay) -> None:
    line = line_of("watch_me.c", "line: between")
    run = replayed("watch_me", "break main", "continue", "watch watched", "continue", "backtrace 1")
    # x86 traps behind the instruction, so GDB shows the line after it.
    assert re.search(rf"^#0 .*between_calls .*watch_me\.c:{line + 1}$", run.text, re.MULTILINE)


def test_software_watchpoint(replayed: Replay) -> None:
    run = replayed(
        "watch_me", "set can-use-hw-watchpoints 0", "break main", "continue", "watch watched",
        *["continue"] * 9,
    )  # fmt: skip
    assert "Hardware watchpoint" not in run.text
    assert _new_values(run.text) == [1, 2, 3, 10, 20, 30, 100, 0, 7], run.text


def test_read_watchpoint(replayed: Replay) -> None:
    run = replayed(
        "watch_me", "break main", "continue", "rwatch untouched", "continue", "info line"
    )
    assert "Value = 99" in run.text, run.text
    assert f"Line {line_of('watch_me.c', 'line: last') + 1} " in run.text


def test_local_watchpoint_ends_with_its_frame(replayed: Replay) -> None:
    run = replayed(
        "watch_me", "break in_computation", "continue", "next", "watch local if local == 3",
        "continue", "print i", "disable", "break by_the_kernel", "continue", "finish",
    )  # fmt: skip
    assert "2" in run.values[0], run.text
    assert re.search(r"^Breakpoint \d+, by_the_kernel ", run.text, re.MULTILINE), run.text


@pytest.mark.both_gdbs
def test_catch_syscall_shows_call_and_return(replayed: Replay) -> None:
    run = replayed(
        "watch_me", "catch syscall getppid",
        "continue", "print $orig_rax", "continue", "print $rax",
        "continue", "continue", "print $rax", "backtrace",
    )  # fmt: skip
    assert run.count(r"^Catchpoint \d+ \(call to syscall getppid\)") == 2, run.text
    assert run.count(r"^Catchpoint \d+ \(returned from syscall getppid\)") == 2, run.text
    result = next(e["result"] for e in run.events() if e["name"] == "getppid")
    assert run.values == ["110", str(result), str(result)]
    assert re.search(r"^#1 .*between_calls \(\)", run.text, re.MULTILINE)


def test_catch_syscall_sees_every_one_and_then_the_end(replayed: Replay) -> None:
    run = replayed("watch_me", "catch syscall getppid", *["continue"] * 13)
    assert run.count(r"\(call to syscall getppid\)") == 6, run.text
    assert run.count(r"\(returned from syscall getppid\)") == 6
    assert "end of the recording: exited with status 0" in run.text


def test_catch_syscall_has_the_recorded_buffer_at_the_return(replayed: Replay) -> None:
    run = replayed(
        "watch_me", "break by_the_kernel", "continue", "catch syscall openat read", "continue",
        "x/s $rsi", "continue", "print $rax", "continue", "print watched", "continue",
        "print watched", "print $rax",
    )  # fmt: skip
    assert '"/dev/zero"' in run.text, run.text
    assert run.values == ["3", "100", "0", "8"], run.text


def test_catch_every_syscall(replayed: Replay) -> None:
    run = replayed("watch_me", "catch syscall", *["continue"] * 10)
    names = re.findall(r"\(call to syscall (\w+)\)", run.text)
    made = [e["name"] for e in run.events() if e["kind"] == "syscall"]
    assert names == made[:5], run.text
    assert re.findall(r"\(returned from syscall (\S+)\)", run.text) == made[:5]


@pytest.mark.both_gdbs
def test_deleting_everything_leaves_the_replay_going(replayed: Replay) -> None:
    run = replayed("watch_me", "catch syscall getppid", "continue", "delete", "continue")
    assert run.count(r"\(call to syscall getppid\)") == 1, run.text
    assert run.recording.stdout in run.text
    assert "end of the recording: exited with status 0" in run.text


def test_disabling_everything_leaves_the_replay_going(replayed: Replay) -> None:
    run = replayed("watch_me", "break between_calls", "disable", "continue")
    assert run.recording.stdout in run.text, run.text
    assert "end of the recording: exited with status 0" in run.text
