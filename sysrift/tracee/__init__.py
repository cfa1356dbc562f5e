# SPDX-License-Identifier: GPL-2.0-or-later
"""A stopped process: its registers, memory, signals, and system calls made on its behalf.

Runs in the recorder, in `sysrift verify` and inside GDB (whose main thread is the tracer there),
so it stands on ctypes and the standard library alone.
"""

from sysrift.syscalls import BadAddress
from sysrift.tracee.maps import Mapping, read_maps
from sysrift.tracee.process import Entry, Exit, RemoteSyscallError, Tracee, TraceeGone
from sysrift.tracee.registers import Registers

__all__ = [
    "BadAddress",
    "Entry",
    "Exit",
    "Mapping",
    "Registers",
    "RemoteSyscallError",
    "Tracee",
    "TraceeGone",
    "read_maps",
]
