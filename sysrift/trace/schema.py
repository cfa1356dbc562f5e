# SPDX-License-Identifier: GPL-2.0-or-later
"""The format of an `.srl` file: the schema of record of every header and block.

A file is a `FileHeader`, then blocks, each a `BlockHeader` and `stored_length` bytes, then, after
a clean close, a `Trailer`. All integers are little-endian. `construct` parses at 10-40 us a
struct, so events go through `codec` (plain `struct`); a property test holds both to the same bytes.

Format history:

* 1.0  first version.
* 2.0  a trace holds a tree of processes: block headers and index entries name a process, blocks of
       events say whose events they hold, PROCESS, PROGRAM and PROCESS_END blocks. Segments
       FILE_SIZE, FILE_DATA and POINT, event kind SHARED.
"""

from __future__ import annotations

import enum

from construct import (
    Array,
    Byte,
    Bytes,
    Const,
    GreedyBytes,
    Int8ul,
    Int16ul,
    Int32sl,
    Int32ul,
    Int64sl,
    Int64ul,
    PascalString,
    Prefixed,
    PrefixedArray,
    Struct,
)

MAGIC = b"\x89SRL\r\n\x1a\n"
TRAILER_MAGIC = b"SRLEND\r\n"
MAJOR = 2
MINOR = 0


class BlockType(enum.IntEnum):
    """What a block holds."""

    METADATA = 1  # JSON: what was recorded, where, on which machine
    IMAGE = 2  # `ImageBlock`
    FILE = 3  # JSON: a `FileReference`
    EVENTS = 4  # `EventsBlock` and its three streams
    DATA = 5  # bytes that another block refers to by this block's file offset
    CHECKSUMS = 6  # `ChecksumsBlock`
    NOTE = 7  # JSON: {"text": ...}: something the user should know
    INDEX = 8  # `IndexBlock`
    END = 9  # JSON: how the recording ended
    PROCESS = 10  # JSON: a `model.Process`: a recorded process begins
    PROGRAM = 11  # JSON: a `model.Program`: what it executes from an event on
    PROCESS_END = 12  # JSON: a `model.End`: how it ended


class BlockFlag(enum.IntFlag):
    """Flags of a block header. A reader that does not know a set flag of the upper byte refuses."""

    REQUIRED = 0x0001  # a reader that does not know this block type must refuse the trace
    UNKNOWN_REQUIRED = 0xFF00


class Codec(enum.IntEnum):
    """How bytes are compressed. Ids are for ever; zlib is always there."""

    NONE = 0
    ZLIB = 1


FileHeader = Struct(
    "magic" / Const(MAGIC),
    "major" / Int16ul,
    "minor" / Int16ul,
    "length" / Int32ul,  # of this header, in bytes: later versions may make it longer
    "uuid" / Bytes(16),
)

BlockHeader = Struct(
    "type" / Int8ul,
    "codec" / Int8ul,
    "flags" / Int16ul,
    "stored_length" / Int32ul,
    "raw_length" / Int32ul,
    "crc32" / Int32ul,  # of this header with crc32 = 0, and the stored bytes
    "process" / Int32ul,  # `model.Process.id` that it is about; 0: the whole recording
    "first_event" / Int64ul,  # number; in EVENTS: ordinal of its first record among all records
)

Trailer = Struct(
    "end_offset" / Int64ul,  # file offset of the END block
    "magic" / Const(TRAILER_MAGIC),
)

EventRecord = Struct(
    "kind" / Int8ul,
    "flags" / Int8ul,
    "site" / Int16ul,  # index into EventsBlock.sites
    "nr" / Int32sl,
    "task" / Int32ul,  # `model.Process.id`
    "time_delta_us" / Int32ul,  # since the event before; the block has the absolute time
    "rsp" / Int64ul,
    "result" / Int64sl,
    "input_crc" / Int32ul,
    "segments" / Int16ul,
    "args" / Array(6, Int64ul),
)

SegmentRecord = Struct(
    "kind" / Int8ul,
    "base" / Int8ul,  # the argument that `offset` is relative to; 255: none
    "length" / Int32ul,
    "offset" / Int64ul,
    "block" / Int64ul,  # 0: the bytes are in this block's payload stream
)

Stream = Struct(
    "codec" / Int8ul,
    "raw_length" / Int32ul,
    "stored_length" / Int32ul,
)

EventsBlock = Struct(
    "count" / Int32ul,
    "segment_count" / Int32ul,
    "time_us" / Int64ul,  # of the moment that the first record's delta counts from
    "sites" / PrefixedArray(Int32ul, Int64ul),
    # Whose events these are: of each process, the number of its first one here, and how many.
    "spans"
    / PrefixedArray(Int32ul, Struct("process" / Int32ul, "first" / Int64ul, "count" / Int32ul)),
    # The records are shuffled: all first bytes, then all second bytes, ... because neighbouring
    # events differ in few of them. Payload is the segments' bytes in order.
    "records" / Stream,
    "segments" / Stream,
    "payload" / Stream,
)

_Text = PascalString(Int32ul, "utf8")

ImageBlock = Struct(
    "event" / Int64ul,
    "task" / Int32ul,
    "cpu" / Int32sl,  # that the process was bound to then; -1: none
    "registers" / Prefixed(Int32ul, GreedyBytes),
    "xsave" / Prefixed(Int32ul, GreedyBytes),
    "auxv" / Prefixed(Int32ul, GreedyBytes),
    "mm" / Array(11, Int64ul),
    "stack_limit" / Int64ul,
    "exe" / _Text,
    "exe_file" / Int32sl,
    "mappings"
    / PrefixedArray(
        Int32ul,
        Struct(
            "start" / Int64ul,
            "end" / Int64ul,
            "prot" / Byte,
            "shared" / Byte,
            "offset" / Int64ul,
            "file" / Int32sl,  # -1: none
            "name" / _Text,
            "runs"
            / PrefixedArray(
                Int32ul,
                Struct("address" / Int64ul, "length" / Int32ul, "block" / Int64ul),
            ),
        ),
    ),
)

ChecksumsBlock = PrefixedArray(
    Int32ul, Struct("process" / Int32ul, "event" / Int64ul, "digest" / Bytes(16))
)

PointSegment = Struct(
    # The instructions at the point that a jump of 5 bytes displaces; empty: do not patch here.
    "code" / Prefixed(Int8ul, GreedyBytes),
    "pieces"
    / PrefixedArray(
        Int8ul,
        Struct(
            "length" / Int8ul,
            "form" / Int8ul,  # `points.Form`: what becomes of it at another address
            "at" / Int8ul,  # where in it its displacement is
        ),
    ),
    "lead" / Int8ul,  # `points.Lead`: what to compare before everything else
    "telling" / Prefixed(Int8ul, GreedyBytes),  # registers that change, as in user_regs_struct
    "words" / PrefixedArray(Int32ul, Struct("address" / Int64ul, "value" / Int64ul)),
    "ranges"
    / PrefixedArray(
        Int32ul,
        Struct("address" / Int64ul, "length" / Int32ul, "crc32" / Int32ul),
    ),
    "xsave" / Prefixed(Int32ul, GreedyBytes),
)

IndexBlock = PrefixedArray(
    Int32ul,
    Struct(
        "type" / Int8ul,
        "offset" / Int64ul,
        "process" / Int32ul,
        "first_event" / Int64ul,
        "count" / Int32ul,
    ),
)
