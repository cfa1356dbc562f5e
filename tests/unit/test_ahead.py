# SPDX-License-Identifier: GPL-2.0-or-later
"""Blocks of events that a thread unpacks ahead are what they are without it, damaged ones too."""

from __future__ import annotations

import random
import threading
from collections import defaultdict
from pathlib import Path

import pytest
import traces

from sysrift.errors import TraceError
from sysrift.trace.ahead import reading_ahead
from sysrift.trace.events import EventsBlock
from sysrift.trace.file import TraceFile
from sysrift.trace.model import SegmentKind
from sysrift.trace.reader import Trace

BOTH = frozenset({0, 1})


def _trace(path: Path, blocks: int = 30) -> Path:
    builder = traces.Builder(path)
    numbers = random.Random(1)
    for block in range(blocks):
        for number in range(5):
            data = numbers.randbytes(40) * 20 + bytes([block, number])
            segments = ((SegmentKind.OUT, 1, 0, data),)
            builder.call("read", 3, traces.BUFFER, len(data), result=len(data), segments=segments)
        builder.writer.flush()
    return builder.close()


def _content(file: TraceFile, offset: int) -> tuple[object, ...]:
    block = file.block(offset)
    return (block.records, block.segments, block.payload, block.sites, block.first, block.count)


def test_all_blocks_in_order_and_anywhere_are_the_same(tmp_path: Path) -> None:
    path = _trace(tmp_path / "t.srl")
    with TraceFile(path) as file:
        offsets = [entry.offset for entry in file.event_blocks()]
        assert len(offsets) == 30
        expected = {offset: _content(file, offset) for offset in offsets}
    numbers = random.Random(2)
    for order in (offsets, offsets[::-1], numbers.choices(offsets, k=200)):
        with TraceFile(path) as file, reading_ahead(file, BOTH):
            assert all(_content(file, offset) == expected[offset] for offset in order)


class _Noting(TraceFile):
    """Notes which thread reads a block, when it begins to."""

    def __init__(self, path: Path) -> None:
        self.begun: dict[int, threading.Event] = defaultdict(threading.Event)
        self.readers: dict[int, threading.Thread] = {}
        super().__init__(path)

    def read_block(self, offset: int) -> EventsBlock:
        self.readers[offset] = threading.current_thread()
        self.begun[offset].set()
        return super().read_block(offset)


def test_the_next_blocks_are_read_in_another_thread_meanwhile(tmp_path: Path) -> None:
    with _Noting(_trace(tmp_path / "t.srl")) as file, reading_ahead(file, BOTH):
        first, *others = [entry.offset for entry in file.event_blocks()]
        file.block(first)
        for offset in others:
            assert file.begun[offset].wait(20)
            file.block(offset)
        assert file.readers.pop(first) is threading.current_thread()
        assert threading.current_thread() not in file.readers.values()


def test_a_damaged_block_is_told_when_it_is_wanted_and_not_before(tmp_path: Path) -> None:
    path = _trace(tmp_path / "t.srl")
    with TraceFile(path) as file:
        offsets = [entry.offset for entry in file.event_blocks()]
    data = bytearray(path.read_bytes())
    data[offsets[8] - 1] ^= 0xFF
    path.write_bytes(data)
    with TraceFile(path) as file, reading_ahead(file, BOTH):
        for offset in offsets[:7]:
            file.block(offset)
        for _ in range(2):  # not only once
            with pytest.raises(TraceError, match=f"byte {offsets[7]} "):
                file.block(offsets[7])
        for offset in offsets[8:]:
            file.block(offset)


def test_the_thread_is_gone_afterwards_whatever_happened(tmp_path: Path) -> None:
    path = _trace(tmp_path / "t.srl")
    before = threading.active_count()
    with (
        TraceFile(path) as file,
        pytest.raises(ZeroDivisionError),
        reading_ahead(file, BOTH),
    ):
        file.block(file.event_blocks()[0].offset)
        assert threading.active_count() == before + 1
        raise ZeroDivisionError
    assert threading.active_count() == before


def test_one_cpu_needs_no_thread(tmp_path: Path) -> None:
    before = threading.active_count()
    trace = Trace(_trace(tmp_path / "t.srl"))
    with reading_ahead(trace.file, frozenset({0})):
        assert threading.active_count() == before
        assert [event.number for event in trace.events(1, trace.event_count)][-1] == 150
    trace.close()
