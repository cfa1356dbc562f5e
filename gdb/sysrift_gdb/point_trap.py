# SPDX-License-Identifier: GPL-2.0-or-later
"""GDB's own breakpoint at the place of an event in the middle of a computation.

While GDB lets the program run, or steps it, nobody else looks where it is. This breakpoint, which
the user does not see, makes GDB stop whenever the program comes to the place; it never stops for
the user, since its condition is false, but the condition of our `catch signal SIGTRAP` is evaluated
there too, as at every SIGTRAP.
"""

from __future__ import annotations

import re

import gdb

_NEVER = "0"
_ROW = re.compile(r"^(-?\d+)(?:\.\d+)?\s.*?\s(0x[0-9a-f]+)\b", re.MULTILINE)


class PointTrap:
    """At most one place at a time has the breakpoint enabled."""

    def __init__(self) -> None:
        self._site = 0
        self._made: dict[int, gdb.Breakpoint] = {}

    def put(self, site: int | None) -> None:
        """Have it at an address; None: nowhere.

        Nothing is deleted here: GDB may be going through the breakpoints that it has just hit.
        """
        site = site or 0
        if site == self._site:
            return
        if self._site:
            self._made[self._site].enabled = False
        if site and site in self._made:
            self._made[site].enabled = True
        elif site:
            self._made[site] = trap = gdb.Breakpoint(f"*{site:#x}", internal=True)
            trap.silent = True
            trap.condition = _NEVER
        self._site = site

    def tidy(self) -> None:
        """While GDB is stopped for the user: let go of those that are not enabled."""
        for site in [site for site in self._made if site != self._site]:
            trap = self._made.pop(site)
            if trap.is_valid():
                trap.delete()

    def is_alone(self) -> bool:
        """Whether no other breakpoint, the user's or GDB's own, lies on the same address."""
        trap = self._made.get(self._site)
        if trap is None:
            return False
        table = gdb.execute("maint info breakpoints", to_string=True)
        return all(
            int(address, 16) != self._site or int(number) == trap.number
            for number, address in _ROW.findall(table)
        )

    def remove(self) -> None:
        """Take them all out of GDB's table."""
        self._site = 0
        self.tidy()


__all__ = ["PointTrap"]
