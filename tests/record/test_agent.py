# SPDX-License-Identifier: GPL-2.0-or-later
"""Recording by the agent: the same events, few stops, and nothing that the program could notice.

The small programs are recorded by it too, in `test_programs`.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from harness import (
    Recording,
    assert_faithful,
    command,
    descendants,
    kill_recorder,
    record,
    run,
    sysrift,
    wait_until,
)
from rewriting import events_of

from sysrift.trace import Event, EventKind, SegmentKind

Fixture = Callable[[str], Path]

AT_ONCE = ["-q", "--checksum=200", "--agent=1"]
BY_STOPS = ["-q", "--checksum=200", "--no-agent"]
PLAIN_LOOP = "import os\nfor i in range({}): os.getppid()\nprint(os.getppid() > 0)"


def essence(event: Event) -> tuple[object, ...]:
    """What is the same in two runs of a program that nothing from outside touches."""
    if event.kind != EventKind.SYSCALL:
        return event.kind, event.nr, event.site
    handed_in = tuple(s.data for s in event.segments if s.kind == SegmentKind.IN)
    return event.kind, event.nr, event.site, event.rsp, event.args, event.input_crc, handed_in


def both(argv: list[str | Path], **more: object) -> tuple[Recording, Recording]:
    """Recorded by the agent, and by stops."""
    found = []
    for options in (AT_ONCE, BY_STOPS):
        recording = record(argv, options=options, **more)  # type: ignore[arg-type]
        assert "recording stops" not in recording.stderr, recording
        assert_faithful(recording.trace)
        found.append(recording)
    return found[0], found[1]


@pytest.mark.parametrize(
    "argv",
    [
        ["du", "-a", "/usr/include/linux/can"],
        ["find", "/usr/include/linux", "-size", "+20k"],
        ["sh", "-c", "cd /usr/include && wc -l std*.h"],
        ["sort", "/usr/include/stdio.h"],
        ["xz", "-kc", "/usr/include/stdlib.h"],
        ["sed", "-n", "s/extern/intern/p", "/usr/include/stdio.h"],
    ],
    ids=lambda argv: argv[0],
)
def test_the_events_are_the_same_as_by_stops(argv: list[str | Path]) -> None:
    if argv[0] == "xz" and run(["which", "xz"]).returncode:
        argv = ["gzip", "-c", "/usr/include/stdlib.h"]
    agent, stops = both(argv)
    assert agent.stdout == stops.stdout and agent.returncode == stops.returncode
    first, second = ([essence(e) for e in events_of(r.trace)] for r in (agent, stops))
    assert len(first) > 30
    for ours, theirs in zip(first, second):
        assert ours == theirs
    assert len(first) == len(second)


def test_a_loop_of_calls_is_recorded_many_times_faster() -> None:
    argv = [sys.executable, "-S", "-c", PLAIN_LOOP.format(60000)]
    took = []
    for options in (["-q", "--agent"], ["-q", "--no-agent"]):
        started = time.monotonic()
        recording = record(argv, options=options)
        took.append(time.monotonic() - started)
        assert recording.stdout == "True\n", recording
        assert sum(e.nr == 110 for e in events_of(recording.trace)) == 60001
    assert took[0] * 3 < took[1], took


def test_a_program_of_few_calls_never_has_it() -> None:
    script = "print(open('/proc/self/maps').read())"
    few = record(["cat", "/proc/self/maps"], options=["-q", "--agent"], env={"LC_ALL": "C"})
    assert "1e1000000000-" not in few.stdout
    many = record([sys.executable, "-c", script], options=["-q", "--agent"])
    assert "1e1000000000-" in many.stdout
    assert_faithful(many.trace)


def test_calls_on_memory_that_is_not_there_fail_as_they_do() -> None:
    script = (
        "import ctypes, os\nlibc = ctypes.CDLL(None, use_errno=True)\n"
        "out, into = os.pipe()\n"
        "for address in (8, 1 << 46, (1 << 64) - 4096):\n"
        "    for i in range(4):\n"
        "        os.write(into, b'x')\n"
        "        p = ctypes.c_void_p(address)\n"
        "        print(libc.read(out, p, 1), ctypes.get_errno())\n"
        "        print(libc.write(into, p, 5), ctypes.get_errno())\n"
        "        print(libc.open(p, 0), ctypes.get_errno())\n"
    )
    agent, stops = both([sys.executable, "-S", "-c", script])
    assert agent.stdout == stops.stdout == "-1 14\n" * 36


def test_signals_in_blocking_calls() -> None:
    # Interrupted (no SA_RESTART in Python's own), restarted by PEP 475, a hundred times.
    script = (
        "import os, signal\nout, into = os.pipe()\nn = 0\n"
        "def tick(*_):\n    global n\n    n += 1\n"
        "    if n == 100: os.write(into, b'x')\n"
        "signal.signal(signal.SIGALRM, tick)\n"
        "signal.setitimer(signal.ITIMER_REAL, 0.002, 0.002)\n"
        "print(os.read(out, 1))\nsignal.setitimer(signal.ITIMER_REAL, 0)\nprint(n >= 100)\n"
    )
    recording = record([sys.executable, "-S", "-c", script], options=AT_ONCE)
    assert recording.stdout == "b'x'\nTrue\n", recording
    assert_faithful(recording.trace)


@pytest.mark.parametrize("options", [AT_ONCE[:1] + AT_ONCE[2:], ["-q", "--no-agent"]])
def test_ten_thousand_signals_at_random_moments(
    fixture_program: Fixture, trace_dir: Path, options: list[str]
) -> None:
    program, count, trace = fixture_program("many_signals"), "10000", trace_dir / "signals.srl"
    recorder = subprocess.Popen(
        [command("sysrift-record"), *options, "-o", trace, program, count],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert recorder.stdout is not None
    pid = recorder.stdout.readline().strip()
    assert run([program, count, pid, "7"], timeout=120).returncode == 0
    said, _ = recorder.communicate(timeout=60)
    assert said == "10000 of 10000, 0 wrong\n" and recorder.returncode == 0
    events = events_of(trace)
    assert sum(event.kind == EventKind.SIGNAL for event in events) == 10000
    assert_faithful(trace, timeout=300)


def test_a_program_that_starts_threads_goes_on_unhurt() -> None:
    script = (
        "import os, threading\n"
        "for i in range(500): os.getppid()\n"
        "done = []\n"
        "def work():\n    for i in range(500): os.getppid()\n    done.append(1)\n"
        "threads = [threading.Thread(target=work) for _ in range(4)]\n"
        "[t.start() for t in threads]; [t.join() for t in threads]\n"
        "print(len(done), any('1e1000000000' in line for line in open('/proc/self/maps')))\n"
    )
    recording = record([sys.executable, "-S", "-c", script], options=AT_ONCE)
    assert recording.returncode == 0 and recording.stdout == "4 False\n", recording
    assert "starts a thread" in recording.stderr
    assert_faithful(recording.trace)


def test_children_that_are_not_recorded_do_not_have_it() -> None:
    script = (
        "import os\nfor i in range(300): os.getppid()\n"
        "child = os.fork()\n"
        "if not child:\n"
        "    for i in range(300): os.getppid()\n"
        "    os._exit(any('1e1000000000' in line for line in open('/proc/self/maps')))\n"
        "print(os.waitpid(child, 0)[1])\n"
    )
    options = [*AT_ONCE, "-f", "none"]
    recording = record([sys.executable, "-S", "-c", script], options=options)
    assert recording.stdout == "0\n", recording
    assert_faithful(recording.trace)


def test_let_go_in_the_midst_of_calls() -> None:
    # A full disk ends the recording anywhere; the program's result is its own.
    loop = "import os\nfor i in range(400000): os.getppid()\nos.write(1, os.urandom(8 << 20))"
    for size in ("100000", "1000000", "3000000"):
        recording = record(
            [sys.executable, "-S", "-c", loop],
            options=["-q", "--agent"],
            prefix=["prlimit", f"--fsize={size}"],
            env={"PYTHONUNBUFFERED": "1"},
        )
        assert "the program goes on" in recording.stderr, recording
        assert recording.returncode in (0, 128 + signal.SIGXFSZ, 1), recording


def test_recorder_killed_leaves_a_trace_that_is_faithful_to_its_end(trace_dir: Path) -> None:
    trace = trace_dir / "killed.srl"
    argv = [sys.executable, "-S", "-c", PLAIN_LOOP.format(100_000_000)]
    kill_recorder(["-q", "--agent", "-o", trace, *argv], 1.2)
    info = sysrift("info", trace)
    assert re.search("cut off|not closed|incomplete|abnormal", info.stdout, re.I), info
    assert_faithful(trace)


def test_program_killed_in_the_midst_of_calls(trace_dir: Path) -> None:
    trace = trace_dir / "killed.srl"
    argv = [sys.executable, "-S", "-c", PLAIN_LOOP.format(100_000_000)]
    recorder = subprocess.Popen([command("sysrift-record"), "-q", "--agent", "-o", trace, *argv])
    program = wait_until(lambda: [p.pid for p in descendants(recorder.pid)])[0]
    time.sleep(1)
    os.kill(program, signal.SIGKILL)
    assert recorder.wait(timeout=30) == 128 + signal.SIGKILL
    assert_faithful(trace)
