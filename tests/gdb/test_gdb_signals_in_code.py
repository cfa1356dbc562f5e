# SPDX-License-Identifier: GPL-2.0-or-later
"""Signals, and turns of others at shared memory, in the middle of a computation, seen in GDB.

Wherever the user stops on the way, the event must come at the recorded moment: the fixture's
handler looks at the interrupted registers and at how far the computation is, and what it saw is
printed at the end. `levels` counts in three nested loops, so that a debugger can come near a moment
in a few hundred stops.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import harness
import pytest
from harness import computing_python, line_of
from rewriting import forge

from sysrift.trace import Event, EventFlag, EventKind, SegmentKind
from sysrift.trace.points import Point, pack, unpack
from sysrift.trace.reader import Trace

Replay = Callable[..., Any]

TIME = 60.0
"""Seconds for a GDB, which needs two."""

COUNTING = f"spin_signals.c:{line_of('spin_signals.c', 'counting')}"
LEVEL = f"spin_signals.c:{line_of('spin_signals.c', 'level')}"
HANDLER = f"spin_signals.c:{line_of('spin_signals.c', 'handler')}"
REGISTERS = ("rax", "rbx", "rcx", "rdx", "rsi", "rdi", "rbp", "rsp", "rip", "r8", "r9", "r10",
             "r11", "r12", "r13", "r14", "r15")  # fmt: skip


@dataclass(frozen=True)
class Moment:
    """Where the first signal came in a run of `levels`: how far the loops were, and the registers.
    `hits` is the number of handlers that have run when that moment's are done."""

    number: int
    site: int
    millions: int
    thousands: int
    i: int
    registers: tuple[int, ...]
    hits: int

    def passes_before(self, passes: int) -> list[str]:
        """GDB commands that lead to the innermost line, so many passes before the moment."""
        return [
            "break levels", "continue", "delete",
            f"watch millions if millions == {self.millions}", "continue", "delete",
            f"watch thousands if thousands == {self.thousands}", "continue", "delete",
            f"break {LEVEL} if i >= {self.i - passes}", "continue", "delete",
        ]  # fmt: skip


@pytest.fixture
def levels(recorded: Replay, in_gdb: Replay) -> tuple[harness.Recording, Moment]:
    """A recording of `levels`, and its first signal in code, somewhere within the inner loop."""
    for _ in range(10):
        recording = recorded("spin_signals", "levels", "4")
        signals = in_code(recording.trace)
        if not signals:
            continue
        first = signals[0]
        after = return_of(recording.trace, first.number) + 1
        run = in_gdb(
            recording, f"sysrift-goto {first.number}",
            "print millions", "print thousands", "print i", "info line *$pc",
            *(f"print (unsigned long)${name}" for name in REGISTERS),
            f"sysrift-goto {after}", "print hits",
        )  # fmt: skip
        if len(run.values) != 4 + len(REGISTERS):
            continue  # not in `levels` itself
        millions, thousands, i, *registers, hits = (int(value) for value in run.values)
        if 10 <= i <= 990 and thousands < 1000:
            moment = Moment(
                first.number, first.site, millions, thousands, i, tuple(registers), hits
            )
            return recording, moment
    raise AssertionError("no signal came within the inner loop")


def in_code(trace: Path) -> list[Event]:
    """The signals in the middle of a computation."""
    return [
        event
        for event in Trace(trace).events()
        if event.kind == EventKind.SIGNAL and event.flags & EventFlag.IN_CODE
    ]


def return_of(trace: Path, number: int) -> int:
    """The number of the rt_sigreturn that ends the handler of a signal, and all within it."""
    depth = 0
    for event in Trace(trace).events(number):
        if event.kind == EventKind.SIGNAL:
            depth += 1
        elif event.kind == EventKind.SYSCALL and event.nr == 15:
            depth -= 1
            if depth == 0:
                return event.number
    raise AssertionError("the handler does not return")


def faithful(recording: harness.Recording, run: Any) -> None:
    """The run came to its end, and printed what it printed when it was recorded."""
    assert recording.stdout.strip() in run.text, run.text
    assert "divergence" not in run.text, run.text
    assert "was not found" not in run.text, run.text
    assert "end of the recording: exited with status 0" in run.text, run.text


# -- anywhere, and on -----------------------------------------------------------------------------


def test_breakpoint_in_the_handler(recorded: Replay, in_gdb: Replay) -> None:
    recording = recorded("spin_signals", "count", "5")
    wanted = re.search(r"count: (\d+), (\d+) signals", recording.stdout)
    assert wanted, recording
    signals = int(wanted[2])
    stops = [command for _ in range(signals) for command in ("continue", "print hits")]
    run = in_gdb(recording, "break on_signal", *stops, "delete", "continue")
    assert run.values == [str(number) for number in range(signals)], run.text
    # The program's own count, and all that its handler saw, came out as recorded.
    assert recording.stdout.strip() in run.text, run.text
    assert "divergence" not in run.text, run.text


@pytest.mark.parametrize("program", ["spin_signals", "spin_signals-O2", "spin_signals-static"])
def test_a_breakpoint_in_the_loop_and_on(recorded: Replay, in_gdb: Replay, program: str) -> None:
    recording = recorded(program, "count", "5")
    assert in_code(recording.trace)
    run = in_gdb(
        recording, f"break {COUNTING}", *["continue"] * 4, "delete", "continue", timeout=TIME
    )
    assert run.count(r"^Breakpoint \d+, ") >= 2, run.text
    faithful(recording, run)


def test_ignoring_a_breakpoint_in_the_loop(recorded: Replay, in_gdb: Replay) -> None:
    recording = recorded("spin_signals", "count", "5")
    run = in_gdb(
        recording, f"break {COUNTING}", "continue", "print n", "ignore $bpnum 500", "continue",
        "print n", "delete", "continue", timeout=TIME,
    )  # fmt: skip
    assert run.values == ["0", "501"], run.text
    faithful(recording, run)


@pytest.mark.parametrize("work", ["spin", "flag", "handler", "recurse", "sort"])
@pytest.mark.parametrize("steps", [["next"] * 4, ["stepi"] * 10, ["step"] * 3])
def test_steps_in_all_kinds_of_loops(
    recorded: Replay, in_gdb: Replay, work: str, steps: list[str]
) -> None:
    if (work, steps[0]) == ("recurse", "next"):
        steps = ["step"] * 4  # any GDB takes hours for `next` over 10 million recursive calls
    amount = {"recurse": ["34"], "sort": ["5"]}.get(work, [])
    recording = recorded("spin_signals", work, *amount)
    place = {"spin": "spin", "flag": "wait_for_flag", "handler": "count", "recurse": "fib"}
    run = in_gdb(
        recording, f"break {place.get(work, 'ascending')}", "continue", "delete", *steps,
        "continue", timeout=TIME,
    )  # fmt: skip
    faithful(recording, run)


def test_the_signal_that_kills(recorded: Replay, in_gdb: Replay) -> None:
    recording = recorded("spin_signals", "fatal")
    run = in_gdb(
        recording, f"break {COUNTING}", *["continue"] * 3, "next", "delete", "continue",
        timeout=TIME,
    )  # fmt: skip
    assert "Program received signal SIGALRM" in run.text, run.text
    assert "killed by SIGALRM" in run.text, run.text
    assert "divergence" not in run.text, run.text


PYTHON = computing_python(1500000)


def test_an_interpreter_that_computes(recorded: Replay, in_gdb: Replay) -> None:
    recording = recorded(Path(sys.executable), "-c", PYTHON)
    signals = in_code(recording.trace)
    assert len(signals) >= 3
    run = in_gdb(
        recording, f"sysrift-goto {signals[1].number}", "sysrift-goto -2",
        "break PyNumber_Multiply", "continue", "ignore $bpnum 100", "continue", *["stepi"] * 20,
        "next", "finish", "delete", "continue", timeout=TIME,
    )  # fmt: skip
    assert run.count(r"^Breakpoint \d+, PyNumber_Multiply ") >= 2, run.text
    faithful(recording, run)


# -- near the moment ------------------------------------------------------------------------------


def test_instruction_by_instruction(levels: Any, in_gdb: Replay) -> None:
    recording, moment = levels
    steps = ["stepi", "print (unsigned long)$pc", "print (unsigned long)$sp"] * 40
    run = in_gdb(
        recording, *moment.passes_before(2), "print (unsigned long)&on_signal", *steps, "continue",
        timeout=TIME,
    )  # fmt: skip
    entry, *values = map(int, run.values)
    places = list(zip(values[::2], values[1::2]))
    came = next(number for number, (pc, _) in enumerate(places) if pc == entry)
    assert places[came - 1] == (moment.site, moment.registers[REGISTERS.index("rsp")]), run.text
    assert sum(pc == moment.site for pc, _ in places[:came]) in (2, 3), run.text
    faithful(recording, run)


@pytest.mark.parametrize("step", ["next", "step", "nexti"])
def test_line_by_line(levels: Any, in_gdb: Replay, step: str) -> None:
    recording, moment = levels
    before = 2
    passes = [step, "print i", "print hits"] * (60 if step == "nexti" else 10)
    run = in_gdb(recording, *moment.passes_before(before), *passes, "continue", timeout=TIME)
    if step == "nexti":
        # As with any signal, `nexti` goes into the handler; what counts is where it came.
        assert re.search(r"^0x[0-9a-f]+\s.*\n\$\d+ = \d+\n\$\d+ = 0$", run.text, re.MULTILINE)
    else:
        seen = list(zip(map(int, run.values[::2]), map(int, run.values[1::2])))
        assert [hits for i, hits in seen if i < moment.i] == [0] * sum(
            i < moment.i for i, _ in seen
        ), run.text
        assert all(hits == moment.hits for i, hits in seen if i > moment.i), run.text
        assert sorted(i for i, _ in seen) == [i for i, _ in seen], run.text
        assert seen[-1][0] > moment.i, run.text
    faithful(recording, run)


@pytest.fixture
def one_line(recorded: Replay, in_gdb: Replay) -> tuple[harness.Recording, int]:
    """A recording of `line`, and a number of laps, among which is the first signal in code.

    The last one comes later: behind that, nobody but GDB itself looks where the program is.
    """
    for _ in range(10):
        recording = recorded("spin_signals", "line", "9")
        signals = in_code(recording.trace)
        if not signals:
            continue
        run = in_gdb(
            recording,
            f"sysrift-goto {signals[0].number}", "print millions",
            f"sysrift-goto {signals[-1].number}", "print millions",
        )  # fmt: skip
        first, last = (int(value) for value in run.values)
        laps = max(12, first + 2)
        if laps <= last:
            return recording, laps
    raise AssertionError("the signals never came in different laps")


def test_next_over_a_loop_within_one_line(one_line: Any, in_gdb: Replay) -> None:
    # Millions of passes, which GDB alone would step through for minutes.
    recording, laps = one_line
    behind = line_of("spin_signals.c", "behind it")
    run = in_gdb(
        recording, f"break spin_signals.c:{line_of('spin_signals.c', 'one line')}", "continue",
        "delete", *["next", "next", "next", "print millions"] * laps, "continue", timeout=TIME,
    )  # fmt: skip
    assert run.values == [str(number) for number in range(1, laps + 1)], run.text
    assert run.count(rf"^{behind}\s+millions\+\+") == laps, run.text
    faithful(recording, run)


def test_a_breakpoint_on_the_very_instruction(levels: Any, in_gdb: Replay) -> None:
    recording, moment = levels
    passes = ["continue", "print i", "print hits"] * 4
    run = in_gdb(
        recording, *moment.passes_before(1), f"break *{moment.site:#x}", *passes, "delete",
        "continue", timeout=TIME,
    )  # fmt: skip
    seen = list(zip(map(int, run.values[::2]), map(int, run.values[1::2])))
    passes_seen = [i for i, _ in seen]
    # Each pass once: also the one in which the signal comes, which GDB stops before.
    assert passes_seen == list(range(passes_seen[0], passes_seen[0] + 4)), run.text
    assert [hits for _, hits in seen] == [
        0 if i <= moment.i else moment.hits for i in passes_seen
    ], run.text
    assert passes_seen[0] <= moment.i < passes_seen[-1], run.text
    faithful(recording, run)


def test_the_handler_s_backtrace_shows_the_recorded_registers(levels: Any, in_gdb: Replay) -> None:
    recording, moment = levels
    run = in_gdb(
        recording, *moment.passes_before(3), f"break {HANDLER}", "continue", "backtrace",
        "frame function levels", "print millions", "print thousands", "print i",
        *(f"print (unsigned long)${name}" for name in REGISTERS),
        "delete", "continue", timeout=TIME,
    )  # fmt: skip
    assert "<signal handler called>" in run.text, run.text
    assert run.values[:3] == [str(moment.millions), str(moment.thousands), str(moment.i)], run.text
    assert tuple(map(int, run.values[3:])) == moment.registers, run.text
    faithful(recording, run)


def test_next_over_it_stops_at_a_breakpoint_in_the_handler(levels: Any, in_gdb: Replay) -> None:
    recording, moment = levels
    run = in_gdb(
        recording, *moment.passes_before(1), f"break {HANDLER}", *["next"] * 6, "delete",
        "continue", timeout=TIME,
    )  # fmt: skip
    assert run.count(r"^Breakpoint \d+, on_signal ") >= 1, run.text
    faithful(recording, run)


@pytest.mark.parametrize("command", ["finish", "advance main", "until main"])
def test_out_of_the_loop(levels: Any, in_gdb: Replay, command: str) -> None:
    recording, moment = levels
    run = in_gdb(
        recording, *moment.passes_before(2), command, "print hits", "continue", timeout=TIME
    )
    freely = in_gdb(recording, "break levels", "continue", "delete", "finish", "print hits")
    assert run.values[-1] == freely.values[-1], run.text  # `finish` prints a value of its own
    faithful(recording, run)


def test_functions_called_from_gdb_do_not_hide_it(levels: Any, in_gdb: Replay) -> None:
    recording, moment = levels
    call = "print ascending(&hits, &hits)"
    run = in_gdb(
        recording, *moment.passes_before(2), call, "next", call, f"break *{moment.site:#x}",
        "continue", call, "continue", call, "print i", "delete", "continue", timeout=TIME,
    )  # fmt: skip
    assert run.values[:4] == ["0"] * 4, run.text
    faithful(recording, run)


# -- hardware watchpoints -------------------------------------------------------------------------


def test_watching_what_the_handler_writes(levels: Any, in_gdb: Replay) -> None:
    recording, moment = levels
    run = in_gdb(
        recording, *moment.passes_before(4), "watch hits", "continue", "frame function levels",
        "print millions", "print thousands", "print i", *["continue"] * 20, timeout=TIME,
    )  # fmt: skip
    assert run.values == [str(moment.millions), str(moment.thousands), str(moment.i)], run.text
    last = re.search(r", (\d+) signals", recording.stdout)
    assert last, recording
    watched = run.text[run.text.index("Hardware watchpoint", run.text.index(": hits")) :]
    seen = re.findall(r"^New value = (\d+)$", watched, re.MULTILINE)
    assert seen == [str(number) for number in range(1, int(last[1]) + 1)], run.text
    faithful(recording, run)


def test_watching_what_the_loop_changes_now_and_then(levels: Any, in_gdb: Replay) -> None:
    recording, moment = levels
    stops = ["continue", "print millions", "print hits"] * (moment.millions + 3)
    run = in_gdb(
        recording, "break levels", "continue", "next", "delete", "watch millions", *stops,
        "delete", "continue", timeout=TIME,
    )  # fmt: skip
    seen = list(zip(map(int, run.values[::2]), map(int, run.values[1::2])))
    assert [millions for millions, _ in seen] == list(range(1, moment.millions + 4)), run.text
    for millions, hits in seen:
        assert hits == 0 if millions <= moment.millions else hits >= moment.hits, run.text
    faithful(recording, run)


def test_a_hardware_breakpoint_in_the_loop(levels: Any, in_gdb: Replay) -> None:
    recording, moment = levels
    run = in_gdb(
        recording, *moment.passes_before(1), f"hbreak *{moment.site:#x}",
        *["continue", "print i", "print hits"] * 3, "delete", "continue", timeout=TIME,
    )  # fmt: skip
    seen = list(zip(map(int, run.values[::2]), map(int, run.values[1::2])))
    assert all(hits == 0 for i, hits in seen if i <= moment.i), run.text
    assert all(hits == moment.hits for i, hits in seen if i > moment.i), run.text
    faithful(recording, run)


@pytest.mark.parametrize("work", ["direct", "pointer", "table"])
def test_watching_where_a_call_leaves_its_return_address(
    recorded: Replay, in_gdb: Replay, work: str
) -> None:
    # The call is the place of the signals: what is executed in its stead is seen as one call.
    recording = recorded("spin_signals", work, "100")
    assert in_code(recording.trace)
    where = [f"print (long)$pc - (long)&{name}" for name in ("callee", f"{work}_calls")]
    run = in_gdb(
        recording, f"break *{work}_calls", "continue", "delete",
        "awatch -location *(unsigned long *)($rsp - 8)", *["continue", *where] * 6, "delete",
        "continue", timeout=TIME,
    )  # fmt: skip
    stops = list(zip(map(int, run.values[::2]), map(int, run.values[1::2])))
    assert len(stops) == 6, run.text
    assert all(in_callee == 0 for in_callee, _ in stops[::2]), run.text
    assert all(0 < in_loop < 16 for _, in_loop in stops[1::2]), run.text
    faithful(recording, run)


# -- going there ----------------------------------------------------------------------------------


def test_goto_over_such_signals_and_back(recorded: Replay, in_gdb: Replay) -> None:
    recording = recorded("spin_signals", "count", "5")
    events = in_gdb(recording).events()
    signals = [event["number"] for event in events if event["kind"] == "signal"]
    assert any("in_code" in event.get("flags", ()) for event in events), events
    # The call that stops the timer. A last signal may come with it.
    after = [event["number"] for event in events if event["name"] == "setitimer"][-1]
    signals = [number for number in signals if number < after]
    run = in_gdb(
        recording,
        f"sysrift-goto {after}", "print hits",
        f"sysrift-goto {signals[0] - 1}", "print hits",
        f"sysrift-goto {after}", "print hits",
    )  # fmt: skip
    assert run.values[0] == run.values[2] == str(len(signals)), run.text
    assert run.values[1] == "0", run.text
    assert "divergence" not in run.text, run.text


def test_goto_the_moment_itself(levels: Any, in_gdb: Replay) -> None:
    recording, moment = levels
    run = in_gdb(
        recording, f"sysrift-goto {moment.number}", "print hits", "stepi", "backtrace 1",
        f"sysrift-goto {moment.number}", "sysrift-goto start", f"sysrift-goto {moment.number}",
        "next", "print hits", f"sysrift-goto {moment.number}", "print i", "continue",
    )  # fmt: skip
    assert run.values == ["0", str(moment.hits), str(moment.i)], run.text
    assert re.search(r"^#0  on_signal ", run.text, re.MULTILINE), run.text
    faithful(recording, run)


# -- shared memory --------------------------------------------------------------------------------


@pytest.mark.parametrize("child", [False, True])
@pytest.mark.parametrize(
    "commands",
    [
        ["break LINE", "continue", "continue", "delete"],
        ["break LINE", "continue", *["next"] * 12, "delete"],
        ["break LINE", "continue", *["stepi"] * 60, "delete"],
        ["break LINE", "continue", "delete", "watch i", "continue", "continue", "delete"],
    ],
    ids=["break", "next", "stepi", "watch"],
)
def test_turns_in_a_computation(
    built_fixtures: None, in_gdb: Replay, child: bool, commands: list[str]
) -> None:
    source = harness.FIXTURES / "programs" / "sharing" / "spin_in_turns.c"
    lines = source.read_text().splitlines()
    line = 1 + next(n for n, text in enumerate(lines) if "while (shared->turn" in text)
    recording = harness.record([harness.BUILT / "programs" / "sharing" / "spin_in_turns"])
    assert recording.returncode == 0, recording
    pids = [process.pid for process in Trace(recording.trace).file.processes.values()]
    run = in_gdb(
        recording, f"sysrift-replay --process {pids[child]} {recording.trace}",
        *(command.replace("LINE", f"spin_in_turns.c:{line}") for command in commands),
        "continue", timeout=TIME,
    )  # fmt: skip
    said = re.search(rf"^{int(child)} has [0-9a-f]+$", recording.stdout, re.MULTILINE)
    assert said and said[0] in run.text, run.text
    assert "divergence" not in run.text and "was not found" not in run.text, run.text
    assert "end of the recording: exited with status 0" in run.text, run.text


# -- negative controls ----------------------------------------------------------------------------


def forged(recording: harness.Recording, target: Path) -> Path:
    """A copy of a trace in which the first signal in code came where the program never was."""
    first = in_code(recording.trace)[0].number

    def edit(event: Event) -> Event:
        if event.number != first:
            return event
        return event._replace(
            segments=tuple(
                s._replace(data=_nowhere(s.data)) if s.kind == SegmentKind.POINT and s.data else s
                for s in event.segments
            )
        )

    return forge(recording.trace, target, edit)


def _nowhere(data: bytes) -> bytes:
    point = unpack(data)
    ranges = tuple(part._replace(crc=part.crc ^ 1) for part in point.ranges)
    return pack(Point(**{**point.__dict__, "ranges": ranges}))


def test_a_moment_that_never_was_is_not_passed_silently(
    levels: Any, in_gdb: Replay, tmp_path: Path
) -> None:
    recording, moment = levels
    trace = forged(recording, tmp_path / "forged.srl")
    other = harness.Recording(recording.argv, 0, recording.stdout, recording.stderr, trace)
    run = in_gdb(
        other, *moment.passes_before(2), *["next"] * 12, "print hits", "continue", timeout=TIME
    )
    assert run.values == ["0"], run.text
    assert "was not found" in run.text or "divergence at event" in run.text, run.text
    assert recording.stdout.strip() not in run.text, run.text
