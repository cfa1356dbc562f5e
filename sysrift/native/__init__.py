# SPDX-License-Identifier: GPL-2.0-or-later
"""The native parts: programs and code that run in the tracee, not in Python.

`stub.S` is what a replay runs in; it is built when SysRift is installed (`setup.py`).
"""

from __future__ import annotations

from pathlib import Path

from sysrift.errors import ReplayError

STUB_START = 0x1E0000000000
"""Where the stub lies: an address that no ELF loader, kernel or allocator uses by itself."""
STUB_SYSCALL = STUB_START
"""Address of the stub's `syscall` instruction: the only one that reaches the kernel."""
STUB_SCRATCH = STUB_START + 0x1000
STUB_SCRATCH_SIZE = 0x2000
STUB_END = STUB_SCRATCH + STUB_SCRATCH_SIZE

AGENT_START, AGENT_END = 0x1E1000000000, 0x1E1001000000
"""Where the agent lies in a recorded process (`agent.c`)."""

COUNTER_START, COUNTER_END = 0x1E2000000000, 0x1E2001000000
"""Where the counter lies in a replayed process (`counter.c`); translated code lies elsewhere."""

KEEP_NUMBER_MAGIC = 0x5D51F7C0DEC0FFEE
"""In r9, it lets the guard skip a call without orig_rax being -1 (see stub.S)."""


def stub_path() -> Path:
    """The stub's executable; ReplayError when it was not built."""
    path = Path(__file__).with_name("stub")
    if not path.is_file():
        raise ReplayError(
            f"{path} is missing: install SysRift with pip (or run make build in a checkout), "
            "which needs a C compiler"
        )
    return path
