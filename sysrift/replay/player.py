# SPDX-License-Identifier: GPL-2.0-or-later
"""The player in a replayed process: events without a ptrace stop (`native/player.c`).

`syscall` instructions that are used often jump to it. It has a block of events as the trace has it,
plays what agrees in everything, and stops for whatever else: then the program stands on its
`syscall` instruction as if it had never been there, and the engine goes on as it does without it.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import struct
from collections import defaultdict
from collections.abc import Mapping as Environment

from sysrift.agent import code as at
from sysrift.agent.code import PlayerCode, PlayerControl, player_code
from sysrift.agent.rows import Rows, packed_inputs
from sysrift.agent.sites import SYSCALL, Sites
from sysrift.image import RemoteMemory
from sysrift.native import AGENT_END, AGENT_START
from sysrift.syscalls import NAMES, BadAddress, ReplayClass, Row
from sysrift.syscalls.plan import Plan
from sysrift.trace.model import Event, EventFlag, EventKind, Image
from sysrift.trace.reader import Part, Trace
from sysrift.tracee import Mapping, Registers, RemoteSyscallError, Tracee, read_maps
from sysrift.tracee import ptrace as pt
from sysrift.tracee.pagemap import PAGE
from sysrift.tracee.registers import MASK, NO_SYSCALL

_NR_MPROTECT = NAMES["mprotect"]
_READ_EXECUTE = 5
_INT3 = b"\xcc"
_AROUND = 1200  # bytes of code that say whether a site can be patched
_IN_TRAMPOLINE = 64  # instructions at most, on the way from a site or behind it
_MOST_SEGMENTS = at.PAYLOAD - at.SEGMENTS
_MOST_PAYLOAD = AGENT_END - at.PAYLOAD
_MOST_RECORDS = at.SEGMENTS - at.RECORDS
_POSITION = struct.Struct("<6I")  # target, limit, last, at, segment, payload

PATCH_AT = 12
"""A site is patched at its so many-th call: looking for room costs what some dozen stops do."""

SHOW_AFTER = 20
"""Where a debugger looks on, sites are patched again after so many stops of one run-ahead."""


def patch_at(environment: Environment[str, str]) -> int | None:
    """$SYSRIFT_PLAYER: from which call of a site on; what is no number means never (None)."""
    text = environment.get("SYSRIFT_PLAYER", "")
    if not text:
        return PATCH_AT
    return max(int(text), 1) if text.isdecimal() else None


def _replayed_row(row: Row, plan: Plan, _command: int | None) -> bytes | None:
    return packed_inputs(row, plan) if row.replay_class is ReplayClass.EMULATE else None


class Player:
    """The player of one replayed process, from one image on.

    `patch_at`: see above. `watched`: somebody else, a debugger, looks at the process between two
    calls of the engine's, and may have put breakpoints into it.
    """

    def __init__(
        self, tracee: Tracee, trace: Trace, image: Image, patch_at: int, watched: bool
    ) -> None:
        self._tracee = tracee
        self._trace = trace
        self._vdso = next((m for m in image.mappings if m.name == "[vdso]"), None)
        self._brk = image.mm[5]
        self.patch_at = patch_at
        self._watched = watched
        self._calls: dict[int, int] = defaultdict(int)
        self._maps: list[Mapping] = []
        self._code: PlayerCode | None = None
        self._sites: Sites | None = None
        self._rows: Rows | None = None
        self._able = player_code() is not None
        self._loaded: Part | None = None
        self._position = b""
        self._outputs = (0, frozenset[int]())
        self._played = 0
        self.shown = False
        """Whether sites are patched just now."""

    def copy(self, tracee: Tracee, trace: Trace) -> Player:
        """The player of a copy of the process."""
        other = Player.__new__(Player)
        other.__dict__.update(self.__dict__)
        other._tracee, other._trace = tracee, trace
        other._calls, other._maps = self._calls.copy(), list(self._maps)
        if self._sites is not None and self._rows is not None:
            other._sites = self._sites.copy(tracee)
            other._rows = self._rows.copy(tracee.write_own)
        other._loaded, other._position = None, b""
        return other

    # -- putting it there -----------------------------------------------------------------------

    def called(self, address: int, nr: int, args: tuple[int, ...]) -> None:
        """The engine has played a call that was made at `address`, by a stop."""
        if not self._able:
            return
        calls = self._calls[address] = self._calls[address] + 1
        if calls < self.patch_at:
            return
        if self._sites is None and not self._put():
            return
        assert self._sites is not None and self._rows is not None
        if not self._rows.give(nr, args):
            return
        site = self._sites.at(address)
        if site is not None and (site.hole or calls > self.patch_at):
            return
        mapping = self._mapping(address)
        if mapping is None or not self._is_untouched(address, mapping):
            self._calls[address] = 0
            return
        if not self.shown:
            self.show()
        if not self.shown:
            return
        self._sites.called(address, mapping, self._maps)

    def _put(self) -> bool:
        """Map the player's memory; False when there is something, or it cannot be had."""
        code = player_code()
        self._able = False
        if code is None or not self._tracee.remote_site:
            return False
        try:
            import iced_x86  # noqa: F401  (GDB's Python may not have it)
        except ImportError:
            return False
        with open(f"/proc/{self._tracee.pid}/maps", encoding="utf-8", errors="replace") as file:
            spans = [line.split(None, 1)[0].split("-") for line in file]
        if any(int(low, 16) < AGENT_END and int(high, 16) > AGENT_START for low, high in spans):
            return False
        try:
            memory = RemoteMemory(self._tracee)
            memory.map_anonymous(AGENT_START, AGENT_END - AGENT_START, 3)
            self._tracee.write(at.CODE, code.image)
            self._tracee.remote_syscall(_NR_MPROTECT, at.CODE, at.CODE_SIZE, _READ_EXECUTE)
        except (RemoteSyscallError, BadAddress):
            return False
        self._able, self._code = True, code
        self._sites = Sites(self._tracee, code.entry, patch_at=1, wide=not self._watched)
        self._rows = Rows(self._tracee.write_own, _replayed_row)
        self._outputs = (0, frozenset())
        self._loaded, self._position, self._played = None, b"", 0
        return True

    def _mapping(self, address: int) -> Mapping | None:
        if not self._maps:
            self._maps = read_maps(self._tracee.pid)
        for mapping in self._maps:
            if mapping.start <= address < mapping.end:
                vdso = self._vdso
                if vdso is not None and vdso.start <= address < vdso.end:
                    return mapping._replace(name="[vdso]")
                return mapping
        return None

    def _is_untouched(self, address: int, mapping: Mapping) -> bool:
        """Whether the code is the program's: a debugger's breakpoints would be taken for it."""
        if self._tracee.read_some(address, 2) != SYSCALL:
            return False
        if not self._watched:
            return True
        start = max(mapping.start, address - _AROUND)
        length = min(mapping.end, address + _AROUND) - start
        try:
            with open(mapping.name, "rb") as file:
                there = os.pread(file.fileno(), length, mapping.offset + start - mapping.start)
        except OSError:
            return False
        found = self._tracee.read_some(start, length)
        if self.shown and self._sites is not None:
            found = self._sites.without_patches(start, found)
        return there == found

    def hide(self) -> None:
        """Make all code what it was."""
        if self.shown and self._sites is not None:
            self._sites.restore_all()
        self.shown = False

    def show(self) -> None:
        """Patch the sites again that were patched before; not while the program is in the midst of
        one."""
        if not self.shown and self._sites is not None:
            if self._sites.detour(self._tracee.registers().rip) == 0:
                return
            self._sites.patch_untouched()
            self.shown = True

    def go_on(self) -> None:
        """The program is about to go on from behind a call that the engine has played: what is
        there may be displaced."""
        if self.shown and self._sites is not None and self._sites.any_wide:
            registers = self._tracee.registers()
            detour = self._sites.detour(registers.rip)
            if detour:
                registers.rip = detour
                self._tracee.set_registers(registers)

    @property
    def can_show(self) -> bool:
        """Whether there is something to `show`."""
        return not self.shown and self._sites is not None and self._sites.any_patched

    # -- what changes memory --------------------------------------------------------------------

    def memory_call(self, event: Event) -> None:
        """Mappings are about to change: what is there must not be patched any more."""
        self._maps = []
        for start, end in self._changed(event):
            end = (end + PAGE - 1) & -PAGE
            if self._sites is not None:
                self._sites.leave(start, end, self.shown)
            for address in [a for a in self._calls if start <= a < end]:
                del self._calls[address]
            if start < AGENT_END and end > AGENT_START:
                self._remove()

    def _changed(self, event: Event) -> list[tuple[int, int]]:
        first, length, third = event.args[:3]
        name = event.nr
        if name == NAMES["brk"]:
            return [(min(self._brk, event.result), event.result + PAGE)]
        if name == NAMES["mmap"]:
            return [(event.result, event.result + length)] if event.result >= 0 else []
        if name in (NAMES["munmap"], NAMES["mprotect"], NAMES["pkey_mprotect"], NAMES["madvise"]):
            return [(first, first + length)]
        if name == NAMES["mremap"]:
            target = event.args[4] if event.result < 0 else event.result
            return [(first, first + max(length, PAGE)), (target, target + third)]
        if name in (NAMES["prlimit64"], NAMES["setrlimit"]):
            return []
        return [(0, AGENT_START), (AGENT_END, MASK)]

    def _remove(self) -> None:
        """The program wants the player's memory."""
        if self._sites is not None:
            self.hide()
            self._sites.leave(0, MASK, False)
            with contextlib.suppress(RemoteSyscallError):
                RemoteMemory(self._tracee).unmap(AGENT_START, AGENT_END - AGENT_START)
        self._sites = self._rows = self._loaded = None
        self._able = False

    def take_out(self) -> None:
        """Leave nothing in the process, which stands at an event. It may come back."""
        if self._sites is None:
            return
        self.hide()
        self._sites.unmap()
        with contextlib.suppress(RemoteSyscallError):
            RemoteMemory(self._tracee).unmap(AGENT_START, AGENT_END - AGENT_START)
        self._sites = self._rows = self._loaded = None
        self._calls.clear()
        self._maps = []
        self._able = True

    # -- playing --------------------------------------------------------------------------------

    def watch(self, outputs: int, calls: frozenset[int], left_out: frozenset[int]) -> None:
        """Leave to the engine: `calls` on the descriptors `outputs` (a set of bits; of those beyond
        63 all), if there are any, and all that are `left_out`."""
        if self._rows is None:
            return
        self._rows.leave_out(left_out)
        if (outputs, calls) != self._outputs:
            self._outputs = (outputs, calls)
            words = [0] * (at.ROW_COUNT // 64)
            for nr in calls:
                words[nr // 64] |= 1 << nr % 64
            packed = struct.pack(f"<{1 + len(words)}Q", outputs, *words)
            self._tracee.write_own(PlayerControl.address("outputs"), packed)

    def aim(self, number: int, bound: int) -> bool:
        """Let it play from event `number` on, up to the one before event `bound`.

        False when it can play nothing there.
        """
        trace = self._trace
        if number > trace.event_count:
            return self._aim_at(0, 0, 0)
        part = self._loaded
        if part is None or not part.first <= number < part.first + part.length:
            part = trace.part(number)
            if not self._load(part):
                return self._aim_at(0, 0, 0)
        block = trace.file.block(part.offset)
        end = part.first + part.length
        last = block.index(part.process, end - 1)
        if bound < end:
            limit = block.index(part.process, bound) if bound > number else 0
        elif end <= trace.event_count and self._is_plain_end(end):
            limit = last + 1
        else:
            limit = last
        return self._aim_at(block.index(part.process, number), limit, last)

    def _is_plain_end(self, number: int) -> bool:
        """Whether nothing but a call can come right before event `number`."""
        kind, flags = self._trace.glance(number)
        return kind in (EventKind.SYSCALL, EventKind.TSC) and not flags & EventFlag.IN_CODE

    def _aim_at(self, target: int, limit: int, last: int) -> bool:
        position = struct.pack("<3I", target, limit, last)
        if position != self._position:
            self._tracee.write_own(PlayerControl.address("target"), position)
            self._position = position
        return target < limit

    def _load(self, part: Part) -> bool:
        self._loaded, self._position = None, b""
        block = self._trace.file.block(part.offset)
        if (
            not block.is_sound
            or len(block.records) > _MOST_RECORDS
            or len(block.segments) > _MOST_SEGMENTS
            or len(block.payload) > _MOST_PAYLOAD
        ):
            return False
        try:
            block.index(part.process, part.first)
            block.index(part.process, part.first + part.length - 1)
        except (IndexError, KeyError):
            return False  # the engine is going to say that it is damaged
        write = self._tracee.write_own
        write(at.SITE_TABLE, struct.pack(f"<{len(block.sites)}Q", *block.sites))
        write(at.RECORDS, block.records)
        write(at.SEGMENTS, block.segments)
        write(at.PAYLOAD, block.payload)
        write(PlayerControl.address("task"), struct.pack("<I", part.process))
        write(PlayerControl.address("target"), _POSITION.pack(0, 0, 0, 0, 0, 0))
        self._loaded = part
        return True

    def take(self) -> int:
        """How many events it has played since the last time."""
        raw = self._tracee.read_own(PlayerControl.address("played"), 4)
        before, self._played = self._played, struct.unpack("<I", raw)[0]
        count = (self._played - before) & 0xFFFFFFFF
        if count:
            self._position = b""
        return count

    # -- stops ----------------------------------------------------------------------------------

    def is_inside(self, rip: int) -> bool:
        """Whether that is in the player, or on the way to it."""
        if not self.shown or self._sites is None:
            return False
        return AGENT_START <= rip < AGENT_END or self._sites.in_trampoline(rip)

    def left_over(self, sig: int, rip: int) -> bool:
        """Whether the signal is how the player leaves a call to the engine: by its `int3`, or by a
        fault, in front of all that it changes."""
        if sig == signal.SIGTRAP:
            return self._code is not None and rip == self._code.stopped
        return sig in (signal.SIGSEGV, signal.SIGBUS)

    def call_at_hand(self) -> Registers:
        """The program's registers, as at the syscall-entry-stop of the call that was left over."""
        registers, _ = self._program()
        registers.orig_rax = registers.rax
        registers.rip = registers.rcx = self._address(registers.rcx) + 2
        registers.rax = -38 & MASK  # ENOSYS, as the kernel has it there
        return registers

    @property
    def ran_out(self) -> bool:
        """Whether a call was left over for want of a record."""
        raw = self._tracee.read_own(PlayerControl.address("stop"), 4)
        return raw == struct.pack("<I", at.STOP_LIMIT)

    def _program(self) -> tuple[Registers, int]:
        """The program's registers as they are kept, and where it goes on when a call is played."""
        control = PlayerControl.from_buffer_copy(
            self._tracee.read_own(at.CONTROL, ctypes.sizeof(PlayerControl))
        )
        registers = self._tracee.registers()
        data = self._tracee.read_own(at.SAVED[0][1], 8 * len(at.SAVED))
        for (name, _), value in zip(at.SAVED, struct.unpack(f"<{len(at.SAVED)}Q", data)):
            setattr(registers, name, value)
        registers.rsp = control.saved_rsp
        registers.r11 = registers.eflags
        registers.orig_rax = NO_SYSCALL
        return registers, control.resume

    def _address(self, descriptor: int) -> int:
        assert self._sites is not None
        site = self._sites.of_descriptor(descriptor)
        if site is None:
            raise RuntimeError(f"the player names no site: {descriptor:#x}")
        return site.address

    def get_out(self) -> None:
        """A signal came in its midst: to the boundary before or after the call. The signal is gone
        then."""
        tracee, code = self._tracee, self._code
        assert code is not None and self._sites is not None
        rip = tracee.registers().rip
        for _ in range(_IN_TRAMPOLINE):
            if not self._sites.in_trampoline(rip):
                break
            tracee.resume(pt.PTRACE_SINGLESTEP)
            tracee.wait()
            rip = tracee.registers().rip
        if not AGENT_START <= rip < AGENT_END:
            return
        there = tracee.read_own(code.leaving, 1)
        tracee.write_own(code.leaving, _INT3)
        sig = 0
        try:
            # Not by single steps: one over popf would leave the trap flag set (enable_single_step).
            while not code.leaving <= rip < code.stop and not self.left_over(sig, rip):
                tracee.resume(pt.PTRACE_SYSEMU)
                sig = os.WSTOPSIG(tracee.wait())
                rip = tracee.registers().rip
        finally:
            tracee.write_own(code.leaving, there)
        registers, resume = self._program()
        played = code.leaving <= rip < code.stop
        registers.rip = resume if played else self._address(registers.rcx)
        tracee.set_registers(registers)
