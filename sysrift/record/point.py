# SPDX-License-Identifier: GPL-2.0-or-later
"""Choosing the point where a computing program gets its signal, so that replay finds it again.

The program is interrupted twice. The first time, some of its memory is copied. The second time it
is single-stepped for at most a few milliseconds: until an instruction that a jump can displace
comes up for the third time (then a whole pass of the loop was seen), or one is good enough. What
the passes wrote, and what of the copied memory has changed, tells this pass from the others.
"""

from __future__ import annotations

import enum
import os
import signal
import time
from collections import Counter
from typing import NamedTuple

from sysrift.record.instructions import Decoder, Registers, Run
from sysrift.record.signals import signal_code
from sysrift.record.watched import WatchedMemory
from sysrift.trace.points import MAX_WORDS, Form, Lead, Point, Word
from sysrift.tracee import BadAddress, Tracee, TraceeGone
from sysrift.tracee import ptrace as pt
from sysrift.tracee.registers import NAMES

BUDGET = 0.001
"""Seconds of the recorder's own time that the single-stepping should take, about half of what it
costs; it takes longer as long as no good point comes up. Signals come 20 ms apart."""

WHOLE_PASS = 0.008
"""The same, as long as no instruction was seen a second time."""

_ENOUGH_PASSES = 3


class _Place(enum.IntEnum):
    """How well replay can look for a point there, which decides how fast it comes to it."""

    SINGLE = 0  # a jump displaces one instruction: 1-2 ns a pass
    SEVERAL = 1  # several, none of which is jumped to, as far as is known
    ENTERED = 2  # one of them is jumped to, which traps: 10-50 us each time
    NONE = 3  # there can be no jump, and every pass traps


_TAKEN_FROM = {_Place.SINGLE: (0, 0), _Place.SEVERAL: (1, 50), _Place.ENTERED: (2, 300)}
_NONE_FROM = (4, 2000)
"""How late (see `_choose`), and after how many steps, counted from when it became late, a place is
taken. Of each kind some should have come up before a worse one is: a look at the clock alone would
take anything where the recorder did not get the processor for a while."""

_WRITTEN_WORDS = 256
_CHANGED_WORDS = 512
_NAMED_WORDS = 128
_STACK_WORDS = 112
_CALLERS = 8
_MORE_PAGES = 64
_PAGE = 4096
_MOST_WRITTEN = 512  # bytes by one instruction: more is no variable
_RIP, _RSP = NAMES.index("rip"), NAMES.index("rsp")
_CANDIDATES = tuple(
    NAMES.index(name)
    for name in (
        *["rax", "rbx", "rcx", "rdx", "rsi", "rdi", "rbp"],
        *(f"r{n}" for n in range(8, 16)),
    )
)


class Outcome(NamedTuple):
    """What looking for a point came to.

    `point`: the program stands at it. `status`: a stop came instead, with which the recorder has
    to deal. Neither: the next instruction makes an event, which is as good a place.
    """

    point: Point | None = None
    status: int | None = None


class PointSearch:
    """Chooses points in one program; between two of them it remembers the code that it decoded."""

    def __init__(self, tracee: Tracee) -> None:
        self._tracee = tracee
        self._memory = WatchedMemory(tracee)
        self._looked = False
        self.cost = 0.0
        """Seconds of CPU time that the last point took."""
        self._look_cost = 0.0
        self._decoder: Decoder | None = None
        self._steps: list[Registers] = []
        self._values: dict[int, set[bytes]] = {}
        self._arrived: list[tuple[int, bytes]] = []

    @property
    def has_looked(self) -> bool:
        """Whether the program was interrupted once, and made no event since."""
        return self._looked

    def look(self) -> None:
        """At the first interruption."""
        started = time.thread_time()
        registers = self._tracee.register_values()
        self._memory.look(registers, registers[_RSP])
        self._looked = True
        self._look_cost = time.thread_time() - started

    def forget(self) -> None:
        """The program made an event: the next interruption is a first one again."""
        self._looked = False

    def take_arrived(self) -> list[tuple[int, bytes]]:
        """(signal, siginfo) of what came while choosing and was not delivered."""
        arrived, self._arrived = self._arrived, []
        return arrived

    def choose(self) -> Outcome:
        """At the second interruption: step on to a good point. Raises TraceeGone."""
        self._looked = False
        started = time.thread_time()
        if self._decoder is None:
            self._decoder = Decoder(self._tracee)
        self._steps, self._values = [], {}
        try:
            outcome = self._choose(self._decoder, self._memory)
        finally:
            self._steps = []
        self.cost = self._look_cost + time.thread_time() - started
        return outcome

    def _choose(self, decoder: Decoder, memory: WatchedMemory) -> Outcome:
        started = time.thread_time()
        most = 0
        visits: Counter[int] = Counter()
        runs: dict[int, Run] = {}
        entries: set[int] = set()  # where the program came to by a jump, call or return
        aim: int | None = None
        overdue = 0
        while True:
            now = self._tracee.register_values()
            rip = now[_RIP]
            self._note_written(decoder, memory)
            if decoder.makes_event(rip):
                return Outcome()
            self._steps.append(now)
            if self._steps[:-1] and rip != decoder.next_to(self._steps[-2][_RIP]):
                entries.add(rip)
            # An interpreter's loop is long, and what it writes is all that tells its passes apart.
            budget = BUDGET if most > 1 else WHOLE_PASS
            late = (time.thread_time() - started - budget) / BUDGET
            overdue += late > 0
            if decoder.runs_free(rip):
                if _is_due(_Place.NONE, late, overdue):
                    return Outcome(self._describe(None, decoder, memory))
                # A step would execute one iteration of a repeating one.
                with self._tracee.execution_breakpoint(decoder.next_to(rip)) as works:
                    if not works:
                        return Outcome(self._describe(None, decoder, memory))
                    status = self._step(pt.PTRACE_CONT)
            else:
                visits[rip] += 1
                most = max(most, visits[rip])
                run = decoder.run_at(rip)
                place = _place(rip, run, entries)
                if run is not None:
                    runs[rip] = run
                if (rip == aim and place < _Place.ENTERED) or _is_due(place, late, overdue):
                    return Outcome(self._describe(run, decoder, memory))
                if aim is None and visits[rip] >= _ENOUGH_PASSES:
                    aim = _best(runs, visits, entries)
                    if aim == rip or not runs:
                        return Outcome(self._describe(run, decoder, memory))
                status = self._step(pt.PTRACE_SINGLESTEP)
            if status is not None:
                return Outcome(status=status)

    def _note_written(self, decoder: Decoder, memory: WatchedMemory) -> None:
        """What the last step wrote to the program's own data: which values were there, by word."""
        if not self._steps:
            return
        last = self._steps[-1]
        for start, length in decoder.written(last[_RIP], last):
            if length > _MOST_WRITTEN or not memory.is_own_data(start):
                continue
            first = start & ~7
            try:
                data = self._tracee.read(first, (start + length - first + 7) & ~7)
            except BadAddress:
                continue
            for at in range(0, len(data), 8):
                self._values.setdefault(first + at, set()).add(data[at : at + 8])

    # -- moving ---------------------------------------------------------------------------------

    def _step(self, request: int) -> int | None:
        """Move by one instruction (or to the debug register's); a wait status if that is not
        what happened."""
        while True:
            self._tracee.resume(request)
            _, status = os.waitpid(self._tracee.pid, pt.WALL)
            if status & 0xFF != 0x7F:
                raise TraceeGone(self._tracee.pid, status)
            sig = os.WSTOPSIG(status)
            if status >> 16:
                if sig != signal.SIGTRAP:
                    return status  # a group-stop
                continue  # another PTRACE_INTERRUPT
            siginfo = self._tracee.siginfo()
            code = signal_code(siginfo)
            if sig == signal.SIGTRAP and code > 0:
                return None
            if code > 0 and sig in _FAULTS:
                return status
            self._arrived.append((sig, siginfo))

    # -- describing -----------------------------------------------------------------------------

    def _describe(self, run: Run | None, decoder: Decoder, memory: WatchedMemory) -> Point:
        """Where the program stands now: what tells this pass from the others."""
        here = self._steps[-1]
        if run is not None and self._tracee.read_some(here[_RIP], len(run.code)) != run.code:
            # The code is not what was decoded some time ago: it was generated anew.
            self._decoder = decoder = Decoder(self._tracee)
            run = decoder.run_at(here[_RIP])
        passes = [step for step in self._steps if step[_RIP] == here[_RIP]]
        if len(passes) < 2:
            passes = self._steps
        variety = {index: len({step[index] for step in passes}) for index in _CANDIDATES}
        telling = sorted(
            (index for index in _CANDIDATES if variety[index] > 1), key=lambda i: -variety[i]
        )
        changed, ranges = memory.compare(here, here[_RSP], _CHANGED_WORDS)
        written = self._written_words(changed)
        varies = len(self._values[written[0].address]) if written else 0
        moved = {word.address for word in changed}
        if varies > 1 or (written and written[0].address in moved):
            words = [*written, *changed]
        else:
            words = [*changed, *written]
        if telling and varies <= variety[telling[0]]:
            lead = Lead.REGISTER
        else:
            lead = Lead.WORD if words else Lead.NOTHING
        named = self._named(decoder, memory)
        words += self._words([*memory.stack_words(_STACK_WORDS), *named])
        unique = {word.address: word for word in words}
        ranges += memory.pages_of({*self._values, *named})[:_MORE_PAGES]
        return Point(
            code=run.code if run else b"",
            pieces=run.pieces if run else (),
            lead=lead,
            telling=bytes(telling),
            words=tuple(unique.values())[:MAX_WORDS],
            ranges=tuple(ranges),
            xsave=self._tracee.xsave(),
        )

    def _written_words(self, changed: list[Word]) -> list[Word]:
        """What the steps wrote, the most telling first."""
        moved = {word.address for word in changed}
        written = sorted(
            self._values, key=lambda address: (-len(self._values[address]), address not in moved)
        )
        return self._words(written[:_WRITTEN_WORDS])

    def _named(self, decoder: Decoder, memory: WatchedMemory) -> list[int]:
        """The words of global variables that this code and the code that called it names."""
        found: dict[int, None] = {}
        for place in (self._steps[-1][_RIP], *memory.return_addresses(_CALLERS)):
            for address in decoder.globals_near(place):
                if memory.is_own_data(address):
                    found[address & ~7] = None
            if len(found) >= _NAMED_WORDS:
                break
        return list(found)[:_NAMED_WORDS]

    def _words(self, addresses: list[int]) -> list[Word]:
        pages: dict[int, bytes] = {}
        words = []
        for address in addresses:
            page = address & -_PAGE
            if page not in pages:
                pages[page] = self._tracee.read_some(page, _PAGE)
            value = pages[page][address - page : address - page + 8]
            if len(value) == 8:
                words.append(Word(address, int.from_bytes(value, "little")))
        return words


def _place(address: int, run: Run | None, entries: set[int]) -> _Place:
    """How good a place for a point an address is, in the light of what was jumped to so far."""
    if run is None:
        return _Place.NONE
    if run.is_single:
        return _Place.SINGLE
    return _Place.ENTERED if run.is_entered(address, entries) else _Place.SEVERAL


def _is_due(place: _Place, late: float, overdue: int) -> bool:
    """Whether such a place is to be taken now; see `_TAKEN_FROM`."""
    late_from, overdue_from = _TAKEN_FROM.get(place, _NONE_FROM)
    return late > late_from and overdue > overdue_from


def _best(runs: dict[int, Run], visits: Counter[int], entries: set[int]) -> int | None:
    """The address to aim at: not passed too often, and displaced as one instruction if possible.

    What jumps into several is not all known, so a few more passes of a single one are cheaper. A
    displaced call is one that the processor does not foresee the return of.
    """
    good = [address for address, run in runs.items() if not run.is_entered(address, entries)]

    def cost(address: int) -> tuple[bool, int]:
        run = runs[address]
        weight = 4 if not run.is_single else 3 if run.pieces[0].form == Form.CALL else 1
        return (visits[address] < 2, visits[address] * weight)

    return min(good, key=cost) if good else None


_FAULTS = frozenset(
    {signal.SIGSEGV, signal.SIGBUS, signal.SIGFPE, signal.SIGILL, signal.SIGTRAP, signal.SIGSYS}
)
