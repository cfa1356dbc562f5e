# SPDX-License-Identifier: GPL-2.0-or-later
"""Running the replayed program by a count of its instructions, in the process itself.

`native/counter.c` runs a copy of the program's code that counts; this puts it into the tracee,
says what to look for, and takes it out again. What it does takes some nanoseconds an instruction,
where single steps take ten microseconds each.
"""

from __future__ import annotations

import contextlib
import ctypes
import enum
import functools
import os
import signal
import struct
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from sysrift import native
from sysrift.errors import ReplayError
from sysrift.image import RemoteMemory
from sysrift.native import COUNTER_END, COUNTER_START, STUB_END, STUB_START
from sysrift.replay.steps import TooFar
from sysrift.tracee import BadAddress, Mapping, Registers, RemoteSyscallError, Tracee, read_maps
from sysrift.tracee import ptrace as pt
from sysrift.tracee.kernel import SYSCALL_STOP
from sysrift.tracee.maps import PROT_EXEC, PROT_WRITE

_STATE = COUNTER_START + 0x10000
_BLOCKS = COUNTER_START + 0x300000
_CODE_SIZE = 0x8000
_NR_MPROTECT = 10
_READ_EXECUTE, _READ_WRITE, _ALL = 5, 3, 7
_NUMBERED = ("rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi",
             *(f"r{n}" for n in range(8, 16)))  # fmt: skip
_MAX_RANGES, _MAX_CACHES, _MAX_PROBES, _MAX_WORDS, _MAX_VALUE = 512, 16, 64, 64, 64
_CACHE_SIZE = 16 << 20
_REACH = 1 << 30
"""Code that shares a cache lies within so many bytes: what it addresses is within 2 GiB then."""
_LOWEST = 0x10000
_PLACE, _PASS = 1, 2
_TRAP_FLAG = 1 << 8
_BLOCK = struct.Struct("<QQQIIII")
_SLICE = 200_000_000
"""Instructions between two looks at whether the user has had enough: a fraction of a second."""


class CannotCount(TooFar):
    """The counter cannot be put into this process, or not run this code."""


class Counted(enum.Enum):
    """Why it stopped."""

    LIMIT = 1  # as many instructions as were asked for, but for the last block of them
    PLACE = 2  # at the place looked for, by registers and words
    SPECIAL = 3  # before an instruction that enters the kernel, or is a breakpoint
    UNKNOWN = 4  # before code that cannot be translated
    SIGNAL = 5  # an instruction raised a signal: the registers are not the program's any more
    INTERRUPTED = 6  # the user has had enough


class Passes(NamedTuple):
    """How often a block began at an address, and at which position the last time."""

    times: int
    last: int


class _Range(ctypes.LittleEndianStructure):
    _fields_ = [("start", ctypes.c_uint64), ("end", ctypes.c_uint64), ("cache", ctypes.c_uint64)]


class _Cache(ctypes.LittleEndianStructure):
    _fields_ = [("start", ctypes.c_uint64), ("next", ctypes.c_uint64), ("end", ctypes.c_uint64)]


class _Probe(ctypes.LittleEndianStructure):
    _fields_ = [("address", ctypes.c_uint64), ("kind", ctypes.c_uint64),
                ("passes", ctypes.c_int64), ("last", ctypes.c_int64)]  # fmt: skip


class _Word(ctypes.LittleEndianStructure):
    _fields_ = [("address", ctypes.c_uint64), ("value", ctypes.c_uint64)]


class _State(ctypes.LittleEndianStructure):
    """`struct state` (`native/counter.c`)."""

    _fields_ = [
        ("registers", ctypes.c_uint64 * 16),
        ("flags", ctypes.c_uint64),
        ("resume", ctypes.c_uint64),
        ("argument", ctypes.c_uint64),
        ("left", ctypes.c_int64),
        ("why", ctypes.c_uint64),
        ("spare", ctypes.c_uint64),
        ("stack", ctypes.c_uint64),
        ("above_left", ctypes.c_int64),
        ("above_block", ctypes.c_uint64),
        ("value", ctypes.c_uint8 * _MAX_VALUE),
        ("rip", ctypes.c_uint64),
        ("most", ctypes.c_int64),
        ("probed", ctypes.c_int64),
        ("range_count", ctypes.c_uint64),
        ("cache_count", ctypes.c_uint64),
        ("probe_count", ctypes.c_uint64),
        ("word_count", ctypes.c_uint64),
        ("block_count", ctypes.c_uint64),
        ("exit_count", ctypes.c_uint64),
        ("above", ctypes.c_int64),
        ("watched", ctypes.c_uint64),
        ("watched_length", ctypes.c_uint64),
        ("changed", ctypes.c_int64),
        ("changes", ctypes.c_int64),
        ("place", ctypes.c_uint64 * 16),
        ("place_flags", ctypes.c_uint64),
        ("words", _Word * _MAX_WORDS),
        ("probes", _Probe * _MAX_PROBES),
        ("caches", _Cache * _MAX_CACHES),
        ("ranges", _Range * _MAX_RANGES),
    ]


class _Code(NamedTuple):
    """The code, and the places in it that must be known here."""

    image: bytes
    begin: int
    stopped: int


@functools.cache
def _code() -> _Code | None:
    path = Path(native.__file__).with_name("counter")
    try:
        image = path.read_bytes()
        magic, begin, stopped, _, end, blocks = struct.unpack_from("<8s5Q", image)
    except (OSError, struct.error):
        return None
    if magic != b"SRTCOUNT" or end != COUNTER_END or blocks != 0x20000 or len(image) > _CODE_SIZE:
        return None
    return _Code(image, begin, stopped)


class Counter:
    """The counter in a tracee that stands between two events; position 0 is where it stands.

    To be used within `put`. Nothing of a debugger's is in the code meanwhile.
    """

    def __init__(self, tracee: Tracee, code: _Code) -> None:
        self._tracee = tracee
        self._code = code
        self._state = _State()
        self.position = 0
        """Instructions from where it was put in to where the tracee stands; at a SIGNAL, to the
        start of the block that raised it."""

    @staticmethod
    @contextlib.contextmanager
    def put(tracee: Tracee) -> Iterator[Counter]:
        """A counter in the tracee, which is as it was, but for what it has executed, afterwards.

        Raises CannotCount.
        """
        code = _code()
        if code is None or not tracee.remote_site:
            raise CannotCount("the counter was not built when SysRift was installed")
        counter = Counter(tracee, code)
        try:
            counter._put()
            yield counter
        finally:
            counter._take_out()

    # -- putting it there -----------------------------------------------------------------------

    def _put(self) -> None:
        maps = read_maps(self._tracee.pid)
        if any(m.start < COUNTER_END and m.end > COUNTER_START for m in maps):
            raise CannotCount("the program uses the memory that counting instructions needs")
        caches, ranges = _plan(maps)
        state = self._state
        memory = RemoteMemory(self._tracee)
        try:
            memory.map_anonymous(COUNTER_START, COUNTER_END - COUNTER_START, _READ_WRITE)
            self._tracee.write(COUNTER_START, self._code.image)
            self._tracee.remote_syscall(_NR_MPROTECT, COUNTER_START, _CODE_SIZE, _READ_EXECUTE)
            for start in caches:
                memory.map_anonymous(start, _CACHE_SIZE, _ALL)
                cache = state.caches[state.cache_count]
                cache.start, cache.end = start, start + _CACHE_SIZE
                state.cache_count += 1
        except (RemoteSyscallError, BadAddress):
            raise CannotCount("there is no memory for counting instructions") from None
        for n, (start, end, cache_index) in enumerate(ranges):
            state.ranges[n].start, state.ranges[n].end = start, end
            state.ranges[n].cache = cache_index
        state.range_count = len(ranges)
        state.probed = -1
        self._tracee.write_own(_STATE, bytes(state))

    def _take_out(self) -> None:
        memory = RemoteMemory(self._tracee)
        with contextlib.suppress(OSError, RemoteSyscallError):  # it may be gone
            memory.unmap(COUNTER_START, COUNTER_END - COUNTER_START)
            for n in range(self._state.cache_count):
                memory.unmap(self._state.caches[n].start, _CACHE_SIZE)

    @property
    def own(self) -> list[tuple[int, int]]:
        """(start, end) of its own memory in the process."""
        state = self._state
        caches = (state.caches[n] for n in range(state.cache_count))
        return [(COUNTER_START, COUNTER_END), *((c.start, c.end) for c in caches)]

    # -- what to look for -----------------------------------------------------------------------

    def look_for(self, registers: Registers, words: Sequence[tuple[int, int]] = ()) -> None:
        """Stop (PLACE) where the program is about to execute the instruction at `registers.rip`
        with these registers, and these values, (address, value), of eight bytes each."""
        state = self._state
        for n, name in enumerate(_NUMBERED):
            state.place[n] = getattr(registers, name)
        state.place_flags = registers.eflags
        state.word_count = min(len(words), _MAX_WORDS)
        for n, (address, value) in enumerate(words[:_MAX_WORDS]):
            state.words[n].address, state.words[n].value = address, value
        self._probe(registers.rip, _PLACE)

    def note_passes(self, addresses: Collection[int]) -> None:
        """Note passes of these addresses (`passes`). Raises CannotCount if there are too many."""
        for address in addresses:
            self._probe(address, _PASS)

    def _probe(self, address: int, kind: int) -> None:
        state = self._state
        for n in range(state.probe_count):
            if state.probes[n].address == address:
                state.probes[n].kind |= kind
                return
        if state.probe_count == _MAX_PROBES:
            raise CannotCount(f"more than {_MAX_PROBES} places at once")
        state.probes[state.probe_count].address = address
        state.probes[state.probe_count].kind = kind
        state.probe_count += 1
        state.block_count = 0  # what is translated is of no use

    @property
    def passes(self) -> dict[int, Passes]:
        """Of the addresses given to `note_passes`, those that were passed."""
        state = self._state
        probes = (state.probes[n] for n in range(state.probe_count))
        return {
            probe.address: Passes(probe.passes, probe.last)
            for probe in probes
            if probe.kind & _PASS and probe.passes
        }

    def note_stack(self, pointer: int) -> None:
        """Note where the stack pointer was not below `pointer` the last time (`above`)."""
        self._state.stack, self._state.above = pointer, -1
        self._state.block_count = 0

    @property
    def above(self) -> int | None:
        """The position of the last block at whose start the stack pointer was there."""
        return self._state.above if self._state.above >= 0 else None

    def note_changes(self, address: int, length: int) -> None:
        """Note where this memory, at most 64 bytes, is another than before (`changed`). It must be
        there all the time. Raises BadAddress."""
        state = self._state
        ctypes.memmove(state.value, self._tracee.read(address, length), length)
        state.watched, state.watched_length, state.changes = address, length, 0
        state.block_count = 0

    @property
    def changed(self) -> int | None:
        """The position before which, by a block at most, memory was changed the last time."""
        return self._state.changed if self._state.changes else None

    @property
    def value(self) -> bytes:
        """What it was at the start of the last block."""
        return bytes(self._state.value[: self._state.watched_length])

    # -- running --------------------------------------------------------------------------------

    def run(self, most: int | None, enough: Callable[[], bool]) -> Counted:
        """Run on, to position `most` at most; the tracee stands at the start of a block then, less
        than 64 instructions before `most` when that is why.

        `enough` tells whether the user does not want to wait any longer.
        """
        while True:
            until = self.position + _SLICE
            if most is not None:
                until = min(until, most)
            why = self._run(until)
            if why is not Counted.LIMIT or until == most:
                return why
            if enough():
                return Counted.INTERRUPTED

    def _run(self, until: int) -> Counted:
        tracee, state = self._tracee, self._state
        registers = tracee.registers()
        for n, name in enumerate(_NUMBERED):
            state.registers[n] = getattr(registers, name)
        state.flags = registers.eflags & ~_TRAP_FLAG
        state.rip = registers.rip
        state.most, state.left = until, until - self.position
        tracee.write_own(_STATE, bytes(state))
        registers.rip = self._code.begin
        tracee.set_registers(registers)
        raised = self._wait()
        ctypes.memmove(
            ctypes.byref(state), tracee.read_own(_STATE, ctypes.sizeof(state)), ctypes.sizeof(state)
        )
        stopped = tracee.registers()
        if raised or stopped.rip != self._code.stopped:
            self.position = until - state.left - self._counted_in_advance(stopped.rip)
            return Counted.SIGNAL
        why = Counted(stopped.rax & 0xFF)
        self.position = until - state.left
        for n, name in enumerate(_NUMBERED):
            setattr(registers, name, state.registers[n])
        registers.eflags, registers.rip = state.flags, state.rip
        tracee.set_registers(registers)
        return why

    def _wait(self) -> bool:
        """Let it run to its `int3`; returns whether an instruction raised another signal."""
        tracee = self._tracee
        while True:
            tracee.resume(pt.PTRACE_SYSEMU)
            status = tracee.wait()
            if status >> 16:
                continue
            if status == SYSCALL_STOP:
                raise ReplayError("the program made a system call while it was counted")
            sig = os.WSTOPSIG(status)
            if sig == signal.SIGTRAP:
                return False
            if struct.unpack_from("<i", tracee.siginfo(), 8)[0] > 0:  # si_code: not sent
                return True

    def _counted_in_advance(self, rip: int) -> int:
        """Instructions of the block whose translation `rip` is in."""
        raw = self._tracee.read_own(_BLOCKS, self._state.block_count * _BLOCK.size)
        blocks = (block for block in _BLOCK.iter_unpack(raw) if block[1] <= rip)
        _, code, _, _, count, _, _ = max(blocks, key=lambda block: block[1], default=(0,) * 7)
        if not code or rip - code > _CACHE_SIZE:
            raise ReplayError(f"counting instructions failed at {rip:#x}")
        return int(count)


def _plan(maps: list[Mapping]) -> tuple[list[int], list[tuple[int, int, int]]]:
    """Where caches are to lie, and (start, end, index of its cache) of all code that may be
    translated: what nobody can write to, so that it stays as it is."""
    caches: list[int] = []
    ranges: list[tuple[int, int, int]] = []
    reaches = 0
    taken = sorted((m.start, m.end) for m in maps)
    taken += [(COUNTER_START, COUNTER_END), (STUB_START, STUB_END)]
    for mapping in maps:
        if not mapping.prot & PROT_EXEC or mapping.prot & PROT_WRITE or mapping.shared:
            continue
        if STUB_START <= mapping.start < STUB_END or mapping.name == "[vsyscall]":
            continue
        if not caches or mapping.end > reaches:
            start = _gap(taken, mapping)
            if start is None:
                continue
            caches.append(start)
            taken.append((start, start + _CACHE_SIZE))
            reaches = mapping.start + _REACH
        ranges.append((mapping.start, mapping.end, len(caches) - 1))
    if len(caches) > _MAX_CACHES or len(ranges) > _MAX_RANGES:
        raise CannotCount("the program's code is in too many places to count its instructions")
    return caches, ranges


def _gap(taken: list[tuple[int, int]], near: Mapping) -> int | None:
    """Free room for a cache, near the mapping and what lies up to _REACH behind it."""
    ends = sorted(taken)
    best: int | None = None
    for (_, low), (high, _) in zip([(0, _LOWEST), *ends], [*ends, (1 << 47, 0)]):
        for at in (low, high - _CACHE_SIZE):
            # What is relative to code reaches 2 GiB, from there and from the end of the cache.
            fits = low <= at and at + _CACHE_SIZE <= high
            if fits and abs(at - near.start) < _REACH - _CACHE_SIZE and (
                best is None or abs(at - near.start) < abs(best - near.start)
            ):  # fmt: skip
                best = at
    return best


__all__ = ["CannotCount", "Counted", "Counter", "Passes"]
