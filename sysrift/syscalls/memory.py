# SPDX-License-Identifier: GPL-2.0-or-later
"""What the table needs of a program's memory: reading it, and the few shapes that lie in it."""

from __future__ import annotations

import struct
from typing import Protocol

PAGE_SIZE = 4096
PATH_MAX = 4096  # include/uapi/linux/limits.h; counts the terminating NUL

#: Most paths are short: a first small read saves copying a page through ptrace for each of them.
_FIRST_STRING_READ = 256


class BadAddress(Exception):
    """Some of the bytes asked for are not readable (the kernel would answer EFAULT)."""


class Memory(Protocol):
    """A program's address space, as the table reads it."""

    def read(self, address: int, length: int) -> bytes:
        """Return exactly `length` bytes from `address`, or raise `BadAddress`."""
        ...


def read_u16(memory: Memory, address: int) -> int:
    """Return the unsigned 16-bit word at `address`."""
    return int.from_bytes(memory.read(address, 2), "little")


def read_u32(memory: Memory, address: int) -> int:
    """Return the unsigned 32-bit word at `address`."""
    return int.from_bytes(memory.read(address, 4), "little")


def read_u64(memory: Memory, address: int) -> int:
    """Return the unsigned 64-bit word at `address`."""
    return int.from_bytes(memory.read(address, 8), "little")


def read_pairs(memory: Memory, address: int, count: int) -> list[tuple[int, int]]:
    """Return `count` pairs of 64-bit words, such as an array of `struct iovec`."""
    return [
        (first, second)
        for first, second in struct.iter_unpack("<QQ", memory.read(address, count * 16))
    ]


def terminated_length(memory: Memory, address: int, limit: int = PATH_MAX) -> int:
    """Return the length of the C string at `address`, with its NUL, but at most `limit`.

    Reads never cross a page boundary before the string is known to go on behind it, so that a
    string ending just before an unmapped page is found, as `strncpy_from_user` finds it.
    Raises `BadAddress` when the string runs into memory that is not readable.
    """
    length = 0
    step = _FIRST_STRING_READ
    while length < limit:
        step = min(step, limit - length, PAGE_SIZE - (address + length) % PAGE_SIZE)
        end = memory.read(address + length, step).find(b"\0")
        if end >= 0:
            return length + end + 1
        length += step
        step = PAGE_SIZE
    return limit
