# SPDX-License-Identifier: GPL-2.0-or-later
"""Proof that `verify` would notice: forged traces diverge, at the right event; and a replayer that
secretly executed the program's system calls again would be found out.

"The output looks the same" is no proof: most programs print the same when simply run twice.
"""

from __future__ import annotations

import os
import re
import signal
import socket
import struct
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from harness import (
    Finished,
    assert_faithful,
    assert_no_traceback,
    command,
    gdb_batch,
    record,
    run,
    verify,
)
from rewriting import events_of, flipped, forge, with_output

from sysrift.syscalls import NAMES
from sysrift.trace import Event, EventFlag, EventKind, SegmentKind
from sysrift.trace.reader import Trace

Fixture = Callable[[str], Path]

GETRANDOM, WRITE, EXIT = 1, 2, 3
"""The events of the fixture `nolibc`; their numbers are as sure as its source."""


@pytest.fixture
def tiny(fixture_program: Fixture) -> Path:
    """A trace of `nolibc`: getrandom, write of what it gave, exit(7). No memory checksums."""
    trace = record([fixture_program("nolibc")], options=["-q"]).trace
    names = {number: name for name, number in NAMES.items()}
    assert [names[event.nr] for event in events_of(trace)] == ["getrandom", "write", "exit"]
    return trace


def diverges(trace: Path, event: int, *words: str) -> Finished:
    """Verify must say 3 and name this event, and give both sides and a cause; and the same with
    events played without a stop wherever that is possible (`test_player` proves that they are)."""
    done = verify(trace)
    played = verify(trace, env={"SYSRIFT_PLAYER": "1"})
    assert (played.returncode, played.stderr) == (done.returncode, done.stderr)
    assert done.returncode == 3, done
    assert_no_traceback(done)
    said = done.stdout + done.stderr
    named = [int(number.replace(",", "")) for number in re.findall(r"event #?(\d[\d,]*)", said)]
    assert named and named[0] == event, done
    for word in ("recorded", "found", "cause", *words):
        assert word in said, done
    return done


def at(number: int, change: Callable[[Event], Event | list[Event] | None]) -> Callable:
    """An edit of one event."""
    return lambda event: change(event) if event.number == number else event


def test_copy_without_a_change_is_faithful(tiny: Path, tmp_path: Path) -> None:
    # The control of the controls: it is the change that makes the others diverge.
    assert_faithful(forge(tiny, tmp_path / "copy.srl"))


@pytest.mark.parametrize("name", ["deep", "handlers", "sync_signals", "mmap_file", "execs"])
def test_copy_of_an_ordinary_program_is_faithful(
    name: str, fixture_program: Fixture, tmp_path: Path
) -> None:
    trace = record([fixture_program(name)]).trace
    assert_faithful(forge(trace, tmp_path / "copy.srl"))


# -- one thing changed ----------------------------------------------------------------------------


def test_changed_output_byte(tiny: Path, tmp_path: Path) -> None:
    # The program writes what getrandom gave it: the write's data is not the recorded one.
    forged = forge(
        tiny, tmp_path / "x.srl", at(GETRANDOM, lambda event: with_output(event, flipped))
    )
    diverges(forged, WRITE, "write")


def test_removed_event(tiny: Path, tmp_path: Path) -> None:
    forged = forge(tiny, tmp_path / "x.srl", at(GETRANDOM, lambda event: None))
    diverges(forged, GETRANDOM, "getrandom", "write")


def test_removed_last_event(tiny: Path, tmp_path: Path) -> None:
    forged = forge(tiny, tmp_path / "x.srl", at(EXIT, lambda event: None))
    done = verify(forged)
    assert done.returncode == 3, done


def test_repeated_event(tiny: Path, tmp_path: Path) -> None:
    forged = forge(tiny, tmp_path / "x.srl", at(WRITE, lambda event: [event, event]))
    diverges(forged, EXIT, "write", "exit")


def test_swapped_events(tiny: Path, tmp_path: Path) -> None:
    first, second = events_of(tiny)[:2]
    swap = {
        GETRANDOM: second._replace(time_us=first.time_us),
        WRITE: first._replace(time_us=second.time_us),
    }
    forged = forge(tiny, tmp_path / "x.srl", lambda event: swap.get(event.number, event))
    diverges(forged, GETRANDOM, "getrandom", "write")


@pytest.mark.parametrize("argument", [0, 1, 2])
def test_changed_argument(argument: int, tiny: Path, tmp_path: Path) -> None:
    def change(event: Event) -> Event:
        args = list(event.args)
        args[argument] += 1
        return event._replace(args=tuple(args))

    diverges(forge(tiny, tmp_path / "x.srl", at(WRITE, change)), WRITE, "write")


@pytest.mark.parametrize(
    "change",
    [
        lambda event: event._replace(input_crc=event.input_crc ^ 1),
        lambda event: event._replace(nr=NAMES["pwrite64"]),
        lambda event: event._replace(site=event.site + 2),
        lambda event: event._replace(rsp=event.rsp - 8),
    ],
    ids=["checksum of the data handed in", "number", "site", "stack pointer"],
)
def test_changed_field(change: Callable[[Event], Event], tiny: Path, tmp_path: Path) -> None:
    diverges(forge(tiny, tmp_path / "x.srl", at(WRITE, change)), WRITE)


def test_changed_exit_status(tiny: Path, tmp_path: Path) -> None:
    forged = forge(tiny, tmp_path / "x.srl", end=lambda end: replace(end, status=8))
    diverges(forged, EXIT, "8", "7")


def test_changed_image(tiny: Path, tmp_path: Path) -> None:
    # argc, at the top of the stack that the kernel made: the program prints it.
    top = struct.unpack_from("<27Q", Trace(tiny).image(0).registers)[19]  # user_regs_struct.rsp

    def change(data: bytes, address: int) -> bytes:
        at = top - address
        if not 0 <= at < len(data):
            return data
        assert data[at : at + 8] == struct.pack("<Q", 1)
        return data[:at] + struct.pack("<Q", 2) + data[at + 8 :]

    diverges(forge(tiny, tmp_path / "x.srl", image=change), WRITE, "write")


def swapped_results(events: list[Event], name: str) -> dict[int, Event]:
    """The first and the last call of this name that differ in their result, swapped."""
    calls = [event for event in events if event.nr == NAMES[name]]
    first = calls[0]
    last = next(event for event in reversed(calls) if event.result != first.result)
    return {
        first.number: first._replace(result=last.result),
        last.number: last._replace(result=first.result),
    }


def test_swapped_results(fixture_program: Fixture, tmp_path: Path) -> None:
    # openat gives descriptors one after the other; the program uses one under the wrong number.
    trace = record([fixture_program("xattr_misc"), tmp_path]).trace
    events = events_of(trace)
    swap = swapped_results(events, "openat")
    forged = forge(trace, tmp_path / "x.srl", lambda event: swap.get(event.number, event))
    wrong, right = swap[min(swap)].result, events[min(swap) - 1].result
    first_use = next(
        event
        for event in events[min(swap) :]
        if event.kind == EventKind.SYSCALL
        and event.args[0] == right
        and event.nr in {NAMES[name] for name in ("read", "fstat", "newfstatat", "pread64")}
    )
    assert wrong != right
    diverges(forged, first_use.number)


def test_swapped_sign_of_a_result(fixture_program: Fixture, tmp_path: Path) -> None:
    # A call that failed now succeeds: the program takes another path at once.
    trace = record([fixture_program("flaky"), tmp_path / "none"], options=["-q"]).trace
    failed = next(
        event
        for event in events_of(trace)
        if event.nr == NAMES["openat"]
        and event.result == -2
        and any(s.kind == SegmentKind.IN and b"/none" in (s.data or b"") for s in event.segments)
    )
    forged = forge(
        trace, tmp_path / "x.srl", at(failed.number, lambda event: event._replace(result=3))
    )
    diverges(forged, failed.number + 1)


def test_changed_time_stamp(fixture_program: Fixture, tmp_path: Path) -> None:
    trace = record([fixture_program("spin_tsc")], options=["-q"]).trace
    events = events_of(trace)
    stamps = [event for event in events if event.kind == EventKind.TSC]
    assert len(stamps) >= 1000
    wrong = stamps[500]
    forged = forge(
        trace,
        tmp_path / "x.srl",
        at(wrong.number, lambda event: event._replace(result=event.result + 1)),
    )
    told = next(
        event
        for event in events
        if event.number > wrong.number and event.kind == EventKind.SYSCALL
        and event.nr == NAMES["write"]
    )  # fmt: skip
    diverges(forged, told.number, "write")


def test_changed_signal_frame(fixture_program: Fixture, tmp_path: Path) -> None:
    # The page that faulted, in the siginfo of the frame: the write barrier opens another one.
    trace = record([fixture_program("sync_signals")], options=["-q"]).trace
    events = events_of(trace)
    fault = next(e for e in events if e.kind == EventKind.SIGNAL and e.nr == signal.SIGSEGV)

    def change(event: Event) -> Event:
        address = next(
            struct.unpack("<Q", (s.data or b"")[16:24])[0]
            for s in event.segments
            if s.kind == SegmentKind.SIGINFO
        )
        segments = tuple(
            s._replace(
                data=(s.data or b"").replace(
                    struct.pack("<Q", address), struct.pack("<Q", address - 4096)
                )
            )
            if s.kind == SegmentKind.OUT
            else s
            for s in event.segments
        )
        assert segments != event.segments
        return event._replace(segments=segments)

    forged = forge(trace, tmp_path / "x.srl", at(fault.number, change))
    diverges(forged, fault.number + 1, "mprotect")


def test_signal_that_never_came(fixture_program: Fixture, tmp_path: Path) -> None:
    trace = record([fixture_program("handlers"), "calls-only"], options=["-q"]).trace
    last = [event for event in events_of(trace) if event.kind == EventKind.SIGNAL][-1]
    forged = forge(trace, tmp_path / "x.srl", at(last.number, lambda event: None))
    diverges(forged, last.number)


def test_changed_memory_checksum(fixture_program: Fixture, tmp_path: Path) -> None:
    trace = record([fixture_program("deep")], options=["-q", "--checksum"]).trace
    done = verify(forge(trace, tmp_path / "x.srl", digest=flipped))
    assert done.returncode == 3, done
    assert "memory" in done.stdout + done.stderr, done


def test_memory_that_no_call_shows_is_in_the_checksum(
    fixture_program: Fixture, tmp_path: Path
) -> None:
    # A bit of a file's device number, which the program does not look at: no later call differs.
    trace = record([fixture_program("deep")], options=["-q", "--checksum=5"]).trace
    silent = next(
        event
        for event in events_of(trace)
        if event.nr in (NAMES["newfstatat"], NAMES["fstat"]) and event.result == 0
    )
    forged = forge(
        trace, tmp_path / "x.srl", at(silent.number, lambda event: with_output(event, flipped))
    )
    done = verify(forged)
    assert done.returncode == 3, done
    named = re.findall(r"event #?(\d+)", done.stdout + done.stderr)
    # Noticed at the next fifth event.
    assert silent.number <= int(named[0]) <= silent.number + 5, done


def test_divergence_in_gdb_is_told_and_the_program_stays(tiny: Path, tmp_path: Path) -> None:
    forged = forge(
        tiny, tmp_path / "x.srl", at(GETRANDOM, lambda event: with_output(event, flipped))
    )
    output = gdb_batch(["continue", "info registers rip", "backtrace"], forged)
    assert "Traceback" not in output, output
    assert re.search(r"divergence at event 2\b", output, re.I), output
    assert re.search(r"rip +0x[0-9a-f]+", output), output


# -- what a replayer that executes again would do -------------------------------------------------


@pytest.mark.parametrize("name", ["deep", "mmap_file", "sync_signals"])
def test_second_execution_is_not_taken_for_a_replay(
    name: str, fixture_program: Fixture, tmp_path: Path
) -> None:
    # These print the same in every run. A replayer that makes the calls again would put a second
    # run's results into the first run's process: that very trace is forged here, and must be
    # refused, because what a second run gets (random bytes, times, ids) is not what the first got.
    first = record([fixture_program(name)], options=["-q", "--checksum"])
    second = record([fixture_program(name)], options=["-q", "--checksum"])
    assert first.stdout == second.stdout
    again = {event.number: event for event in events_of(second.trace)}
    assert len(again) == len(events_of(first.trace))

    def executed_again(event: Event) -> Event:
        other = again[event.number]
        assert (other.kind, other.nr) == (event.kind, event.nr)
        handed_in = tuple(s for s in event.segments if s.kind == SegmentKind.IN)
        given = tuple(s for s in other.segments if s.kind != SegmentKind.IN)
        return event._replace(result=other.result, segments=handed_in + given)

    forged = forge(first.trace, tmp_path / "x.srl", executed_again)
    assert verify(forged).returncode == 3
    assert_faithful(first.trace)
    assert_faithful(second.trace)


SIDE_EFFECTS = """
import os, signal, socket, sys
place, port, fifo = sys.argv[1], int(sys.argv[2]), sys.argv[3]
os.unlink(place + "/victim")
with open(place + "/created", "w") as file:
    file.write("made by the program")
with open(place + "/log", "a") as file:
    file.write("one line\\n")
os.rename(place + "/old", place + "/new")
os.mkdir(place + "/directory")
os.chmod(place + "/log", 0o640)
plug = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
plug.sendto(b"datagram", ("127.0.0.1", port))
with open(fifo, "w") as pipe:
    pipe.write("through the fifo")
os.kill(int(sys.argv[4]), signal.SIGUSR1)
print("all done")
"""


def world(place: Path) -> dict[str, tuple[str, int]]:
    """The names, contents and modes of all files there."""
    return {
        path.name: (path.read_text() if path.is_file() else "", path.stat().st_mode)
        for path in place.iterdir()
    }


def test_replay_has_no_effect_on_the_world(tmp_path: Path) -> None:
    place = tmp_path / "place"
    place.mkdir()
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    plug = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    plug.bind(("127.0.0.1", 0))
    plug.setblocking(False)
    signals: list[int] = []
    previous = signal.signal(signal.SIGUSR1, lambda number, frame: signals.append(number))

    def set_up() -> dict[str, tuple[str, int]]:
        for path in place.iterdir():
            path.rmdir() if path.is_dir() else path.unlink()
        for name in ("victim", "old", "log"):
            (place / name).write_text(f"{name}, untouched\n")
            (place / name).chmod(0o600)
        return world(place)

    try:
        before = set_up()
        script = tmp_path / "script.py"
        script.write_text(SIDE_EFFECTS)
        recording = record(
            [sys.executable, "-I", "-S", script, place, str(plug.getsockname()[1]), fifo,
             str(os.getpid())]
        )  # fmt: skip
        assert recording.stdout == "all done\n", recording
        # The recording did it all, once.
        assert set(world(place)) == {"created", "log", "new", "directory"}
        assert plug.recv(100) == b"datagram"
        assert os.read(reader, 100) == b"through the fifo"
        assert signals == [signal.SIGUSR1]

        assert set_up() == before
        assert_faithful(recording.trace)
        assert_faithful(recording.trace)
        output = gdb_batch(["continue", "info program"], recording.trace)
        assert "all done" in output
        assert world(place) == before
        with pytest.raises(BlockingIOError):
            plug.recv(100)
        assert os.read(reader, 100) == b""
        assert signals == [signal.SIGUSR1]
    finally:
        signal.signal(signal.SIGUSR1, previous)
        plug.close()
        os.close(reader)


RARE = [
    "inotify_init1", "inotify_add_watch", "tee", "vmsplice", "splice", "timerfd_create",
    "timerfd_settime", "signalfd4", "eventfd2", "fsetxattr", "fremovexattr", "symlink",
    "sendfile", "copy_file_range", "rmdir",
]  # fmt: skip
"""Calls that the fixture `xattr_misc` makes, and neither Python nor SysRift does."""


def test_no_call_of_the_program_reaches_the_kernel(
    fixture_program: Fixture, tmp_path: Path
) -> None:
    recording = record([fixture_program("xattr_misc"), tmp_path])
    assert recording.returncode == 0, recording
    made = {event.nr for event in events_of(recording.trace)}
    forbidden = [str(NAMES[name]) for name in RARE]
    assert {NAMES["tee"], NAMES["signalfd4"]} <= made
    forbid = fixture_program("forbid")
    # Under this filter each of these calls is death...
    alone = run([forbid, *forbidden, "--", fixture_program("xattr_misc"), tmp_path])
    assert alone.returncode == -signal.SIGSYS
    # ... and the replay, which asks for every one of them, lives.
    done = run([forbid, *forbidden, "--", command("sysrift"), "verify", recording.trace])
    assert done.returncode == 0, done


def test_replay_needs_nothing_that_the_program_had(
    fixture_program: Fixture, tmp_path: Path
) -> None:
    # 200 open files, a working directory and input files that are all gone, another process id,
    # no network, and a limit of descriptors that the program would fail under.
    code = (
        "import os; files = [open(os.environ['INPUT']) for _ in range(200)];"
        "print(len(files), os.getpid(), os.getcwd(), files[199].read())"
    )
    directory = tmp_path / "gone"
    directory.mkdir()
    (directory / "input").write_text("content")
    recording = record(
        [sys.executable, "-I", "-S", "-c", code],
        cwd=directory,
        env={"INPUT": str(directory / "input")},
    )
    assert recording.stdout.endswith(f"{directory} content\n"), recording
    (directory / "input").unlink()
    directory.rmdir()
    limited = ["bash", "-c", 'ulimit -n 40; exec "$@"', "bash"]
    again = run([*limited, sys.executable, "-I", "-S", "-c", code], env={"INPUT": "/etc/passwd"})
    assert again.returncode != 0, "the limit is no limit"
    done = run([*limited, command("sysrift"), "verify", recording.trace])
    assert done.returncode == 0, done


def test_guard_holds_when_the_debugger_lets_go(fixture_program: Fixture, tmp_path: Path) -> None:
    # GDB without SysRift's catchpoints, resuming the process right before an unlink: the kernel's
    # own filter in the replayed process stops it.
    victim = tmp_path / "victim"
    victim.write_text("alive")
    recording = record(["rm", victim])
    assert not victim.exists()
    victim.write_text("alive")
    unlink = next(
        event for event in events_of(recording.trace)
        if event.nr in (NAMES["unlink"], NAMES["unlinkat"])
    )  # fmt: skip
    assert not unlink.flags & EventFlag.UNFINISHED
    for commands in (
        [f"sysrift-goto {unlink.number}", "stepi", "info registers rax"],
        [f"sysrift-goto {unlink.number}", "delete", "continue"],
        [
            f"sysrift-goto {unlink.number}",
            "python [point.delete() for point in gdb.breakpoints() if point.number < 0]",
            "python import ctypes, gdb; pid = gdb.selected_inferior().pid; "
            "libc = ctypes.CDLL(None); libc.ptrace(7, pid, None, None)",  # PTRACE_CONT
            "shell sleep 0.3",
        ],
    ):
        output = gdb_batch(commands, recording.trace)
        assert victim.exists(), output
