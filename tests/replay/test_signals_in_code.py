# SPDX-License-Identifier: GPL-2.0-or-later
"""Signals that come in the middle of a computation, far from any system call.

The fixture's handler looks at the interrupted registers and at how far the computation is, and
what it saw is printed at the end: a signal replayed one pass of a loop too early diverges.
"""

from __future__ import annotations

import json
import re
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from harness import Recording, assert_faithful, computing_python, record, sysrift, verify
from rewriting import events_of, forge

from sysrift.trace import Event, EventFlag, EventKind, SegmentKind
from sysrift.trace.points import Form, Point, Word, pack, unpack

Fixture = Callable[[str], Path]

OPTIMISED = ("spin_signals", "spin_signals-O2")


def in_code(recording: Recording) -> list[Event]:
    """The signals that came in the middle of a computation."""
    return [
        event
        for event in events_of(recording.trace)
        if event.kind == EventKind.SIGNAL and event.flags & EventFlag.IN_CODE
    ]


def point_of(event: Event) -> Point:
    """What the recorder noted to find the place of such a signal again."""
    (data,) = [s.data for s in event.segments if s.kind == SegmentKind.POINT]
    assert data is not None
    return unpack(data)


def recorded(program: Path, *arguments: str, atleast: int = 1) -> Recording:
    """Record; the run must have had signals in code, and replay faithfully."""
    recording = record([program, *arguments])
    assert recording.returncode == 0, recording
    assert len(in_code(recording)) >= atleast, recording
    assert_faithful(recording.trace)
    return recording


@pytest.mark.parametrize("program", [*OPTIMISED, "spin_signals-static"])
def test_twenty_alarms_while_counting(fixture_program: Fixture, program: str) -> None:
    # Not optimised, the counter is in memory; optimised, in a register.
    recording = recorded(fixture_program(program), "count", "20", atleast=5)
    found = re.search(r", (\d+) signals", recording.stdout)
    assert found and int(found[1]) >= 20, recording


@pytest.mark.parametrize("program", OPTIMISED)
def test_only_an_outer_loop_tells_the_passes_apart(fixture_program: Fixture, program: str) -> None:
    recorded(fixture_program(program), "outer", "10", atleast=3)


@pytest.mark.parametrize("program", OPTIMISED)
@pytest.mark.parametrize(
    ("work", "amount"), [("hash", "600"), ("float", "300"), ("recurse", "37"), ("sort", "20")]
)
def test_a_timer_every_3_ms_over(
    fixture_program: Fixture, program: str, work: str, amount: str
) -> None:
    recorded(fixture_program(program), work, amount, atleast=2)


@pytest.mark.parametrize("program", ["spin_signals", "spin_signals-O2", "spin_signals-O3"])
def test_vectors(fixture_program: Fixture, program: str) -> None:
    recorded(fixture_program(program), "vector", "150000")


@pytest.mark.parametrize("program", ["spin_signals", "spin_signals-static"])
@pytest.mark.parametrize("work", ["direct", "pointer", "table"])
def test_at_calls(fixture_program: Fixture, program: str, work: str) -> None:
    # Nothing else in these loops can be displaced without risk. A breakpoint instead, at every one
    # of the millions of passes, would take minutes.
    recording = recorded(fixture_program(program), work, "100", atleast=2)
    points = [point_of(event) for event in in_code(recording)]
    assert any(point.pieces[-1:] and point.pieces[-1].form == Form.CALL for point in points)


def test_a_string_instruction_is_not_interrupted_in_its_middle(fixture_program: Fixture) -> None:
    recorded(fixture_program("spin_signals-O2"), "copy", "600", atleast=2)


@pytest.mark.parametrize("program", OPTIMISED)
@pytest.mark.parametrize("work", ["spin", "flag", "handler"])
def test_waiting_for_the_signal_itself(fixture_program: Fixture, program: str, work: str) -> None:
    # `for (;;) ;`, left by siglongjmp; a loop until the handler sets a flag; a handler that is
    # interrupted in a loop of its own.
    recorded(fixture_program(program), work)


def test_a_signal_that_kills(fixture_program: Fixture) -> None:
    recording = record([fixture_program("spin_signals"), "fatal"])
    assert recording.returncode == 128 + 14, recording
    (event,) = in_code(recording)
    assert event.nr == 14
    assert "killed by SIGALRM" in assert_faithful(recording.trace).stdout


PYTHON = computing_python(2500000)


def test_an_interpreter_that_computes(tmp_path: Path) -> None:
    recording = record(["python3", "-c", PYTHON])
    assert recording.returncode == 0, recording
    assert len(in_code(recording)) >= 3
    # Where no jump can be put every pass is a stop, and there are half a million of them.
    assert all(point_of(event).code for event in in_code(recording))
    assert_faithful(recording.trace)


SLOW_RECORDING = """
import os, signal, time
seen = []
signal.signal(signal.SIGALRM, lambda sig, frame: seen.append(frame.f_lasti))
signal.setitimer(signal.ITIMER_REAL, 0.003, 0.003)
for n in range(10):
    os.getppid()
    os.read(os.open("/dev/zero", os.O_RDONLY), 10)
    time.sleep(0.002)
for n in range(30000):
    seen = seen[-100:]
signal.setitimer(signal.ITIMER_REAL, 0)
print(len(seen) > 0)
"""


@pytest.mark.parametrize("program", ["spin", "python"])
def test_a_timer_faster_than_its_handler_is_recorded(
    fixture_program: Fixture, program: str
) -> None:
    # A checksum after every event takes longer than the timer's 3 ms. Between two signals the
    # program has to get somewhere: out of the handler, beyond the call that the signal came before.
    spin = [fixture_program("spin_signals"), "hash", "100"]
    argv = spin if program == "spin" else [sys.executable, "-S", "-E", "-c", SLOW_RECORDING]
    recording = record(argv, options=("-q", "--checksum=1"))
    assert recording.returncode == 0, recording
    alarms = [e for e in events_of(recording.trace) if e.kind == EventKind.SIGNAL and e.nr == 14]
    assert len(alarms) >= 3
    assert_faithful(recording.trace)


def test_info_counts_them(fixture_program: Fixture) -> None:
    recording = record([fixture_program("spin_signals"), "count", "4"])
    number = len(in_code(recording))
    assert number
    facts = json.loads(sysrift("info", "--json", recording.trace).stdout)
    assert facts["events"]["signals_in_code"] == number
    text = sysrift("info", recording.trace, env={"COLUMNS": "200"}).stdout
    assert f"of which {number} in code" in text, text


# -- negative controls ----------------------------------------------------------------------------


def with_point(recording: Recording, target: Path, change: Callable[[Point], Point]) -> Path:
    """A copy of the trace in which the first signal in code has another point."""
    first = in_code(recording)[0].number

    def edit(event: Event) -> Event:
        if event.number != first:
            return event
        segments = tuple(
            s._replace(data=pack(change(unpack(s.data))))
            if s.kind == SegmentKind.POINT and s.data is not None
            else s
            for s in event.segments
        )
        return event._replace(segments=segments)

    forge(recording.trace, target, edit)
    return target


def test_a_changed_word_of_memory_is_never_found(fixture_program: Fixture, tmp_path: Path) -> None:
    recording = record([fixture_program("spin_signals"), "hash", "100"])
    assert in_code(recording)

    def change(point: Point) -> Point:
        assert point.words
        first = point.words[0]
        changed = Word(first.address, first.value ^ 1 << 62)
        return Point(**{**point.__dict__, "words": (changed, *point.words[1:])})

    forged = with_point(recording, tmp_path / "forged.srl", change)
    begin = time.monotonic()
    done = verify(forged)
    assert done.returncode == 3, done
    assert "in the middle of a computation" in done.stderr, done
    assert time.monotonic() - begin < 60


def test_a_loop_that_never_comes_there_is_given_up(
    fixture_program: Fixture, tmp_path: Path
) -> None:
    recording = record([fixture_program("spin_signals-O2"), "count", "3"])
    assert in_code(recording)

    def change(point: Point) -> Point:
        parts = [part._replace(crc=part.crc ^ 1) for part in point.ranges]
        return Point(**{**point.__dict__, "ranges": tuple(parts)})

    forged = with_point(recording, tmp_path / "forged.srl", change)
    begin = time.monotonic()
    done = verify(forged, timeout=200)
    assert done.returncode not in (0, 1), done
    assert "was not found" in done.stderr, done
    assert "closest was a pass that differs in memory of 0x" in done.stderr, done
    assert time.monotonic() - begin < 150


def test_where_no_jump_can_be_put_every_pass_is_looked_at(
    fixture_program: Fixture, tmp_path: Path
) -> None:
    # A pass of this loop takes half a millisecond.
    recording = record([fixture_program("spin_signals-O2"), "repeat", "400"])
    assert in_code(recording)
    assert_faithful(recording.trace)

    def change(point: Point) -> Point:
        return Point(**{**point.__dict__, "code": b"", "pieces": ()})

    assert_faithful(with_point(recording, tmp_path / "forged.srl", change))


@pytest.mark.parametrize("damage", ["cut", "rest", "lead"])
def test_a_damaged_point_is_refused(fixture_program: Fixture, tmp_path: Path, damage: str) -> None:
    recording = record([fixture_program("spin_signals"), "count", "2"])
    first = in_code(recording)[0]
    good = next(s.data for s in first.segments if s.kind == SegmentKind.POINT)
    assert good is not None
    bad = {"cut": good[:-1], "rest": good + b"\0", "lead": pack(Point(lead=1))}[damage]

    def edit(event: Event) -> Event:
        segments = tuple(
            s._replace(data=bad) if s.kind == SegmentKind.POINT else s for s in event.segments
        )
        return event._replace(segments=segments)

    target = tmp_path / "damaged.srl"
    forge(recording.trace, target, edit)
    done = verify(target)
    assert done.returncode not in (0, 1), done
    assert "damaged trace" in done.stderr, done
