# SPDX-License-Identifier: GPL-2.0-or-later
"""Compressing a block of events beside the recording: zlib lets other Python code run meanwhile."""

from __future__ import annotations

import os
import signal
import threading

from sysrift.trace import codec


class Packing(threading.Thread):
    """Compresses `streams` in a thread of its own, on one of `cpus` (none: anywhere)."""

    def __init__(self, streams: list[bytes], cpus: frozenset[int]) -> None:
        super().__init__()
        self.streams = streams
        self._cpus = cpus
        self._packed: list[tuple[int, bytes]] = []

    def run(self) -> None:
        """The thread."""
        # Signals are for the main thread, which may wait in a system call that they interrupt.
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        if self._cpus:
            try:
                os.sched_setaffinity(0, self._cpus)
            except OSError:
                pass
        self._packed = [codec.compress(stream) for stream in self.streams]

    def result(self) -> list[tuple[int, bytes]]:
        """(codec, stored bytes) of each stream; waits for them."""
        self.join()
        return self._packed or [codec.compress(stream) for stream in self.streams]
