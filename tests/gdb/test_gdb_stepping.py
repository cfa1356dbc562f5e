# SPDX-License-Identifier: GPL-2.0-or-later
"""Breakpoints and stepping over a replayed run, as over a live one."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
from harness import line_of

Replay = Callable[..., Any]


@pytest.mark.parametrize("program", ["deep", "deep-static", "deep-nopie"])
def test_breakpoint_on_a_line(replayed: Replay, program: str) -> None:
    line = line_of("deep.c", "line: deepest")
    run = replayed(
        program, f"break deep.c:{line}", "continue", "print depth", "print squares",
        "print label", "print global_counter", "backtrace", "up 3", "print depth",
    )  # fmt: skip
    assert f"deep.c:{line}" in run.text, run.text
    assert run.values[0] == "8", run.text
    assert run.values[1] == "{8, 64, 512, -8}"
    assert run.values[2].startswith('"frame-8')
    assert run.values[3] == "8"
    assert run.values[4] == "5"
    assert run.count(r"^#\d+ .*\bdescend \(depth=") == 8 + 1  # and once by `up`
    assert run.count(r"^#8 .*\bmain \(argc=1, ") == 1


def test_conditional_breakpoint(replayed: Replay) -> None:
    run = replayed("deep", "break descend if depth == 5", "continue", "print depth", "continue")
    assert run.values == ["5"], run.text
    assert run.count(r"^Breakpoint \d+, descend \(depth=5, ") == 1
    assert "end of the recording: exited with status 0" in run.text


def test_temporary_breakpoint_stops_once(replayed: Replay) -> None:
    run = replayed("deep", "tbreak descend", "continue", "continue")
    assert run.count(r"^Temporary breakpoint \d+, descend \(depth=1, ") == 1, run.text
    assert "end of the recording" in run.text


def test_breakpoint_with_commands_and_ignore_count(replayed: Replay) -> None:
    run = replayed("deep", "break descend", "ignore $bpnum 6", "continue", "print depth")
    assert run.values == ["7"], run.text


@pytest.mark.both_gdbs
def test_next_goes_over_calls_and_system_calls(replayed: Replay) -> None:
    first = line_of("watch_me.c", "line: between")
    run = replayed(
        "watch_me", f"break {first}", "continue", "next", "print watched", "next", "next", "next",
        "print watched",
    )  # fmt: skip
    assert run.values == ["1", "1"], run.text
    # the line itself, the system call after it, the loop's head, the system call before it
    stops = re.findall(r"^(\d+)\t", run.text, re.MULTILINE)
    assert stops == [str(n) for n in (first, first + 1, first - 2, first - 1, first)], run.text


def test_step_enters_and_finish_leaves(replayed: Replay) -> None:
    line = line_of("deep.c", "line: shape") - 1
    run = replayed(
        "deep", f"break {line}", "continue", "step", "print shape->name", "next", "next",
        "print height", "finish", "next", "print shape.area",
    )  # fmt: skip
    assert "measure (shape=0x" in run.text, run.text
    assert run.values[0].endswith('"triangle"')
    assert run.values[1:] == ["5", "12.5"]
    assert "Run till exit" in run.text or "main (argc=1" in run.text


def test_finish_shows_the_value_returned(replayed: Replay) -> None:
    run = replayed("deep", "break descend if depth == 8", "continue", "finish", "finish")
    assert re.findall(r"^Value returned is \$\d+ = (\d+)$", run.text, re.MULTILINE) == ["64", "71"]


def test_until_and_advance(replayed: Replay) -> None:
    push, listed = line_of("deep.c", "line: push"), line_of("deep.c", "line: list")
    run = replayed(
        "deep", f"break {push}", "continue", "delete", f"until {listed}", "print list->value",
        f"advance {line_of('deep.c', 'line: end')}", "print total", "print sum_list(list)",
    )  # fmt: skip
    assert run.values == ["5", "92", "0"], run.text


@pytest.mark.both_gdbs
def test_inferior_call_that_makes_no_system_call(replayed: Replay) -> None:
    run = replayed(
        "deep", f"break {line_of('deep.c', 'line: list')}", "continue", "print sum_list(list)",
        "delete", "continue",
    )  # fmt: skip
    assert run.values == ["15"], run.text
    assert "end of the recording: exited with status 0" in run.text


@pytest.mark.both_gdbs
def test_stepi_over_a_system_call_instruction(recorded: Replay, in_gdb: Replay) -> None:
    recording = recorded("watch_me")
    event = next(e for e in in_gdb(recording).events() if e["name"] == "getppid")
    run = in_gdb(
        recording, f"sysrift-goto {event['number']}", "x/i $pc", "print/x $pc", "stepi",
        "print/x $pc", "print $rax", "sysrift-when", "stepi", "print/x $pc", "stepi", "print/x $pc",
        "continue",
    )  # fmt: skip
    assert re.search(r"^=> .*\tsyscall", run.text, re.MULTILINE), run.text
    at, behind, result, second, third = run.values
    assert int(at, 16) == event["site"]
    assert int(behind, 16) == event["site"] + 2
    assert int(result) == event["result"]
    assert f"before event {event['number'] + 1} " in run.text
    # Each further step is a step: GDB must not take the system call's own trap for one.
    assert int(second, 16) > int(behind, 16)
    assert int(third, 16) != int(second, 16)
    assert "end of the recording: exited with status 0" in run.text


def test_two_stepi_in_a_row_from_before_a_system_call(recorded: Replay, in_gdb: Replay) -> None:
    recording = recorded("watch_me")
    event = next(e for e in in_gdb(recording).events() if e["name"] == "getppid")
    run = in_gdb(
        recording, "break main", "continue", f"break *{event['site']}", "continue",
        "stepi", "stepi", "print/x $pc", "stepi 20", "continue", "print/x $pc",
    )  # fmt: skip
    assert int(run.values[0], 16) > event["site"] + 2, run.text
    assert int(run.values[1], 16) == event["site"], run.text


def test_stepi_over_rdtsc(recorded: Replay, in_gdb: Replay) -> None:
    recording = recorded("time_all_ways")
    event = next(e for e in reversed(in_gdb(recording).events()) if e["name"] == "rdtsc")
    run = in_gdb(
        recording, f"sysrift-goto {event['number']}", "print/x $pc", "stepi", "print/x $pc",
        "print (unsigned long)$rdx << 32 | (unsigned int)$rax",
    )  # fmt: skip
    assert [int(value, 16) for value in run.values[:2]] == [event["site"], event["site"] + 2]
    assert int(run.values[2]) == event["result"]
