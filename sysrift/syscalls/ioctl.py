# SPDX-License-Identifier: GPL-2.0-or-later
"""`ioctl` requests: those that a table lists, and those that describe themselves.

A request made with _IOR, _IOW or _IOWR says which way how many bytes go (ioctl(2),
include/uapi/asm-generic/ioctl.h). Old ones are bare numbers, and some drivers' structures hold
further pointers; both must be listed in `ioctl_requests`.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import NamedTuple

from .effects import When
from .ioctl_requests import NESTED_TYPES, REQUESTS
from .memory import Memory, read_pairs, read_u16, read_u32, read_u64
from .plan import MAX_RW_COUNT, Args, Irregular, Range, parts, read_iovec
from .variants import Family

_IOC_WRITE, _IOC_READ = 1, 2  # seen from the program: it writes what the kernel reads

_FIEMAP_HEADER, _FIEMAP_EXTENT = 32, 56
_DEDUPE_HEADER, _DEDUPE_ENTRY = 24, 32
_SG_HEADER = 88
_SG_DXFER_TO_DEV, _SG_DXFER_FROM_DEV = -2, -3


class Encoding(NamedTuple):
    """The parts of a request number."""

    direction: int
    type: int
    number: int
    size: int


def encoding(request: int) -> Encoding:
    """Return the parts of a request number, as the _IOC_* macros of the kernel do."""
    return Encoding(request >> 30 & 3, request >> 8 & 0xFF, request & 0xFF, request >> 16 & 0x3FFF)


def by_encoding(request: int) -> str | None:
    """Return what the number of an unlisted request says about its argument."""
    direction, type_letter, _number, size = encoding(request)
    if not direction or not size:
        return None
    reads = f"<{size}" if direction & _IOC_WRITE else ""
    # Drivers store the size or version that they would have liked, and fail.
    always = "*" if direction == _IOC_WRITE | _IOC_READ else ""
    writes = f">{always}{size}" if direction & _IOC_READ else ""
    guess = " ?" if type_letter in NESTED_TYPES else ""
    return f"arg:ptr{reads}{writes}{guess}"


def _interfaces_before(args: Args, memory: Memory) -> tuple[int, int]:
    length, address = struct.unpack("<i4xQ", memory.read(args[2], 16))
    return length, address


def _interfaces(args: Args, result: int, memory: Memory, state: object) -> Iterator[Range]:
    """SIOCGIFCONF: struct ifconf, and the array that it points to."""
    assert isinstance(state, tuple)
    room, address = state
    yield Range(2, args[2], 16, "struct")
    yield Range(2, address, min(room, read_u32(memory, args[2])), "struct")


def _extents(args: Args, result: int, memory: Memory, state: object) -> Iterator[Range]:
    """FS_IOC_FIEMAP: the extents follow the header; fm_extent_count of them have room."""
    mapped, room = read_u32(memory, args[2] + 20), read_u32(memory, args[2] + 24)
    yield Range(2, args[2], _FIEMAP_HEADER + min(mapped, room) * _FIEMAP_EXTENT, "struct")


def _dedupe_size(args: Args, memory: Memory) -> int:
    return _DEDUPE_HEADER + read_u16(memory, args[2] + 16) * _DEDUPE_ENTRY


def _dedupe_inputs(args: Args, memory: Memory) -> Iterator[Range]:
    yield Range(2, args[2], _dedupe_size(args, memory), "struct")


def _dedupe(args: Args, result: int, memory: Memory, state: object) -> Iterator[Range]:
    """FIDEDUPERANGE: each destination has its own result."""
    assert isinstance(state, int)
    yield Range(2, args[2], state, "struct")


class _ScsiRequest(NamedTuple):
    """What matters of `struct sg_io_hdr`."""

    direction: int
    command: tuple[int, int]
    sense: tuple[int, int]
    pairs: list[tuple[int, int]]


def _scsi_request(args: Args, memory: Memory) -> _ScsiRequest:
    header = memory.read(args[2], _SG_HEADER)
    (direction,) = struct.unpack_from("<i", header, 4)
    command_length, sense_length, count, length = struct.unpack_from("<BBHI", header, 8)
    data, command, sense = struct.unpack_from("<QQQ", header, 16)
    pairs = read_iovec(memory, data, count) if count else [(data, length)]
    return _ScsiRequest(direction, (command, command_length), (sense, sense_length), pairs)


def _scsi_inputs(args: Args, memory: Memory) -> Iterator[Range]:
    request = _scsi_request(args, memory)
    yield Range(2, args[2], _SG_HEADER, "struct")
    yield Range(2, request.command[0], request.command[1], "struct")
    if request.direction == _SG_DXFER_TO_DEV:
        yield from parts(2, request.pairs, MAX_RW_COUNT)


def _scsi(args: Args, result: int, memory: Memory, state: object) -> Iterator[Range]:
    assert isinstance(state, _ScsiRequest)
    yield Range(2, args[2], _SG_HEADER, "struct")
    yield Range(2, state.sense[0], state.sense[1], "struct")
    if state.direction not in (_SG_DXFER_TO_DEV, -1):
        yield from parts(2, state.pairs, MAX_RW_COUNT)


def _copied_pages(args: Args, result: int, memory: Memory, state: object) -> Iterator[Range]:
    """UFFDIO_COPY fills memory of the program: {dst, src, len, mode, copied}."""
    destination = read_u64(memory, args[2])
    copied = read_u64(memory, args[2] + 32)
    if copied < 1 << 63:
        yield Range(2, destination, copied, "data")


def _zeroed_pages(args: Args, result: int, memory: Memory, state: object) -> Iterator[Range]:
    """UFFDIO_ZEROPAGE: {start, len, mode, zeroed}."""
    [(start, _length)] = read_pairs(memory, args[2], 1)
    zeroed = read_u64(memory, args[2] + 24)
    if zeroed < 1 << 63:
        yield Range(2, start, zeroed, "data")


IOCTL = Family(
    REQUESTS,
    {
        "interfaces": Irregular(None, _interfaces_before, _interfaces),
        "extents": Irregular(None, None, _extents),
        "dedupe": Irregular(_dedupe_inputs, _dedupe_size, _dedupe),
        "scsi": Irregular(_scsi_inputs, _scsi_request, _scsi),
        "copied_pages": Irregular(None, None, _copied_pages, When.ALWAYS),
        "zeroed_pages": Irregular(None, None, _zeroed_pages, When.ALWAYS),
    },
    fallback=by_encoding,
)
