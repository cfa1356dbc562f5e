# SPDX-License-Identifier: GPL-2.0-or-later
"""Checkpoints: images of the replayed process, kept in memory, to go back to without starting over.

One is taken where the tracee stands before an event. Pages that are the same in several are kept
once. What an image cannot hold exactly is refused: then there is no checkpoint, and going back
starts at an earlier one.
"""

from __future__ import annotations

import hashlib
import os
import time
from dataclasses import replace
from typing import NamedTuple

from sysrift import image as images
from sysrift.native import STUB_END, STUB_START
from sysrift.replay.engine import Engine, Kept
from sysrift.replay.files import Copies, FileSource, close_copies
from sysrift.trace.model import EventFlag, Image, PageRun
from sysrift.tracee import Mapping
from sysrift.tracee.pagemap import PAGE

BUDGET = 256 << 20
"""Bytes of pages that checkpoints keep, together."""

INTERVAL = 0.25
"""Seconds of replaying between two checkpoints."""

_STUB = range(STUB_START, STUB_END)
_LARGEST_COPIES = 16 << 20  # bytes: they are kept whole in each checkpoint
_MEMFD = "/memfd:"
_MOST_WITHIN = 4  # checkpoints in the midst between two events

_COST = 10  # a checkpoint is taken no sooner than after this many times what the last one took


class Checkpoint(NamedTuple):
    """The process and the engine before event `next`."""

    next: int
    image: Image
    kept: Kept
    pages: tuple[bytes, ...]  # keys: block N of the image is the page of the Nth
    copies: Copies


class _Unkeepable(Exception):
    """There is something in the process that an image does not hold."""


class _Source:
    """The images' `ImageSource`: pages by number, recorded files, and copies (negative ids)."""

    def __init__(self, source: FileSource, blocks: list[bytes], copies: list[str]) -> None:
        self._source = source
        self._blocks = blocks
        self._copies = copies

    def file_path(self, file_id: int) -> str:
        """The path of the file."""
        return self._copies[-1 - file_id] if file_id < 0 else self._source.file_path(file_id)

    def is_stored(self, file_id: int) -> bool:
        """Whether it is a copy."""
        return file_id < 0

    def copy_path(self, file_id: int, in_step: bool = False) -> str:
        """The path of a copy."""
        return self._copies[-1 - file_id]

    def data(self, block: int, length: int) -> bytes:
        """The bytes of a page."""
        return self._blocks[block][:length]


class _Files:
    """The images' `FileRecorder`: the recorded files that are mapped, found by inode."""

    def __init__(self, source: FileSource) -> None:
        # By name too: the devices that stat(2) and maps tell may differ (overlayfs, btrfs).
        self._known = {
            (os.stat(path).st_ino, _MEMFD if path.startswith("/proc/") else path): file
            for file, path in source.paths_in_use()
        }
        for index, inode in enumerate(source.inodes_of_copies):
            self._known[inode, _MEMFD] = -1 - index

    def mapped(self, mapping: Mapping) -> int:
        """The id of the file. Raises _Unkeepable when it is none that can be mapped again."""
        if mapping.start in _STUB:
            return 0  # stays where it is, and is left out
        name = _MEMFD if mapping.name.startswith(_MEMFD) else mapping.name
        file = self._known.get((mapping.inode, name))
        if file is None or (mapping.shared and file >= 0):
            raise _Unkeepable(mapping.name)
        return file


class Checkpoints:
    """The checkpoints of one engine."""

    def __init__(self, engine: Engine, budget: int = BUDGET, interval: float = INTERVAL) -> None:
        self.budget = budget
        self.interval = interval
        self._engine = engine
        self._all: list[Checkpoint] = []
        self._within: list[tuple[int, Checkpoint]] = []  # and their positions, the newest last
        self._pages: dict[bytes, bytes] = {}
        self._due = time.monotonic() + interval

    @property
    def events(self) -> list[int]:
        """The events before which there is a checkpoint, in order."""
        return [checkpoint.next for checkpoint in self._all]

    @property
    def size(self) -> int:
        """Bytes of the pages kept."""
        return sum(map(len, self._pages.values()))

    def consider(self) -> None:
        """Take a checkpoint if it is time to (with an interval of 0: it always is).

        The engine has REACHED an event.
        """
        if self.budget and (not self.interval or time.monotonic() >= self._due):
            began = time.monotonic()
            self.take()
            now = time.monotonic()
            self._due = now + max(self.interval, _COST * (now - began))

    def take(self) -> bool:
        """Take a checkpoint here; False when the process cannot be kept, or there is one.

        The engine has REACHED an event, and nothing of a debugger's is in the code.
        """
        engine = self._engine
        if engine.next > engine.trace.event_count or engine.next in self.events:
            return False
        if engine.trace.event(engine.next).flags & EventFlag.IN_CODE:
            return False
        checkpoint = self._capture()
        if checkpoint is None:
            return False
        self._all.append(checkpoint)
        self._all.sort(key=lambda checkpoint: checkpoint.next)
        while self.size > self.budget and self._all:
            self._thin_out()
        return True

    def _capture(self) -> Checkpoint | None:
        """The process as it is; None when it cannot be kept."""
        engine = self._engine
        if engine.source.size_of_copies > _LARGEST_COPIES or not _has_plain_memory(
            engine.tracee.pid
        ):
            return None
        kept = engine.keep()
        if kept is None:
            return None
        keys: list[bytes] = []

        def add(data: bytes) -> int:
            key = hashlib.blake2b(data, digest_size=16).digest()
            self._pages.setdefault(key, data)
            keys.append(key)
            return len(keys) - 1

        def store(_tracee: object, start: int, length: int, keep_zeros: bool) -> list[PageRun]:
            runs = []
            for at in range(start, start + length, images.CHUNK):
                data = engine.tracee.read_some(at, min(images.CHUNK, start + length - at))
                for page in range(0, len(data), PAGE):
                    part = data[page : page + PAGE]
                    if keep_zeros or part.strip(b"\0"):
                        runs.append(PageRun(at + page, len(part), add(part)))
            return runs

        try:
            image = images.capture(
                engine.tracee, engine.next - 1, _Files(engine.source), add, store
            )
        except (_Unkeepable, OSError):
            self._drop_unused()
            return None
        image = replace(
            image,
            mm=(*image.mm[:5], kept.brk, *image.mm[6:]),
            mappings=tuple(m for m in image.mappings if m.start not in _STUB),
        )
        copies = engine.source.keep_copies()
        return Checkpoint(engine.next, image, kept, tuple(keys), copies)

    def last_before(self, event: int) -> int:
        """The event, at most `event`, of the last checkpoint up to there; 0 when there is none."""
        return max((number for number in self.events if number <= event), default=0)

    def restore(self, event: int) -> None:
        """Put process and engine back to the checkpoint before `event`.

        Raises RemoteSyscallError, OSError or BadAddress when the kernel does not allow it.
        """
        self._restore(next(c for c in self._all if c.next == event))

    def _restore(self, checkpoint: Checkpoint) -> None:
        engine = self._engine
        copies = engine.source.put_back_copies(checkpoint.copies)
        blocks = [self._pages[key] for key in checkpoint.pages]
        images.restore(engine.tracee, checkpoint.image, _Source(engine.source, blocks, copies))
        engine.put_back(checkpoint.kept)
        self._due = time.monotonic() + self.interval

    # -- in the midst between two events ------------------------------------------------------

    def take_within(self, position: int) -> None:
        """Take a checkpoint here, so many instructions behind an event, if that can be. Only the
        last few are kept. Nothing of a debugger's, and no counter, is in the process."""
        checkpoint = self._capture() if self.budget else None
        if checkpoint is None:
            return
        self._within.append((position, checkpoint))
        while len(self._within) > 1 and (
            len(self._within) > _MOST_WITHIN or self.size > self.budget
        ):
            close_copies(self._within.pop(0)[1].copies)
            self._drop_unused()

    def within(self, event: int, position: int) -> list[int]:
        """The positions, at most `position`, of checkpoints between event `event` - 1 and that."""
        return sorted(
            at for at, checkpoint in self._within if checkpoint.next == event and at <= position
        )

    def restore_within(self, event: int, position: int) -> None:
        """Put process and engine back to such a checkpoint. Raises what `restore` does."""
        self._restore(
            next(c for at, c in self._within if c.next == event and at == position)
        )  # fmt: skip

    def close(self) -> None:
        """Let go of all."""
        for checkpoint in [*self._all, *(checkpoint for _, checkpoint in self._within)]:
            close_copies(checkpoint.copies)
        self._all.clear()
        self._within.clear()
        self._pages.clear()

    def _thin_out(self) -> None:
        """Drop the checkpoint whose neighbours are closest together: what is left lies evenly."""
        events = [0, *self.events]
        gaps = [
            (events[i + 1] if i + 1 < len(events) else events[i] + 1) - events[i - 1]
            for i in range(1, len(events))
        ]
        close_copies(self._all.pop(gaps.index(min(gaps))).copies)
        self._drop_unused()

    def _drop_unused(self) -> None:
        kept = [*self._all, *(checkpoint for _, checkpoint in self._within)]
        used = {key for checkpoint in kept for key in checkpoint.pages}
        self._pages = {key: page for key, page in self._pages.items() if key in used}


def _has_plain_memory(pid: int) -> bool:
    """Whether no mapping has what an image does not hold (proc_pid_smaps(5)).

    That is: protection keys, stacks that grow beside the main one, advice on fork or on dumping,
    locked memory, huge pages by mmap.
    """
    name = ""
    with open(f"/proc/{pid}/smaps", encoding="utf-8", errors="replace") as file:
        for line in file:
            first, _, rest = line.partition(" ")
            if not first.endswith(":"):
                name = line
            elif first == "ProtectionKey:" and int(rest):
                return False
            elif first == "VmFlags:":
                flags = set(rest.split())
                if flags & _NOT_HELD or ("gd" in flags and not name.endswith("[stack]\n")):
                    return False
    return True


_NOT_HELD = {"dc", "wf", "ht", "lo"}
