# SPDX-License-Identifier: GPL-2.0-or-later
"""A process with files mapped, taken in its midst: in a replay they are objects that can change."""

from __future__ import annotations

import dataclasses
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from sysrift import image
from sysrift.record.files import FileTable
from sysrift.record.mapped_files import MappedFiles
from sysrift.replay.files import FileSource
from sysrift.replay.stub import headless_stub
from sysrift.trace.model import End
from sysrift.trace.reader import Trace
from sysrift.trace.writer import TraceWriter
from sysrift.tracee import Mapping, Tracee, read_maps
from sysrift.tracee import ptrace as pt

PAGE = 4096

PROGRAM = """
import mmap, os, sys, time
fd = os.open(sys.argv[1], os.O_RDWR)
shared = mmap.mmap(fd, 4 * 4096, mmap.MAP_SHARED)
private = mmap.mmap(fd, 4 * 4096, mmap.MAP_PRIVATE)
shared[4096:4101] = b"shared"[:5]
private[8192:8197] = b"mine!"
print("ready", flush=True)
time.sleep(100)
"""


class Files:
    """Names the files behind mappings, as a recorder does."""

    def __init__(self, table: FileTable, pid: int) -> None:
        self.table, self.pid = table, pid

    def mapped(self, mapping: Mapping) -> int | None:
        return self.table.mapped(mapping, self.pid)


@pytest.fixture
def process(tmp_path: Path) -> Iterator[Tracee]:
    """A stopped program with data.bin mapped shared and privately."""
    (tmp_path / "data.bin").write_bytes(b"".join(bytes([page]) * PAGE for page in b"abcd"))
    program = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, tmp_path / "data.bin"], stdout=subprocess.PIPE
    )
    try:
        assert program.stdout is not None and program.stdout.readline() == b"ready\n"
        pt.ptrace(pt.PTRACE_SEIZE, program.pid)
        pt.ptrace(pt.PTRACE_INTERRUPT, program.pid)
        os.waitpid(program.pid, pt.WALL)
        tracee = Tracee(program.pid)
        yield tracee
        tracee.close()
    finally:
        program.send_signal(signal.SIGKILL)
        program.communicate()


def of_data(pid: int, shared: bool) -> Mapping:
    """The mapping of data.bin, or of the copy that stands for it."""
    return next(m for m in read_maps(pid) if "data.bin" in m.name and m.shared == shared)


def test_mapped_files_of_an_image_are_copies_that_change(process: Tracee, tmp_path: Path) -> None:
    writer = TraceWriter(tmp_path / "x.srl", {"argv": ["x"]})
    table = FileTable(writer.add_file)
    number = writer.add_process(process.pid, "attach")
    taken = image.capture(process, 0, Files(table, process.pid), writer.add_data)
    writer.add_image(dataclasses.replace(taken, task=number))
    tracked = MappedFiles()
    tracked.adopt(table, process)
    status = os.stat(tmp_path / "data.bin")
    assert tracked.has((status.st_dev, status.st_ino), process)
    writer.end_process(number, End("stopped"))
    writer.close(End("stopped"))
    there = [of_data(process.pid, shared) for shared in (True, False)]

    trace = Trace(tmp_path / "x.srl")
    source = FileSource(trace)
    with headless_stub(trace) as tracee:
        image.restore(tracee, trace.image(0), source)
        here = [of_data(tracee.pid, shared) for shared in (True, False)]
        assert [(m.start, m.end, m.prot) for m in here] == [(m.start, m.end, m.prot) for m in there]
        shared, private = (m.start for m in here)
        for start in (shared, private):
            assert tracee.read(start, 4 * PAGE) == process.read(start, 4 * PAGE)
        assert tracee.read(private + PAGE, 6) == b"shareb"
        assert tracee.read(private + 2 * PAGE, 6) == b"mine!c"
        # A recorded pwrite: seen in all but the page that the program has written to privately.
        mapping = next(m for m in trace.image(0).mappings if m.start == shared)
        assert mapping.file is not None
        source.change(mapping.file, 2 * PAGE - 2, b"....")
        assert tracee.read(shared + 2 * PAGE - 2, 4) == b"...."
        assert tracee.read(private + 2 * PAGE - 2, 4) == b"..mi"
        source.resize(mapping.file, PAGE)
        assert tracee.read_some(private, 4 * PAGE) == b"a" * PAGE
        # The file itself is as the program left it.
        assert (tmp_path / "data.bin").read_bytes()[PAGE : PAGE + 6] == b"shareb"
        assert (tmp_path / "data.bin").stat().st_size == 4 * PAGE
    source.close()
