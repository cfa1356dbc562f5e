# SPDX-License-Identifier: GPL-2.0-or-later
"""What an instruction does that matters for a point: what it writes, whether it can be displaced.

The decoder is iced-x86. It is imported when the first program is interrupted in a computation:
most recordings never need it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from sysrift.trace.points import JUMP_LENGTH, Form, Piece
from sysrift.tracee import Tracee
from sysrift.tracee.registers import MASK, NAMES

if TYPE_CHECKING:
    from iced_x86 import Instruction

_LONGEST = 15
_CHUNK = 256  # bytes of code read at a time
_AROUND = 1024  # bytes of code before and after an address that belong to its function, mostly

Registers = tuple[int, ...]
"""The registers as `struct user_regs_struct` orders them."""

_INDEX = {name: index for index, name in enumerate(NAMES)}
_FS_BASE, _GS_BASE = _INDEX["fs_base"], _INDEX["gs_base"]


class Run(NamedTuple):
    """The instructions that a jump at the first one's address displaces."""

    code: bytes
    pieces: tuple[Piece, ...]
    entered: bool  # something jumps to another one of them than the first

    @property
    def is_single(self) -> bool:
        """Whether a jump displaces one instruction only: then nothing can jump into its middle."""
        return len(self.pieces) == 1

    def is_entered(self, address: int, entries: set[int]) -> bool:
        """Whether that is known, or one of `entries` is such a place; it begins at `address`."""
        if self.entered:
            return True
        for piece in self.pieces[:-1]:
            address += piece.length
            if address in entries:
                return True
        return False


class _Around(NamedTuple):
    """What a stretch of code refers to."""

    variables: tuple[int, ...]
    targets: frozenset[int]  # of its jumps and calls


class Decoder:
    """Decodes the code of one stopped process, and remembers it."""

    def __init__(self, tracee: Tracee) -> None:
        import iced_x86

        self._iced = iced_x86
        self._tracee = tracee
        self._info = iced_x86.InstructionInfoFactory()
        self._code: dict[int, bytes] = {}
        self._instructions: dict[int, Instruction | None] = {}
        self._writes: dict[int, list[tuple[int, int, int, int, int, int]]] = {}
        self._runs: dict[int, Run | None] = {}
        self._around: dict[int, _Around] = {}
        register = iced_x86.Register
        self._numbers = {
            getattr(register, name.upper()): index
            for name, index in _INDEX.items()
            if hasattr(register, name.upper())
        }
        for name, index in _INDEX.items():
            narrow = _NARROW.get(name)
            if narrow:
                self._numbers[getattr(register, narrow)] = index
        flow = iced_x86.FlowControl
        self._branches = (flow.CONDITIONAL_BRANCH, flow.UNCONDITIONAL_BRANCH)
        self._leaving = (flow.UNCONDITIONAL_BRANCH, flow.INDIRECT_BRANCH, flow.RETURN)
        self._calls = (flow.CALL, flow.INDIRECT_CALL)
        self._displaceable = (flow.NEXT, flow.CONDITIONAL_BRANCH, *self._leaving, *self._calls)
        mnemonic = iced_x86.Mnemonic
        self._kernel = (mnemonic.SYSCALL, mnemonic.SYSENTER, mnemonic.INT)
        self._trapping = (mnemonic.RDTSC, mnemonic.RDTSCP, mnemonic.INT3, mnemonic.INT1)
        # What a single step puts on the stack has the trap flag in it.
        self._flags = (mnemonic.PUSHF, mnemonic.PUSHFD, mnemonic.PUSHFQ)
        self._never_displaced = (
            *self._kernel, *self._trapping, *self._flags, mnemonic.CPUID, mnemonic.HLT,
            mnemonic.UD2, mnemonic.POPF, mnemonic.POPFQ, mnemonic.IRETQ, mnemonic.IN, mnemonic.OUT,
            mnemonic.XSAVE, mnemonic.XRSTOR,
        )  # fmt: skip

    def read(self, address: int, length: int) -> bytes:
        """Code bytes; fewer where it ends."""
        start = address // _CHUNK * _CHUNK
        data = b""
        while start + len(data) < address + length:
            at = start + len(data)
            if at not in self._code:
                self._code[at] = self._tracee.read_some(at, _CHUNK)
            data += self._code[at]
            if len(self._code[at]) < _CHUNK:
                break
        return data[address - start : address - start + length]

    def at(self, address: int) -> Instruction | None:
        """The instruction at `address`; None when there is no valid one."""
        if address not in self._instructions:
            code = self.read(address, _LONGEST)
            decoder = self._iced.Decoder(64, code, ip=address)
            instruction = decoder.decode() if code else None
            valid = instruction is not None and not instruction.is_invalid
            self._instructions[address] = instruction if valid else None
        return self._instructions[address]

    def next_to(self, address: int) -> int:
        """The address behind the instruction at `address`."""
        instruction = self.at(address)
        return 0 if instruction is None else instruction.next_ip

    def makes_event(self, address: int) -> bool:
        """Whether a system call is made at `address`, or one of rdtsc and int3, which trap."""
        instruction = self.at(address)
        return instruction is not None and instruction.mnemonic in (*self._kernel, *self._trapping)

    def runs_free(self, address: int) -> bool:
        """Whether the instruction at `address` is executed as a whole, and not by a step: one that
        repeats, or that would show the step."""
        instruction = self.at(address)
        return instruction is not None and (
            instruction.mnemonic in self._flags or self.repeats(address)
        )

    def repeats(self, address: int) -> bool:
        """Whether it is a string instruction with a prefix that repeats it."""
        instruction = self.at(address)
        return (
            instruction is not None
            and instruction.is_string_instruction
            and (instruction.has_rep_prefix or instruction.has_repne_prefix)
        )

    # -- what it writes -------------------------------------------------------------------------

    def written(self, address: int, registers: Registers) -> list[tuple[int, int]]:
        """(address, length) of the memory that the instruction writes, given `registers` before."""
        operands = self._writes.get(address)
        if operands is None:
            operands = self._writes[address] = self._written_operands(address)
        spans = []
        for segment_base, base, index, scale, displacement, size in operands:
            start = displacement
            if segment_base >= 0:
                start += registers[segment_base]
            if base >= 0:
                start += registers[base]
            if index >= 0:
                start += registers[index] * scale
            spans.append((start & MASK, size))
        return spans

    def _written_operands(self, address: int) -> list[tuple[int, int, int, int, int, int]]:
        instruction = self.at(address)
        if instruction is None:
            return []
        iced = self._iced
        access = iced.OpAccess
        writing = (access.WRITE, access.COND_WRITE, access.READ_WRITE, access.READ_COND_WRITE)
        segments = {iced.Register.FS: _FS_BASE, iced.Register.GS: _GS_BASE}
        found = []
        for memory in self._info.info(instruction).used_memory():
            if memory.access not in writing:
                continue
            size = iced.MemorySizeExt.size(memory.memory_size) or 64
            base = self._numbers.get(memory.base, -1)
            index = self._numbers.get(memory.index, -1)
            if (base < 0 and memory.base != iced.Register.NONE) or (
                index < 0 and memory.index != iced.Register.NONE
            ):
                continue  # a vector of addresses (scatter)
            found.append((
                segments.get(memory.segment, -1), base, index, memory.scale,
                memory.displacement, size,
            ))  # fmt: skip
        return found

    def globals_near(self, address: int) -> tuple[int, ...]:
        """Addresses of the variables that the code around `address` names (rip-relative)."""
        return self._surroundings(address).variables

    def _surroundings(self, address: int) -> _Around:
        """What the code around `address` refers to, roughly its function.

        Decoding begins at no known instruction, so a few of the findings may be none.
        """
        block = address // _AROUND
        if block not in self._around:
            start = (block - 1) * _AROUND
            decoder = self._iced.Decoder(64, self.read(start, 3 * _AROUND), ip=start)
            variables, targets = [], set()
            for instruction in decoder:
                if instruction.is_ip_rel_memory_operand:
                    variables.append(instruction.ip_rel_memory_address)
                else:
                    targets.add(instruction.near_branch_target)
            self._around[block] = _Around(tuple(variables), frozenset(targets))
        return self._around[block]

    # -- what can be displaced ------------------------------------------------------------------

    def run_at(self, address: int) -> Run | None:
        """The instructions from `address` on that a 5-byte jump displaces; None if it cannot."""
        if address not in self._runs:
            self._runs[address] = self._run_at(address)
        return self._runs[address]

    def _run_at(self, address: int) -> Run | None:
        pieces: list[Piece] = []
        length = 0
        entered = left = False
        while length < JUMP_LENGTH:
            instruction = self.at(address + length)
            if instruction is None or (pieces and self.repeats(address + length)):
                return None
            piece = self._piece(instruction)
            if piece is None:
                return None
            if pieces and length < JUMP_LENGTH:
                # Behind a return or jump begins something else.
                targets = self._surroundings(address).targets
                entered |= left or address + length in targets
            left = instruction.flow_control in self._leaving
            pieces.append(piece)
            length += piece.length
            if piece.form == Form.CALL and length < JUMP_LENGTH:
                return None  # it would return into the jump
        if self.repeats(address):
            return None
        code = self.read(address, length)
        if len(code) != length:
            return None
        return Run(code, tuple(pieces), entered)

    def _piece(self, instruction: Instruction) -> Piece | None:
        if (
            instruction.flow_control not in self._displaceable
            or instruction.mnemonic in self._never_displaced
        ):
            return None
        code = self.read(instruction.ip, instruction.len)
        if instruction.flow_control in self._calls:
            return self._called(instruction, code)
        if instruction.flow_control in self._branches:
            # Only jcc and jmp without prefixes: what loop and jrcxz do has no long form.
            for opcode, at in ((b"\xeb", 1), (b"\xe9", 1), (b"\x0f", 2)):
                if code.startswith(opcode) and (opcode != b"\x0f" or code[1] & 0xF0 == 0x80):
                    return Piece(len(code), Form.BRANCH, at)
            if code[0] & 0xF0 == 0x70:
                return Piece(len(code), Form.BRANCH, 1)
            return None
        if instruction.is_ip_rel_memory_operand:
            decoder = self._iced.Decoder(64, code, ip=instruction.ip)
            offsets = decoder.get_constant_offsets(decoder.decode())
            if offsets.displacement_size != 4:
                return None
            return Piece(len(code), Form.RIP_RELATIVE, offsets.displacement_offset)
        return Piece(len(code), Form.PLAIN, 0)

    def _called(self, instruction: Instruction, code: bytes) -> Piece | None:
        """A call: its return address is pushed, then it is a jump, whose operand is taken with
        another stack pointer. Without prefixes, but for REX."""
        if code[0] == 0xE8:
            return Piece(len(code), Form.CALL, 1)
        rex = code[0] & 0xF0 == 0x40
        rsp = self._iced.Register.RSP
        if code[rex] != 0xFF or rsp in (instruction.memory_base, instruction.op0_register):
            return None
        return Piece(len(code), Form.CALL, rex + 2 if instruction.is_ip_rel_memory_operand else 0)


_NARROW = {
    "rax": "EAX", "rbx": "EBX", "rcx": "ECX", "rdx": "EDX", "rsi": "ESI", "rdi": "EDI",
    "rbp": "EBP", "rsp": "ESP",
    **{f"r{number}": f"R{number}D" for number in range(8, 16)},
}  # fmt: skip
"""Base and index registers of a 32-bit address (the 0x67 prefix)."""
