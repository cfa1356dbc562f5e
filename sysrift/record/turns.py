# SPDX-License-Identifier: GPL-2.0-or-later
"""Processes that share memory take turns in user code.

What one of them reads there depends on what the others have written until then, and nothing shows
when that was. So only one of them runs user code at a time, and it changes only where replay can
find the place again: at system calls, and in a computation that makes none for a while at a point
that is looked for. What the others have changed meanwhile is then known exactly.

A turn ends at a call that may block, or after a while when others wait.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from sysrift.syscalls import ReplayClass

if TYPE_CHECKING:
    from sysrift.record.call import Call
    from sysrift.record.recorder import Recorder

SLICE = 0.01
"""Seconds after which a turn ends at the next system call, when others wait."""

PATIENCE = 0.03
"""Seconds after which a turn is ended by force: in a call that blocks unexpectedly, or in code."""


class Turns:
    """Whose turn it is, among the processes that share memory with another recorded one."""

    def __init__(self, processes: Callable[[], Iterable[Recorder]]) -> None:
        self._processes = processes
        self._holder: Recorder | None = None
        self._since = 0.0
        self._waiting: deque[tuple[Recorder, Callable[[], None]]] = deque()
        self._sharing: set[int] | None = set()

    def changed(self) -> None:
        """Somebody maps, unmaps, is born, ends or executes: who shares what must be found anew."""
        self._sharing = None

    def shares(self, recorder: Recorder) -> bool:
        """Whether a process has memory in common with another one."""
        if self._sharing is None:
            self._sharing = set()
            users: dict[tuple[str, int], list[int]] = {}
            for each in self._processes():
                for thing in each.shared.objects:
                    users.setdefault(thing, []).append(each.id)
            for ids in users.values():
                if len(ids) > 1:
                    self._sharing.update(ids)
        return bool(self._sharing) and recorder.id in self._sharing

    def sharers(self, recorder: Recorder) -> list[Recorder]:
        """The other processes that have memory in common with this one."""
        return [
            each
            for each in self._processes()
            if each is not recorder and each.shared.objects & recorder.shared.objects
        ]

    def begin(self, recorder: Recorder, go_on: Callable[[], None]) -> bool:
        """A process is about to run user code again. False when it has to wait for its turn:
        `go_on` is what to do then."""
        if not self.shares(recorder):
            return True
        now = time.monotonic()
        if self._holder is recorder:
            if not self._waiting or now - self._since < SLICE:
                return True
            self._holder = None
        elif self._holder is None and not self._waiting:
            self._holder, self._since = recorder, now
            return True
        self._waiting.append((recorder, go_on))
        return False

    def wait(self, recorder: Recorder, go_on: Callable[[], None]) -> None:
        """A process whose turn was ended in a computation waits for another one."""
        if self._holder is recorder:
            self._holder = None
        self._waiting.append((recorder, go_on))

    def in_call(self, recorder: Recorder, call: Call) -> None:
        """The process whose turn it is goes into a call: others' turn, if it may block."""
        if self._holder is recorder and not call.rewound:
            row = call.row
            if row is None or row.blocks or row.replay_class is ReplayClass.TASK:
                self._holder = None

    def leave(self, recorder: Recorder) -> None:
        """The process ended, is let go, or was stopped."""
        if self._holder is recorder:
            self._holder = None

    def forget(self, recorder: Recorder) -> None:
        """The process is not recorded any more."""
        self.leave(recorder)
        self._waiting = deque(item for item in self._waiting if item[0] is not recorder)
        self.changed()

    def take_waiting(self, recorder: Recorder) -> Callable[[], None] | None:
        """What a process waits to do in its turn, which is to be done now; None if it does not."""
        for item in self._waiting:
            if item[0] is recorder:
                self._waiting.remove(item)
                return item[1]
        return None

    def next(self) -> tuple[Recorder, Callable[[], None]] | None:
        """The process whose turn begins now, and what is to be done with it; None for none."""
        if self._holder is not None or not self._waiting:
            return None
        recorder, go_on = self._waiting.popleft()
        self._holder, self._since = recorder, time.monotonic()
        return recorder, go_on

    def overdue(self, now: float) -> Recorder | None:
        """The process that keeps others waiting too long, at time.monotonic() `now`."""
        if self._holder is None or not self._waiting or now - self._since < PATIENCE:
            return None
        return self._holder

    @property
    def contended(self) -> bool:
        """Whether somebody waits."""
        return bool(self._waiting)
