# SPDX-License-Identifier: GPL-2.0-or-later
"""A point in a computation: all that replay needs to find it again, as bytes of a segment.

Between two system calls an instruction may be passed a billion times. A point says which of these
passes is meant: by the registers (the event's REGISTERS segment holds them), the xsave area, words
of memory that differ from pass to pass, and checksums of memory beyond those. It also says how
the instructions there can be displaced by a jump, so that replay needs no decoder.

`schema.PointSegment` is the authority for the bytes.
"""

from __future__ import annotations

import enum
import struct
from dataclasses import dataclass
from typing import NamedTuple

MAX_WORDS = 1024
MAX_RANGES = 1024
JUMP_LENGTH = 5
"""Bytes of `jmp rel32`."""

_PIECE = struct.Struct("<BBB")
_WORD = struct.Struct("<QQ")
_RANGE = struct.Struct("<QII")


class Form(enum.IntEnum):
    """What becomes of an instruction that is executed at another address."""

    PLAIN = 0  # the same bytes
    RIP_RELATIVE = 1  # a 32-bit displacement, at offset `at`, counts from the instruction's end
    BRANCH = 2  # jcc or jmp with an 8- or 32-bit displacement that is its last bytes, at `at`
    CALL = 3  # call; `at` is where its 32-bit displacement is if it is a direct one, or one by a
    # rip-relative operand, else 0. Always the last one: it returns to the code behind the point


class Lead(enum.IntEnum):
    """What tells most of the passes from the one that is meant, and is compared first."""

    NOTHING = 0
    REGISTER = 1  # the first of `Point.telling`
    WORD = 2  # the first of `Point.words`


_WIDTHS = {Form.PLAIN: 0, Form.RIP_RELATIVE: 4, Form.BRANCH: 1, Form.CALL: 4}
"""Bytes at least that a displacement at `Piece.at` takes."""


class Piece(NamedTuple):
    """One displaced instruction: its length in bytes, `Form`, and where its displacement is."""

    length: int
    form: int
    at: int


class Word(NamedTuple):
    """Eight bytes of memory at an aligned address."""

    address: int
    value: int


class Range(NamedTuple):
    """The CRC-32 of `length` bytes of memory."""

    address: int
    length: int
    crc: int


@dataclass(frozen=True)
class Point:
    """See the module. `code` are the bytes of all `pieces`; both empty when a jump cannot be put
    there. `telling` are indices into `registers.NAMES`."""

    code: bytes = b""
    pieces: tuple[Piece, ...] = ()
    lead: int = Lead.NOTHING
    telling: bytes = b""
    words: tuple[Word, ...] = ()
    ranges: tuple[Range, ...] = ()
    xsave: bytes = b""


def pack(point: Point) -> bytes:
    """The bytes of a point, for a POINT segment."""
    return b"".join(
        (
            bytes((len(point.code),)),
            point.code,
            bytes((len(point.pieces),)),
            *(_PIECE.pack(*piece) for piece in point.pieces),
            bytes((point.lead, len(point.telling))),
            point.telling,
            struct.pack("<I", len(point.words)),
            *(_WORD.pack(*word) for word in point.words),
            struct.pack("<I", len(point.ranges)),
            *(_RANGE.pack(*part) for part in point.ranges),
            struct.pack("<I", len(point.xsave)),
            point.xsave,
        )
    )


def unpack(data: bytes) -> Point:
    """The point that `data` holds. Raises ValueError when it is damaged."""
    cursor = _Cursor(data)
    code = cursor.take(cursor.number(1))
    pieces = cursor.table(_PIECE, cursor.number(1))
    lead = cursor.number(1)
    telling = cursor.take(cursor.number(1))
    words = cursor.table(_WORD, cursor.number(4))
    ranges = cursor.table(_RANGE, cursor.number(4))
    xsave = cursor.take(cursor.number(4))
    point = Point(
        code,
        tuple(Piece(*row) for row in pieces),
        lead,
        telling,
        tuple(Word(*row) for row in words),
        tuple(Range(*row) for row in ranges),
        xsave,
    )
    _check(point, cursor)
    return point


def _check(point: Point, cursor: _Cursor) -> None:
    if not cursor.at_end:
        raise ValueError("a point with bytes left over")
    if len(point.words) > MAX_WORDS or len(point.ranges) > MAX_RANGES:
        raise ValueError("a point with too much memory")
    if sum(piece.length for piece in point.pieces) != len(point.code):
        raise ValueError("a point whose instructions do not fit their bytes")
    if point.code and len(point.code) < JUMP_LENGTH:
        raise ValueError("a point with too few bytes for a jump")
    for piece in point.pieces:
        form = Form(piece.form)
        width = _WIDTHS[form] if piece.at or form is not Form.CALL else 0
        if not piece.length or (width and piece.at + width > piece.length):
            raise ValueError("a point with an impossible instruction")
    if any(piece.form == Form.CALL for piece in point.pieces[:-1]):
        raise ValueError("a point whose call is not its last instruction")
    if any(index > 26 for index in point.telling):
        raise ValueError("a point with an unknown register")
    wanted = {Lead.NOTHING: True, Lead.REGISTER: point.telling, Lead.WORD: point.words}
    if not wanted[Lead(point.lead)]:
        raise ValueError("a point that leads with nothing")


class _Cursor:
    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    @property
    def at_end(self) -> bool:
        return self._at == len(self._data)

    def take(self, length: int) -> bytes:
        part = self._data[self._at : self._at + length]
        if len(part) != length:
            raise ValueError("a point that is cut short")
        self._at += length
        return part

    def number(self, width: int) -> int:
        return int.from_bytes(self.take(width), "little")

    def table(self, row: struct.Struct, count: int) -> list[tuple[int, ...]]:
        return list(row.iter_unpack(self.take(row.size * count)))
