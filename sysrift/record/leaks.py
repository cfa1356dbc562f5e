# SPDX-License-Identifier: GPL-2.0-or-later
"""Closing what lets the outside into a process without a system call.

The vDSO's functions become real system calls, rdtsc traps. (rseq and the system calls that would
undo this are handled at their entries in `recorder`; AT_RANDOM is in the image, randomisation is
switched off at the launch.)
"""

from __future__ import annotations

import contextlib
import struct

from sysrift.record.rseq import Rseq, register, unregister
from sysrift.record.vdso import vdso_functions
from sysrift.syscalls import NAMES, BadAddress
from sysrift.tracee import Mapping, RemoteSyscallError, Tracee, read_maps
from sysrift.tracee.kernel import PR_SET_TSC, PR_TSC_ENABLE, PR_TSC_SIGSEGV

_NR_PRCTL = NAMES["prctl"]

_SYSCALL_RET = b"\x0f\x05\xc3" + b"\xcc" * 5  # room for a jump behind it (see `sites`)
_MOV_EAX = b"\xb8"
_RETURN_ENOSYS = b"\x48\xc7\xc0" + struct.pack("<i", -38) + b"\xc3"  # mov $-38,%rax; ret

_VDSO_CALLS = ("clock_gettime", "gettimeofday", "time", "getcpu", "clock_getres")
# The query that glibc makes of __vdso_getrandom has no system call of the same meaning; ENOSYS
# makes it use getrandom(2) (glibc, sysdeps/unix/sysv/linux/getrandom.c).
_VDSO_REFUSED = ("getrandom",)


class ClosedLeaks:
    """What was changed in a process, so that it can be undone when it is let go."""

    def __init__(self) -> None:
        self.vdso: list[tuple[int, bytes]] = []
        self.tsc = False
        self.rseq: Rseq | None = None

    def close(self, tracee: Tracee, able: bool = True) -> list[str]:
        """Close the leaks of a tracee that stands at a syscall-exit-stop; returns remarks.

        Afterwards `tracee.remote_site` is usable. Not `able`: no system call may be made for it,
        since it has a filter; an rdtsc that traps already goes on doing so (it outlives execve).
        """
        remarks = []
        self.vdso = patch_vdso(tracee)
        if not self.vdso:
            remarks.append("no vDSO to close: time read without system calls is not recorded")
        self.rseq = None
        if tracee.remote_site and able:
            self.tsc = False
            try:
                tracee.remote_syscall(_NR_PRCTL, PR_SET_TSC, PR_TSC_SIGSEGV)
                self.tsc = True
            except RemoteSyscallError:
                remarks.append("rdtsc cannot be trapped here: programs using it may diverge")
            try:
                self.rseq = unregister(tracee)
            except RemoteSyscallError:
                remarks.append("rseq stays registered: the CPU's number may differ in a replay")
        return remarks

    def reopen(self, tracee: Tracee, shared_memory: bool = False, able: bool = True) -> None:
        """Undo it all in a tracee that is about to be let go.

        With `shared_memory` (a vfork child) memory is left alone. Not `able`: see `close`; rdtsc
        goes on trapping then.
        """
        if self.tsc and tracee.remote_site and able:
            try:
                tracee.remote_syscall(_NR_PRCTL, PR_SET_TSC, PR_TSC_ENABLE)
            except RemoteSyscallError:
                pass
        if not shared_memory:
            if self.rseq is not None and tracee.remote_site and able:
                register(tracee, self.rseq)
            for address, original in self.vdso:
                with contextlib.suppress(BadAddress):  # the program may have unmapped it
                    tracee.write(address, original)


def vdso_mapping(pid: int) -> Mapping | None:
    return next((m for m in read_maps(pid) if m.name == "[vdso]"), None)


def patch_vdso(tracee: Tracee) -> list[tuple[int, bytes]]:
    """Turn the vDSO's functions into system calls (vdso(7)); returns (address, original bytes).

    Sets `tracee.remote_site` to a `syscall` instruction that is there now.
    """
    mapping = vdso_mapping(tracee.pid)
    if mapping is None:
        return []
    image = tracee.read(mapping.start, mapping.end - mapping.start)
    patches = []
    for name, offset in vdso_functions(image).items():
        if name in _VDSO_CALLS:
            code = _MOV_EAX + struct.pack("<I", NAMES[name]) + _SYSCALL_RET
            tracee.remote_site = mapping.start + offset + 5
        elif name in _VDSO_REFUSED:
            code = _RETURN_ENOSYS
        else:
            continue
        address = mapping.start + offset
        patches.append((address, image[offset : offset + len(code)]))
        tracee.write(address, code)
    return patches
