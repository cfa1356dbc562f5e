# SPDX-License-Identifier: GPL-2.0-or-later
"""What `reverse-continue` stops at: the user's breakpoints, watchpoints and catchpoints of system
calls, each with what a search back has to know of it."""

from __future__ import annotations

from typing import NamedTuple

import gdb
from sysrift.errors import UsageError
from sysrift.replay.agent_expression import AgentExpression, CannotEvaluate
from sysrift.replay.engine import Engine
from sysrift.tracee import BadAddress, Registers
from sysrift_gdb import agent_code, console, variables, watched
from sysrift_gdb.session import Replay

_SCALARS = (
    gdb.TYPE_CODE_INT, gdb.TYPE_CODE_ENUM, gdb.TYPE_CODE_PTR, gdb.TYPE_CODE_BOOL,
    gdb.TYPE_CODE_CHAR, gdb.TYPE_CODE_REF,
)  # fmt: skip


class Target:
    """`needed`: the how-many-th stop at it, from now back, is where it stops (its ignore count).

    `unsure` are conditions that can only be evaluated at rest, when the replay has gone there.
    """

    def __init__(self, number: int, breakpoint: gdb.Breakpoint | None) -> None:
        self.number = number
        self.breakpoint = breakpoint
        self.needed = 1 + (breakpoint.ignore_count if breakpoint is not None else 0)
        self.condition = (breakpoint.condition or "") if breakpoint is not None else ""
        self.passed = 0
        """How many stops at it a search has passed over."""
        self.unsure = False

    @property
    def is_plain(self) -> bool:
        """Whether it stops at each pass of its instructions, and at nothing else."""
        return False

    @property
    def is_temporary(self) -> bool:
        """Whether it goes when it has stopped."""
        return self.breakpoint is not None and self.breakpoint.temporary

    def holds_at_rest(self) -> bool:
        """Whether the condition holds where the replay stands, for GDB to see."""
        if self.condition:
            try:
                return bool(gdb.parse_and_eval(self.condition))
            except gdb.error:
                pass  # GDB stops there too
        return True

    def _holds_in_gdb(self) -> bool:
        """The same while the engine drives: functions of the program's cannot be called then."""
        _let_gdb_look()
        try:
            with console.setting("may-call-functions", "off"):
                return bool(gdb.parse_and_eval(self.condition))
        except gdb.error as error:
            self.unsure = self.unsure or "may-call-functions" in str(error)
            return True


class CodeTarget(Target):
    """A breakpoint, at `addresses`."""

    def __init__(self, breakpoint: gdb.Breakpoint, addresses: list[int]) -> None:
        super().__init__(breakpoint.number, breakpoint)
        self.addresses = frozenset(addresses)
        self._compiled: dict[int, AgentExpression | None] = {}
        self._stop = getattr(breakpoint, "stop", None)

    @property
    def is_plain(self) -> bool:
        """Whether it stops at each pass, and at the last one."""
        return not self.condition and self._stop is None and self.needed == 1

    def holds(self, registers: Registers, engine: Engine) -> bool:
        """Whether it stops here, the engine driving."""
        ip = registers.rip
        if ip not in self.addresses:
            return False
        if self.condition:
            if ip not in self._compiled:
                _let_gdb_look()
                self._compiled[ip] = agent_code.compiled(self.condition)
            program = self._compiled[ip]
            if program is None:
                if not self._holds_in_gdb():
                    return False
            else:
                try:
                    if not program.evaluate(registers, engine.tracee.read).value:
                        return False
                except CannotEvaluate:
                    pass  # GDB stops there too
        if self._stop is not None:
            _let_gdb_look()
            return bool(self._stop())
        return True


class Change(NamedTuple):
    """The values of a watched expression after something touched it, and before; None: it had
    none. The order is that of going back."""

    old: bytes | None
    new: bytes | None


class WatchTarget(Target):
    """A watchpoint; `frame` is the CFA of the frame that it ends with, or 0, and `entry` the first
    instruction of its function.

    `memory` (address, length) is what its value hangs on just now.
    """

    def __init__(self, breakpoint: gdb.Breakpoint) -> None:
        super().__init__(breakpoint.number, breakpoint)
        self.kind = breakpoint.type
        means = watched.meaning(breakpoint)
        self.frame, self.entry = means.frame, means.entry
        try:
            value = gdb.parse_and_eval(means.expression)
            self.type = value.type
        except gdb.error as error:
            raise UsageError(f"watchpoint {self.number}: {error}") from None
        self._is_scalar = self.type.strip_typedefs().code in _SCALARS
        compile = agent_code.compiled if self._is_scalar else agent_code.collecting
        program = compile(means.expression)
        if program is None or program.uses_registers:
            raise UsageError(
                f"watchpoint {self.number} cannot be followed backwards: what it watches is not in "
                f"memory alone. Disable it, or use sysrift-last-write"
            )
        self._program = program
        self._condition_program = (
            agent_code.compiled(watched.with_addresses(self.condition)) if self.condition else None
        )
        self.unsure = bool(self.condition) and (
            self._condition_program is None or self._condition_program.uses_registers
        )
        self.memory: tuple[tuple[int, int], ...] = ()
        self.moved = False
        """Whether `memory` has become other memory, until somebody takes note."""
        self._value: bytes | None = None
        self._before: list[tuple[int, bytes]] = []

    @property
    def looks_at_reads(self) -> bool:
        """Whether reading counts."""
        return bool(self.kind != gdb.BP_HARDWARE_WATCHPOINT)

    def begins_at(self, registers: Registers) -> bool:
        """Whether its frame has just been made, by a call."""
        return bool(self.entry) and registers.rip == self.entry and registers.rsp == self.frame - 8

    def look(self, engine: Engine) -> Change:
        """The value now, and what it was at the last look; `memory` is anew."""
        old = self._value
        registers = engine.tracee.registers()
        try:
            found = self._program.evaluate(registers, engine.tracee.read)
            memory = (*found.read, *found.traced)
            if self._is_scalar:
                size = self.type.sizeof
                self._value = found.value.to_bytes(8, "little")[:size]
            else:
                self._value = engine.tracee.read(*found.traced[-1])
        except CannotEvaluate as error:
            memory, self._value = error.args[0], None
        except (BadAddress, IndexError):
            self._value = None
        memory = tuple(dict.fromkeys(memory))
        self.moved = self.moved or memory != self.memory
        self.memory = memory
        return Change(self._value, old)

    def remember(self, engine: Engine) -> None:
        """What is in the memory now, for the condition at the next change."""
        if self.condition:
            read = engine.tracee.read_some
            self._before = [(address, read(address, length)) for address, length in self.memory]

    def counts(self, change: Change, was_touched: bool) -> bool:
        """Whether a change, or access, is what it stops at."""
        if self.kind == gdb.BP_HARDWARE_WATCHPOINT:
            return change.old != change.new
        if self.kind == gdb.BP_READ_WATCHPOINT:
            return was_touched and change.old == change.new
        return was_touched or change.old != change.new

    def held_before(self, engine: Engine) -> bool:
        """Whether the condition held before the memory became what it is now."""
        program = self._condition_program
        if program is None:
            return True

        def read(address: int, length: int) -> bytes:
            data = bytearray(engine.tracee.read(address, length))
            for start, bytes_before in self._before:
                low, high = max(start, address), min(start + len(bytes_before), address + length)
                if low < high:
                    data[low - address : high - address] = bytes_before[low - start : high - start]
            return bytes(data)

        try:
            return bool(program.evaluate(engine.tracee.registers(), read).value)
        except CannotEvaluate:
            return True

    def shown(self, value: bytes | None) -> str:
        """A value as GDB shows it."""
        if value is None:
            return "<unreadable>"
        return gdb.Value(value, self.type).format_string()


class SyscallTarget(Target):
    """`catch syscall`; `numbers` None: of any."""

    def __init__(
        self, number: int, breakpoint: gdb.Breakpoint | None, numbers: frozenset[int] | None
    ) -> None:
        super().__init__(number, breakpoint)
        self.numbers = numbers

    def catches(self, nr: int) -> bool:
        """Whether it stops at this call."""
        return self.numbers is None or nr in self.numbers

    def ignore(self, count: int) -> None:
        """Let GDB pass over so many stops at it, before the next one."""
        gdb.execute(f"ignore {self.number} {count}", to_string=True)

    def holds(self) -> bool:
        """Whether the condition holds here, the engine driving."""
        return not self.condition or self._holds_in_gdb()


def out_of_scope(number: int) -> str:
    """What GDB says of a watchpoint whose frame has ended."""
    return (
        f"\nWatchpoint {number} deleted because the program has left the block in\n"
        "which its expression is valid.\n"
    )


def _let_gdb_look() -> None:
    """The engine has moved the program: what GDB evaluates next is to be of now."""
    console.forget_caches()
    gdb.invalidate_cached_frames()
    variables.update()


# -- the user's ---------------------------------------------------------------------------------


def targets(replay: Replay, strict: bool = True) -> list[Target]:
    """All that is enabled; a watchpoint of a frame that has ended meanwhile is deleted.

    Raises UsageError for what cannot be looked for; if not `strict`, it is left out.
    """
    found: list[Target] = []
    by_number: dict[int, gdb.Breakpoint] = {}
    for each in gdb.breakpoints():
        by_number[each.number] = each
        if not each.visible or not each.enabled or each.pending or not _is_for_here(each):
            continue
        if each.type in (gdb.BP_WATCHPOINT, *watched.TYPES):
            try:
                found += _watchpoint(each)
            except UsageError:
                if strict:
                    raise
        elif each.type in _CODE_TYPES:
            addresses = _addresses(each)
            if addresses:
                found.append(CodeTarget(each, addresses))
    for number, numbers in replay.catchpoints.user_syscalls().items():
        catch = by_number.get(number)
        if catch is None or _is_for_here(catch):
            found.append(SyscallTarget(number, catch, numbers))
    return found


def _watchpoint(breakpoint: gdb.Breakpoint) -> list[Target]:
    if breakpoint.type == gdb.BP_WATCHPOINT:
        raise UsageError(
            f"watchpoint {breakpoint.number} is a software watchpoint, which reverse-continue "
            "cannot follow: disable it, or use sysrift-last-write"
        )
    if not watched.has_ended(breakpoint):
        return [WatchTarget(breakpoint)]
    gdb.write(out_of_scope(breakpoint.number))
    breakpoint.delete()
    return []


_CODE_TYPES = (gdb.BP_BREAKPOINT, getattr(gdb, "BP_HARDWARE_BREAKPOINT", gdb.BP_BREAKPOINT))


def _is_for_here(breakpoint: gdb.Breakpoint) -> bool:
    """Whether it is for the thread that is there."""
    thread = gdb.selected_thread()
    inferior = getattr(breakpoint, "inferior", None)
    return (
        breakpoint.thread is None or thread is None or breakpoint.thread == thread.global_num
    ) and (inferior is None or inferior == gdb.selected_inferior().num)


def _addresses(breakpoint: gdb.Breakpoint) -> list[int]:
    if hasattr(breakpoint, "locations"):
        return [each.address for each in breakpoint.locations if each.enabled]
    _, places = gdb.decode_line(breakpoint.location or "")  # GDB 12
    return [place.pc for place in places or ()]


__all__ = [
    "Change",
    "CodeTarget",
    "SyscallTarget",
    "Target",
    "WatchTarget",
    "out_of_scope",
    "targets",
]
