# SPDX-License-Identifier: GPL-2.0-or-later
"""Rows of the system call table as the agent reads them (`native/agent.c`, struct row)."""

from __future__ import annotations

import struct

from sysrift.record import special
from sysrift.record.agent_code import ROW_COUNT, ROW_SIZE
from sysrift.syscalls import NAMES, ReplayClass, Row
from sysrift.syscalls.effects import Direction, Effect, Operand, Source, When, Width
from sysrift.syscalls.plan import Plan
from sysrift.tracee.inputs import SHOWN

_ROW = struct.Struct("<BBB5x")
_ITEM = struct.Struct("<8B6I")
_MOST_ITEMS = 7

_VALID, _BLOCKS, _PATH = 1, 2, 4
_SUCCESS, _INTERRUPTED, _FAILED, _INPUT = 1, 2, 4, 8
_OUTCOMES = {
    When.SUCCESS: _SUCCESS,
    When.SUCCESS_OR_INTERRUPTED: _SUCCESS | _INTERRUPTED,
    When.INTERRUPTED: _INTERRUPTED,
    When.ALWAYS: _SUCCESS | _INTERRUPTED | _FAILED,
}
_SOURCES = {Source.FIXED: 0, Source.ARGUMENT: 1, Source.RESULT: 2, Source.STRING: 3}
_WIDTHS = {Width.SIGNED_32: 0, Width.UNSIGNED_32: 1, Width.UNSIGNED_64: 2}
_CONSTANT = 3
_LONGEST_PATH = 4096

_NOT_IN_THE_AGENT = {
    NAMES[name]
    for name in (
        # A program that wants SIGSYS for itself cannot have the agent (see `fast_path`).
        "rt_sigaction",
        # The kernel compares the stack pointer.
        "sigaltstack",
        # The signal that ends them comes under another mask than the program's own.
        "rt_sigsuspend", "rt_sigtimedwait", "ppoll", "pselect6", "epoll_pwait", "epoll_pwait2",
        "io_pgetevents", "pause",
        # What they change is looked at by the recorder.
        "seccomp", "personality", "setrlimit", "vhangup", "reboot",
    )
}  # fmt: skip


def describe(row: Row | None) -> bytes | None:
    """The agent's row for a call; None for one that it leaves to the recorder."""
    if row is None or not 0 <= row.nr < ROW_COUNT or row.nr in _NOT_IN_THE_AGENT:
        return None
    if row.replay_class is not ReplayClass.EMULATE:
        return None
    if row.nr in special.ENTRY or row.nr in special.EXIT:
        return None
    plan = row.plan
    if not isinstance(plan, Plan) or not plan.is_plain:
        return None
    strings = [effect for effect in plan.effects if effect.source is Source.STRING]
    if any(effect.direction is Direction.WRITE for effect in strings):
        return None
    others = [effect for effect in plan.effects if effect.source is not Source.STRING]
    items = [_item(effect) for effect in (*strings, *others)]
    if len(items) > _MOST_ITEMS:
        return None
    flags = _VALID | (_BLOCKS if row.blocks else 0) | (_PATH if strings else 0)
    head = _ROW.pack(flags, len(items), len(row.arguments))
    return (head + b"".join(items)).ljust(ROW_SIZE, b"\0")


def _item(effect: Effect) -> bytes:
    reads = effect.direction is Direction.READ
    operand, limit = effect.operand, effect.limit
    if effect.source is Source.STRING:
        limit = Operand(limit.constant or _LONGEST_PATH)
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
