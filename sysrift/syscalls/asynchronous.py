# SPDX-License-Identifier: GPL-2.0-or-later
"""Linux asynchronous I/O (io_submit(2), fs/aio.c)."""

from __future__ import annotations

import struct
from collections.abc import Iterator

from .memory import Memory, read_pairs, read_u32
from .plan import Args, Irregular, Range, iovec_inputs

_IOCB_SIZE = 64
_IOCB_KEY, _IOCB_OPCODE, _IOCB_BUFFER = 8, 16, 24
_PWRITE, _PWRITEV = 1, 8
_MOST = 1 << 16


def _control_blocks(args: Args, memory: Memory) -> list[int]:
    count = min(args[1], _MOST)
    return list(struct.unpack(f"<{count}Q", memory.read(args[2], count * 8))) if count else []


def _submitted(args: Args, memory: Memory) -> Iterator[Range]:
    blocks = _control_blocks(args, memory)
    yield Range(2, args[2], len(blocks) * 8, "struct")
    for block in blocks:
        opcode = read_u32(memory, block + _IOCB_OPCODE) & 0xFFFF
        [(address, length)] = read_pairs(memory, block + _IOCB_BUFFER, 1)
        yield Range(2, block, _IOCB_SIZE, "struct")
        if opcode == _PWRITE:
            yield Range(2, address, length, "data")
        elif opcode == _PWRITEV:
            yield from iovec_inputs(memory, 2, address, length, with_data=True)


def _keys(args: Args, result: int, memory: Memory, state: object) -> Iterator[Range]:
    """The kernel stores KIOCB_KEY in each block that it takes."""
    assert isinstance(state, list)
    for block in state[: result + 1]:
        yield Range(2, block + _IOCB_KEY, 4, "struct")


RULES = {"io_submit": Irregular(_submitted, _control_blocks, _keys)}
