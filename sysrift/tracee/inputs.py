# SPDX-License-Identifier: GPL-2.0-or-later
"""The data that a program hands in by a system call: its checksum, and its leading bytes.

Recorder and replayer must read the same memory in the same way, so both come here.
"""

from __future__ import annotations

import zlib

from sysrift.syscalls import BadAddress, Row
from sysrift.tracee.process import Tracee

SHOWN = {"data": 32, "struct": 256, "string": 4096}
"""Leading bytes worth keeping for people to read, by kind of range."""

_CHUNK = 1 << 20

Shown = tuple[int, int, bytes]
"""(argument, address, leading bytes)."""


def input_checksum(
    row: Row, args: tuple[int, ...], tracee: Tracee, shown: list[Shown] | None = None
) -> int:
    """The CRC-32 of all that the call at a syscall-entry-stop hands in; 0 when that is nothing.

    The leading bytes of each range are appended to `shown`. Memory that cannot be read ends its
    range there.
    """
    crc = 0
    for argument, address, length, kind in row.inputs(args, tracee):
        start = 0
        while start < length:
            part = min(_CHUNK, length - start)
            try:
                data = tracee.read(address + start, part)
            except BadAddress:
                break
            crc = zlib.crc32(data, crc)
            if shown is not None and not start:
                shown.append((argument, address, data[: SHOWN[kind]]))
            start += part
    return crc
