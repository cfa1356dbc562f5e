# SPDX-License-Identifier: GPL-2.0-or-later
"""The trace file: two descriptions of one format, random access, and what damage does."""

from __future__ import annotations

import functools
import json
import os
import random
import resource
import signal
import struct
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from traces import METADATA, Builder, block, contents, crashed, cut_off, fill, image

from sysrift.errors import RecordError, TraceError
from sysrift.trace import codec
from sysrift.trace.model import ABSOLUTE, End, EventKind, SegmentKind
from sysrift.trace.packing import Batch
from sysrift.trace.reader import Trace
from sysrift.trace.schema import (
    BlockHeader,
    BlockType,
    Codec,
    EventRecord,
    EventsBlock,
    FileHeader,
    IndexBlock,
    SegmentRecord,
    Stream,
    Trailer,
)
from sysrift.trace.writer import EVENTS_PER_BLOCK, TraceWriter

U8, U16, U32, U64 = (st.integers(0, (1 << bits) - 1) for bits in (8, 16, 32, 64))
I32, I64 = (st.integers(-(1 << bits - 1), (1 << bits - 1) - 1) for bits in (32, 64))
SIX = st.tuples(*[U64] * 6)
MANY = settings(deadline=None, max_examples=300)


# -- schema and codec are the same format ---------------------------------------------------------


@MANY
@given(st.tuples(U8, U8, U16, I32, U32, U32, U64, I64, U32, U16), SIX)
def test_event_record_has_the_same_bytes_in_schema_and_codec(head, args):
    packed = codec.RECORD.pack(*head, *args)
    names = [
        "kind",
        "flags",
        "site",
        "nr",
        "task",
        "time_delta_us",
        "rsp",
        "result",
        "input_crc",
        "segments",
    ]
    assert EventRecord.build({**dict(zip(names, head)), "args": args}) == packed
    parsed = EventRecord.parse(packed)
    assert (*(parsed[name] for name in names), *parsed.args) == (*head, *args)
    assert EventRecord.sizeof() == codec.RECORD.size


@MANY
@given(st.tuples(U8, U8, U32, U64, U64))
def test_segment_record_has_the_same_bytes_in_schema_and_codec(values):
    packed = codec.SEGMENT.pack(*values)
    names = ["kind", "base", "length", "offset", "block"]
    assert SegmentRecord.build(dict(zip(names, values))) == packed
    parsed = SegmentRecord.parse(packed)
    assert tuple(parsed[name] for name in names) == values


@MANY
@given(st.tuples(U8, U8, U16, U32, U32, U32, U32, U64))
def test_block_header_has_the_same_bytes_in_schema_and_codec(values):
    packed = codec.BLOCK_HEADER.pack(*values)
    names = [
        "type", "codec", "flags", "stored_length", "raw_length", "crc32", "process", "first_event"
    ]  # fmt: skip
    assert BlockHeader.build(dict(zip(names, values))) == packed
    parsed = BlockHeader.parse(packed)
    assert tuple(parsed[name] for name in names) == values


@MANY
@given(st.tuples(U8, U32, U32))
def test_stream_has_the_same_bytes_in_schema_and_codec(values):
    packed = codec.STREAM.pack(*values)
    names = ["codec", "raw_length", "stored_length"]
    assert Stream.build(dict(zip(names, values))) == packed
    assert Stream.sizeof() == codec.STREAM.size


@MANY
@given(st.binary(max_size=400), st.integers(1, 90))
def test_unshuffle_undoes_shuffle(raw, width):
    raw = raw[: len(raw) // width * width]
    assert codec.unshuffle(codec.shuffle(raw, width), width) == raw


@MANY
@given(st.binary(max_size=2000))
def test_decompress_undoes_compress(raw):
    codec_id, stored = codec.compress(raw)
    assert len(stored) <= len(raw)
    assert codec.decompress(codec_id, stored, len(raw)) == raw


def test_what_is_large_and_cannot_be_shrunk_is_stored_as_it_is():
    noise = random.Random(1).randbytes(1 << 20)
    text = b"".join(b"line %d of a text\n" % number for number in range(50_000))
    assert codec.compress(noise) == (Codec.NONE, noise)
    codec_id, stored = codec.compress(text)
    assert codec_id == Codec.ZLIB and len(stored) < len(text) // 4
    # A sample in the middle tells of what lies between a head and a tail like that.
    mixed = noise[:8192] + text + noise[:8192]
    codec_id, stored = codec.compress(mixed)
    assert codec_id == Codec.ZLIB and codec.decompress(codec_id, stored, len(mixed)) == mixed


segments = st.lists(
    st.tuples(
        st.sampled_from([SegmentKind.OUT, SegmentKind.IN]),
        st.sampled_from([0, 1, 2, 3, 4, 5, ABSOLUTE]),
        U64,
        st.binary(max_size=40),
    ),
    max_size=4,
)
events = st.lists(
    st.tuples(
        st.sampled_from(list(EventKind)),
        U8,
        I32,
        st.integers(0, 1 << 33),  # time that passed; more than a record's 32 bits at times
        U64,
        U64,
        I64,
        U32,
        SIX,
        segments,
    ),
    max_size=30,
)


def written(path: Path, made, closed: bool = True) -> list:
    """Write generated events; what the reader should give for each."""
    builder = Builder(path)
    expected, now = [], 0
    for kind, flags, nr, passed, site, rsp, result, crc, args, parts in made:
        now += passed
        builder.writer.add_event(
            kind, flags, nr, builder.process, now, site, rsp, result, crc, args, parts
        )
        placed = [
            (what, base, offset if base == ABSOLUTE else (args[base] + offset) % (1 << 64), data)
            for what, base, offset, data in parts
        ]
        expected.append(
            (kind, flags, nr, builder.process, now, site, rsp, result, crc, args, placed)
        )
    if closed:
        builder.close()
    else:
        builder.cut_off()
    return expected


@settings(deadline=None, max_examples=100)
@given(events)
def test_events_come_back_as_they_were_written(made):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "t.srl")
        expected = written(path, made)
        with Trace(path) as trace:
            assert trace.event_count == len(expected)
            got = list(trace.events())
    for number, (event, want) in enumerate(zip(got, expected), start=1):
        parts = [(s.kind, s.base, s.address, s.data) for s in event.segments]
        assert event.number == number
        assert (*event[1:7], event.rsp, event.result, event.input_crc, event.args, parts) == want


@settings(deadline=None, max_examples=100)
@given(events)
def test_a_block_of_events_can_be_read_by_the_schema_alone(made):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "t.srl")
        written(path, made)
        raw = path.read_bytes()
        with Trace(path) as trace:
            expected = list(trace.events())
            entries = [e for e, _, _ in trace.file.blocks() if e.type == BlockType.EVENTS]
    number = 0
    for entry in entries:
        head = BlockHeader.parse(raw[entry.offset :])
        body = raw[entry.offset + codec.BLOCK_HEADER.size :][: head.stored_length]
        parsed = EventsBlock.parse(body)
        at = len(EventsBlock.build(parsed))
        streams = []
        for stream in (parsed.records, parsed.segments, parsed.payload):
            stored = body[at : at + stream.stored_length]
            streams.append(codec.decompress(stream.codec, stored, stream.raw_length))
            at += stream.stored_length
        assert at == len(body)
        records = codec.unshuffle(streams[0], EventRecord.sizeof())
        pieces = codec.unshuffle(streams[1], SegmentRecord.sizeof())
        now, piece, position = parsed.time_us, 0, 0
        for index in range(parsed.count):
            record = EventRecord.parse(records[index * EventRecord.sizeof() :])
            event = expected[number]
            number += 1
            now += record.time_delta_us
            assert (record.kind, record.flags, record.nr, now) == (
                event.kind, event.flags, event.nr, event.time_us,
            )  # fmt: skip
            assert parsed.sites[record.site] == event.site
            assert (record.rsp, record.result, record.input_crc, tuple(record.args)) == (
                event.rsp, event.result, event.input_crc, event.args,
            )  # fmt: skip
            assert record.segments == len(event.segments)
            for own in event.segments:
                segment = SegmentRecord.parse(pieces[piece * SegmentRecord.sizeof() :])
                piece += 1
                assert (segment.kind, segment.base, segment.length) == (*own[:2], own.length)
                assert streams[2][position : position + segment.length] == own.data
                position += segment.length
        assert piece == parsed.segment_count
    assert number == len(expected)


# -- reading --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def long_trace(tmp_path_factory) -> Path:
    builder = Builder(tmp_path_factory.mktemp("long") / "long.srl")
    for number in range(2 * EVENTS_PER_BLOCK + 100):
        builder.call("getppid", result=number)
    return builder.close()


def test_random_access_by_number_crosses_blocks(long_trace):
    with Trace(long_trace) as trace:
        count = 2 * EVENTS_PER_BLOCK + 100
        assert trace.event_count == count
        edges = {1, 2, EVENTS_PER_BLOCK, EVENTS_PER_BLOCK + 1, 2 * EVENTS_PER_BLOCK + 1, count}
        for number in sorted(edges, reverse=True):
            event = trace.event(number)
            assert (event.number, event.result) == (number, number - 1)
        for outside in (0, -1, count + 1):
            with pytest.raises(IndexError):
                trace.event(outside)


@pytest.mark.parametrize(
    ("first", "last"),
    [
        (1, None),
        (4090, 4100),
        (4096, 4096),
        (4097, 4097),
        (8000, None),
        (-5, 3),
        (9, 8),
        (8290, 9999),
    ],
)
def test_a_range_of_events_is_read(long_trace, first, last):
    with Trace(long_trace) as trace:
        stop = trace.event_count if last is None else min(last, trace.event_count)
        numbers = [event.number for event in trace.events(first, last)]
        assert numbers == list(range(max(first, 1), stop + 1))


def test_everything_is_read_back(tmp_path):
    got = contents(crashed(tmp_path / "t.srl"))
    assert got.metadata == METADATA
    assert [event.number for event, _ in got.events] == list(range(1, 9))
    assert got.notes == ["a remark of the recorder"]
    assert got.checksums == {6: b"0123456789abcdef"}
    assert got.files[1][1] == b"\x7fELF\2\1\1\0"
    assert got.images[0][1] == b"\x90" * 4096
    assert got.end == End(
        "killed", signal=11, duration_us=2500, events=8, index_offset=got.end.index_offset
    )


def test_a_large_buffer_lies_in_blocks_of_its_own(tmp_path):
    builder = Builder(tmp_path / "t.srl")
    data = os.urandom(1 << 20)
    place = builder.writer.add_data(data)
    parts = ((SegmentKind.OUT, 1, 0, (len(data), place)),)
    builder.call("read", 3, 0x1000, len(data), result=len(data), segments=parts)
    with Trace(builder.close()) as trace:
        (segment,) = trace.event(1).segments
        assert segment.data is None
        assert segment.address == 0x1000
        assert trace.segment_data(segment) == data


def test_a_second_image_is_found_by_its_event(tmp_path):
    builder = Builder(tmp_path / "t.srl")
    builder.call("execve", result=0)
    builder.writer.add_image(image(builder.writer, event=1, pages=b"\xcc" * 100))
    with Trace(builder.close()) as trace:
        assert trace.has_image(1)
        assert trace.image(1).event == 1
        with pytest.raises(TraceError, match="no image at event 7"):
            trace.image(7)


def test_the_trace_of_a_killed_writer_holds_every_whole_block(tmp_path):
    path = tmp_path / "t.srl"
    script = (
        "import pathlib, sys; from traces import Builder\n"
        "b = Builder(pathlib.Path(sys.argv[1]))\n"
        "for n in range(10**9): b.call('getppid', result=n)"
    )
    here = Path(__file__).parent
    environment = {**os.environ, "PYTHONPATH": f"{here}:{here.parent.parent}"}
    child = subprocess.Popen([sys.executable, "-c", script, str(path)], env=environment)
    try:
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            if path.exists() and path.stat().st_size > 200_000:
                break
            time.sleep(0.01)
    finally:
        child.send_signal(signal.SIGKILL)
        child.wait()
    with Trace(path) as trace:
        assert not trace.closed
        assert trace.event_count >= EVENTS_PER_BLOCK
        assert [e.result for e in trace.events()] == list(range(trace.event_count))


# -- what is not a trace --------------------------------------------------------------------------


def refusal(path: Path) -> str:
    with pytest.raises(TraceError) as caught:
        contents(path)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_a_missing_file_is_refused(tmp_path):
    assert "No such file" in refusal(tmp_path / "none.srl")


def test_a_directory_is_refused(tmp_path):
    assert "is a directory" in refusal(tmp_path)


def test_an_empty_file_is_refused(tmp_path):
    path = tmp_path / "t.srl"
    path.touch()
    assert "is empty" in refusal(path)


@pytest.mark.parametrize(
    "content", [b"x", b"\x7fELF" + bytes(100), b"\x89SRL\n\n\x1a\n" + bytes(50)]
)
def test_a_foreign_file_is_refused(tmp_path, content):
    path = tmp_path / "t.srl"
    path.write_bytes(content)
    assert "is not a SysRift trace" in refusal(path)


def test_a_newer_major_version_is_refused(tmp_path):
    path = crashed(tmp_path / "t.srl")
    raw = path.read_bytes()
    header = FileHeader.parse(raw)
    path.write_bytes(FileHeader.build({**header, "major": header.major + 1}) + raw[32:])
    assert "use a newer SysRift" in refusal(path)


def test_a_newer_minor_version_with_a_longer_header_is_read(tmp_path):
    path = cut_off(tmp_path / "t.srl")
    before = contents(path)
    raw = path.read_bytes()
    header = FileHeader.parse(raw)
    longer = FileHeader.build({**header, "minor": 9, "length": 40}) + bytes(8)
    path.write_bytes(longer + raw[32:])
    with Trace(path) as trace:  # what refers to blocks by offset is off by 8 in this makeshift
        assert trace.file.format == "2.9"
        assert trace.event_count == len(before.events)


@pytest.mark.parametrize("closed", [False, True])
@pytest.mark.parametrize(
    ("kind", "flags", "understood"),
    [(200, 0, True), (200, 2, True), (200, 1, False), (7, 0x100, False), (7, 0x8000, False)],
)
def test_an_unknown_block_is_skipped_unless_it_is_required(
    tmp_path, closed, kind, flags, understood
):
    builder = fill(Builder(tmp_path / "t.srl"))
    writer = builder.writer
    writer.flush()
    raw = block(kind, flags, b'{"text": "from the future"}')
    writer._index.append((kind, writer.size, 0, 0, 0))
    writer._write(raw)
    path = builder.close() if closed else builder.cut_off()
    if understood:
        assert len(contents(path).events) == 8
    else:
        assert "needs a newer SysRift" in refusal(path)


def test_an_optional_block_may_be_packed_by_an_unknown_codec(tmp_path):
    path = cut_off(tmp_path / "t.srl")
    with path.open("ab") as file:
        file.write(block(200, 0, b"???", codec_id=77))
    assert len(contents(path).events) == 8


def test_a_tail_of_zeros_is_where_the_recording_was_cut_off(tmp_path):
    path = cut_off(tmp_path / "t.srl")
    whole = contents(path)
    with path.open("ab") as file:
        file.write(bytes(4096))
    assert contents(path) == whole


def test_a_length_is_not_believed_before_it_is_checked(tmp_path):
    path = cut_off(tmp_path / "t.srl")
    huge = codec.BLOCK_HEADER.pack(BlockType.NOTE, 0, 0, 1 << 30, 1 << 30, 0, 0, 0)
    with path.open("ab") as file:
        file.write(huge + b"x")
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + (256 << 20), hard))
    try:
        assert len(contents(path).events) == 8
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


@pytest.mark.parametrize(
    "end",
    [b"[]", b"5", b"{}", b'{"how": 5}', b'{"how": "exited", "status": "x"}', b"\xff", b"[" * 99999,
     b'{"how": "exited", "index_offset": "y"}', b'{"how": "exited", "index_offset": 1e999}'],
)  # fmt: skip
def test_an_end_that_makes_no_sense_is_refused(tmp_path, end):
    path = cut_off(tmp_path / "t.srl")
    raw = path.read_bytes()
    path.write_bytes(raw + block(BlockType.END, 1, end) + Trailer.build({"end_offset": len(raw)}))
    assert "its end is not readable" in refusal(path)


@pytest.mark.parametrize(
    "value",
    [b"{}", b'{"id": 1e999}', b"[1]",
     b'{"id": 9, "path": "p", "size": 1, "mtime_ns": 1, "offset": 0, "length": 1e999, "sha256": "",'
     b' "chunks": []}'],
)  # fmt: skip
def test_a_file_that_makes_no_sense_is_refused(tmp_path, value):
    path = cut_off(tmp_path / "t.srl")
    with path.open("ab") as file:
        file.write(block(BlockType.FILE, 1, value))
    assert "its file table is not readable" in refusal(path)


# -- damage ---------------------------------------------------------------------------------------


@functools.cache
def sample(closed: bool) -> tuple[bytes, object]:
    """A small trace: its bytes, and what is in it."""
    with tempfile.TemporaryDirectory() as folder:
        path = (crashed if closed else cut_off)(Path(folder, "t.srl"))
        return path.read_bytes(), contents(path)


def survives(raw: bytes, closed: bool) -> None:
    """Damaged bytes give correct data, as far as they go, or TraceError."""
    with tempfile.NamedTemporaryFile(suffix=".srl") as file:
        file.write(raw)
        file.flush()
        try:
            got = contents(Path(file.name))
        except TraceError as error:
            assert "\n" not in str(error)
            return
    assert got.begins(sample(closed)[1])


@pytest.mark.parametrize("closed", [False, True])
def test_no_truncation_gives_wrong_data(closed):
    raw = sample(closed)[0]
    for length in range(len(raw)):
        survives(raw[:length], closed)


@pytest.mark.parametrize("closed", [False, True])
def test_no_flipped_bit_of_a_small_trace_gives_wrong_data(closed):
    raw = bytearray(sample(closed)[0])
    for place in range(len(raw)):
        for bit in range(8):
            raw[place] ^= 1 << bit
            survives(bytes(raw), closed)
            raw[place] ^= 1 << bit


@settings(deadline=None, max_examples=150)
@given(events, st.booleans(), st.floats(0, 1, exclude_max=True), st.integers(0, 7))
def test_no_flipped_bit_of_any_trace_gives_wrong_data(made, closed, place, bit):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "t.srl")
        written(path, made, closed)
        whole = contents(path)
        raw = bytearray(path.read_bytes())
        raw[int(place * len(raw))] ^= 1 << bit
        path.write_bytes(raw)
        try:
            got = contents(path)
        except TraceError:
            return
    assert got.begins(whole)


@settings(deadline=None, max_examples=200)
@given(st.booleans(), st.integers(0, 10**9), st.binary(min_size=1, max_size=64))
def test_no_overwritten_bytes_give_wrong_data(closed, place, junk):
    raw = bytearray(sample(closed)[0])
    place = 32 + place % (len(raw) - 32)
    raw[place : place + len(junk)] = junk
    survives(bytes(raw[: len(sample(closed)[0])]), closed)


@settings(deadline=None, max_examples=200)
@given(st.binary(max_size=300))
def test_bytes_behind_a_header_never_break_the_reader(junk):
    raw = sample(True)[0][:32] + junk
    with tempfile.NamedTemporaryFile(suffix=".srl") as file:
        file.write(raw)
        file.flush()
        with pytest.raises(TraceError):
            contents(Path(file.name))


@settings(deadline=None, max_examples=300)
@given(st.data())
def test_a_forged_block_with_a_good_checksum_never_breaks_the_reader(data):
    """What a checksum does not catch: a file made to break the reader."""
    kind = data.draw(st.sampled_from([int(kind) for kind in BlockType]))
    raw = data.draw(st.binary(max_size=200))
    whole = sample(False)[0]
    with tempfile.NamedTemporaryFile(suffix=".srl") as file:
        file.write(whole + block(kind, 1, raw))
        file.flush()
        try:
            contents(Path(file.name))
        except TraceError:
            pass


SMALL = st.one_of(st.integers(0, 3), U32)
SPAN = st.tuples(st.sampled_from([1, 0, 7]), st.sampled_from([9, 8, 1]), st.integers(0, 3))


@settings(deadline=None, max_examples=500)
@given(st.data())
def test_forged_events_never_break_the_reader(data):
    """A block of events whose checksum is right and whose counts, lengths and indices are not."""
    count, parts = data.draw(st.integers(1, 3)), data.draw(st.integers(0, 3))
    record = st.builds(codec.RECORD.pack, U8, U8, st.integers(0, 2), I32, U32, U32, U64, I64, U32,
                       st.integers(0, 3), *[U64] * 6)  # fmt: skip
    segment = st.builds(codec.SEGMENT.pack, st.integers(0, 6), st.sampled_from([0, 5, 6, 255]),
                        SMALL, U64, st.one_of(st.just(0), st.integers(0, 6000), U64))  # fmt: skip
    streams = [
        codec.shuffle(b"".join(data.draw(record) for _ in range(count)), codec.RECORD.size),
        codec.shuffle(b"".join(data.draw(segment) for _ in range(parts)), codec.SEGMENT.size),
        data.draw(st.binary(max_size=20)),
    ]
    raw = codec.EVENTS_HEAD.pack(
        count, data.draw(st.sampled_from([parts, 0, 1 << 31])), data.draw(U64),
        data.draw(st.sampled_from([1, 2, 0, 1 << 31])),
    ) + bytes(16)  # fmt: skip
    spans = data.draw(st.lists(SPAN, max_size=2)) or [(1, 9, count)]
    raw += struct.pack("<I", data.draw(st.sampled_from([len(spans), 0, 1 << 31])))
    raw += b"".join(codec.SPAN.pack(*span) for span in spans)
    for stream in streams:
        length = data.draw(st.sampled_from([len(stream), 0, 1 << 31]))
        raw += codec.STREAM.pack(data.draw(st.sampled_from([0, 1, 9])), length, len(stream))
    raw += b"".join(streams)
    with tempfile.NamedTemporaryFile(suffix=".srl") as file:
        file.write(sample(False)[0] + block(BlockType.EVENTS, 1, raw, first=9))
        file.flush()
        try:
            got = contents(Path(file.name))
        except TraceError:
            return
    assert got.events[:8] == sample(False)[1].events


@settings(deadline=None, max_examples=300)
@given(st.lists(st.tuples(st.integers(0, 14), U64, SMALL, SMALL, SMALL), min_size=1, max_size=5))
def test_a_forged_index_never_breaks_the_reader(entries):
    raw = sample(False)[0]
    index = IndexBlock.build(
        [
            {"type": t, "offset": o, "process": p, "first_event": f, "count": c}
            for t, o, p, f, c in entries
        ]
    )
    first = block(BlockType.INDEX, 0, index)
    end = json.dumps({"how": "exited", "index_offset": len(raw)}).encode()
    trailer = Trailer.build({"end_offset": len(raw) + len(first)})
    with tempfile.NamedTemporaryFile(suffix=".srl") as file:
        file.write(raw + first + block(BlockType.END, 1, end) + trailer)
        file.flush()
        with pytest.raises(TraceError):
            contents(Path(file.name))


def test_a_trace_that_cannot_be_created_is_a_clear_error(tmp_path):
    with pytest.raises(RecordError, match="cannot write the trace .*: No such file"):
        TraceWriter(tmp_path / "none" / "t.srl", METADATA)


# -- time -----------------------------------------------------------------------------------------


def test_times_of_a_long_recording(tmp_path):
    """A day of it: gaps above 2^32 us (71 minutes), some in the midst of a block, some below."""
    hour = 3_600_000_000
    gaps = [0, 5, hour, (1 << 32) - 1, 1 << 32, (1 << 32) + 1, 3, 24 * hour, 0, 2 * hour]
    builder = Builder(tmp_path / "day.srl")
    expected = []
    for number, gap in enumerate(gaps * 3):
        builder.time += gap
        builder.call("getpid", result=number)
        expected.append((builder.time, number))
        if number == 12:
            builder.writer.flush()
    trace = Trace(builder.close())
    assert [(event.time_us, event.result) for event in trace.events()] == expected
    assert expected[-1][0] > 72 * hour
    for number, (time_us, _) in enumerate(expected, 1):
        assert trace.event(number).time_us == time_us


def test_events_are_cut_with_the_payload_that_is_theirs() -> None:
    # A segment that names a block, or a file that was mapped, has no bytes of its own.
    width = codec.RECORD.size
    counts = (1, 2, 0, 1)
    segments = [(1, 0, 5, 0, 0), (1, 0, 3, 0, 0), (2, 0, 4097, 0, 7), (1, 0, 2, 0, 0)]
    records = bytearray(width * len(counts))
    for n, count in enumerate(counts):
        struct.pack_into("<H", records, n * width + 36, count)
    batch = Batch(
        bytes(records), b"".join(codec.SEGMENT.pack(*each) for each in segments), b"aaaaabbbcc"
    )
    for at, payload in ((1, b"aaaaa"), (2, b"aaaaabbb"), (3, b"aaaaabbb")):
        first, rest = batch.cut(at)
        assert first.payload == payload and rest.payload == b"aaaaabbbcc"[len(payload) :]
        assert first.records + rest.records == batch.records
        assert first.segments + rest.segments == batch.segments
