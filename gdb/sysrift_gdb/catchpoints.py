# SPDX-License-Identifier: GPL-2.0-or-later
"""The two catchpoints that a replay lives by, and what other breakpoints the user has."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from typing import NamedTuple

import gdb
from sysrift.syscalls import NAMES
from sysrift_gdb import console

SYSCALL_CONDITION = "$_sysrift_event() == 1"
SIGNAL_CONDITION = "$_sysrift_signal() == 1"
FAULTS = ("SIGSEGV", "SIGBUS", "SIGFPE", "SIGILL", "SIGTRAP")

_ROW = re.compile(r"^(\d+)\s+(\S.*?)\s+(keep|del|dis|dstp)\s+([yn])\s*(.*)$")
_HARDWARE = ("hw watchpoint", "read watchpoint", "acc watchpoint", "hw breakpoint")


class UserBreakpoints(NamedTuple):
    """What the user asked GDB for that changes how far a replay may run by itself."""

    hardware: bool  # debug registers are in use: their traps cannot be taken twice
    all_syscalls: bool
    syscalls: frozenset[int]


class Catchpoints:
    """SysRift's catchpoints in GDB's table; they come back when somebody deletes them."""

    def __init__(self) -> None:
        self._syscall: int | None = None
        self._guard: int | None = None
        self._faults: int | None = None
        self._lost = frozenset[int]()  # breakpoints whose place the program of now does not have

    @staticmethod
    def _rows() -> list[re.Match[str]]:
        table = gdb.execute("info breakpoints", to_string=True)
        return [match for match in map(_ROW.match, table.splitlines()) if match]

    def ensure(self) -> None:
        """Make sure that both are there and enabled."""
        enabled = {int(row.group(1)): row.group(4) == "y" for row in self._rows()}
        for number in self.own:
            if number is not None and enabled.get(number) is False:
                gdb.execute(f"enable {number}", to_string=True)
        if self._syscall not in enabled:
            self._syscall = self._create("catch syscall", SYSCALL_CONDITION)
        if self._guard not in enabled:
            self._guard = self._create("catch signal SIGSYS", SIGNAL_CONDITION)
        if self._faults not in enabled:
            self._faults = self._create("catch signal " + " ".join(FAULTS), SIGNAL_CONDITION)

    @property
    def own(self) -> tuple[int | None, ...]:
        """The numbers of SysRift's own."""
        return self._syscall, self._guard, self._faults

    def enabled_by_user(self) -> frozenset[int]:
        """The numbers of the user's enabled breakpoints."""
        return frozenset(
            int(row.group(1))
            for row in self._rows()
            if row.group(4) == "y" and int(row.group(1)) not in self.own
        )

    def enable_again(self, numbers: frozenset[int]) -> None:
        """Enable those of these breakpoints that GDB disabled meanwhile.

        It does that to a breakpoint whose function the current program (the stub) does not have.
        """
        for number in sorted(numbers - self.enabled_by_user()):
            with contextlib.suppress(gdb.error):
                gdb.execute(f"enable {number}", to_string=True)

    def enable_where_found(self, numbers: frozenset[int]) -> None:
        """The program has become another one, before which these were enabled: of those that GDB
        disabled, since the program does not have their place, enable what it does have.

        The others come back with a program that has it.
        """
        self._lost = (self._lost | numbers) - self.enabled_by_user()
        for breakpoint in gdb.breakpoints():
            if breakpoint.number in self._lost and _is_found(breakpoint):
                self._lost -= {breakpoint.number}
                with contextlib.suppress(gdb.error):
                    breakpoint.enabled = True

    def let_next_fault_through(self) -> None:
        """The fault at hand is the program's end: GDB should report it when it comes again.

        GDB takes a signal that is caught, but whose condition is false, for dealt with. So the
        catchpoint is disabled until GDB has stopped (`ensure` enables it).
        """
        gdb.execute(f"disable breakpoints {self._faults}", to_string=True)

    @staticmethod
    def _create(command: str, condition: str) -> int:
        gdb.execute(command, to_string=True)
        # What it prints depends on who listens: under GDB/MI it may be a record of that.
        number = int(gdb.parse_and_eval("$bpnum"))
        gdb.execute(f"condition {number} {condition}", to_string=True)
        return number

    def remove(self) -> None:
        """Take them out of GDB's table."""
        existing = {int(row.group(1)) for row in self._rows()}
        for number in self.own:
            if number in existing:
                console.quietly(f"delete {number}")
        self._syscall = self._guard = self._faults = None

    def user_breakpoints(self) -> UserBreakpoints:
        """What else is in GDB's table and enabled."""
        rows = self._user_rows()
        calls = [numbers for _, numbers in _syscalls(rows)]
        hardware = any(row.group(2).startswith(_HARDWARE) for row in rows)
        numbers = frozenset[int]().union(*(some for some in calls if some is not None))
        return UserBreakpoints(hardware, None in calls, numbers)

    def user_syscalls(self) -> dict[int, frozenset[int] | None]:
        """Which calls each enabled catchpoint of the user's catches; None: all."""
        return dict(_syscalls(self._user_rows()))

    def _user_rows(self) -> list[re.Match[str]]:
        own = self.own
        return [r for r in self._rows() if r.group(4) == "y" and int(r.group(1)) not in own]


def _is_found(breakpoint: gdb.Breakpoint) -> bool:
    """Whether the program has the place of a breakpoint."""
    if breakpoint.location is None:
        return False
    try:
        _, places = gdb.decode_line(breakpoint.location)
    except gdb.error:
        return False
    return bool(places)


def _syscalls(rows: list[re.Match[str]]) -> Iterator[tuple[int, frozenset[int] | None]]:
    """Of those rows of GDB's table that are `catch syscall`, the number and which calls."""
    for row in rows:
        number, kind, _, _, rest = row.groups()
        if not kind.startswith("catchpoint") or "syscall" not in rest:
            continue
        names = re.findall(r'"([^"]*)"', rest)
        if not names or "<any syscall>" in names:
            yield int(number), None
            continue
        words = re.split(r"[,\s]+", " ".join(names))
        numbers = {int(name) for name in words if name.isdigit()}
        yield int(number), frozenset(numbers | {NAMES[name] for name in words if name in NAMES})
