# SPDX-License-Identifier: GPL-2.0-or-later
"""How a replay ends in GDB: at the crash, at the exit, and still there to be looked at."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
from harness import line_of

Replay = Callable[..., Any]


@pytest.mark.parametrize("program", ["ends_segv", "ends_segv-static"])
def test_crash_stops_on_the_faulting_line(replayed: Replay, program: str) -> None:
    line = line_of("ends_segv.c", "the crash")
    run = replayed(
        program, "continue", "print depth", "print value", "print record",
        "print $_siginfo.si_signo", "print $_siginfo._sifields._sigfault.si_addr", "backtrace",
        "sysrift-when",
    )  # fmt: skip
    assert "Program received signal SIGSEGV, Segmentation fault." in run.text, run.text
    assert re.search(rf"^{line}\t.*the crash", run.text, re.MULTILINE)
    assert run.values[:2] == ["3", "42"]
    assert run.values[2].endswith("0x0")
    assert run.values[3] == "11"
    assert run.values[4].endswith("0x10")
    frames = re.findall(r"^#\d+ +(?:0x\S+ in )?(\w+) \(", run.text, re.MULTILINE)
    assert frames[-4:] == ["store", "process", "process", "main"], run.text
    assert "killed by SIGSEGV" in run.text


def test_going_on_after_the_crash_stays_there(replayed: Replay) -> None:
    run = replayed("ends_segv", "continue", "continue", "print depth", "continue", "backtrace 1")
    assert run.values == ["3"], run.text
    assert run.count(r"^Program received signal SIGSEGV") >= 1
    assert "exited" not in run.text.partition("about to crash")[2], run.text
    assert re.search(r"^#0 .*\bstore \(depth=3, value=42\)", run.text, re.MULTILINE)


def test_stepping_into_the_crash(replayed: Replay) -> None:
    run = replayed("ends_segv", "break store", "continue", "next", "next", "next", "print depth")
    assert "Program received signal SIGSEGV" in run.text, run.text
    assert run.values == ["3"]


def test_crash_is_reached_with_a_breakpoint_before_it(replayed: Replay) -> None:
    run = replayed("ends_segv", "break process", *["continue"] * 3)
    assert run.count(r"^Breakpoint \d+, process \(depth=[23]\)") == 2, run.text
    assert "Program received signal SIGSEGV" in run.text


@pytest.mark.both_gdbs
def test_back_from_the_crash(replayed: Replay) -> None:
    run = replayed(
        "ends_segv", "continue", "sysrift-goto start", "break process", "continue", "print depth",
        "delete", "continue", "print depth",
    )  # fmt: skip
    assert run.values == ["2", "3"], run.text
    assert run.count(r"^Program received signal SIGSEGV") == 2


@pytest.mark.both_gdbs
def test_abort_stops_in_raise(replayed: Replay) -> None:
    run = replayed(
        "ends_abort", "continue", "print $_siginfo.si_signo", "backtrace",
        "frame function balance", "print rest", "info args", "continue", "backtrace 1",
    )  # fmt: skip
    assert "Program received signal SIGABRT, Aborted." in run.text, run.text
    assert run.values == ["6", "-4"], run.text
    assert re.search(r"^#\d+ .*\b(raise|__GI_raise|__pthread_kill\w*) \(", run.text, re.MULTILINE)
    assert re.search(r"^#\d+ .*\bbalance \(income=10, expenses=14\)", run.text, re.MULTILINE)
    assert "Assertion `rest >= 0' failed" in run.text
    assert "exited" not in run.text.partition("Program received")[2]


@pytest.mark.parametrize(
    ("program", "name"), [("ends_fpe", "SIGFPE"), ("ends_ill", "SIGILL"), ("ends_bus", "SIGBUS")]
)
def test_other_faults(replayed: Replay, program: str, name: str) -> None:
    run = replayed(program, "continue", "backtrace 1", "continue", "print $_siginfo.si_signo")
    assert f"Program received signal {name}" in run.text, run.text
    assert len(run.values) == 1, run.text


@pytest.mark.parametrize(
    ("program", "name"), [("ends_sigterm_self", "SIGTERM"), ("ends_sigkill_self", "SIGKILL")]
)
def test_signals_that_were_sent(replayed: Replay, program: str, name: str) -> None:
    run = replayed(program, "continue", "backtrace", "sysrift-when")
    # Once when the replay begins, and again when it gets there.
    assert f"end of the recording: killed by {name}" in run.text, run.text
    assert re.search(r"^#\d+ .*\bmain \(", run.text, re.MULTILINE), run.text


def test_exit_status_is_told(replayed: Replay) -> None:
    run = replayed("ends_return42", "continue")
    assert "end of the recording: exited with status 42" in run.text, run.text


def test_the_end_stays_inspectable(replayed: Replay) -> None:
    run = replayed(
        "watch_me", "continue", "print watched", "backtrace", "sysrift-when", "continue", "stepi",
        "next", "print watched", "print untouched", "info proc mappings", "info sharedlibrary",
    )  # fmt: skip
    assert run.values == ["7", "7", "99"], run.text
    assert run.count("end of the recording: exited with status 0") == 1
    assert re.search(r"^#\d+ .*\bexit ", run.text, re.MULTILINE) or "_exit" in run.text
    assert "[stack]" in run.text
    assert "exited normally" not in run.text


def test_recording_that_was_cut_off(recorded: Replay, in_gdb: Replay, built_fixtures: None) -> None:
    recording = recorded("many_calls", "9000")
    data = recording.trace.read_bytes()
    recording.trace.write_bytes(data[: len(data) * 4 // 5])
    run = in_gdb(recording, "continue", "frame function main", "print i", "backtrace")
    assert "recording was cut off" in run.text, run.text
    assert 0 < int(run.values[0]) < 9000
    assert re.search(r"^#\d+ .*\bmain \(argc=2, ", run.text, re.MULTILINE)
