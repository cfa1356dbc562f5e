# SPDX-License-Identifier: GPL-2.0-or-later
"""`/proc/PID/maps` (proc_pid_maps(5))."""

from __future__ import annotations

import functools
from typing import NamedTuple

from sysrift.native import AGENT_END, AGENT_START

PROT_READ, PROT_WRITE, PROT_EXEC = 1, 2, 4


class Mapping(NamedTuple):
    """A line of `/proc/PID/maps`; `name` is the path, "[stack]" and the like, or empty."""

    start: int
    end: int
    prot: int
    shared: bool
    offset: int
    device: str
    inode: int
    name: str

    @property
    def is_file(self) -> bool:
        """Whether a file is mapped (also a deleted one, and memfd's)."""
        return self.inode != 0

    @property
    def is_kernel(self) -> bool:
        """Whether it is the kernel's own and cannot be rebuilt: vvar, vsyscall."""
        return self.name.startswith("[vvar") or self.name == "[vsyscall]"


def read_maps(pid: int) -> list[Mapping]:
    """The mappings of process `pid`, in order of address. Raises OSError when it is gone.

    The recorder's agent in it is none of the program's.
    """
    with open(f"/proc/{pid}/maps", encoding="utf-8", errors="surrogateescape") as file:
        parsed = [_parsed(line) for line in file]
    return [mapping for mapping in parsed if not AGENT_START <= mapping.start < AGENT_END]


# Most lines are those of the last time, or of another process of the same program.
@functools.lru_cache(maxsize=4096)
def _parsed(line: str) -> Mapping:
    span, perms, offset, device, inode, *name = line.rstrip("\n").split(None, 5)
    start, end = span.split("-")
    return Mapping(
        int(start, 16),
        int(end, 16),
        sum(bit for flag, bit in zip("rwx", (1, 2, 4)) if flag in perms),
        perms[3] == "s",
        int(offset, 16),
        device,
        int(inode),
        name[0].replace("\\012", "\n") if name else "",
    )
