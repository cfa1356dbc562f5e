# SPDX-License-Identifier: GPL-2.0-or-later
"""Handlers in a replay under GDB: reached, looked at, stepped out of and over, gone back to.

The programs are those of fixtures/programs/signals/.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from harness import BUILT, FIXTURES

Replay = Callable[..., Any]
PROGRAMS = "programs/signals"


@pytest.fixture
def signals(recorded: Callable[..., Any], in_gdb: Replay, built_fixtures: None) -> Replay:
    """A function that records a program of the family and replays it under GDB commands."""

    def replay(name: str, *commands: str) -> Any:
        recording = recorded(BUILT / PROGRAMS / name)
        run = in_gdb(recording, *commands)
        assert "divergence" not in run.text, run.text
        return run

    return replay


def line(name: str, text: str) -> int:
    """The number of the only line of a program that has this text."""
    lines = (FIXTURES / PROGRAMS / f"{name}.c").read_text().splitlines()
    found = [number for number, content in enumerate(lines, 1) if text in content]
    assert len(found) == 1, found
    return found[0]


def stops(text: str) -> list[int]:
    """The line numbers of the source lines that GDB showed."""
    return [int(number) for number in re.findall(r"^(\d+)\t", text, re.MULTILINE)]


def test_backtrace_goes_through_the_signal_frame(signals: Replay) -> None:
    run = signals(
        "handler_siginfo", "break on_signal", "continue", "print info->si_code",
        "print info->_sifields._kill.si_pid", "backtrace",
    )  # fmt: skip
    assert run.count(r"^Breakpoint \d+, on_signal \(number=10, ") == 1, run.text
    assert run.values[0] == "0"
    sent = next(event for event in run.events() if event["kind"] == "signal")
    assert run.values[1] == str(sent["siginfo"]["si_pid"])
    assert run.count(r"^#1  <signal handler called>") == 1
    assert run.count(r"^#2 .*kill \(\)") == 1
    assert run.count(r"^#3 .*\bmain \(\)") == 1


def test_finish_out_of_a_handler_and_on(signals: Replay) -> None:
    run = signals("handler_siginfo", "break on_signal", "continue", "finish", "finish",
                  "finish", "print seen.si_code", "continue", "delete", "continue")  # fmt: skip
    assert run.count(r"^<signal handler called>") >= 1, run.text
    # Behind the kill that had sent it.
    assert run.count(r"\bmain \(\) at ") >= 1, run.text
    assert run.values == ["0"]
    assert run.count(r"^Breakpoint \d+, on_signal") == 2
    assert "end of the recording: exited with status 0" in run.text


@pytest.mark.parametrize(
    ("name", "first", "text", "counter"),
    [
        ("write_barrier", "uint64_t where", "heap[where] = ", "faults"),
        ("ud2_skipped", "for (int i", '"ud2"', "emulated"),
        ("int3_handled", "for (int i", '"int3"', "traps"),
        ("division_skipped", "unsigned quotient", '"divl', "faults"),
    ],
)
def test_next_over_a_line_that_faults(
    name: str, first: str, text: str, counter: str, signals: Replay
) -> None:
    at = line(name, text)
    before = line(name, first)
    # Not onto the line itself: one begins with an int3 of its own.
    run = signals(
        name, f"tbreak {before}", "continue", "next", f"print {counter}", "next",
        f"print {counter}", "next", "continue",
    )  # fmt: skip
    # The handler ran, unseen, and the next line is the program's own.
    assert run.values == ["0", "1"], run.text
    assert stops(run.text)[:3] == [before, at, at + 1], run.text
    assert "end of the recording: exited with status 0" in run.text


def test_next_over_a_fault_stops_at_a_breakpoint_in_its_handler(signals: Replay) -> None:
    at = line("write_barrier", "heap[where] = ")
    run = signals(
        "write_barrier", f"tbreak {at}", "continue", "break on_segv", "next", "backtrace 3",
        "print faults", "next", "next", "print page < 32", "delete", "continue",
    )  # fmt: skip
    assert run.count(r"^#0 +(0x\w+ in )?on_segv \(number=11, ") >= 1, run.text
    assert run.count(r"^#2 .*\bmain \(\)") == 1, run.text
    assert run.values[1] == "1"
    assert "end of the recording: exited with status 0" in run.text


def test_stepi_enters_a_handler(signals: Replay) -> None:
    run = signals(
        "int3_handled", f"break {line('int3_handled', 'saved[REG_RBX]')}", "continue",
        "print traps", "backtrace", "continue", "print traps", "delete", "continue",
    )  # fmt: skip
    assert run.values == ["0", "1"], run.text
    assert run.count(r"^#1  <signal handler called>") == 1
    assert run.count(r"^#2 .*\bmain \(\)") == 1
    assert "end of the recording: exited with status 0" in run.text


@pytest.mark.parametrize(("name", "counter"), [("int3_handled", "traps"), ("trap_flag", "steps")])
def test_watchpoint_sees_what_a_trap_handler_counts(
    name: str, counter: str, signals: Replay
) -> None:
    # With a hardware watchpoint GDB itself sees each of the program's own SIGTRAPs.
    run = signals(
        name, f"watch {counter}", "continue", "continue", "backtrace", "delete", "continue"
    )
    assert re.findall(r"^New value = (\d+)$", run.text, re.MULTILINE) == ["1", "2"], run.text
    assert run.count(r"^#1  <signal handler called>") == 1
    assert "end of the recording: exited with status 0" in run.text


@pytest.mark.both_gdbs
def test_own_int3_that_ends_the_program(signals: Replay) -> None:
    run = signals("trap_default", "continue", "backtrace", "continue", "print $_siginfo.si_signo")
    assert "end of the recording: killed by SIGTRAP" in run.text, run.text
    # GDB 18 says twice what was caught, with any script that listens to stops; also before values.
    caught = r"(?:Catchpoint \d+ \(signal SIGTRAP\), )?"
    assert run.count(rf"^{caught}#0 .*\bmain \(\)") == 1
    assert run.count(rf"^{caught}\$1 = 5$") == 1


def test_filter_that_kills(signals: Replay) -> None:
    run = signals("seccomp_kill", "continue", "backtrace")
    assert "end of the recording: killed by SIGSYS" in run.text, run.text
    assert run.count(r"^#\d .*\bmain \(\)") == 1


def test_handler_on_its_own_stack(signals: Replay) -> None:
    run = signals(
        "onstack_mapped", "break on_signal", "continue",
        "print $rsp > stack && $rsp < stack + 131072",
        "backtrace", "up 5", "print round", "continue", "up 5", "print round", "delete", "continue",
    )  # fmt: skip
    assert run.values == ["1", "1", "2"], run.text
    assert run.count(r"^#1  <signal handler called>") == 1
    assert "end of the recording: exited with status 0" in run.text


def test_stack_overflow_is_looked_at_from_the_other_stack(signals: Replay) -> None:
    run = signals("stack_overflow", "break on_segv", "continue", "backtrace 4", "backtrace -1",
                  "delete", "continue")  # fmt: skip
    assert run.count(r"^#1  <signal handler called>") == 1, run.text
    assert run.count(r"^#3 .*\bdeeper \(depth=\d+\)") == 1
    assert run.count(r"^#\d{3} .*\bmain \(\)|^\(?#\d+ .*\bmain ") >= 1, run.text
    assert "end of the recording: exited with status 0" in run.text


def test_jumps_out_of_handlers(signals: Replay) -> None:
    run = signals(
        "siglongjmp_out", "break on_signal", "ignore $bpnum 20", "continue", "up 5", "print jumps",
        f"tbreak {line('siglongjmp_out', 'jumps++')}", "continue", "print jumps", "next",
        "print jumps", "delete", "continue",
    )  # fmt: skip
    assert run.values == ["20", "20", "21"], run.text
    assert "end of the recording: exited with status 0" in run.text


def test_goto_before_and_behind_a_signal(signals: Replay, tmp_path: Path) -> None:
    first = signals("rt_order_stacked", "break on_signal", "continue", "sysrift-when")
    entries = [event for event in first.events() if event.get("delivery") == "handler"]
    assert len(entries) == 5
    before, behind = entries[0]["number"] - 1, entries[-1]["number"] + 1
    commands = [f"sysrift-goto {n}" for n in (behind, before, behind)]
    run = signals(
        "rt_order_stacked", commands[0], "print count", "backtrace", commands[1], "print count",
        "backtrace 1", commands[2], "print count", "continue",
    )  # fmt: skip
    # The last of five handlers has run when its rt_sigreturn is next; none before the first.
    assert run.values == ["1", "0", "1"], run.text
    assert run.count(r"^#\d+ .*<signal handler called>") >= 4
    assert "end of the recording: exited with status 0" in run.text
