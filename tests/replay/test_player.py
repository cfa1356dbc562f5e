# SPDX-License-Identifier: GPL-2.0-or-later
"""Events replayed without a stop (`replay/player.py`): the stop at every call is the oracle.

That the player was at work is part of every one of these stories: how many events it has played
is looked at.
"""

from __future__ import annotations

import ctypes
import os
import random
import re
import signal
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from harness import assert_faithful, record, run, sysrift, verify
from rewriting import events_of, flipped, forge, with_output

from sysrift.replay.divergence import Divergence
from sysrift.replay.engine import Engine, Reason
from sysrift.replay.stub import headless_stub
from sysrift.syscalls import NAMES
from sysrift.trace import Event, EventKind
from sysrift.trace.reader import Trace

Fixture = Callable[[str], Path]

FROM_THE_FIRST = {"SYSRIFT_PLAYER": "1"}
NEVER = {"SYSRIFT_PLAYER": "no"}


def played(text: str) -> int:
    """How many events `verify` says that it has replayed without a stop."""
    found = re.search(r"(\d+) events \((\d+) without a stop\)", text)
    return int(found[2]) if found else 0


@pytest.fixture
def hot(fixture_program: Fixture) -> Path:
    """A trace of `hot_calls`, without memory checksums."""
    recording = record([fixture_program("hot_calls")], options=["-q"])
    assert recording.returncode == 0, recording
    return recording.trace


@contextmanager
def engine_of(trace: Path, player_at: int | None = 1) -> Iterator[Engine]:
    """An engine at the beginning of a trace, with nobody else looking on."""
    with Trace(trace) as opened, headless_stub(opened) as tracee:
        engine = Engine(opened, tracee)
        engine.is_alone = True
        engine.player_at = player_at
        try:
            engine.load(0)
            yield engine
        finally:
            engine.close()


def test_nearly_all_events_are_played(hot: Path) -> None:
    total = len(events_of(hot))
    assert played(assert_faithful(hot, env=FROM_THE_FIRST).stdout) > 0.9 * total
    assert played(assert_faithful(hot).stdout) > 0.85 * total


def test_can_be_left_out(hot: Path) -> None:
    assert "without a stop" not in assert_faithful(hot, env=NEVER).stdout
    done = sysrift("verify", "--no-agent", hot)
    assert done.returncode == 0, done
    assert "without a stop" not in done.stdout


@pytest.mark.parametrize("agent", ["--agent=1", "--no-agent"])
@pytest.mark.parametrize("every", [1, 7])
def test_memory_checksums_are_compared_at_each(
    every: int, agent: str, fixture_program: Fixture
) -> None:
    argv = [fixture_program("hot_calls"), "100"]
    trace = record(argv, options=["-q", f"--checksum={every}", agent]).trace
    done = assert_faithful(trace, env=FROM_THE_FIRST)
    sums = [int(n) for n in re.findall(r"(\d+) memory checksums", done.stdout)]
    stops = assert_faithful(trace, env=NEVER)
    assert sums == [int(n) for n in re.findall(r"(\d+) memory checksums", stops.stdout)]
    assert sums[0] >= 0.9 * len(events_of(trace)) // every
    assert (played(done.stdout) > 0) == (every > 1)


def test_events_one_by_one_are_those_of_the_whole_block() -> None:
    # A forked process's events, too, and in whatever order they are asked for.
    script = "for n in 1 2 3; do /bin/true; done; cat /etc/passwd /etc/group"
    trace = record(["bash", "-c", script], options=["-q"]).trace
    with Trace(trace) as first:
        for process in first.processes:
            whole = list(first.of(process).events())
            with Trace(trace, process) as other:
                numbers = [event.number for event in whole][::7]
                random.Random(5).shuffle(numbers)
                for number in numbers:
                    event = other.event(number)
                    assert event == whole[number - 1]
                    assert other.event(number) is event
                    assert other.glance(number) == (event.kind, event.flags)


# -- it notices ----------------------------------------------------------------------------------


def in_the_middle(trace: Path, name: str, which: int = 200) -> Event:
    """The `which`th call of this name: long since played without a stop."""
    return [e for e in events_of(trace) if e.kind == EventKind.SYSCALL and e.nr == NAMES[name]][
        which
    ]


def found_at(trace: Path, player_at: int | None) -> tuple[int, int, str]:
    """Where a replay diverges, how many events were played without a stop before, and the words."""
    with engine_of(trace, player_at) as engine:
        with pytest.raises(Divergence) as caught:
            engine.advance()
        return engine.next, engine.played, str(caught.value)


CHANGES: dict[str, tuple[str, Callable[[Event], Event]]] = {
    "number": ("write", lambda e: e._replace(nr=NAMES["pwrite64"])),
    "argument": ("write", lambda e: e._replace(args=(e.args[0] + 1, *e.args[1:]))),
    "site": ("getppid", lambda e: e._replace(site=e.site + 2)),
    "stack pointer": ("getppid", lambda e: e._replace(rsp=e.rsp - 8)),
    "data handed in": ("write", lambda e: e._replace(input_crc=e.input_crc ^ 1)),
    "path handed in": ("newfstatat", lambda e: e._replace(input_crc=e.input_crc ^ 1)),
}


@pytest.mark.parametrize("change", CHANGES)
def test_changed_field(change: str, hot: Path, tmp_path: Path) -> None:
    name, edit = CHANGES[change]
    number = in_the_middle(hot, name).number
    forged = forge(hot, tmp_path / "x.srl", lambda e: edit(e) if e.number == number else e)
    next_, count, words = found_at(forged, 1)
    assert (next_, words) == (number, found_at(forged, None)[2])
    assert next_ == number and count > 0.8 * number
    assert verify(forged, env=FROM_THE_FIRST).returncode == 3


@pytest.mark.parametrize(
    ("name", "edit"),
    [
        ("getppid", lambda e: e._replace(result=e.result + 1)),
        ("read", lambda e: with_output(e, flipped)),
        ("clock_gettime", lambda e: with_output(e, lambda d: d[:8] + flipped(d[8:]))),
    ],
    ids=["result", "byte that was read", "time"],
)
def test_changed_outcome(
    name: str, edit: Callable[[Event], Event], hot: Path, tmp_path: Path
) -> None:
    # The program writes a sum of all that it was given: the next write hands in something else.
    number = in_the_middle(hot, name).number
    told = next(e.number for e in events_of(hot) if e.number > number and e.nr == NAMES["write"])
    forged = forge(hot, tmp_path / "x.srl", lambda e: edit(e) if e.number == number else e)
    next_, count, words = found_at(forged, 1)
    assert next_ == told and count > 0.8 * number
    assert words == found_at(forged, None)[2]


def test_swapped_results(hot: Path, tmp_path: Path) -> None:
    first, second = in_the_middle(hot, "read", 150), in_the_middle(hot, "read", 220)
    swap = {
        first.number: first._replace(segments=second.segments),
        second.number: second._replace(segments=first.segments),
    }
    forged = forge(hot, tmp_path / "x.srl", lambda e: swap.get(e.number, e))
    next_, count, words = found_at(forged, 1)
    assert first.number < next_ < first.number + 5 and count > 0.8 * next_
    assert words == found_at(forged, None)[2]


def test_missing_call(hot: Path, tmp_path: Path) -> None:
    number = in_the_middle(hot, "getppid").number
    forged = forge(hot, tmp_path / "x.srl", lambda e: None if e.number == number else e)
    next_, count, words = found_at(forged, 1)
    assert next_ == number and count > 0.8 * number
    assert words == found_at(forged, None)[2]


def test_second_execution(fixture_program: Fixture, tmp_path: Path) -> None:
    first, second = (record([fixture_program("hot_calls")], options=["-q"]).trace for _ in range(2))
    again = {event.number: event for event in events_of(second)}
    assert len(again) == len(events_of(first))
    middle = in_the_middle(first, "getppid").number

    def executed_again(event: Event) -> Event:
        other = again[event.number]
        return event if event.number < middle else other._replace(site=event.site, rsp=event.rsp)

    forged = forge(first, tmp_path / "x.srl", executed_again)
    next_, count, _ = found_at(forged, 1)
    assert middle <= next_ < middle + 20 and count > 0.8 * middle


def test_write_to_where_nothing_is(hot: Path, tmp_path: Path) -> None:
    # What the kernel wrote lies where no memory is: nothing of the call is done, and it is told.
    event = in_the_middle(hot, "read")

    def moved(each: Event) -> Event:
        if each.number != event.number:
            return each
        out = [s._replace(base=255, address=0x5000) if s.kind == 0 else s for s in each.segments]
        return each._replace(segments=tuple(out))

    forged = forge(hot, tmp_path / "x.srl", moved)
    next_, count, words = found_at(forged, 1)
    assert next_ == event.number and count > 0.8 * next_
    assert words == found_at(forged, None)[2]


# -- it stops where it should ---------------------------------------------------------------------


@pytest.mark.parametrize("number", [20, 150, 777, 1000])
def test_stops_at_an_event(number: int, hot: Path) -> None:
    states = []
    for player_at in (1, None):
        with engine_of(hot, player_at) as engine:
            halt = engine.advance(stop_at=number)
            assert halt.reason is Reason.REACHED and engine.next == number
            assert (engine.played > number // 2) == (player_at == 1) or number == 20
            registers = engine.tracee.registers()
            states.append(tuple(getattr(registers, n) for n in ("rip", "rsp", "rax", "rdi", "rsi")))
            assert registers.rip == engine.trace.event(number).site
    assert states[0] == states[1]


def test_all_registers_are_as_after_a_stop(hot: Path) -> None:
    # rcx and r11 too, which the kernel changes, and the flags.
    states = []
    for player_at in (1, None):
        with engine_of(hot, player_at) as engine:
            engine.advance(stop_at=900)
            assert (engine.played > 700) == (player_at == 1)
            states.append(bytes(engine.tracee.registers()))
    assert states[0] == states[1]


def test_interrupted_anywhere_it_stands_at_a_boundary(fixture_program: Fixture) -> None:
    # Ctrl-C, again and again, wherever the program is: in the player, on its way there, or not.
    trace = record([fixture_program("hot_calls"), "60000"], options=["-q", "--agent"]).trace
    interrupted = 0
    with engine_of(trace) as engine:
        pid, done = engine.tracee.pid, threading.Event()
        engine.advance(stop_at=200)

        def disturb() -> None:
            chance = random.Random(4)
            while not done.is_set():
                time.sleep(chance.random() * 0.0006)
                try:
                    os.kill(pid, signal.SIGINT)
                except ProcessLookupError:
                    return

        other = threading.Thread(target=disturb)
        other.start()
        try:
            while True:
                halt = engine.advance()
                if halt.reason is not Reason.SIGNAL:
                    break
                assert halt.signal == signal.SIGINT
                interrupted += 1
                rip = engine.tracee.registers().rip
                assert not engine._player or not engine._player.is_inside(rip)
        finally:
            done.set()
            other.join()
        assert halt.reason is Reason.END, halt
        assert engine.at_end and engine.played > 0.9 * engine.trace.event_count
    assert interrupted > 20


@pytest.mark.parametrize("arguments", [[], ["over"]], ids=["around it", "over the player"])
@pytest.mark.parametrize("agent", ["--agent", "--no-agent"])
def test_memory_that_changes_around_the_player(
    agent: str, arguments: list[str], fixture_program: Fixture
) -> None:
    argv = [fixture_program("moves_code"), *arguments]
    recording = record(argv, options=["-q", "--checksum=50", agent])
    assert recording.stdout == "done\n", recording
    counts = [
        played(assert_faithful(recording.trace, env={"SYSRIFT_PLAYER": p}).stdout)
        for p in ("1", "5", "never")
    ]
    assert counts[2] == 0
    # Once its place is taken, there is none any more.
    assert min(counts[:2]) > 1000 if not arguments else 0 < max(counts) < 200


def test_program_that_reads_its_own_code(fixture_program: Fixture) -> None:
    # It sees the jump in the place of a `syscall`: then a stop at every call is what counts.
    trace = record([fixture_program("reads_code")], options=["-q"]).trace
    assert verify(trace, env=FROM_THE_FIRST).returncode == 3
    done = assert_faithful(trace)
    assert "--no-agent" in done.stderr and played(done.stdout) == 0
    assert not assert_faithful(trace, env=NEVER).stderr


# -- debug registers ------------------------------------------------------------------------------


def watch(pid: int, address: int) -> None:
    """A hardware watchpoint for writes to 8 bytes (<sys/user.h>, u_debugreg)."""
    libc = ctypes.CDLL(None)
    libc.ptrace.argtypes = [ctypes.c_long] * 4
    assert libc.ptrace(6, pid, 848, address) == 0  # PTRACE_POKEUSER
    assert libc.ptrace(6, pid, 848 + 7 * 8, 1 | 0b1001 << 16) == 0


def test_watchpoint_does_not_see_what_the_kernel_wrote(fixture_program: Fixture) -> None:
    program = fixture_program("hot_calls")
    trace = record([program], options=["-q"]).trace
    buffer = in_the_middle(trace, "read", 20).args[1]
    symbols = {
        words[2]: int(words[0], 16)
        for words in (line.split() for line in run(["nm", program]).stdout.splitlines())
        if len(words) == 3
    }
    counted = buffer - symbols["buffer"] + symbols["passes"]
    seen = []
    for player_at in (1, None):
        for address, written_by_program in ((buffer, False), (counted, True)):
            with engine_of(trace, player_at) as engine:
                engine.advance(stop_at=600)
                watch(engine.tracee.pid, address)
                traps = []
                while (halt := engine.advance()).reason is Reason.TRAP:
                    assert engine.tracee.watchpoint_hits == 1
                    engine.tracee.watchpoint_hits = 0
                    value = struct.unpack("<Q", engine.tracee.read(address, 8))[0]
                    traps.append((engine.next, engine.tracee.registers().rip, value))
                assert halt.reason is Reason.END
                assert bool(traps) == written_by_program
                assert (engine.played > 1000) == (player_at == 1)
                seen.append(traps)
    assert seen[:2] == seen[2:]
