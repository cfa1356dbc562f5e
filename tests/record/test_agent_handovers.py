# SPDX-License-Identifier: GPL-2.0-or-later
"""What the agent makes by itself, and what it must leave to the recorder.

A file that a program has mapped shows what is written to it: such calls are the recorder's, however
the descriptor came about. All others are not worth a stop.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

from harness import assert_faithful, record, run
from rewriting import events_of

from sysrift.syscalls import NAMES
from sysrift.trace import SegmentKind

COUNTING = """
import sys
from sysrift.record.recorder import Recorder
stops = 0
on_stop = Recorder.on_stop
def counted(*args):
    global stops
    stops += 1
    on_stop(*args)
Recorder.on_stop = counted
from sysrift.cli.main import record_main
try:
    record_main()
finally:
    print(f"{stops} stops", file=sys.stderr)
"""


def stops_of(trace: Path, script: str, *words: str | Path) -> int:
    """How often the recorder has to look at a Python script, recorded into `trace`."""
    recorder = [sys.executable, "-c", COUNTING, "-q", "--agent", "-o", trace]
    done = run([*recorder, sys.executable, "-S", "-c", script, *words])
    assert done.returncode == 0, done
    found = re.search(r"(\d+) stops", done.stderr)
    assert found, done
    assert_faithful(trace)
    return int(found[1])


def assert_same_in_both_ways(script: str, word: str | Path, *, stdout: str, checksum: int) -> None:
    """By the agent and by stops a Python script says the same, and its recording is faithful."""
    for way in ("--agent=1", "--no-agent"):
        recording = record(
            [sys.executable, "-S", "-c", script, word],
            options=["-q", f"--checksum={checksum}", way],
        )
        assert recording.stdout == stdout, recording
        assert_faithful(recording.trace)


def written_file(folder: Path) -> Path:
    path = folder / "mapped"
    path.write_bytes(b"a" * 8192)
    return path


def test_a_mapped_file_does_not_make_other_calls_dear(trace_dir: Path, tmp_path: Path) -> None:
    script = (
        "import mmap, os, sys\n"
        "file = os.open(sys.argv[1], os.O_RDWR)\n"
        "memory = mmap.mmap(file, 8192, mmap.MAP_PRIVATE, mmap.PROT_READ)\n"
        "out, into = os.pipe()\n"
        "other = os.open(sys.argv[1] + '2', os.O_RDWR | os.O_CREAT)\n"
        "for i in range(int(sys.argv[2])):\n"
        "    os.write(into, b'x'); os.read(out, 1)\n"
        "    os.pwrite(other, b'y', i)\n"
        "    os.writev(other, [b'z'])\n"
        "    os.close(os.open('/etc/passwd', os.O_RDONLY))\n"
    )
    few = stops_of(trace_dir / "few.srl", script, written_file(tmp_path), "30")
    many = stops_of(trace_dir / "many.srl", script, tmp_path / "mapped", "1030")
    # A descriptor that is opened anew is looked at once; nothing is written to that one.
    assert many < few + 100, (few, many)


def test_what_is_written_to_a_mapped_file_is_in_the_trace(tmp_path: Path) -> None:
    # By the descriptor it was mapped by; by one that took the number of another file's; by one that
    # came back under the number that a pipe had; cut by opening it; through a copy made by fcntl.
    script = (
        "import fcntl, mmap, os, sys\n"
        "path = sys.argv[1]\n"
        "out, into = os.pipe()\n"
        "other = os.open(path + '2', os.O_RDWR | os.O_CREAT)\n"
        "for i in range(50): os.write(into, b'x'); os.write(other, b'x')\n"
        "file = os.open(path, os.O_RDWR)\n"
        "memory = mmap.mmap(file, 8192, mmap.MAP_PRIVATE, mmap.PROT_READ)\n"
        "shared = mmap.mmap(file, 8192) if sys.argv[2:] else memory\n"
        "seen = []\n"
        "def look(): seen.append(memory[:12] + shared[:12] + memory[4096:4100])\n"
        "for i in range(40):\n"
        "    os.write(into, b'p'); os.write(other, b'o')\n"
        "    os.pwrite(file, b'%04d' % i, 0); look()\n"
        "os.dup2(file, other)\n"
        "for i in range(40): os.pwrite(other, b'%04d' % i, 4); look()\n"
        "os.close(into)\n"
        "again = os.open(path, os.O_RDWR)\n"
        "assert again == into\n"
        "for i in range(40): os.pwrite(again, b'%04d' % i, 8); look()\n"
        "copy = fcntl.fcntl(file, fcntl.F_DUPFD, 0)\n"
        "for i in range(40): os.pwrite(copy, b'%04d' % i, 4096); look()\n"
        "os.closerange(other, other + 1)\n"
        "assert os.open(path, os.O_RDWR) == other\n"
        "for i in range(40): os.pwrite(other, b'c%03d' % i, 0); look()\n"
        "for i in range(8): os.close(os.open(path, os.O_RDWR))\n"
        "for i in range(8):\n"
        "    os.close(os.open(path, os.O_RDWR | os.O_TRUNC))\n"
        "    os.pwrite(file, b't%03d' % i * 2048, 0); look()\n"
        "print(hash(tuple(seen)) == hash(tuple(seen)), len(set(seen)), seen[-1])\n"
    )
    for options, more in (
        (["--agent=1"], []),
        (["--agent"], []),
        (["--agent=1"], ["shared"]),
        (["--no-agent"], []),
    ):
        recording = record(
            [sys.executable, "-S", "-c", script, written_file(tmp_path), *more],
            options=["-q", "--checksum=50", *options],
        )
        assert recording.returncode == 0 and recording.stdout.startswith("True 2"), recording
        assert_faithful(recording.trace)
        events = events_of(recording.trace)
        writes = [e for e in events if e.nr in (NAMES["write"], NAMES["pwrite64"])]
        told = [e for e in writes if any(s.kind == SegmentKind.FILE_SIZE for s in e.segments)]
        assert len(told) == 5 * 40 + 8, options


def test_descriptors_that_a_child_can_close(tmp_path: Path) -> None:
    # A child shares the descriptors (clone(2), CLONE_FILES), and puts the mapped file under the
    # number of a pipe that was written to.
    script = (
        "import ctypes, mmap, os, sys\n"
        "libc = ctypes.CDLL(None)\n"
        "path = sys.argv[1]\n"
        "out, into = os.pipe()\n"
        "file = os.open(path, os.O_RDWR)\n"
        "memory = mmap.mmap(file, 8192, mmap.MAP_PRIVATE, mmap.PROT_READ)\n"
        "for i in range(100): os.write(into, b'x')\n"
        "pid = libc.syscall(56, 0x400 | 17, 0, 0, 0, 0)\n"
        "if pid == 0:\n    os.dup2(file, into)\n    os._exit(0)\n"
        "os.waitpid(pid, 0)\n"
        "for i in range(50): os.pwrite(into, b'%04d' % i, 0)\n"
        "print(memory[:4])\n"
    )
    assert_same_in_both_ways(script, written_file(tmp_path), stdout="b'0049'\n", checksum=50)


def test_the_heap_grows_and_shrinks(trace_dir: Path) -> None:
    script = (
        "import ctypes, os, sys\n"
        "libc = ctypes.CDLL(None)\n"
        "libc.syscall.restype = ctypes.c_long\n"
        "end = libc.syscall(12, 0)\n"
        "for i in range(int(sys.argv[1])):\n"
        "    top = libc.syscall(12, ctypes.c_long(end + 5000 + i % 3 * 4096))\n"
        "    ctypes.memset(ctypes.c_void_p(end), i % 250 + 1, top - end)\n"
        "    out = os.open('/etc/passwd', os.O_RDONLY)\n"
        "    libc.read(out, ctypes.c_void_p(end + 2000), 3000)\n"
        "    os.close(out)\n"
        "    assert libc.syscall(12, ctypes.c_long(end)) == end\n"
        "out, into = os.pipe()\n"
        "os.write(into, b'x')\n"
        "print(libc.read(out, ctypes.c_void_p((end + 4095) & -4096), 1))\n"
    )
    few = stops_of(trace_dir / "few.srl", script, "30")
    many = stops_of(trace_dir / "many.srl", script, "1030")
    assert many < few + 100, (few, many)
    assert_same_in_both_ways(script, "40", stdout="-1\n", checksum=20)


def test_dispositions_are_set_without_stops(trace_dir: Path) -> None:
    script = (
        "import signal, os, sys\n"
        "came = []\n"
        "for i in range(int(sys.argv[1])):\n"
        "    signal.signal(signal.SIGUSR1, lambda *_: came.append(i))\n"
        "    if i % 100 == 0: os.kill(os.getpid(), signal.SIGUSR1)\n"
        "    signal.signal(signal.SIGUSR1, signal.SIG_IGN)\n"
        "    if i % 100 == 50: os.kill(os.getpid(), signal.SIGUSR1)\n"
        "assert came == list(range(0, int(sys.argv[1]), 100)), came\n"
        "signal.signal(signal.SIGSYS, lambda *_: came.append(-1))\n"
        "os.kill(os.getpid(), signal.SIGSYS)\n"
        "for i in range(300): os.getppid()\n"
        "assert came[-1] == -1\n"
        "assert signal.getsignal(signal.SIGSYS)\n"
    )
    few = stops_of(trace_dir / "few.srl", script, "100")
    many = stops_of(trace_dir / "many.srl", script, "1100")
    assert many < few + 300, (few, many)


LETS_GO = """
import sys
from sysrift.record.loop import Recording
def born(self, parent, how):
    pid = parent.tracee.event_message()
    self._take_stop(pid)
    assert parent.fast is not None
    parent.let_child_go(pid)
Recording.born = born
from sysrift.cli.main import record_main
record_main()
"""


def test_a_child_that_is_let_go_has_no_agent(trace_dir: Path) -> None:
    # As when its parent is killed right after it made it. It has a copy of the parent's memory, and
    # makes more calls than the agent has room for.
    script = (
        "import os\n"
        "for i in range(300): os.getppid()\n"
        "child = os.fork()\n"
        "if child == 0:\n    for i in range(40000): os.getppid()\n    os._exit(7)\n"
        "print(os.waitpid(child, 0)[1])\n"
    )
    recorder = [sys.executable, "-c", LETS_GO, "-q", "--agent=1", "-o", trace_dir / "t.srl"]
    done = run([*recorder, sys.executable, "-S", "-c", script], timeout=60)
    assert done.stdout == "1792\n", done
