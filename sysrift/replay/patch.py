# SPDX-License-Identifier: GPL-2.0-or-later
"""Machine code that compares, inside the program, whether a pass of a point is the one meant.

A jump at the point leads to it. A pass that is not meant costs a store, a `lea`, `jrcxz` and two
jumps (1-2 ns), and changes nothing: `lea` and `jrcxz` leave the flags alone, and what is saved goes
into the generated pages, never to the program's stack. Only where the lead agrees are the flags
saved (`lahf`, `seto`) and everything else is compared. When all agrees, `int3` with the program's
own registers; then, as after every other pass, the displaced instructions, and the jump back.

The jump takes 5 bytes. Where it displaces more than one instruction, somebody may jump to a later
one of them; so the jump's distance is chosen such that each of these addresses holds a byte that
traps (Duck, Gao, Roychoudhury: Binary Rewriting without Control Flow Recovery, PLDI 2020).
"""

from __future__ import annotations

import struct
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass

from sysrift.trace.points import JUMP_LENGTH, Form, Lead, Point
from sysrift.tracee import Mapping, Registers
from sysrift.tracee.registers import MASK, NAMES

PAGE = 4096
INT3 = 0xCC
TRAPPING = (INT3, 0x06, 0x07, 0x0E, 0x16, 0x17, 0x1E, 0x1F, 0x27, 0x2F, 0x37, 0x3F)
"""Bytes that trap whatever follows: `int3`, and one-byte opcodes that 64-bit mode has not."""

_USER_START, _USER_END = 0x10000, 0x7FFFFFFFF000
_NUMBERS = {
    name: number
    for number, name in enumerate(
        (
            *["rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi"],
            *(f"r{n}" for n in range(8, 16)),
        )
    )
}
_XMM_AT, _XMM_COUNT = 160, 16  # in the xsave area's legacy region
_SAVED_RCX, _SAVED_RAX, _SAVED_FLAGS, _SAVED_XMM, _CONSTANTS = 0, 8, 16, 32, 48
_PROLOGUE = 5  # the jump in front of the entry, which jrcxz reaches


class CannotPatch(Exception):
    """No jump can be put at the point, or no room for the generated code be found."""


@dataclass(frozen=True)
class Patch:
    """Generated code for one point: `length` bytes of pages at `start`, code first, then data from
    `data_start` on; `jump` goes to the point. Addresses are absolute."""

    start: int
    length: int
    data_start: int
    code: bytes  # at `code_start`
    code_start: int
    data: bytes  # at `data_start`
    jump: bytes
    match: int  # rip after the int3 that says that everything agrees
    displaced: tuple[int, ...]  # where each displaced instruction is
    originals: tuple[int, ...]  # where it was
    ends: tuple[int, ...]  # right behind each displaced instruction
    called: int  # between a displaced call's push and its jump; 0: there is none

    def contains(self, address: int) -> bool:
        """Whether an address lies in the generated pages."""
        return self.start <= address < self.start + self.length

    def moved(self, original: int) -> int | None:
        """Where the displaced instruction from `original` is."""
        for there, here in zip(self.originals, self.displaced):
            if there == original:
                return here
        return None

    def original(self, address: int) -> int | None:
        """Which instruction a displaced one at `address` was; behind the last, where it goes on."""
        for there, here in zip(self.originals, self.displaced):
            if here == address:
                return there
        return None


def plan(
    site: int, point: Point, registers: Registers, xsave: bytes, mappings: list[Mapping]
) -> Patch:
    """The code that finds `point` at `site` where its registers are `registers`.

    Raises CannotPatch.
    """
    if not point.code:
        raise CannotPatch("the instructions at the point cannot be displaced")
    inner = _inner_starts(point)
    size = len(_Assembler(site, point, registers, xsave, 0x10000, 0x20000, True).assemble())
    code_pages = (size + PAGE - 1) // PAGE + 1
    data_size = _CONSTANTS + 8 * (16 + 2 * _XMM_COUNT + len(point.words) + 1)
    length = (code_pages + (data_size + PAGE - 1) // PAGE) * PAGE
    for target in _targets(site, inner):
        code_start = target - _PROLOGUE
        start = code_start // PAGE * PAGE
        data_start = start + code_pages * PAGE
        if not _is_free(start, length, mappings):
            continue
        try:
            assembler = _Assembler(site, point, registers, xsave, code_start, data_start)
            code = assembler.assemble()
        except OverflowError:
            continue
        return Patch(
            start,
            length,
            data_start,
            code,
            code_start,
            bytes(assembler.data),
            b"\xe9" + struct.pack("<i", target - site - JUMP_LENGTH),
            code_start + assembler.match,
            tuple(code_start + at for at in assembler.displaced),
            tuple(assembler.originals),
            tuple(code_start + at for at in assembler.ends),
            code_start + assembler.called if assembler.called else 0,
        )
    raise CannotPatch("there is no free memory that a jump could reach")


def _inner_starts(point: Point) -> list[int]:
    """Offsets from the point, below the jump's length, where displaced instructions begin."""
    starts, at = [], 0
    for piece in point.pieces:
        if at:
            starts.append(at)
        at += piece.length
    return [start for start in starts if start < JUMP_LENGTH]


def _targets(site: int, inner: list[int]) -> Iterator[int]:
    """Where the jump may lead, nearest first."""
    near = sorted(range(256), key=lambda top: abs((top ^ 0x80) - 0x80))
    choices = [
        TRAPPING if 1 in inner else (0,),
        TRAPPING if 2 in inner else (0x00, 0x80),
        TRAPPING if 3 in inner else tuple(range(0, 256, 16)),
        sorted(TRAPPING, key=near.index) if 4 in inner else near,
    ]
    for top in choices[3]:
        for third in choices[2]:
            for second in choices[1]:
                for first in choices[0]:
                    distance = struct.unpack("<i", bytes((first, second, third, top)))[0]
                    target = site + JUMP_LENGTH + distance
                    if _USER_START + PAGE < target < _USER_END - (1 << 20):
                        yield target


def _is_free(start: int, length: int, mappings: list[Mapping]) -> bool:
    index = bisect_right(mappings, start, key=lambda mapping: mapping.start)
    if index and mappings[index - 1].end > start:
        return False
    return index == len(mappings) or mappings[index].start >= start + length


class _Assembler:
    """Emits the code of one patch; sizes do not depend on addresses."""

    def __init__(
        self,
        site: int,
        point: Point,
        registers: Registers,
        xsave: bytes,
        code_start: int,
        data_start: int,
        dry: bool = False,
    ) -> None:
        self._site = site
        self._point = point
        self._registers = registers
        self._xsave = xsave
        self._base = code_start
        self._data_base = data_start
        self._dry = dry
        self.code = bytearray()
        self.data = bytearray(_CONSTANTS)
        self.match = 0
        self.displaced: list[int] = []
        self.originals: list[int] = []
        self.ends: list[int] = []
        self.called = 0
        self._to_fail: list[int] = []

    def assemble(self) -> bytes:
        """The code. Raises OverflowError when something is out of a displacement's reach."""
        self.code += b"\xe9\0\0\0\0"  # jmp full: jrcxz reaches no further than here
        to_full = [1]
        lead = self._emit_lead()
        if not lead:
            self.code += b"\xe9\0\0\0\0"
            to_full.append(len(self.code) - 4)
        displaced_at = len(self.code)
        self._emit_displaced()
        for at in to_full:
            self._jump_to_here(at)
        if lead:
            self._data_operand(b"\x48\x8b\x0d", _SAVED_RCX)  # mov saved,%rcx
        self._emit_compare()
        self._restore()
        self.code.append(INT3)
        self.match = len(self.code)
        self._jump(displaced_at)
        for at in self._to_fail:
            self._jump_to_here(at)
        self._restore()
        self._jump(displaced_at)
        return bytes(self.code)

    # -- parts ----------------------------------------------------------------------------------

    def _emit_lead(self) -> bool:
        point = self._point
        if point.lead == Lead.NOTHING:
            return False
        self._data_operand(b"\x48\x89\x0d", _SAVED_RCX)  # mov %rcx,saved
        if point.lead == Lead.REGISTER:
            name = NAMES[point.telling[0]]
            number, wanted = _NUMBERS[name], getattr(self._registers, name)
            prefix = b"\x41" if number >= 8 else b""
            sib = b"\x24" if number & 7 == 4 else b""
            self.code += prefix + bytes((0x8D, 0x88 | number & 7)) + sib  # lea -wanted(%r),%ecx
        else:
            address, wanted = point.words[0]
            self.code += b"\x48\xb9" + struct.pack("<Q", address)  # mov $address,%rcx
            self.code += b"\x8b\x09\x8d\x89"  # mov (%rcx),%ecx; lea -wanted(%rcx),%ecx
        self.code += struct.pack("<I", -wanted & 0xFFFFFFFF)
        self.code += struct.pack("<Bb", 0xE3, -len(self.code) - 2)  # jrcxz to the jump in front
        self._data_operand(b"\x48\x8b\x0d", _SAVED_RCX)  # mov saved,%rcx
        return True

    def _emit_compare(self) -> None:
        point = self._point
        self._data_operand(b"\x48\x89\x05", _SAVED_RAX)  # mov %rax,saved
        self.code += b"\x9f\x0f\x90\xc0"  # lahf; seto %al
        self._data_operand(b"\x48\x89\x05", _SAVED_FLAGS)
        # Where no register tells, it is often a floating point value.
        parts = [self._emit_compare_general, self._emit_compare_xmm]
        for part in parts if point.telling else reversed(parts):
            part()
        for address, value in point.words:
            self.code += b"\x48\xa1" + struct.pack("<Q", address)  # mov address,%rax
            self._compare_rax(value)

    def _emit_compare_general(self) -> None:
        point, registers = self._point, self._registers
        order = [NAMES[index] for index in point.telling if NAMES[index] in _NUMBERS]
        order += [name for name in _NUMBERS if name not in order]
        for name in order:
            if name == "rax":
                self._data_operand(b"\x48\x8b\x05", _SAVED_RAX)
                self._compare_rax(registers.rax)
                continue
            number = _NUMBERS[name]
            opcode = bytes((0x4C if number >= 8 else 0x48, 0x3B, 0x05 | (number & 7) << 3))
            self._data_operand(opcode, self._constant(getattr(registers, name)))  # cmp const,%r
            self._fail_unless_equal()

    def _emit_compare_xmm(self) -> None:
        legacy = self._xsave[_XMM_AT : _XMM_AT + 16 * _XMM_COUNT]
        for number in range(len(legacy) // 16):
            prefix = b"\x44" if number >= 8 else b""
            opcode = prefix + bytes((0x0F, 0x11, 0x05 | (number & 7) << 3))
            self._data_operand(opcode, _SAVED_XMM)  # movups %xmm,saved
            for half in (0, 8):
                self._data_operand(b"\x48\x8b\x05", _SAVED_XMM + half)
                self._compare_rax(int.from_bytes(legacy[number * 16 + half :][:8], "little"))

    def _emit_displaced(self) -> None:
        point = self._point
        at, offset = self._site, 0
        fixes: list[tuple[int, int]] = []
        for length, form, place in point.pieces:
            code = point.code[offset : offset + length]
            offset += length
            self.displaced.append(len(self.code))
            self.originals.append(at)
            at += length
            if form == Form.BRANCH:
                target = at + int.from_bytes(code[place:], "little", signed=True)
                if code[0] in (0xEB, 0xE9):
                    self.code += b"\xe9\0\0\0\0"
                else:
                    condition = code[1] & 0x0F if code[0] == 0x0F else code[0] & 0x0F
                    self.code += bytes((0x0F, 0x80 | condition, 0, 0, 0, 0))
                fixes.append((len(self.code) - 4, target))
            elif form == Form.CALL:
                called = self._emit_call(code, at, place)
                if called is not None:
                    fixes.append((len(self.code) - 4, called))
            elif form == Form.RIP_RELATIVE:
                old = struct.unpack_from("<i", code, place)[0]
                moved = self._base + len(self.code) - (at - length)
                self.code += code[:place] + self._signed(old - moved) + code[place + 4 :]
            else:
                self.code += code
            self.ends.append(len(self.code))
        self.code += b"\xe9\0\0\0\0"
        fixes.append((len(self.code) - 4, at))
        for place, target in fixes:
            if target in self.originals and target != self._site:
                distance = self.displaced[self.originals.index(target)] - (place + 4)
            else:
                distance = target - (self._base + place + 4)
            self.code[place : place + 4] = self._signed(distance)

    def _emit_call(self, code: bytes, behind: int, place: int) -> int | None:
        """A call that returns to `behind`: push that, and jump; where to, if that is known here."""
        self._data_operand(b"\xff\x35", self._constant(behind))  # push const
        self.called = len(self.code)
        if code[0] == 0xE8:
            self.code += b"\xe9\0\0\0\0"
            return behind + int.from_bytes(code[place:], "little", signed=True)
        opcode = int(code[0] & 0xF0 == 0x40)  # behind a REX prefix
        if code[opcode] != 0xFF or code[opcode + 1] & 0x38 != 0x10:
            raise CannotPatch("the call at the point is none that is known")
        self.code += code[: opcode + 1]
        self.code.append(code[opcode + 1] ^ 0x30)  # call *operand (/2) becomes jmp *operand (/4)
        operand = code[opcode + 2 :]
        if place:
            moved = self._base + len(self.code) + len(operand) - behind
            operand = self._signed(struct.unpack("<i", operand)[0] - moved)
        self.code += operand
        return None

    # -- instructions ---------------------------------------------------------------------------

    def _signed(self, value: int) -> bytes:
        if self._dry:
            return bytes(4)
        if not -(1 << 31) <= value < 1 << 31:
            raise OverflowError("out of reach")
        return struct.pack("<i", value)

    def _constant(self, value: int) -> int:
        self.data += struct.pack("<Q", value & MASK)
        return len(self.data) - 8

    def _data_operand(self, opcode: bytes, place: int) -> None:
        self.code += opcode
        end = self._base + len(self.code) + 4
        self.code += self._signed(self._data_base + place - end)

    def _compare_rax(self, value: int) -> None:
        self._data_operand(b"\x48\x3b\x05", self._constant(value))  # cmp const,%rax
        self._fail_unless_equal()

    def _fail_unless_equal(self) -> None:
        self.code += b"\x0f\x85\0\0\0\0"  # jne
        self._to_fail.append(len(self.code) - 4)

    def _restore(self) -> None:
        """Flags and rax are the program's own again."""
        self._data_operand(b"\x48\x8b\x05", _SAVED_FLAGS)
        self.code += b"\x04\x7f\x9e"  # add $0x7f,%al (sets OF if it was set); sahf
        self._data_operand(b"\x48\x8b\x05", _SAVED_RAX)

    def _jump(self, to: int) -> None:
        self.code += b"\xe9" + struct.pack("<i", to - len(self.code) - 5)

    def _jump_to_here(self, place: int) -> None:
        struct.pack_into("<i", self.code, place, len(self.code) - place - 4)
