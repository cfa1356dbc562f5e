# SPDX-License-Identifier: GPL-2.0-or-later
"""The files that a recorded program had mapped: the originals, or what the trace holds of them."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from sysrift.errors import TraceError
from sysrift.image import RemoteMemory
from sysrift.trace.model import FileReference
from sysrift.trace.reader import Trace
from sysrift.tracee import Tracee, read_maps

_CHUNK = 1 << 20
_MAP_PRIVATE = 2


class FileSource:
    """Finds recorded files by id (`image.ImageSource`).

    An original that changed is replaced by the stored bytes, in an anonymous file (memfd) that is
    gone with this process, whatever becomes of it.
    """

    def __init__(self, trace: Trace) -> None:
        self._trace = trace
        self._paths: dict[int, str] = {}
        self._descriptors: dict[int, int] = {}
        self._shared: dict[str, tuple[int, int]] = {}

    def close(self) -> None:
        """Let go of the anonymous files."""
        for descriptor in self._descriptors.values():
            os.close(descriptor)
        self._descriptors.clear()
        self.forget_shared()
        self._paths.clear()

    def fork(self, tracee: Tracee) -> FileSource:
        """The same for a copy of the tracee: what is mapped shared there becomes a copy too.

        A fork's shared mappings are its parent's. But what the two wrote there is in the events of
        each, so in a replay neither may see the other's.
        """
        child = FileSource(self._trace)
        copies: dict[int, int] = {}
        for path, (descriptor, last) in self._shared.items():
            name = os.readlink(f"/proc/self/fd/{descriptor}").removeprefix("/memfd:")
            copied = os.memfd_create(name.removesuffix(" (deleted)"))
            size = os.fstat(descriptor).st_size
            os.ftruncate(copied, size)
            for at in range(0, size, _CHUNK):
                os.pwrite(copied, os.pread(descriptor, _CHUNK, at), at)
            child._shared[path] = (copied, last)
            copies[os.fstat(descriptor).st_ino] = copied
        memory = RemoteMemory(tracee)
        for mapping in read_maps(tracee.pid) if copies else ():
            copied = copies.get(mapping.inode, -1)
            if mapping.name.startswith("/memfd:") and copied >= 0:
                length = mapping.end - mapping.start
                where = f"/proc/{os.getpid()}/fd/{copied}"
                memory.map_file(
                    mapping.start, length, mapping.prot, where, mapping.offset, mapping.shared
                )
        return child

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

    def is_shared(self, file_id: int, map_type: int) -> bool:
        """Whether a mapping of type `map_type` (MAP_SHARED, ...) may be seen to be shared."""
        reference = self._trace.files.get(file_id)
        return map_type != _MAP_PRIVATE and reference is not None and bool(reference.chunks)

    def has_shared(self, file_id: int) -> bool:
        """Whether the same file is mapped shared already."""
        reference = self._trace.files.get(file_id)
        return reference is not None and reference.path in self._shared and bool(reference.chunks)

    def shared_path(self, file_id: int) -> str:
        """A path of a copy of a file that all shared mappings of it see alike.

        The real file is never written to. A later mapping of the file finds it as it was recorded
        then.
        """
        reference = self._trace.files[file_id]
        descriptor, last = self._shared.get(reference.path, (-1, -1))
        if descriptor < 0:
            descriptor = os.memfd_create(Path(reference.path).name[:200])
        if last != file_id:
            os.ftruncate(descriptor, reference.size)
            at = reference.offset
            for part in self._trace.file_content(reference):
                os.pwrite(descriptor, part, at)
                at += len(part)
            self._shared[reference.path] = (descriptor, file_id)
        return f"/proc/{os.getpid()}/fd/{descriptor}"

    def forget_shared(self) -> None:
        """Begin anew: nothing is shared yet."""
        for descriptor, _ in self._shared.values():
            os.close(descriptor)
        self._shared.clear()

    def _extract(self, reference: FileReference) -> str:
        if not reference.chunks and reference.length:
            state = "has changed" if Path(reference.path).exists() else "is gone"
            raise TraceError(
                f"{reference.path} {state} since the recording, and the trace does not hold it: "
                "put the recorded version back, or record again with --store-all"
            )
        descriptor = os.memfd_create(Path(reference.path).name[:200])
        self._descriptors[reference.id] = descriptor
        digest = hashlib.sha256()
        os.ftruncate(descriptor, reference.offset)
        os.lseek(descriptor, reference.offset, os.SEEK_SET)
        for part in self._trace.file_content(reference):
            digest.update(part)
            view = memoryview(part)
            while view:
                view = view[os.write(descriptor, view) :]
        if digest.hexdigest() != reference.sha256:
            raise TraceError(f"damaged trace: its copy of {reference.path} is not what it was")
        return f"/proc/{os.getpid()}/fd/{descriptor}"


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
            at, end = reference.offset, reference.offset + reference.length
            while at < end:
                part = os.pread(file.fileno(), min(_CHUNK, end - at), at)
                if not part:
                    return False
                digest.update(part)
                at += len(part)
            return digest.hexdigest() == reference.sha256
    except (OSError, ValueError):
        return False
