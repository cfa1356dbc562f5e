# SPDX-License-Identifier: GPL-2.0-or-later
"""How far the stack may grow, when the program changes that itself (setrlimit(2), RLIMIT_STACK).

A replayed stack has its full size from the start (`image.restore`). So a new limit moves its lower
end, and an overflow faults at the same address as it did.
"""

from __future__ import annotations

from sysrift.image import PAGE, STACK_GUARD_GAP, RemoteMemory, populated_runs
from sysrift.trace.model import Image
from sysrift.tracee import Tracee, read_maps

RLIMIT_STACK = 3
_UNLIMITED = (1 << 64) - 1


def set_stack_limit(tracee: Tracee, image: Image, limit: int) -> None:
    """Let the stack reach down to `limit` bytes below its end, as the kernel would.

    What it has used already stays (mm/mmap.c, acct_stack_growth). Raises RemoteSyscallError.
    """
    recorded = next((m for m in image.mappings if m.start <= image.mm[6] < m.end), None)
    if recorded is None or limit == _UNLIMITED:
        return
    maps = read_maps(tracee.pid)
    at = next((i for i, m in enumerate(maps) if m.start <= image.mm[6] < m.end), 0)
    while at and maps[at - 1].end == maps[at].start:
        at -= 1
    lowest = maps[at]
    used, _ = next(populated_runs(tracee.pid, lowest), (lowest.end, 0))
    wanted = min(recorded.end - limit // PAGE * PAGE, recorded.start, used)
    memory = RemoteMemory(tracee)
    if wanted > lowest.start:
        memory.unmap(lowest.start, wanted - lowest.start)
    else:
        below = maps[at - 1].end if at else 0
        wanted = max(wanted, below + STACK_GUARD_GAP)
        if wanted < lowest.start:
            memory.map_anonymous(wanted, lowest.start - wanted, lowest.prot)
