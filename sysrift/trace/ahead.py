# SPDX-License-Identifier: GPL-2.0-or-later
"""Unpacking the next blocks of events on another CPU, while the one before them is replayed.

What a program reads is most of many traces, and zlib gives some 300 MB of it a second: as much
time as the program itself takes with it. zlib lets other Python code run meanwhile.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from queue import SimpleQueue

from sysrift.trace.events import EventsBlock
from sysrift.trace.file import TraceFile
from sysrift.trace.packing import SWITCH_INTERVAL

_AHEAD = 3
"""Blocks: one is mostly done when it is asked for, others wait should the next ones be larger."""


class _Reader:
    """The thread, and what it was asked for."""

    def __init__(
        self, read: Callable[[int], EventsBlock], offsets: Sequence[int], cpus: frozenset[int]
    ) -> None:
        self._read = read
        self._after = dict(itertools.pairwise(offsets))
        self._cpus = cpus
        self._asked: dict[int, Future[EventsBlock]] = {}
        self._queue: SimpleQueue[tuple[int, Future[EventsBlock]] | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._thread.start()

    def block(self, offset: int) -> EventsBlock:
        """The block of events at `offset`. Those that follow it in the file are read meanwhile."""
        future = self._asked.pop(offset, None)
        wanted: list[int] = []
        following = self._after.get(offset)
        while following is not None and len(wanted) < _AHEAD:
            wanted.append(following)
            following = self._after.get(following)
        # Somewhere else was gone to: what was thought to follow does not matter any more.
        for other in [each for each in self._asked if each not in wanted]:
            self._asked.pop(other).cancel()
        for each in wanted:
            if each not in self._asked:
                asked = self._asked[each] = Future()
                self._queue.put((each, asked))
        if future is None or future.cancel():  # (not begun with: this thread is as quick)
            return self._read(offset)
        return future.result()

    def _work(self) -> None:
        # Signals are for the main thread, which may wait in a system call that they interrupt.
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        with contextlib.suppress(OSError):
            os.sched_setaffinity(0, self._cpus)
        while (asked := self._queue.get()) is not None:
            offset, future = asked
            if not future.set_running_or_notify_cancel():
                continue
            try:
                block = self._read(offset)
                _ = block.is_sound  # (whoever plays it asks for that)
                future.set_result(block)
            except BaseException as error:
                future.set_exception(error)

    def close(self) -> None:
        """End the thread."""
        for future in self._asked.values():
            future.cancel()
        self._queue.put(None)
        self._thread.join()


@contextlib.contextmanager
def reading_ahead(file: TraceFile, cpus: frozenset[int]) -> Iterator[None]:
    """Within the context blocks of events are unpacked ahead in a thread, which runs on `cpus`."""
    offsets = [entry.offset for entry in file.event_blocks()]
    if len(cpus) < 2 or len(offsets) < 2:
        yield
        return
    reader = _Reader(file.read_block, offsets, cpus)
    interval = sys.getswitchinterval()
    sys.setswitchinterval(SWITCH_INTERVAL)
    file.reads_blocks_by(reader.block)
    try:
        yield
    finally:
        file.reads_blocks_by(file.read_block)
        sys.setswitchinterval(interval)
        reader.close()
