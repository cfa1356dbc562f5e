# SPDX-License-Identifier: GPL-2.0-or-later
"""The process image: take it from a tracee, build it in another.

One thing serves exec, attach, keyframes and checkpoints: mappings, the pages that are not simply
the mapped file's, registers, the xsave area, and what the kernel knows of the address space
(auxv, brk, stack start).
"""

from __future__ import annotations

import hashlib
import os
import resource
import struct
from collections.abc import Callable, Collection, Iterator
from typing import Protocol

from sysrift.native import STUB_END, STUB_SCRATCH, STUB_START
from sysrift.trace.model import Image, MappingImage, PageRun
from sysrift.tracee import BadAddress, Mapping, Registers, RemoteSyscallError, Tracee, read_maps
from sysrift.tracee.pagemap import PAGE, open_pagemap, populated, populated_runs

CHUNK = 1 << 20
USER_END = 0x7FFFFFFFF000
"""End of the user half of the address space with 4-level paging."""

STACK_GUARD_GAP = 256 * PAGE
"""The kernel keeps a growing stack this far from the mapping below (mm/mmap.c)."""

STACK_IN_ADVANCE = 32 * PAGE

CHECKED_SHARED, CHECKED_FILE = 16 << 20, 64 << 20
"""Bytes of one shared mapping, and of one private mapping of a file, that checksums cover."""

_NR_MMAP, _NR_MUNMAP, _NR_OPEN, _NR_CLOSE, _NR_PRCTL = 9, 11, 2, 3, 157
_MAP_SHARED, _MAP_PRIVATE, _MAP_FIXED, _MAP_ANONYMOUS, _MAP_NORESERVE = 1, 2, 16, 32, 0x4000
_MAP_GROWSDOWN = 0x100
_PR_SET_MM, _PR_SET_MM_MAP = 35, 14
_ZEROS = bytes(PAGE)


Known = dict[tuple[int, int], bytes]

_UNTOUCHED_LIMIT = 256 << 20
"""Bytes of a file that cannot be had up to which its untouched pages are read too."""


StoreMemory = Callable[[Tracee, int, int, bool], list[PageRun]]
"""Stores memory of a tracee: (tracee, start, length, whether pages of zeros are stored too)."""


class FileRecorder(Protocol):
    """What capturing needs to name the file behind a mapping."""

    def mapped(self, mapping: Mapping) -> int | None:
        """The id of the file, or None when its bytes cannot be had (then memory is stored)."""


def nonzero_parts(address: int, data: bytes) -> Iterator[tuple[int, bytes]]:
    """(address, bytes) of the parts of `data`, which begins at a page, that are not pages of zeros.

    The first byte of each page says which ones need a look at all.
    """
    start = 0
    for index, first in enumerate(data[::PAGE]):
        at = index * PAGE
        if first == 0 and data.startswith(_ZEROS[: len(data) - at], at):
            if at > start:
                yield address + start, data[start:at]
            start = at + PAGE
    if start == 0:
        yield address, data
    elif start < len(data):
        yield address + start, data[start:]


def _capture_runs(
    tracee: Tracee, mapping: Mapping, keep_zeros: bool, store: StoreMemory
) -> list[PageRun]:
    # The kernel's own pages show as file pages; of a file that cannot be had, all must come from
    # memory, also what the program has not touched yet. Reading a device's memory may do things.
    whole = mapping.name == "[vdso]" or (
        mapping.is_file
        and not keep_zeros
        and mapping.end - mapping.start <= _UNTOUCHED_LIMIT
        and not (mapping.name.startswith("/dev/") and not mapping.name.startswith("/dev/shm/"))
    )
    if whole:
        return store(tracee, mapping.start, mapping.end - mapping.start, keep_zeros)
    if mapping.is_file and not keep_zeros:
        mapping = mapping._replace(shared=True)
    runs: list[PageRun] = []
    for start, length in populated_runs(tracee.pid, mapping):
        runs += store(tracee, start, length, keep_zeros)
    return runs


def store_by(add_data: Callable[[bytes], int]) -> StoreMemory:
    """The plain way of storing memory: read and given to `add_data`, CHUNK bytes at a time."""

    def store(tracee: Tracee, start: int, length: int, keep_zeros: bool) -> list[PageRun]:
        runs: list[PageRun] = []
        for at in range(start, start + length, CHUNK):
            data = tracee.read_some(at, min(CHUNK, start + length - at))
            parts = iter([(at, data)]) if keep_zeros else nonzero_parts(at, data)
            runs.extend(PageRun(a, len(part), add_data(part)) for a, part in parts if part)
        return runs

    return store


def capture(
    tracee: Tracee,
    event: int,
    files: FileRecorder,
    add_data: Callable[[bytes], int],
    store: StoreMemory | None = None,
) -> Image:
    """The image of a stopped tracee, between two instructions (not inside a system call).

    `event` is the number of the last event before it; pages go to `add_data`, which returns where
    they are, or else to `store`. Raises OSError when the process is gone.
    """
    store = store or store_by(add_data)
    mappings = []
    exe = os.readlink(f"/proc/{tracee.pid}/exe")
    exe_file = -1
    for mapping in read_maps(tracee.pid):
        if mapping.is_kernel:
            continue
        file = files.mapped(mapping) if mapping.is_file else None
        if file is not None and exe_file < 0 and mapping.name == exe:
            exe_file = file
        mappings.append(
            MappingImage(
                start=mapping.start,
                end=mapping.end,
                prot=mapping.prot,
                shared=mapping.shared,
                offset=mapping.offset,
                file=file,
                name=mapping.name,
                runs=tuple(_capture_runs(tracee, mapping, file is not None, store)),
            )
        )
    stack_limit = resource.prlimit(tracee.pid, resource.RLIMIT_STACK)[0]
    with open(f"/proc/{tracee.pid}/auxv", "rb") as auxv_file:
        auxv = auxv_file.read()
    return Image(
        event=event,
        task=tracee.pid,
        registers=bytes(tracee.registers()),
        xsave=tracee.xsave(),
        auxv=auxv,
        mm=_memory_layout(tracee.pid, read_maps(tracee.pid)),
        stack_limit=stack_limit if stack_limit >= 0 else 0,
        exe=exe,
        exe_file=exe_file,
        mappings=tuple(mappings),
    )


def _memory_layout(pid: int, mappings: list[Mapping]) -> tuple[int, ...]:
    """start_code .. env_end, as `struct prctl_mm_map` orders them (prctl(2), proc_pid_stat(5))."""
    with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
        fields = file.read().rsplit(")", 1)[1].split()

    def field(number: int) -> int:
        return int(fields[number - 3])

    start_brk = field(47)
    brk = max((m.end for m in mappings if m.name == "[heap]"), default=start_brk)
    return (
        field(26), field(27), field(45), field(46), start_brk, brk, field(28),
        field(48), field(49), field(50), field(51),
    )  # fmt: skip


# -- restoring ----------------------------------------------------------------------------------


class ImageSource(Protocol):
    """What restoring needs beside the image: files by id, and stored pages."""

    def file_path(self, file_id: int) -> str:
        """A path, for the tracee to open, of a file with the recorded content."""

    def is_stored(self, file_id: int) -> bool:
        """Whether there can be a copy of a file."""

    def copy_path(self, file_id: int, in_step: bool = False) -> str:
        """The path of a copy of a file, that recorded changes of it go to."""

    def data(self, block: int, length: int) -> bytes:
        """Stored bytes."""


class RemoteMemory:
    """Makes mappings in a tracee by remote system calls."""

    def __init__(self, tracee: Tracee) -> None:
        self._tracee = tracee

    def map_anonymous(self, address: int, length: int, prot: int, grows_down: bool = False) -> None:
        """Map private zeroed memory at exactly `address`, over whatever is there."""
        flags = _MAP_PRIVATE | _MAP_ANONYMOUS | _MAP_FIXED | _MAP_NORESERVE
        if grows_down:
            flags |= _MAP_GROWSDOWN
        self._tracee.remote_syscall(_NR_MMAP, address, length, prot, flags, -1, 0)

    def map_file(
        self,
        address: int,
        length: int,
        prot: int,
        path: str,
        offset: int,
        shared: bool = False,
        writable: bool = True,
    ) -> None:
        """Map a file, privately or shared, at exactly `address`.

        A shared mapping of one that is not `writable` cannot be made so by mprotect(2).
        """
        name = os.fsencode(path) + b"\0"
        self._tracee.write(STUB_SCRATCH, name)
        how = os.O_RDWR if shared and writable else os.O_RDONLY
        descriptor = self._tracee.remote_syscall(_NR_OPEN, STUB_SCRATCH, how, 0)
        try:
            flags = (_MAP_SHARED if shared else _MAP_PRIVATE) | _MAP_FIXED | _MAP_NORESERVE
            self._tracee.remote_syscall(_NR_MMAP, address, length, prot, flags, descriptor, offset)
        finally:
            self._tracee.remote_syscall(_NR_CLOSE, descriptor)

    def unmap(self, address: int, length: int) -> None:
        """Unmap whatever is mapped there."""
        if length:
            self._tracee.remote_syscall(_NR_MUNMAP, address, length)

    def clear(self) -> None:
        """Unmap everything but the stub."""
        self.unmap(0, STUB_START)
        self.unmap(STUB_END, USER_END - STUB_END)


def restore(tracee: Tracee, image: Image, source: ImageSource) -> None:
    """Build `image` in a tracee that runs the stub (and perhaps another image), in place.

    Its registers are the image's afterwards. Raises RemoteSyscallError, OSError or BadAddress when
    the kernel does not allow it, and what `source` raises.
    """
    memory = RemoteMemory(tracee)
    memory.clear()
    stack_start = image.mm[6]
    below = 0
    for mapping in image.mappings:
        length = mapping.end - mapping.start
        if mapping.file is not None:
            path, shared = _file_of(image, mapping, source)
            memory.map_file(mapping.start, length, mapping.prot, path, mapping.offset, shared)
            if shared:
                below = mapping.end
                continue  # its pages are the file's
        elif mapping.start <= stack_start < mapping.end:
            # It grows by itself, up to the limit, as it did while recording. A little of that in
            # advance, since a debugger's writes do not make a stack grow; all of it where the
            # limit cannot be set.
            room = image.stack_limit or length + STACK_IN_ADVANCE
            if limit_stack(tracee.pid, image.stack_limit):
                room = min(room, length + STACK_IN_ADVANCE)
            lowest = max(mapping.end - room // PAGE * PAGE, below + STACK_GUARD_GAP)
            start = min(lowest, mapping.start)
            memory.map_anonymous(start, mapping.end - start, mapping.prot, grows_down=True)
            floor = stack_floor(mapping.end, image.stack_limit)
            if floor and below < floor - PAGE and floor <= start:
                memory.map_anonymous(floor - PAGE, PAGE, 0)
        else:
            memory.map_anonymous(mapping.start, length, mapping.prot)
        for run in mapping.runs:
            tracee.write(run.address, source.data(run.block, run.length))
        below = mapping.end
    _set_memory_layout(tracee, image)
    tracee.set_xsave(image.xsave)
    tracee.set_registers(Registers.from_bytes(image.registers))


def _file_of(image: Image, mapping: MappingImage, source: ImageSource) -> tuple[str, bool]:
    """The path of what to map for a mapping of a file, and whether to map it shared.

    A file of data, which may change, is a copy; one of code, which is not written to, is not.
    """
    file = mapping.file
    assert file is not None
    code = file == image.exe_file or any(m.file == file and m.prot & 4 for m in image.mappings)
    if source.is_stored(file) and (mapping.shared or not code):
        return source.copy_path(file, True), mapping.shared
    return source.file_path(file), False


def stack_floor(end: int, limit: int) -> int:
    """The lowest address that a stack which ends at `end` may grow to; 0 without a limit.

    A page without access is put below it. Reading or writing a process's memory from outside makes
    its stack grow, too, and the kernel asks for the limit of who does it then (mm/memory.c,
    __access_remote_vm): a debugger's look would take the place where the stack was full.
    """
    return end - limit // PAGE * PAGE if limit else 0


def limit_stack(pid: int, limit: int) -> bool:
    """Give a tracee the stack limit that the recorded program had (0: none), if that may be."""
    wanted = limit or resource.RLIM_INFINITY
    try:
        hard = resource.prlimit(pid, resource.RLIMIT_STACK)[1]
        resource.prlimit(pid, resource.RLIMIT_STACK, (wanted, hard))
    except (OSError, ValueError):
        return False
    return True


def _set_memory_layout(tracee: Tracee, image: Image) -> None:
    """Tell the kernel auxv, brk and stack start, which debuggers ask it for (PR_SET_MM_MAP).

    A kernel without CONFIG_CHECKPOINT_RESTORE refuses: the replay is as faithful, but a debugger
    sees the stub's auxv then.
    """
    auxv_at = STUB_SCRATCH
    layout_at = STUB_SCRATCH + 0x1000
    tracee.write(auxv_at, image.auxv)
    layout = struct.pack("<12QIi", *image.mm, auxv_at, len(image.auxv), -1)
    tracee.write(layout_at, layout)
    try:
        tracee.remote_syscall(_NR_PRCTL, _PR_SET_MM, _PR_SET_MM_MAP, layout_at, len(layout), 0)
    except RemoteSyscallError:
        pass


# -- checksums ----------------------------------------------------------------------------------


def checksum_spans(pid: int) -> Iterator[tuple[int, int]]:
    """(address, length), at most CHUNK bytes each, of writable memory that may not be zero."""
    pagemap = open_pagemap(pid)
    try:
        for mapping in read_maps(pid):
            if mapping.prot & 2 == 0 or mapping.is_kernel or mapping.start in _STUB_RANGE:
                continue
            length = mapping.end - mapping.start
            if mapping.shared:
                # Who has touched which page may differ; reading all would fill the holes.
                spans = iter([(mapping.start, min(length, CHECKED_SHARED))])
            elif mapping.is_file and not mapping.name.startswith("/dev/zero"):
                spans = iter([(mapping.start, min(length, CHECKED_FILE))])
            else:
                spans = populated(pagemap, mapping._replace(inode=0))
            for start, size in spans:
                for at in range(start, start + size, CHUNK):
                    yield at, min(CHUNK, start + size - at)
    finally:
        if pagemap >= 0:
            os.close(pagemap)


def checksum(
    tracee: Tracee,
    rsp: int,
    instead: Known | None = None,
    without: Collection[tuple[int, int]] = (),
) -> bytes:
    """A 16-byte digest of all writable memory (see CHECKED_FILE); pages of zeros do not count.

    `instead` has bytes, by (address, length) of their mapping, to be taken for what is there;
    mappings `without`, (start, end), are none of the program's.

    So it is the same for memory that was never touched and for memory that holds zeros, and for a
    stack that grew and one that had its size from the start.

    What lies below the stack pointer `rsp` and its red zone counts as zeros. The dynamic linker
    leaves XSAVEC areas there, and which parts of one are written depends on what the processor
    holds to be in use, which no program can see otherwise (Intel SDM vol. 1, 13.6, XINUSE).
    On another stack than the main one that is a fixed length: what it is part of may be one mapping
    with its neighbours while recording, and several in a replay.
    """
    digest = hashlib.blake2b(digest_size=16)
    dead_end = rsp - _RED_ZONE
    dead_start = next(
        (m.start for m in read_maps(tracee.pid) if m.name == "[stack]" and m.start <= rsp < m.end),
        dead_end - _OTHER_STACK,
    )
    for at, length in checksum_spans(tracee.pid):
        if any(start <= at < end for start, end in without):
            continue
        data = tracee.read_some(at, length)
        if instead:
            data = _replaced(at, data, instead)
        first, last = max(dead_start, at) - at, min(dead_end, at + len(data)) - at
        if first < last:
            data = data[:first] + bytes(last - first) + data[last:]
        for page in range(0, len(data), PAGE):
            part = data[page : page + PAGE]
            if part != _ZEROS[: len(part)]:
                digest.update(struct.pack("<Q", at + page))
                digest.update(part)
    return digest.digest()


def _replaced(at: int, data: bytes, instead: Known) -> bytes:
    end = at + len(data)
    for (start, _), other in instead.items():
        first, last = max(start, at), min(start + len(other), end)
        if first < last:
            data = data[: first - at] + other[first - start : last - start] + data[last - at :]
    return data


_RED_ZONE = 128
_OTHER_STACK = 64 << 10
_STUB_RANGE = range(STUB_START, STUB_END)

__all__ = [
    "BadAddress",
    "FileRecorder",
    "ImageSource",
    "RemoteMemory",
    "capture",
    "checksum",
    "checksum_spans",
    "limit_stack",
    "populated_runs",
    "restore",
    "stack_floor",
]
