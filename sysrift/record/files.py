# SPDX-License-Identifier: GPL-2.0-or-later
"""Naming the files that a program maps, by content, and storing those that may change."""

from __future__ import annotations

import hashlib
import os
import stat
import time
from collections.abc import Callable, Iterable
from typing import NamedTuple

from sysrift.extents import data_extents, read_extents
from sysrift.trace.model import FileReference
from sysrift.tracee import Mapping

SYSTEM_PREFIXES = ("/usr/", "/lib/", "/lib64/", "/bin/", "/sbin/")
"""Files below these are referred to by content hash only: package managers own them."""

LOCAL_PREFIXES = ("/usr/local/", "/usr/src/")
"""Below a system prefix, but people build there."""

LARGE = 64 << 20
"""A larger file is named, and stored, by the extent that is mapped."""

_PAGE = 4096
_SETTLED = 1.0
"""A file that changed less than this many seconds ago may change again without its mtime showing
it (timestamps have the granularity of a jiffy), so its hash is not remembered."""

Identity = tuple[int, int]
"""(device, inode) of a file, as stat(2) gives them: it keeps them while it is open or mapped."""


class Opened(NamedTuple):
    """A file that a program has open."""

    file: int  # FileReference.id
    identity: Identity
    size: int
    writable: bool  # by this descriptor


AddFile = Callable[[FileReference, Iterable[bytes] | None], FileReference]


def is_system_file(path: str) -> bool:
    """Whether a file is expected to stay as it is (see SYSTEM_PREFIXES)."""
    return path.startswith(SYSTEM_PREFIXES) and not path.startswith(LOCAL_PREFIXES)


class FileTable:
    """The files of a recording. `add` puts a reference (and perhaps bytes) into the trace."""

    def __init__(self, add: AddFile, store_all: bool = False) -> None:
        self._add = add
        self._store_all = store_all
        self._known: dict[tuple[int, int, int, int, int, int, bool], int] = {}
        self._system: set[int] = set()
        self._by_content: dict[tuple[str, str, int, Identity, bool], int] = {}
        self._written_by_mapping: set[Identity] = set()

    def mapped(self, mapping: Mapping, pid: int) -> int | None:
        """The id of the file behind a mapping of `pid`, None when it cannot be read.

        It is opened by its name, or where that names it no more (deleted, replaced, a memfd) as the
        program of the process, or by proc(5)'s map_files, which root may use.
        """
        by_name = f"/proc/{pid}/root{mapping.name}"
        for way in (
            by_name,
            f"/proc/{pid}/exe",
            f"/proc/{pid}/map_files/{mapping.start:x}-{mapping.end:x}",
        ):
            try:
                descriptor = os.open(way, os.O_RDONLY | os.O_CLOEXEC)
            except (OSError, ValueError):
                continue
            try:
                if os.fstat(descriptor).st_ino == mapping.inode:
                    return self._reference(
                        descriptor, mapping.name, mapping.offset, mapping.end - mapping.start,
                        keep=mapping.shared or way is not by_name,
                    )  # fmt: skip
            finally:
                os.close(descriptor)
        return None

    def opened(self, pid: int, fd: int, offset: int, length: int, shared: bool) -> Opened | None:
        """The file behind descriptor `fd` of `pid`, of which an extent was mapped.

        The bytes of one that is mapped `shared` or open for writing are stored in any case.
        None when it is no regular file or cannot be read.
        """
        link = f"/proc/{pid}/fd/{fd}"
        try:
            path = os.readlink(link)
            if not stat.S_ISREG(os.stat(link).st_mode):
                return None
            descriptor = os.open(link, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except OSError:
            return None
        try:
            status = os.fstat(descriptor)
            identity = (status.st_dev, status.st_ino)
            # What a mapping writes does not show in a file's times (a memfd's, never).
            whole = identity not in self._written_by_mapping
            # A symbolic link of /proc/PID/fd has the owner's write bit if the file is open so.
            writable = bool(os.lstat(link).st_mode & stat.S_IWUSR)
            keep = shared or writable
            file = self._reference(descriptor, path, offset, length, keep, whole)
            if file is None:
                return None
            if shared and writable:
                self._written_by_mapping.add(identity)
            return Opened(file, identity, status.st_size, writable)
        except OSError:
            return None
        finally:
            os.close(descriptor)

    def is_system(self, file: int) -> bool:
        """Whether a file is one of the system's own, expected to stay as it is."""
        return file in self._system

    def _reference(
        self,
        descriptor: int,
        path: str,
        offset: int,
        length: int,
        keep: bool = False,
        whole: bool = True,
    ) -> int | None:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            return None
        if whole and status.st_size <= LARGE:
            offset, length = 0, status.st_size
        else:
            offset -= offset % _PAGE
            length = max(min(length, status.st_size - offset), 0)
        identity = (status.st_dev, status.st_ino)
        keep = keep or self._store_all or not is_system_file(path)
        key = (*identity, status.st_mtime_ns, status.st_size, offset, length, keep)
        known = self._known.get(key) if whole else None
        if known is not None:
            return known
        extents = data_extents(descriptor, offset, length)
        digest = hashlib.sha256()
        try:
            for part in read_extents(descriptor, extents):
                digest.update(part)
        except OSError:
            return None
        content = (digest.hexdigest(), path, offset, identity, keep)
        known = self._by_content.get(content)
        if known is None:
            reference = FileReference(
                id=0,
                path=path,
                size=status.st_size,
                mtime_ns=status.st_mtime_ns,
                offset=offset,
                length=length,
                sha256=digest.hexdigest(),
                device=status.st_dev,
                inode=status.st_ino,
                extents=() if extents == ((offset, length),) else extents,
            )
            body = read_extents(descriptor, extents) if keep else None
            known = self._add(reference, body).id
            self._by_content[content] = known
            if is_system_file(path):
                self._system.add(known)
        if time.time() - status.st_mtime > _SETTLED:
            self._known[key] = known
        return known
