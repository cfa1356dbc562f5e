# SPDX-License-Identifier: GPL-2.0-or-later
"""A point's bytes: the schema of record and the code that reads and writes them agree."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sysrift.trace.points import Form, Lead, Piece, Point, Range, Word, pack, unpack
from sysrift.trace.schema import PointSegment

U64, U32 = st.integers(0, (1 << 64) - 1), st.integers(0, (1 << 32) - 1)


def pieces_of(forms: set[Form], most: int) -> st.SearchStrategy[list[Piece]]:
    form = st.sampled_from(sorted(int(form) for form in forms))
    return st.lists(st.builds(Piece, st.integers(5, 15), form, st.just(1)), max_size=most)


# A call is the last of them, if any is.
pieces = st.tuples(pieces_of({*Form} - {Form.CALL}, 4), pieces_of({*Form}, 1)).map(
    lambda parts: (*parts[0], *parts[1])
)


@st.composite
def points(draw: st.DrawFn) -> Point:
    parts = draw(pieces)
    length = sum(piece.length for piece in parts)
    telling = draw(st.binary(max_size=16).map(lambda data: bytes(byte % 27 for byte in data)))
    words = tuple(draw(st.lists(st.builds(Word, U64, U64), max_size=5)))
    leads = [Lead.NOTHING, *([Lead.REGISTER] * bool(telling)), *([Lead.WORD] * bool(words))]
    return Point(
        code=draw(st.binary(min_size=length, max_size=length)),
        pieces=parts,
        lead=int(draw(st.sampled_from(leads))),
        telling=telling,
        words=words,
        ranges=tuple(draw(st.lists(st.builds(Range, U64, U32, U32), max_size=5))),
        xsave=draw(st.binary(max_size=40)),
    )


@given(points())
def test_points_come_back_and_have_the_schemas_bytes(point: Point) -> None:
    packed = pack(point)
    assert unpack(packed) == point
    built = PointSegment.build(
        {
            "code": point.code,
            "pieces": [piece._asdict() for piece in point.pieces],
            "lead": point.lead,
            "telling": point.telling,
            "words": [word._asdict() for word in point.words],
            "ranges": [
                {"address": part.address, "length": part.length, "crc32": part.crc}
                for part in point.ranges
            ],
            "xsave": point.xsave,
        }
    )
    assert built == packed


@pytest.mark.parametrize(
    "parts",
    [
        (Piece(5, Form.CALL, 1), Piece(3, Form.PLAIN, 0)),  # it would return to the wrong place
        (Piece(5, Form.CALL, 2),),  # a displacement that ends behind it
        (Piece(5, 9, 0),),
    ],
)
def test_impossible_instructions_are_refused(parts: tuple[Piece, ...]) -> None:
    length = sum(piece.length for piece in parts)
    with pytest.raises(ValueError):
        unpack(pack(Point(code=bytes(length), pieces=parts)))
