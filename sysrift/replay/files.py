# SPDX-License-Identifier: GPL-2.0-or-later
"""The files that a recorded program had mapped: the originals, or what the trace holds of them."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from sysrift.errors import TraceError
from sysrift.extents import data_extents, read_extents
from sysrift.image import RemoteMemory, populated_runs
from sysrift.trace.model import FileReference
from sysrift.trace.reader import Trace
from sysrift.tracee import Mapping, Tracee, read_maps

_CHUNK = 1 << 20


@dataclass
class _Copy:
    """A file of this process's own that stands for one that the program had mapped."""

    descriptor: int
    inode: int
    last: int = 0  # the FileReference.id whose bytes were put into it last


Copies = dict[tuple[object, ...], _Copy]
"""Copies of files, by what tells the file from others."""


def close_copies(copies: Copies) -> None:
    """Let go of copies that were kept."""
    for copy in copies.values():
        os.close(copy.descriptor)


class FileSource:
    """Finds recorded files by id (`image.ImageSource`).

    What was mapped is the original where that is unchanged, and never written to. Else, and for
    all that may change, it is a *copy*: an anonymous file (memfd), one for each recorded file, into
    which the recorded changes go. The kernel makes them seen in its mappings as it did then. Copies
    are gone with this process, whatever becomes of it.
    """

    def __init__(self, trace: Trace) -> None:
        self._trace = trace
        self._paths: dict[int, str] = {}
        self._descriptors: dict[int, int] = {}
        self._copies: dict[tuple[object, ...], _Copy] = {}

    def close(self) -> None:
        """Let go of the anonymous files."""
        for descriptor in self._descriptors.values():
            os.close(descriptor)
        self._descriptors.clear()
        self.forget_copies()
        self._paths.clear()

    def fork(self, tracee: Tracee) -> FileSource:
        """The same for a copy of the tracee: what is mapped shared there becomes a copy too.

        A fork's shared mappings are its parent's. But what the two wrote there is in the events of
        each, so in a replay neither may see the other's.
        """
        child = FileSource(self._trace)
        mappings = [m for m in read_maps(tracee.pid) if m.name.startswith("/memfd:")]
        for key, copy in self._copies.items():
            if not any(m.inode == copy.inode for m in mappings):
                continue  # the next mapping of it brings its bytes along
            twin = child._copies[key] = _twin(copy)
            path = _path_of(twin.descriptor)
            for mapping in mappings:
                if mapping.inode == copy.inode:
                    _map_instead(tracee, mapping, path)
        return child

    @property
    def recorded_pid(self) -> int:
        """The process id that the program had."""
        return self._trace.process.pid

    def data(self, block: int, length: int) -> bytes:
        """Stored bytes of an image."""
        return self._trace.data(block, length)

    def is_stored_copy(self, file_id: int) -> bool:
        """Whether the original is gone or changed, and the trace's copy is in use."""
        self.file_path(file_id)
        return file_id in self._descriptors

    def file_path(self, file_id: int) -> str:
        """A path, good for this process and its children, of the file as it was recorded.

        Raises TraceError when the file has changed and the trace does not hold it.
        """
        known = self._paths.get(file_id)
        if known is None:
            reference = self._trace.files.get(file_id)
            if reference is None:
                raise TraceError(f"damaged trace: there is no file {file_id} in it")
            known = reference.path if _unchanged(reference) else self._extract(reference)
            self._paths[file_id] = known
        return known

    def is_stored(self, file_id: int) -> bool:
        """Whether the trace holds the bytes of a file, so that there can be a copy of it."""
        reference = self._trace.files.get(file_id)
        return reference is not None and reference.is_stored

    def copy_path(self, file_id: int, in_step: bool = False) -> str:
        """A path of the copy of a file, with the bytes that it had when it was mapped as `file_id`.

        `in_step`: a copy that was made as this very id is right as it is, with all that the program
        did to it since.
        """
        reference = self._trace.files[file_id]
        key = _key(reference)
        copy = self._copies.get(key)
        if copy is None:
            copy = self._copies[key] = _new_copy(Path(reference.path).name)
        if not in_step or copy.last != file_id:
            self._fill(copy.descriptor, reference)
            copy.last = file_id
        return _path_of(copy.descriptor)

    def _fill(self, descriptor: int, reference: FileReference) -> None:
        os.ftruncate(descriptor, reference.size)
        if reference.extents:
            _clear(descriptor, reference.offset, reference.length)
        for at, part in self._pieces(reference):
            os.pwrite(descriptor, part, at)

    def _pieces(self, reference: FileReference) -> Iterator[tuple[int, bytes]]:
        """(offset, bytes) of what is stored of a file."""
        parts = iter(reference.parts)
        at = rest = 0
        for data in self._trace.file_content(reference):
            while not rest:
                at, rest = next(parts, (at, len(data)))
            yield at, data
            at += len(data)
            rest -= len(data)

    def resize(self, file_id: int, size: int) -> None:
        """A file that is mapped has this size now."""
        copy = self._copies.get(_key(self._trace.files[file_id]))
        if copy is not None:
            os.ftruncate(copy.descriptor, size)

    def change(self, file_id: int, offset: int, data: bytes) -> None:
        """A file that is mapped holds these bytes now."""
        copy = self._copies.get(_key(self._trace.files[file_id]))
        if copy is not None:
            os.pwrite(copy.descriptor, data, offset)

    def memory_path(self, name: str, number: int, size: int) -> str:
        """A path of zeroed memory that several mappings can share: a new one for each number."""
        key = (name, number)
        copy = self._copies.get(key)
        if copy is None or os.fstat(copy.descriptor).st_size != size:
            if copy is not None:
                os.close(copy.descriptor)
            copy = self._copies[key] = _new_copy(name)
            os.ftruncate(copy.descriptor, size)
        return _path_of(copy.descriptor)

    def write_behind(self, mapping: Mapping, address: int, data: bytes) -> bool:
        """Write through a shared mapping that is not writable; False when it is no copy's."""
        for copy in self._copies.values():
            if copy.inode == mapping.inode and mapping.shared:
                os.pwrite(copy.descriptor, data, mapping.offset + address - mapping.start)
                return True
        return False

    @property
    def size_of_copies(self) -> int:
        """Bytes that the copies of files, and memory that can be shared, take."""
        return sum(os.fstat(copy.descriptor).st_blocks * 512 for copy in self._copies.values())

    @property
    def inodes_of_copies(self) -> list[int]:
        """The inodes of the copies, in the order of `keep_copies` and `put_back_copies`."""
        return [copy.inode for copy in self._copies.values()]

    def keep_copies(self) -> Copies:
        """The copies as they are now. To be closed by `close_copies`."""
        return {key: _twin(copy) for key, copy in self._copies.items()}

    def put_back_copies(self, kept: Copies) -> list[str]:
        """Have copies as they were when these were kept; returns their paths."""
        self.forget_copies()
        self._copies = {key: _twin(copy) for key, copy in kept.items()}
        return [_path_of(copy.descriptor) for copy in self._copies.values()]

    def paths_in_use(self) -> list[tuple[int, str]]:
        """(id, path) of the files that have been asked for so far, and are not copies."""
        return list(self._paths.items())

    def forget_copies(self) -> None:
        """Begin anew: nothing is mapped yet."""
        for copy in self._copies.values():
            os.close(copy.descriptor)
        self._copies.clear()

    def _extract(self, reference: FileReference) -> str:
        if not reference.is_stored:
            state = "has changed" if Path(reference.path).exists() else "is gone"
            raise TraceError(
                f"{reference.path} {state} since the recording, and the trace does not hold it: "
                "put the recorded version back, or record again with --store-all"
            )
        descriptor = _memfd(Path(reference.path).name)
        self._descriptors[reference.id] = descriptor
        digest = hashlib.sha256()
        os.ftruncate(descriptor, reference.size if reference.extents else reference.offset)
        for at, part in self._pieces(reference):
            digest.update(part)
            view = memoryview(part)
            while view:
                written = os.pwrite(descriptor, view, at)
                view = view[written:]
                at += written
        if digest.hexdigest() != reference.sha256:
            raise TraceError(f"damaged trace: its copy of {reference.path} is not what it was")
        return _path_of(descriptor)


def _key(reference: FileReference) -> tuple[object, ...]:
    """What tells a file from others: its name may be another's too, and may change."""
    if reference.inode:
        return ("file", reference.device, reference.inode)
    return ("file", reference.path)


def _path_of(descriptor: int) -> str:
    return f"/proc/{os.getpid()}/fd/{descriptor}"


def _memfd(name: str) -> int:
    return os.memfd_create(os.fsdecode(os.fsencode(name)[:200]))


def _new_copy(name: str) -> _Copy:
    descriptor = _memfd(name)
    return _Copy(descriptor, os.fstat(descriptor).st_ino)


def _twin(copy: _Copy) -> _Copy:
    """A copy with the same bytes."""
    name = os.readlink(f"/proc/self/fd/{copy.descriptor}").removeprefix("/memfd:")
    twin = _new_copy(name.removesuffix(" (deleted)"))
    size = os.fstat(copy.descriptor).st_size
    os.ftruncate(twin.descriptor, size)
    extents = data_extents(copy.descriptor, 0, size)
    for offset, length in extents:
        at = offset
        for part in read_extents(copy.descriptor, ((offset, length),)):
            os.pwrite(twin.descriptor, part, at)
            at += len(part)
    twin.last = copy.last
    return twin


def _clear(descriptor: int, offset: int, length: int) -> None:
    """Make a part of a file read as zeros, its holes staying holes."""
    for start, count in data_extents(descriptor, offset, length):
        for at in range(start, start + count, _CHUNK):
            os.pwrite(descriptor, bytes(min(_CHUNK, start + count - at)), at)


def _map_instead(tracee: Tracee, mapping: Mapping, path: str) -> None:
    """Map another file in the place of `mapping`; pages that were written to privately stay."""
    own: list[tuple[int, bytes]] = []
    if not mapping.shared:
        for start, length in populated_runs(tracee.pid, mapping):
            own.append((start, tracee.read_some(start, length)))
    RemoteMemory(tracee).map_file(
        mapping.start,
        mapping.end - mapping.start,
        mapping.prot,
        path,
        mapping.offset,
        mapping.shared,
    )
    for start, data in own:
        tracee.write(start, data)


def _unchanged(reference: FileReference) -> bool:
    """Whether the file is as it was: same size and time, or else the same bytes."""
    try:
        with open(reference.path, "rb", buffering=0) as file:
            status = os.fstat(file.fileno())
            if status.st_size == reference.size and status.st_mtime_ns == reference.mtime_ns:
                return True
            if status.st_size < reference.offset + reference.length:
                return False
            digest = hashlib.sha256()
            for part in read_extents(file.fileno(), reference.parts):
                digest.update(part)
            return digest.hexdigest() == reference.sha256
    except (OSError, ValueError):
        return False
