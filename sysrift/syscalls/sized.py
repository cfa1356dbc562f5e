# SPDX-License-Identifier: GPL-2.0-or-later
"""Calls with a structure that says its own size."""

from __future__ import annotations

from collections.abc import Iterator

from .effects import When
from .memory import Memory, read_u32
from .plan import Args, Irregular, Range

_LARGEST = 4096  # PAGE_SIZE: copy_struct_from_user's callers refuse more
_SCHED_ATTR_FIRST, _PERF_ATTR_FIRST = 48, 64  # SCHED_ATTR_SIZE_VER0, PERF_ATTR_SIZE_VER0
_EOVERFLOW = 75


def _sized(argument: int, address: int, size: int, default: int = 0) -> Iterator[Range]:
    size = size or default
    if address and size <= _LARGEST:
        yield Range(argument, address, size, "struct")


def _sched_attr(args: Args, memory: Memory) -> Iterator[Range]:
    return _sized(1, args[1], read_u32(memory, args[1]), _SCHED_ATTR_FIRST)


def _perf_attr(args: Args, memory: Memory) -> Iterator[Range]:
    return _sized(0, args[0], read_u32(memory, args[0] + 4), _PERF_ATTR_FIRST)


def _mount_id_request(args: Args, memory: Memory) -> Iterator[Range]:
    return _sized(0, args[0], read_u32(memory, args[0]))


def _sched_attr_size(args: Args, result: int, memory: Memory, state: object) -> Iterator[Range]:
    """With E2BIG the kernel stores the size that it knows (kernel/sched/syscalls.c)."""
    if result < 0:
        yield Range(1, args[1], 4, "struct")


def _perf_attr_size(args: Args, result: int, memory: Memory, state: object) -> Iterator[Range]:
    if result < 0:
        yield Range(0, args[0] + 4, 4, "struct")


def _statmount(args: Args, result: int, memory: Memory, state: object) -> Iterator[Range]:
    """struct statmount with its strings: the whole of it is counted in its first word."""
    if args[1]:
        yield Range(1, args[1], min(args[2], read_u32(memory, args[1])), "struct")


RULES = {
    "mount_id_request": Irregular(_mount_id_request),
    "perf_event_open": Irregular(_perf_attr, None, _perf_attr_size, When.ALWAYS),
    "sched_setattr": Irregular(_sched_attr, None, _sched_attr_size, When.ALWAYS),
    "statmount": Irregular(_mount_id_request, None, _statmount),
}
