# SPDX-License-Identifier: GPL-2.0-or-later
"""GDB's signal table (`handle`, `info signals`) during a replay.

No signal may ever be passed on: the kernel has no part in a replay. A fault that the recording
knows what to do with (rdtsc, a handled SIGSEGV) is dealt with by our catchpoint's condition; the
one that ended the program is reported as GDB reports signals.
"""

from __future__ import annotations

import re

import gdb
from sysrift_gdb.catchpoints import FAULTS

_ROW = re.compile(r"^(SIG\w+)\s+(Yes|No)\s+(Yes|No)\s+(Yes|No)\b")
_DEBUGGERS_OWN = ("SIGTRAP", "SIGINT")


def _table() -> dict[str, tuple[bool, bool, bool]]:
    rows = {}
    for line in gdb.execute("info signals", to_string=True).splitlines():
        match = _ROW.match(line)
        if match:
            rows[match.group(1)] = tuple(value == "Yes" for value in match.groups()[1:])
    return rows  # type: ignore[return-value]


class SignalTable:
    """Sets the table up for a replay, and puts it back."""

    def __init__(self) -> None:
        self._before = _table()
        gdb.execute("handle all nopass", to_string=True)
        for name in ("SIGSYS", *FAULTS):
            if name not in _DEBUGGERS_OWN:
                self.report(name, False)

    def report(self, name: str, stop: bool) -> None:
        """Whether GDB stops at, and prints, a signal the next time it looks."""
        how = "stop print" if stop else "nostop noprint"
        gdb.execute(f"handle {name} {how} nopass", to_string=True)

    def restore(self) -> None:
        """Put GDB's table back as it was."""
        for name, row in _table().items():
            before = self._before.get(name)
            if before is None or before == row or name in _DEBUGGERS_OWN:
                continue
            words = (
                ("" if on else "no") + word for on, word in zip(before, ("stop", "print", "pass"))
            )
            gdb.execute(f"handle {name} {' '.join(words)}", to_string=True)
