# SPDX-License-Identifier: GPL-2.0-or-later
"""The blocks of a trace file, and what is small in them; nothing that the file says is trusted.

Runs in GDB's Python too: standard library and `construct` only.
"""

from __future__ import annotations

import json
import os
import struct
import uuid
import zlib
from collections import OrderedDict, defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from construct import ConstructError

from sysrift.errors import TraceError
from sysrift.trace import codec
from sysrift.trace.events import EventsBlock
from sysrift.trace.model import (
    End,
    Event,
    FileReference,
    Image,
    MappingImage,
    PageRun,
    Process,
    Program,
)
from sysrift.trace.schema import (
    MAGIC,
    MAJOR,
    TRAILER_MAGIC,
    BlockFlag,
    BlockType,
    ChecksumsBlock,
    FileHeader,
    ImageBlock,
    IndexBlock,
)

MAX_BLOCK = 1 << 30
"""No block is larger than this, stored or raw; the writer's are far smaller."""

_CACHED_BLOCKS = 8
_MASK = 0xFFFFFFFFFFFFFFFF
_MOST_SPANS = 1 << 20


class BlockEntry(NamedTuple):
    """Where a block is, which process it is about, and for EVENTS how many events it has."""

    type: int
    offset: int
    process: int
    first_event: int
    count: int  # type: ignore[assignment]  # hides tuple.count


class Span(NamedTuple):
    """Events `first` to `first` + `length` - 1 of a process lie in a block of events."""

    first: int
    length: int
    offset: int  # the block's


class TraceFile:
    """An open trace file, which holds the events of one or more processes.

    Attributes: `path`, `uuid`, `metadata` (the METADATA block), `files` (id to FileReference),
    `processes` (id to Process), `ends` (id to End, of those that ended), `programs` (id to what it
    executed), `end` (None when the recording ended abnormally), `notes`, `event_count` (of all
    processes), `size` in bytes. Raises TraceError from any method when the file is not what it
    should be.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        try:
            self._file = open(self.path, "rb")
            self.size = os.fstat(self._file.fileno()).st_size
        except IsADirectoryError:
            raise TraceError(f"{path} is a directory, not a trace") from None
        except OSError as error:
            raise TraceError(f"cannot open the trace {path}: {error.strerror}") from None
        self._cache: OrderedDict[int, EventsBlock] = OrderedDict()
        self._read_block: Callable[[int], EventsBlock] = self.read_block
        self.metadata: dict[str, Any] = {}
        self.files: dict[int, FileReference] = {}
        self.notes: list[str] = []
        self.end: End | None = None
        self.processes: dict[int, Process] = {}
        self.programs: dict[int, list[Program]] = defaultdict(list)
        self.ends: dict[int, End] = {}
        self.checksums: dict[int, dict[int, bytes]] = defaultdict(dict)
        try:
            self._read_header()
            self._entries = self._read_index() or self._scan()
            self._load()
        except BaseException:
            self._file.close()
            raise

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def __enter__(self) -> TraceFile:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # -- blocks ---------------------------------------------------------------------------------

    def _at(self, offset: int, length: int) -> bytes:
        # Another thread may read too (see `ahead`), so there is no file position.
        return os.pread(self._file.fileno(), length, offset)

    def _read_header(self) -> None:
        head = self._at(0, 32)
        if not head:
            raise TraceError(f"{self.path} is empty: nothing was recorded into it")
        if head[:8] != MAGIC:
            raise TraceError(f"{self.path} is not a SysRift trace (its first bytes are not SRL's)")
        try:
            header = FileHeader.parse(head)
        except ConstructError:
            raise TraceError(f"{self.path} is cut off within its header") from None
        if header.major > MAJOR:
            raise TraceError(
                f"{self.path} has format {header.major}.{header.minor}, this SysRift reads up to "
                f"{MAJOR}.x: use a newer SysRift"
            )
        if header.major < MAJOR:
            raise TraceError(
                f"{self.path} has format {header.major}.{header.minor}, of an older SysRift, and "
                f"this one reads {MAJOR}.x: record again"
            )
        if not 32 <= header.length <= 4096:
            raise TraceError(f"{self.path} has a damaged header")
        self.format = f"{header.major}.{header.minor}"
        self.uuid = uuid.UUID(bytes=header.uuid)
        self._body = header.length

    def _block_head(self, offset: int) -> tuple[int, ...] | None:
        raw = self._at(offset, codec.BLOCK_HEADER.size)
        if len(raw) < codec.BLOCK_HEADER.size:
            return None
        head = codec.BLOCK_HEADER.unpack(raw)
        if head[3] > MAX_BLOCK or head[4] > MAX_BLOCK:
            raise TraceError(
                f"damaged trace: the block at byte {offset} of {self.path} is too long"
            )
        return head

    def _block(self, offset: int, expect: int | None = None) -> bytes:
        """The raw bytes of the block at `offset`, its checksum verified."""
        kind, codec_id, raw_length, stored = self._verified(offset)
        if expect is not None and kind != expect:
            raise TraceError(f"damaged trace: another block than expected at byte {offset}")
        return codec.decompress(codec_id, stored, raw_length)

    def _verified(self, offset: int) -> tuple[int, int, int, bytes]:
        """Type, codec, raw length and stored bytes of the block at `offset`, its checksum verified.

        Raises TraceError also for a block that may not be skipped and is not understood.
        """
        head = self._block_head(offset) if 0 < offset < self.size else None
        if head is None:
            raise TraceError(f"damaged trace: no block at byte {offset} of {self.path}")
        kind, codec_id, flags, stored_length, raw_length, crc, process, first = head
        if offset + codec.BLOCK_HEADER.size + stored_length > self.size:
            # Asked before reading: a read would first allocate what the header claims.
            raise TraceError(f"damaged trace: the block at byte {offset} of {self.path} is cut off")
        stored = self._at(offset + codec.BLOCK_HEADER.size, stored_length)
        zeroed = codec.BLOCK_HEADER.pack(
            kind, codec_id, flags, stored_length, raw_length, 0, process, first
        )
        if len(stored) != stored_length or zlib.crc32(stored, zlib.crc32(zeroed)) != crc:
            raise TraceError(f"damaged trace: the block at byte {offset} of {self.path} is corrupt")
        if flags & BlockFlag.UNKNOWN_REQUIRED or (
            flags & BlockFlag.REQUIRED and kind not in BlockType._value2member_map_
        ):
            raise TraceError(
                f"{self.path} needs a newer SysRift: block type {kind}, flags {flags:#x} at "
                f"byte {offset}"
            )
        return kind, codec_id, raw_length, stored

    def _read_index(self) -> list[BlockEntry] | None:
        """The index of a cleanly closed trace; None when there is none (or a damaged one)."""
        trailer = self._at(max(self.size - 16, 0), 16)
        if len(trailer) != 16 or trailer[8:] != TRAILER_MAGIC:
            return None
        end_offset = struct.unpack("<Q", trailer[:8])[0]
        try:
            self.end = self._parse_end(self._block(end_offset, BlockType.END))
            if not self.end.index_offset:
                return None
            entries = IndexBlock.parse(self._block(self.end.index_offset, BlockType.INDEX))
        except (TraceError, ConstructError, struct.error):
            return None
        return [BlockEntry(e.type, e.offset, e.process, e.first_event, e.count) for e in entries]

    def _scan(self) -> list[BlockEntry]:
        """Find the blocks one after another; a partly written last one is left out."""
        entries = []
        offset = self._body
        while True:
            head = self._block_head(offset)
            if head is None:
                break
            kind, _, flags, stored_length, _, _, process, first = head
            after = offset + codec.BLOCK_HEADER.size + stored_length
            # A tail of zeros is what a file system may leave after a power failure.
            if after > self.size or not any(head):
                break
            bulk = (kind == BlockType.EVENTS and first) or (kind == BlockType.DATA and not first)
            if not (bulk and flags == BlockFlag.REQUIRED):
                # A damaged header may claim another type. What is large is verified when it is
                # read; all else is here, also what would only be skipped.
                self._verified(offset)
            count = 0
            if kind == BlockType.EVENTS:
                body = self._at(offset + codec.BLOCK_HEADER.size, 4)
                count = struct.unpack("<I", body)[0] if len(body) == 4 else 0
            elif kind == BlockType.END:
                self.end = self._parse_end(self._block(offset, BlockType.END))
                break
            entries.append(BlockEntry(kind, offset, process, first, count))
            offset = after
        return entries

    @staticmethod
    def _json(raw: bytes, what: str) -> dict[str, Any]:
        try:
            value = json.loads(raw.decode())
        except (ValueError, RecursionError):
            raise TraceError(f"damaged trace: its {what} is not readable") from None
        if not isinstance(value, dict):
            raise TraceError(f"damaged trace: its {what} is not readable")
        return value

    def _parse_end(self, raw: bytes) -> End:
        value = self._json(raw, "end")
        known = {key: value[key] for key in End.__dataclass_fields__ if key in value}
        for key, given in known.items():
            if not isinstance(given, str if key in ("how", "message") else int):
                raise TraceError("damaged trace: its end is not readable")
        try:
            return End(**known)
        except TypeError:
            raise TraceError("damaged trace: its end is not readable") from None

    def _load(self) -> None:
        """Read everything small: metadata, files, processes, notes, checksums, where events are."""
        self._event_blocks: list[BlockEntry] = []
        self._image_blocks: dict[int, dict[int, int]] = defaultdict(dict)
        self._spans: dict[int, list[Span]] = defaultdict(list)
        expected = 1
        for entry in self._entries:
            if entry.type == BlockType.EVENTS:
                if entry.first_event != expected or not 0 < entry.count <= 1 << 24:
                    raise TraceError(f"damaged trace: event {expected} of {self.path} is missing")
                self._event_blocks.append(entry)
                self._load_spans(entry)
                expected += entry.count
            elif entry.type == BlockType.METADATA:
                self.metadata = self._json(self._block(entry.offset, entry.type), "metadata")
            elif entry.type == BlockType.FILE:
                self._load_file(entry)
            elif entry.type == BlockType.IMAGE:
                self._image_blocks[entry.process][entry.first_event] = entry.offset
            elif entry.type in (BlockType.PROCESS, BlockType.PROGRAM, BlockType.PROCESS_END):
                self._load_process(entry)
            elif entry.type == BlockType.NOTE:
                text = self._json(self._block(entry.offset, entry.type), "note").get("text", "")
                self.notes.append(str(text))
            elif entry.type == BlockType.CHECKSUMS:
                try:
                    sums = ChecksumsBlock.parse(self._block(entry.offset, entry.type))
                except ConstructError:
                    raise TraceError("damaged trace: its checksums are not readable") from None
                for item in sums:
                    self.checksums[item.process][item.event] = item.digest
            elif entry.type not in BlockType._value2member_map_:
                self._verified(entry.offset)  # refuses what may not be skipped
        self.event_count = expected - 1
        if not self.metadata:
            raise TraceError(f"{self.path} is cut off before its metadata: nothing to use in it")
        if not any(0 in self._image_blocks[process] for process in self.processes):
            raise TraceError(f"{self.path} is cut off before the first image: nothing to replay")

    def _load_spans(self, entry: BlockEntry) -> None:
        """Note whose events a block of events has: they must go on where the last ones ended."""
        at = entry.offset + codec.BLOCK_HEADER.size
        problem = TraceError(f"damaged trace: the block at byte {entry.offset} has wrong spans")
        if not 0 < entry.offset < self.size:
            raise problem
        try:
            sites = codec.EVENTS_HEAD.unpack(self._at(at, codec.EVENTS_HEAD.size))[3]
            at += codec.EVENTS_HEAD.size + 8 * sites
            count = struct.unpack("<I", self._at(at, 4))[0]
            if count > min(_MOST_SPANS, entry.count):
                raise problem
            spans = list(codec.SPAN.iter_unpack(self._at(at + 4, count * codec.SPAN.size)))
        except struct.error:
            raise problem from None
        if sum(span[2] for span in spans) != entry.count:
            raise problem
        for process, first, length in spans:
            if process not in self.processes or first != self._next_number(process):
                raise problem
            self._spans[process].append(Span(first, length, entry.offset))

    def _next_number(self, process: int) -> int:
        """The number that the next event of a process has, after those that are known so far."""
        spans = self._spans[process]
        if spans:
            return spans[-1].first + spans[-1].length
        return self.processes[process].first_event

    def _load_process(self, entry: BlockEntry) -> None:
        raw = self._block(entry.offset, entry.type)
        if entry.type == BlockType.PROCESS_END:
            self.ends[entry.process] = self._parse_end(raw)
            return
        value = self._json(raw, "process table")
        try:
            if entry.type == BlockType.PROGRAM:
                program = Program(
                    int(value["event"]),
                    str(value["exe"]),
                    tuple(str(word) for word in value["argv"]),
                )
                self.programs[entry.process].append(program)
                return
            process = Process(
                id=int(value["id"]),
                pid=int(value["pid"]),
                how=str(value["how"]),
                parent=int(value["parent"]),
                parent_event=int(value["parent_event"]),
                time_us=int(value["time_us"]),
                cpu=int(value["cpu"]),
            )
        except (KeyError, TypeError, ValueError, OverflowError):
            raise TraceError("damaged trace: its process table is not readable") from None
        # Parents have smaller ids than their children, so going up always ends.
        if (
            process.id != entry.process
            or process.id in self.processes
            or not 0 <= process.parent < process.id
            or (process.parent and process.parent not in self.processes)
            or (process.parent_event < 1 if process.parent else process.parent_event != 0)
        ):
            raise TraceError("damaged trace: its process table makes no sense")
        self.processes[process.id] = process

    def programs_of(self, process: int) -> list[Program]:
        """What a process executed, one after another, or else what its parent did."""
        while process not in self.programs and self.processes[process].parent:
            process = self.processes[process].parent
        return self.programs.get(process, [])

    def last_number(self, process: int) -> int:
        """The number of a process's last event; without any, the number before its first."""
        return self._next_number(process) - 1

    def end_of(self, process: int) -> End | None:
        """How a process ended; None when the recording was cut off before."""
        end = self.ends.get(process)
        if end is not None and end.events > self.last_number(process):
            return None  # what came before was not written any more
        if end is None and process == min(self.processes):
            return self.end
        return end

    def spans(self, process: int) -> list[Span]:
        """Where the events of a process are, in order."""
        return self._spans[process]

    def images(self, process: int) -> dict[int, int]:
        """The images of a process: after which event, and the block's file offset."""
        return self._image_blocks[process]

    def event_blocks(self) -> list[BlockEntry]:
        """The blocks of events, in the order in which the events happened."""
        return self._event_blocks

    def _load_file(self, entry: BlockEntry) -> None:
        value = self._json(self._block(entry.offset, entry.type), "file table")
        try:
            reference = FileReference(
                id=int(value["id"]),
                path=str(value["path"]),
                size=int(value["size"]),
                mtime_ns=int(value["mtime_ns"]),
                offset=int(value["offset"]),
                length=int(value["length"]),
                sha256=str(value["sha256"]),
                chunks=tuple(int(chunk) for chunk in value["chunks"]),
                device=int(value.get("device", 0)),
                inode=int(value.get("inode", 0)),
                extents=tuple(
                    (int(offset), int(length)) for offset, length in value.get("extents", ())
                ),
            )
        except (KeyError, TypeError, ValueError, OverflowError):
            raise TraceError("damaged trace: its file table is not readable") from None
        self.files[reference.id] = reference

    @property
    def closed(self) -> bool:
        """Whether the recording ended in an orderly way (there is an end block)."""
        return self.end is not None

    def blocks(self) -> Iterator[tuple[BlockEntry, int, int]]:
        """Every block with its stored and raw length, for statistics."""
        for entry in self._entries:
            head = self._block_head(entry.offset) if 0 < entry.offset < self.size else None
            if head is None:
                raise TraceError(f"damaged trace: no block at byte {entry.offset} of {self.path}")
            yield entry, head[3], head[4]

    def payload_bytes(self) -> int:
        """How many of the stored bytes of the events blocks are payload, for statistics."""
        total = 0
        for entry in self._event_blocks:
            # A block of events is never compressed as a whole: its streams are.
            at = entry.offset + codec.BLOCK_HEADER.size
            head = self._at(at, codec.EVENTS_HEAD.size)
            if len(head) == codec.EVENTS_HEAD.size:
                sites = codec.EVENTS_HEAD.unpack(head)[3]
                at += len(head) + 8 * sites
                spans = self._at(at, 4)
                at += 4 + int.from_bytes(spans, "little") * codec.SPAN.size
                at += 2 * codec.STREAM.size
                stream = self._at(at, codec.STREAM.size)
                if len(stream) == codec.STREAM.size:
                    total += codec.STREAM.unpack(stream)[2]
        return total

    # -- files and images -----------------------------------------------------------------------

    def file_content(self, reference: FileReference) -> Iterator[bytes]:
        """The stored bytes of a file, piece by piece; nothing when the trace does not hold them."""
        for chunk in reference.chunks:
            yield self._block(chunk, BlockType.DATA)

    def data(self, block: int, length: int) -> bytes:
        """The bytes of a DATA block, which must have `length` of them."""
        data = self._block(block, BlockType.DATA)
        if len(data) != length:
            raise TraceError(f"damaged trace: the data at byte {block} has another length")
        return data

    def image_at(self, offset: int) -> Image:
        """The image in the block at `offset`."""
        try:
            raw = ImageBlock.parse(self._block(offset, BlockType.IMAGE))
        except (ConstructError, UnicodeDecodeError):
            raise TraceError(f"damaged trace: the image at byte {offset} is not readable") from None
        mappings = []
        for item in raw.mappings:
            runs = tuple(PageRun(r.address, r.length, r.block) for r in item.runs)
            if item.start >= item.end or (item.file >= 0 and item.file not in self.files):
                raise TraceError(f"damaged trace: the image at byte {offset} makes no sense")
            mappings.append(
                MappingImage(
                    start=item.start,
                    end=item.end,
                    prot=item.prot,
                    shared=bool(item.shared),
                    offset=item.offset,
                    file=None if item.file < 0 else item.file,
                    name=str(item.name),
                    runs=runs,
                )
            )
        return Image(
            event=raw.event,
            task=raw.task,
            registers=raw.registers,
            xsave=raw.xsave,
            auxv=raw.auxv,
            mm=tuple(raw.mm),
            stack_limit=raw.stack_limit,
            exe=str(raw.exe),
            exe_file=raw.exe_file,
            mappings=tuple(mappings),
            cpu=raw.cpu,
        )

    # -- events ---------------------------------------------------------------------------------

    def block(self, offset: int) -> EventsBlock:
        """The block of events at `offset`."""
        cached = self._cache.get(offset)
        if cached is not None:
            self._cache.move_to_end(offset)
            return cached
        try:
            block = self._cache[offset] = self._read_block(offset)
        except (struct.error, IndexError, KeyError):
            raise self._unreadable(offset) from None
        if len(self._cache) > _CACHED_BLOCKS:
            self._cache.popitem(last=False)
        return block

    def read_block(self, offset: int) -> EventsBlock:
        """Read the block of events at `offset`; in any thread. Raises as `EventsBlock` does too."""
        return EventsBlock(self._block(offset, BlockType.EVENTS))

    def reads_blocks_by(self, read: Callable[[int], EventsBlock]) -> None:
        """Have blocks that are wanted read by something else than `read_block`."""
        self._read_block = read

    def _unreadable(self, offset: int) -> TraceError:
        return TraceError(
            f"damaged trace: the events at byte {offset} of {self.path} are not readable"
        )

    def block_events(self, offset: int) -> dict[int, tuple[Event, ...]]:
        """The events in the block of events at `offset`, of each process."""
        try:
            return self.block(offset).by_process
        except (struct.error, IndexError, KeyError):
            raise self._unreadable(offset) from None

    def block_event(self, offset: int, process: int, number: int) -> Event:
        """One event of a process, in the block of events at `offset`."""
        try:
            return self.block(offset).event(process, number)
        except (struct.error, IndexError, KeyError):
            raise self._unreadable(offset) from None

    def block_glance(self, offset: int, process: int, number: int) -> tuple[int, int]:
        """The kind and the flags of an event of a process, likewise."""
        try:
            return self.block(offset).glance(process, number)
        except (struct.error, IndexError, KeyError):
            raise self._unreadable(offset) from None

    def events_in_order(self, offset: int) -> list[Event]:
        """The events in the block of events at `offset`, as they happened."""
        try:
            return list(EventsBlock(self._block(offset, BlockType.EVENTS)).in_order())
        except (struct.error, IndexError, KeyError):
            raise self._unreadable(offset) from None
