# SPDX-License-Identifier: GPL-2.0-or-later
"""Rows of the system call table as the agent reads them (`native/agent.c`, struct row)."""

from __future__ import annotations

import enum
import struct
from collections.abc import Callable, Mapping
from typing import NamedTuple

from sysrift.agent.code import ROW_COUNT, ROW_SIZE, ROWS
from sysrift.syscalls import Row, lookup
from sysrift.syscalls.effects import Direction, Effect, Operand, Source, When, Width
from sysrift.syscalls.plan import Plan
from sysrift.syscalls.variants import Variants
from sysrift.tracee.inputs import SHOWN

_ROW = struct.Struct("<BBB5x")
_GUARD = struct.Struct("<BBxH")
_GUARD_AT = 3  # offsetof(struct row, guard)
_ITEM = struct.Struct("<8B6I")
_MOST_ITEMS = 7

_VALID, _BLOCKS, _PATH, _HAS_COMMANDS, _MAPS = 1, 2, 4, 8, 16
_SUCCESS, _INTERRUPTED, _FAILED, _INPUT = 1, 2, 4, 8
_OUTCOMES = {
    When.SUCCESS: _SUCCESS,
    When.SUCCESS_OR_INTERRUPTED: _SUCCESS | _INTERRUPTED,
    When.INTERRUPTED: _INTERRUPTED,
    When.ALWAYS: _SUCCESS | _INTERRUPTED | _FAILED,
}
_SOURCES = {
    Source.FIXED: 0,
    Source.ARGUMENT: 1,
    Source.RESULT: 2,
    Source.STRING: 3,
    Source.VALUE_RESULT: 4,
    Source.IOVEC: 5,
}
_FOLLOWS_POINTERS = (Source.VALUE_RESULT, Source.IOVEC)
_WIDTHS = {Width.SIGNED_32: 0, Width.UNSIGNED_32: 1, Width.UNSIGNED_64: 2}
_CONSTANT = 3
_LONGEST_PATH = 4096

_COMMANDS = struct.Struct("<BBBBI")
_COMMAND = struct.Struct("<II")
_MOST_COMMANDS = 31

Pack = Callable[[Row, Plan, int | None], bytes | None]
"""Makes a `struct row` of a call's plan, or that of one of its commands; None: it has to be left to
the tracer."""


class GuardKind(enum.IntEnum):
    """What a guard asks of its argument, an int."""

    WITHOUT = 1  # these bits
    OTHER = 2  # than this number, or the next argument is NULL
    UNMAPPED = 3  # a descriptor, of what is known not to be mapped (`code.DESCRIPTORS`)
    CLOSES = 4  # anything; a descriptor that is something else afterwards
    NULL = 5  # (a pointer)
    NEVER = -1  # the call is the tracer's, whatever its arguments


class Guard(NamedTuple):
    """What one argument of a call must be for the agent to make the call by itself."""

    kind: GuardKind
    argument: int = 0
    value: int = 0

    def allows(self, args: tuple[int, ...]) -> bool:
        """Whether a call with these arguments may be the agent's, as far as they alone tell."""
        if self.kind is GuardKind.NULL:
            return not args[self.argument]
        argument = args[self.argument] & 0xFFFFFFFF
        if self.kind is GuardKind.WITHOUT:
            return not argument & self.value
        if self.kind is GuardKind.OTHER:
            return argument != self.value or not args[self.argument + 1]
        return True


Guards = Mapping[int, Guard]
"""Guards by system call number."""


class RowTable:
    """The rows that the processes of a tree have needed so far, as the agent has them in memory."""

    def __init__(self, pack: Pack) -> None:
        self._pack = pack
        self._plain: dict[int, bytes | None] = {}
        self.commands: dict[int, dict[int, int]] = {}
        """Of multiplexed calls: the index of each command's row."""
        self._command_rows: dict[int, bytes] = {}
        self._next = ROW_COUNT

    @property
    def plain(self) -> dict[int, bytes]:
        """The rows of calls that are not multiplexed."""
        return {nr: row for nr, row in self._plain.items() if row is not None}

    def row(self, row: Row, plan: Plan) -> bytes | None:
        """`struct row` of a call; None: it has to be left to the tracer."""
        if row.nr not in self._plain:
            self._plain[row.nr] = self._pack(row, plan, None)
        return self._plain[row.nr]

    def command(self, row: Row, plan: Plan, command: int) -> int | None:
        """The index of the row of one of a call's commands."""
        rows = self.commands.setdefault(row.nr, {})
        if command not in rows:
            packed = self._pack(row, plan, command)
            if packed is None or len(rows) == _MOST_COMMANDS or self._next == 2 * ROW_COUNT:
                return None
            rows[command] = self._next
            self._command_rows[self._next] = packed
            self._next += 1
        return rows[command]

    def command_row(self, index: int) -> bytes:
        """`struct row` at an index that `command` gave."""
        return self._command_rows[index]


class Rows:
    """The rows that one process's agent has. `write` puts bytes into the process."""

    def __init__(
        self, write: Callable[[int, bytes], None], pack: Pack, table: RowTable | None = None
    ) -> None:
        """`table` is shared by the processes of a tree; its rows are made by `pack`, too."""
        self._write = write
        self._pack = pack
        self._table = RowTable(pack) if table is None else table
        self._known: set[int] = set()
        self._commands: dict[int, dict[int, int]] = {}
        self._guards: Guards = {}

    def copy(self, write: Callable[[int, bytes], None]) -> Rows:
        """What a forked process has."""
        other = Rows(write, self._pack, self._table)
        other._known = set(self._known)
        other._commands = {nr: dict(rows) for nr, rows in self._commands.items()}
        other._guards = self._guards
        return other

    def has(self, nr: int, args: tuple[int, ...]) -> bool:
        """Whether the agent has the row of this call already."""
        if nr not in self._commands:
            return nr in self._known
        row = lookup(nr)
        assert row is not None and isinstance(row.plan, Variants)
        return row.plan.command(args)[0] in self._commands[nr]

    def give(self, nr: int, args: tuple[int, ...]) -> bool:
        """Let the agent have the row of a call; False when that is left to the tracer."""
        if nr in self._known and nr not in self._commands:
            return True
        row = lookup(nr)
        if row is None or not 0 <= nr < ROW_COUNT or self._is_left(nr):
            return False
        plan = row.plan
        if isinstance(plan, Plan):
            packed = self._table.row(row, plan)
            if packed is None:
                return False
            self._write(ROWS + nr * ROW_SIZE, self._guarded(nr, packed))
            self._known.add(nr)
            return True
        return self._give_command(row, plan, args)

    def give_known(self) -> None:
        """Let the agent have all rows that some process has needed before."""
        rows: dict[int, bytes] = {}
        for nr, packed in self._table.plain.items():
            if not self._is_left(nr):
                rows[nr] = self._guarded(nr, packed)
        for nr, commands in self._table.commands.items():
            row = lookup(nr)
            if commands and row is not None and not self._is_left(nr):
                assert isinstance(row.plan, Variants)
                self._commands[nr] = dict(commands)
                rows[nr] = _command_head(row.plan, commands)
                rows.update((at, self._table.command_row(at)) for at in commands.values())
        self._known.update(nr for nr in rows if nr < ROW_COUNT)
        if rows:
            first, last = min(rows), max(rows)
            empty = bytes(ROW_SIZE)
            whole = b"".join(rows.get(at, empty) for at in range(first, last + 1))
            self._write(ROWS + first * ROW_SIZE, whole)

    def _is_left(self, nr: int) -> bool:
        guard = self._guards.get(nr)
        return guard is not None and guard.kind is GuardKind.NEVER

    def _guarded(self, nr: int, packed: bytes) -> bytes:
        guard = self._guards.get(nr)
        return packed if guard is None else _with_guard(packed, guard)

    def _give_command(self, row: Row, plan: Variants, args: tuple[int, ...]) -> bool:
        command, chosen = plan.command(args)
        rows = self._commands.get(row.nr, {})
        if command in rows:
            return True
        if chosen is None:
            return False
        index = self._table.command(row, chosen, command)
        if index is None:
            return False
        rows[command] = index
        self._write(ROWS + index * ROW_SIZE, self._table.command_row(index))
        self._write(ROWS + row.nr * ROW_SIZE, _command_head(plan, rows))
        self._commands[row.nr] = rows
        self._known.add(row.nr)
        return True

    def guard(self, guards: Guards) -> None:
        """From now on these are the guards, and no others that were. (There are none for one of a
        call's commands.)"""
        if guards is self._guards or guards == self._guards:
            return
        changed = {nr for nr in self._known if guards.get(nr) != self._guards.get(nr)}
        self._guards = guards
        rows = self._table.plain
        for nr in changed:
            if nr in rows and not self._is_left(nr):
                self._write(ROWS + nr * ROW_SIZE, self._guarded(nr, rows[nr]))
                continue
            self._write(ROWS + nr * ROW_SIZE, bytes(ROW_SIZE))
            self._commands.pop(nr, None)
            self._known.discard(nr)

    def leave_out(self, numbers: frozenset[int]) -> None:
        """From now on these calls are the tracer's, and no others."""
        self.guard({nr: Guard(GuardKind.NEVER) for nr in numbers})

    def guard_of(self, nr: int) -> Guard | None:
        """The guard of a call, if it has one."""
        return self._guards.get(nr)


def packed(row: Row, plan: Plan, maps: bool = False) -> bytes | None:
    """`struct row`; None when the agent cannot follow this plan. `maps`: the agent has to look at
    what becomes of memory."""
    if not plan.is_plain:
        return None
    effects = sorted(plan.effects, key=_order)
    strings = [effect for effect in effects if effect.source is Source.STRING]
    if any(effect.direction is Direction.WRITE for effect in strings):
        return None
    filled = [e for e in effects if e.source is Source.IOVEC and e.direction is Direction.WRITE]
    if (
        len(effects) > _MOST_ITEMS
        or len(filled) > 1
        or any(e.when is not When.SUCCESS for e in filled)
    ):
        return None
    items = [_item(effect) for effect in effects]
    flags = _MAPS if maps else 0
    flags |= _VALID | (_BLOCKS if row.blocks else 0) | (_PATH if strings else 0)
    head = _ROW.pack(flags, len(items), len(row.arguments))
    return (head + b"".join(items)).ljust(ROW_SIZE, b"\0")


def _command_head(plan: Variants, commands: Mapping[int, int]) -> bytes:
    """`struct commands`."""
    argument, shift, mask = plan.selector
    head = _COMMANDS.pack(_VALID | _HAS_COMMANDS, len(commands), argument, shift, mask)
    return (head + b"".join(_COMMAND.pack(*each) for each in commands.items())).ljust(
        ROW_SIZE, b"\0"
    )


def _with_guard(row: bytes, guard: Guard) -> bytes:
    fields = _GUARD.pack(guard.kind, guard.argument, guard.value)
    return row[:_GUARD_AT] + fields + row[_GUARD_AT + _GUARD.size :]


def packed_inputs(row: Row, plan: Plan) -> bytes | None:
    """`struct row` with what the call reads only: a recording tells what it wrote."""
    if not plan.is_plain:
        return None
    effects = [
        effect
        for effect in sorted(plan.effects, key=_order)
        if effect.direction is Direction.READ or effect.source is Source.IOVEC
    ]
    if len(effects) > _MOST_ITEMS:
        return None
    head = _ROW.pack(_VALID, len(effects), len(row.arguments))
    return (head + b"".join(_item(effect) for effect in effects)).ljust(ROW_SIZE, b"\0")


def _order(effect: Effect) -> int:
    """The order in which a `Plan` looks at memory, and so that of segments and checksums."""
    return 0 if effect.source is Source.STRING else 1 + (effect.source in _FOLLOWS_POINTERS)


def _item(effect: Effect) -> bytes:
    reads = effect.direction is Direction.READ
    operand, limit = effect.operand, effect.limit
    if effect.source is Source.STRING:
        limit = Operand(limit.constant or _LONGEST_PATH)
    elif effect.source is Source.IOVEC:
        limit = Operand(SHOWN["struct"])  # of the array itself
    return _ITEM.pack(
        effect.argument,
        0,
        _SOURCES[effect.source],
        _width(operand),
        max(operand.argument, 0),
        _INPUT if reads else _OUTCOMES[effect.when],
        _width(limit),
        max(limit.argument, 0),
        operand.constant,
        limit.constant,
        effect.divide,
        effect.multiply,
        effect.add,
        SHOWN[effect.kind],
    )


def _width(operand: Operand) -> int:
    return _CONSTANT if operand.argument < 0 else _WIDTHS[operand.width]
