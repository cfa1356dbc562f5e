# SPDX-License-Identifier: GPL-2.0-or-later
"""Making, replacing and shaping tasks: `clone`, `clone3`, `execve`, `modify_ldt`."""

from __future__ import annotations

import struct
from collections.abc import Iterator

from .memory import Memory, read_u64, terminated_length
from .plan import Args, Irregular, Range
from .variants import Family

CLONE_PIDFD = 0x00001000
CLONE_PARENT_SETTID = 0x00100000
CLONE_CHILD_SETTID = 0x01000000

_CLONE3_FIRST = 64  # CLONE_ARGS_SIZE_VER0
_MAX_SET_TID = 32  # MAX_PID_NS_LEVEL
_MAX_ARG_STRLEN = 131072  # include/uapi/linux/binfmts.h
_MAX_STRINGS = 1 << 16


def _clone(args: Args, result: int, memory: Memory, state: object) -> Iterator[Range]:
    """The parent's exit and the child's first stop (result 0) each have what they wrote."""
    flags = args[0]
    if result == 0:
        if flags & CLONE_CHILD_SETTID:
            yield Range(3, args[3], 4, "struct")
    elif flags & (CLONE_PARENT_SETTID | CLONE_PIDFD):
        yield Range(2, args[2], 4, "struct")


def _clone3_before(args: Args, memory: Memory) -> tuple[int, ...]:
    return struct.unpack("<4Q", memory.read(args[0], 32))


def _clone3_inputs(args: Args, memory: Memory) -> Iterator[Range]:
    if args[1] >= _CLONE3_FIRST + 16:
        set_tid = read_u64(memory, args[0] + 64)
        count = read_u64(memory, args[0] + 72)
        if count <= _MAX_SET_TID:
            yield Range(0, set_tid, count * 4, "struct")


def _clone3(args: Args, result: int, memory: Memory, state: object) -> Iterator[Range]:
    assert isinstance(state, tuple)
    flags, pidfd, child_tid, parent_tid = state
    if result == 0:
        if flags & CLONE_CHILD_SETTID:
            yield Range(0, child_tid, 4, "struct")
        return
    if flags & CLONE_PIDFD:
        yield Range(0, pidfd, 4, "struct")
    if flags & CLONE_PARENT_SETTID:
        yield Range(0, parent_tid, 4, "struct")


def _strings(memory: Memory, argument: int, address: int) -> Iterator[Range]:
    """A NULL-terminated array of strings, and the strings."""
    if not address:
        return
    pointers = []
    for index in range(_MAX_STRINGS):
        pointer = read_u64(memory, address + index * 8)
        if not pointer:
            break
        pointers.append(pointer)
    yield Range(argument, address, (len(pointers) + 1) * 8, "struct")
    for pointer in pointers:
        yield Range(
            argument, pointer, terminated_length(memory, pointer, _MAX_ARG_STRLEN), "string"
        )


def _execve(args: Args, memory: Memory) -> Iterator[Range]:
    yield from _strings(memory, 1, args[1])
    yield from _strings(memory, 2, args[2])


def _execveat(args: Args, memory: Memory) -> Iterator[Range]:
    yield from _strings(memory, 2, args[2])
    yield from _strings(memory, 3, args[3])


RULES = {
    "clone": Irregular(outputs=_clone),
    "clone3": Irregular(_clone3_inputs, _clone3_before, _clone3),
    "execve": Irregular(inputs=_execve),
    "execveat": Irregular(inputs=_execveat),
}

MODIFY_LDT = Family(
    """
0    READ ptr:buf>ret
1    WRITE_OLD ptr:ptr<16
2    READ_DEFAULT ptr:buf>ret
0x11 WRITE ptr:ptr<16
"""
)
