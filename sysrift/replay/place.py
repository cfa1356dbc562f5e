# SPDX-License-Identifier: GPL-2.0-or-later
"""Any place of a replay, to come back to: before an event, or in the midst between two.

Between two events nothing but the program's own code runs, so the same registers and memory after
the same event are the same moment: a place is told by these, and found by comparing at every pass
of its instruction. That takes a stop, some 20 us, a pass.
"""

from __future__ import annotations

import base64
import os
import signal
import struct
import time
import zlib
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any

from sysrift import image as images
from sysrift.errors import ReplayError
from sysrift.replay.engine import Engine, Halt, Reason
from sysrift.replay.moment import differing_registers, same_xsave
from sysrift.trace.model import EventFlag, EventKind
from sysrift.tracee import Registers, Tracee
from sysrift.tracee import ptrace as pt
from sysrift.tracee.kernel import SYNCHRONOUS, SYSCALL_STOP
from sysrift.tracee.registers import MASK, NO_SYSCALL

_INT3 = b"\xcc"
_PATIENCE = 60.0
"""Seconds to look for a place."""

_LOOK = 256  # passes between two looks at the clock, and at whether the user has had enough


class PlaceNotFound(ReplayError):
    """The program did not come to a place again."""


@dataclass(frozen=True)
class Place:
    """`event` is the number of the event that has not happened yet.

    In the midst between two events `registers` are `struct user_regs_struct`, and `xsave` and
    `digest` (see `image.checksum`) the rest of the state, of which `words`, (address, value) of
    most likely local variables, are a part; empty where the program stands at the event itself.
    """

    event: int
    registers: bytes = b""
    xsave: bytes = b""
    digest: bytes = b""
    words: tuple[tuple[int, int], ...] = ()

    @staticmethod
    def of(engine: Engine) -> Place:
        """Where the engine's tracee stands now. Reads all memory that it has written to, if it is
        not at an event."""
        tracee = engine.tracee
        if engine.next > engine.trace.event_count:
            return Place(engine.next)
        # A debugger may have it at the entry of a call of the stub's, with the registers put back.
        is_at_call = (
            tracee.stop_operation() == pt.SYSCALL_INFO_ENTRY
            and tracee.registers().orig_rax != NO_SYSCALL
        )
        if is_at_call or is_at_event(engine):
            return Place(engine.next)
        return Place.exactly(engine)

    @staticmethod
    def exactly(engine: Engine) -> Place:
        """Where the engine's tracee stands, told by registers and memory even if at an event."""
        tracee = engine.tracee
        registers = tracee.registers()
        digest = images.checksum(tracee, registers.rsp)
        words = _words(tracee, registers)
        return Place(engine.next, bytes(registers), tracee.xsave(), digest, words)

    @property
    def is_at_event(self) -> bool:
        """Whether an event's number says it all."""
        return not self.registers

    def is_here(self, engine: Engine, without: Collection[tuple[int, int]] = ()) -> bool:
        """Whether the engine's tracee stands just there; memory `without` does not count."""
        if engine.next != self.event:
            return False
        if self.is_at_event:
            return True
        registers = engine.tracee.registers()
        return (
            not differing_registers(registers, Registers.from_bytes(self.registers))
            and same_xsave(engine.tracee.xsave(), self.xsave)
            and images.checksum(engine.tracee, registers.rsp, without=without) == self.digest
        )

    # -- as JSON --------------------------------------------------------------------------------

    def to_json(self) -> dict[str, Any]:
        """For a file; `from_json` makes the same again."""
        if self.is_at_event:
            return {"event": self.event}
        state = zlib.compress(self.registers + self.digest + self.xsave)
        return {
            "event": self.event,
            "state": base64.b64encode(state).decode(),
            "words": [list(word) for word in self.words],
        }

    @staticmethod
    def from_json(fields: dict[str, Any]) -> Place:
        """Raises ValueError for what `to_json` did not make."""
        event, packed = fields.get("event"), fields.get("state", "")
        if not isinstance(event, int) or event < 1 or not isinstance(packed, str):
            raise ValueError("no event")
        if not packed:
            return Place(event)
        try:
            unpacker = zlib.decompressobj()
            state = unpacker.decompress(base64.b64decode(packed), _MAX_STATE)
        except zlib.error:
            raise ValueError("damaged state") from None
        words = fields.get("words", [])
        if not isinstance(words, list) or any(
            not isinstance(word, list)
            or len(word) != 2
            or not all(isinstance(number, int) and 0 <= number <= MASK for number in word)
            for word in words
        ):
            raise ValueError("damaged words")
        size = len(bytes(Registers()))
        if len(state) < size + _DIGEST:
            raise ValueError("damaged state")
        return Place(
            event,
            state[:size],
            state[size + _DIGEST :],
            state[size : size + _DIGEST],
            tuple((address, value) for address, value in words),
        )

    # -- going there ----------------------------------------------------------------------------

    def run_to(self, engine: Engine, enough: Callable[[], bool]) -> bool:
        """Let the tracee, which stands right behind the event before this place, run to it.

        `enough` says whether the user does not want to wait any longer; returns False then.
        Raises PlaceNotFound when the program does not come there.
        """
        tracee = engine.tracee
        if self.is_here(engine):
            return True
        site = Registers.from_bytes(self.registers).rip
        original = tracee.read(site, 1)
        until = time.monotonic() + _PATIENCE
        passes = 0
        while True:
            if tracee.registers().rip == site:
                _resume(engine, pt.PTRACE_SINGLESTEP)
                if tracee.registers().rip == site and self.is_here(engine):
                    return True
                if tracee.registers().rip == site:
                    continue  # the next iteration of a string instruction
            tracee.write(site, _INT3)
            try:
                _resume(engine, pt.PTRACE_SYSEMU)
            finally:
                tracee.write(site, original)
            registers = tracee.registers()
            if registers.rip != site + 1:
                raise PlaceNotFound("the program does not come to that place again")
            registers.rip = site
            registers.orig_rax = NO_SYSCALL
            tracee.set_registers(registers)
            if self.is_here(engine):
                return True
            passes += 1
            if passes % _LOOK == 0:
                if enough():
                    return False
                if time.monotonic() > until:
                    raise PlaceNotFound(
                        f"that place was not found among {passes} passes of {site:#x}"
                    )


def _words(tracee: Tracee, registers: Registers) -> tuple[tuple[int, int], ...]:
    """Words around the stack pointer, and below the frame pointer if there is one."""
    spans = [(registers.rsp - _RED_ZONE, registers.rsp + _FRAME)]
    if registers.rsp + _FRAME <= registers.rbp < registers.rsp + _LARGEST_FRAME:
        spans.append((registers.rbp - _FRAME, registers.rbp))
    found: list[tuple[int, int]] = []
    for start, end in spans:
        start &= -8
        data = tracee.read_some(start, (end - start) & -8)
        values = struct.unpack_from(f"<{len(data) // 8}Q", data)
        found += [(start + 8 * n, value) for n, value in enumerate(values)]
    return tuple(found)


_RED_ZONE, _FRAME, _LARGEST_FRAME = 128, 96, 1 << 20
_DIGEST = 16
_MAX_STATE = 1 << 20


def is_at_event(engine: Engine) -> bool:
    """Whether it is certain that the next event, if there is one, is what happens now."""
    if engine.next > engine.trace.event_count:
        return False
    event = engine.trace.event(engine.next)
    registers = engine.tracee.registers()
    if event.flags & EventFlag.IN_CODE:
        point = engine.point
        return point is not None and registers.rip == point.site and point.is_here(registers)
    if event.kind not in (EventKind.SYSCALL, EventKind.TSC):
        return False
    return registers.rip == event.site and registers.rsp == event.rsp


def _resume(engine: Engine, request: int) -> None:
    """Let the tracee run to its next SIGTRAP. Raises PlaceNotFound when something else comes."""
    tracee = engine.tracee
    while True:
        tracee.resume(request)
        status = tracee.wait()
        if status >> 16:
            continue
        if status == SYSCALL_STOP:
            engine.rewind(tracee.registers())
        if status == SYSCALL_STOP or os.WSTOPSIG(status) != signal.SIGTRAP:
            raise PlaceNotFound("the program does not come to that place again")
        return


def play_one(engine: Engine) -> None:
    """Let the event that the tracee stands at happen, and nothing behind it.

    Raises Divergence, TraceeGone, ReplayError.
    """
    event = engine.trace.event(engine.next)
    tracee = engine.tracee
    if event.flags & EventFlag.IN_CODE:
        engine.play_at_point(tracee.registers())
        return
    tracee.resume(pt.PTRACE_SYSEMU)
    status = tracee.wait()
    sig = os.WSTOPSIG(status)
    if status == SYSCALL_STOP:
        played = engine.system_call(tracee.registers())
    else:
        played = sig in SYNCHRONOUS and engine.fault(sig)
    if not played:
        raise engine.unexpected(Halt(Reason.SIGNAL, sig))


__all__ = ["Place", "PlaceNotFound", "is_at_event", "play_one"]
