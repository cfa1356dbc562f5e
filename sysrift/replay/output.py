# SPDX-License-Identifier: GPL-2.0-or-later
"""What the program wrote to its stdout and stderr, seen from the events alone."""

from __future__ import annotations

from sysrift.syscalls import NAMES, BadAddress, lookup
from sysrift.trace.model import Event
from sysrift.tracee import Tracee

_WRITES = {NAMES[name] for name in ("write", "writev", "pwrite64", "pwritev", "pwritev2")}
_DUPLICATES = {NAMES[name] for name in ("dup", "dup2", "dup3")}
_FCNTL, _CLOSE = NAMES["fcntl"], NAMES["close"]
_F_DUPFD, _F_DUPFD_CLOEXEC = 0, 1030


class ProgramOutput:
    """Follows which descriptors are the program's first stdout and stderr."""

    def __init__(self) -> None:
        self._streams: dict[int, int] = {1: 1, 2: 2}
        self._watched: set[int] = _WRITES | _DUPLICATES | {_FCNTL, _CLOSE}

    @property
    def watched(self) -> frozenset[int]:
        """The calls that it has to see, when they are about `descriptors`."""
        return frozenset(self._watched)

    @property
    def descriptors(self) -> int:
        """Those of stdout and stderr, as a set of bits, those below 64 only."""
        return sum(1 << fd for fd in self._streams if fd < 64)

    def has(self, fd: int) -> bool:
        """Whether a descriptor is one of them."""
        return fd & 0xFFFFFFFF in self._streams

    def bytes_written(self, event: Event, tracee: Tracee) -> bytes:
        """What a system call, about to be replayed, writes to stdout or stderr; often nothing."""
        if event.nr not in self._watched or event.result < 0:
            return b""
        fd = event.args[0] & 0xFFFFFFFF
        if event.nr in _WRITES:
            return self._data(event, tracee) if fd in self._streams else b""
        if event.nr == _CLOSE:
            self._streams.pop(fd, None)
        elif event.nr in _DUPLICATES or event.args[1] in (_F_DUPFD, _F_DUPFD_CLOEXEC):
            if fd in self._streams:
                self._streams[event.result] = self._streams[fd]
            else:
                self._streams.pop(event.result, None)
        return b""

    def _data(self, event: Event, tracee: Tracee) -> bytes:
        row = lookup(event.nr)
        data = b""
        if row is not None:
            for _, address, length, kind in row.inputs(event.args, tracee):
                if kind == "data":
                    try:
                        data += tracee.read(address, length)
                    except BadAddress:
                        break
        return data[: event.result]
