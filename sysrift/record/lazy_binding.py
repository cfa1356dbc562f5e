# SPDX-License-Identifier: GPL-2.0-or-later
"""The dynamic linker's trampoline for lazily bound calls saves vector registers by xsavec.

What xsavec and xsave write depends on which parts of that state the processor takes to be in use,
and that on when the kernel last switched tasks. It remains on the stack, below the stack pointer:
memory that is not the same when the same code runs again. The trampoline for processors without
these instructions (glibc, sysdeps/x86_64/dl-trampoline.h) uses fxsave, which always writes the
same. Both have the same length and addresses, so one is made into the other.
"""

from __future__ import annotations

import re
import struct

from sysrift.syscalls import BadAddress
from sysrift.tracee import Tracee, read_maps

_AT_BASE = 7
_LARGEST = 4 << 20

# xsavec or xsave to N(%rsp); the call of the resolver; xrstor from there.
_TRAMPOLINE = re.compile(
    rb"(?:\x0f\xc7|\x0f\xae)\x64\x24(?P<at>.)(?P<between>.{8,64}?)\x0f\xae\x6c\x24(?P=at)", re.S
)
_FXSAVE, _FXRSTOR = b"\x0f\xae\x44\x24", b"\x0f\xae\x4c\x24"


def settle_lazy_binding(tracee: Tracee) -> int:
    """Let the dynamic linker of a program that has just been executed use fxsave.

    Not while it may be at work: what one saves, the other cannot restore. Returns how many
    trampolines were changed; none in a program without a dynamic linker, or with another one.
    """
    base = _interpreter(tracee.pid)
    maps = read_maps(tracee.pid) if base else []
    inode = next((m.inode for m in maps if m.start == base), 0)
    changed = 0
    for mapping in maps:
        length = mapping.end - mapping.start
        if not inode or mapping.inode != inode or not mapping.prot & 4 or length > _LARGEST:
            continue
        try:
            code = tracee.read(mapping.start, length)
            for found in _TRAMPOLINE.finditer(code):
                saved = found["at"]
                new = _FXSAVE + saved + found["between"] + _FXRSTOR + saved
                tracee.write(mapping.start + found.start(), new)
                changed += 1
        except BadAddress:
            pass
    return changed


def _interpreter(pid: int) -> int:
    """Where the dynamic linker is (getauxval(3), AT_BASE); 0: there is none."""
    with open(f"/proc/{pid}/auxv", "rb") as file:
        words = file.read()
    pairs = dict(struct.iter_unpack("<QQ", words[: len(words) // 16 * 16]))
    base: int = pairs.get(_AT_BASE, 0)
    return base
