# SPDX-License-Identifier: GPL-2.0-or-later
"""Evaluating what GDB compiles expressions to: agent expressions ("The GDB Agent Expression
Mechanism" in GDB's manual; gdbsupport/ax.def).

A program is plain bytes: opcodes of one byte, operands behind them, big-endian. It works on a stack
of 64-bit integers. What is understood:

    add sub mul div_signed div_unsigned rem_signed rem_unsigned lsh rsh_signed rsh_unsigned
    log_not bit_and bit_or bit_xor bit_not equal less_signed less_unsigned ext zero_ext
    ref8 ref16 ref32 ref64 dup pop swap pick rot if_goto goto const8 const16 const32 const64
    reg (general registers, rip, eflags) trace trace_quick trace16 end

Not: floating point (which GDB does not compile), trace state variables, tracenz, printf.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from sysrift.tracee import BadAddress, Registers
from sysrift.tracee.registers import MASK, signed

OPERANDS = {
    "add": (0x02, 0), "sub": (0x03, 0), "mul": (0x04, 0), "div_signed": (0x05, 0),
    "div_unsigned": (0x06, 0), "rem_signed": (0x07, 0), "rem_unsigned": (0x08, 0),
    "lsh": (0x09, 0), "rsh_signed": (0x0A, 0), "rsh_unsigned": (0x0B, 0), "trace": (0x0C, 0),
    "trace_quick": (0x0D, 1), "log_not": (0x0E, 0), "bit_and": (0x0F, 0), "bit_or": (0x10, 0),
    "bit_xor": (0x11, 0), "bit_not": (0x12, 0), "equal": (0x13, 0), "less_signed": (0x14, 0),
    "less_unsigned": (0x15, 0), "ext": (0x16, 1), "ref8": (0x17, 0), "ref16": (0x18, 0),
    "ref32": (0x19, 0), "ref64": (0x1A, 0), "if_goto": (0x20, 2), "goto": (0x21, 2),
    "const8": (0x22, 1), "const16": (0x23, 2), "const32": (0x24, 4), "const64": (0x25, 8),
    "reg": (0x26, 2), "end": (0x27, 0), "dup": (0x28, 0), "pop": (0x29, 0),
    "zero_ext": (0x2A, 1), "swap": (0x2B, 0), "trace16": (0x30, 2), "pick": (0x32, 1),
    "rot": (0x33, 0),
}  # fmt: skip
"""The code of each operation that is understood, and the bytes of its operand."""

_ORDER = "rax rbx rcx rdx rsi rdi rbp rsp r8 r9 r10 r11 r12 r13 r14 r15 rip eflags"
REGISTERS = tuple(_ORDER.split(" "))
"""Of the operand of `reg`: GDB's numbers (gdb/amd64-tdep.h)."""

_MOST_STEPS = 100_000
_NAMES = {code: (name, size) for name, (code, size) in OPERANDS.items()}
_REFERENCES = {"ref8": 1, "ref16": 2, "ref32": 4, "ref64": 8}
_SIGN_BIT = 1 << 63


class NotUnderstood(ValueError):
    """The program has an operation that is not understood here, or is damaged."""


class CannotEvaluate(ArithmeticError):
    """The expression has no value now: memory that is not there, a division by zero."""


class Value(NamedTuple):
    """What a program came to.

    `value` is the top of the stack, unsigned (0 for an empty one); `read` and `traced` are address
    and length of the memory that it looked at, and that it names to be collected, in order.
    """

    value: int
    read: tuple[tuple[int, int], ...]
    traced: tuple[tuple[int, int], ...]


class _Operation(NamedTuple):
    name: str
    operand: int


class AgentExpression:
    """A program, checked and ready to be evaluated many times."""

    def __init__(self, code: bytes) -> None:
        """Raises NotUnderstood."""
        self.code = code
        self._operations: dict[int, tuple[_Operation, int]] = {}
        at = 0
        while at < len(code):
            if code[at] not in _NAMES:
                raise NotUnderstood(f"operation {code[at]:#x}")
            name, size = _NAMES[code[at]]
            following = at + 1 + size
            if following > len(code):
                raise NotUnderstood("an operand is cut off")
            operand = int.from_bytes(code[at + 1 : following], "big")
            if name == "reg" and operand >= len(REGISTERS):
                raise NotUnderstood(f"register {operand}")
            self._operations[at] = _Operation(name, operand), following
            at = following
        for operation, _ in self._operations.values():
            if operation.name in ("goto", "if_goto") and operation.operand not in self._operations:
                raise NotUnderstood("a jump out of the program")

    @property
    def uses_registers(self) -> bool:
        """Whether it looks at any register."""
        return any(operation.name == "reg" for operation, _ in self._operations.values())

    def evaluate(self, registers: Registers, read: Callable[[int, int], bytes]) -> Value:
        """The value now. `read` gives memory (an address, a length), and raises BadAddress.

        Raises CannotEvaluate, which has what was `read` before as its only argument.
        """
        run = _Run(registers, read)
        at, steps = 0, 0
        try:
            while at in self._operations:
                (name, operand), following = self._operations[at]
                if name == "end":
                    break
                steps += 1
                if steps > _MOST_STEPS:
                    raise ArithmeticError
                if name == "goto" or (name == "if_goto" and run.stack.pop()):
                    at = operand
                    continue
                if name != "if_goto":
                    run.do(name, operand)
                at = following
        except (BadAddress, ArithmeticError, IndexError):
            raise CannotEvaluate(tuple(run.seen)) from None
        value = run.stack[-1] if run.stack else 0
        return Value(value, tuple(run.seen), tuple(run.traced))


class _Run:
    """One evaluation."""

    def __init__(self, registers: Registers, read: Callable[[int, int], bytes]) -> None:
        self._registers = registers
        self._read = read
        self.stack: list[int] = []
        self.seen: list[tuple[int, int]] = []
        self.traced: list[tuple[int, int]] = []

    def do(self, name: str, operand: int) -> None:
        """One operation that is no jump."""
        stack = self.stack
        if name in _REFERENCES:
            address, length = stack.pop(), _REFERENCES[name]
            self.seen.append((address, length))
            stack.append(int.from_bytes(self._read(address, length), "little"))
        elif name.startswith("const"):
            stack.append(operand)
        elif name in _BINARY:
            right, left = stack.pop(), stack.pop()
            stack.append(_BINARY[name](left, right) & MASK)
        elif name in _UNARY:
            stack.append(_UNARY[name](stack.pop(), operand) & MASK)
        elif name == "reg":
            stack.append(int(getattr(self._registers, REGISTERS[operand])))
        elif name == "trace":
            length, address = stack.pop(), stack.pop()
            self.traced.append((address, length))
        elif name in ("trace_quick", "trace16"):
            self.traced.append((stack[-1], operand))
        elif name == "dup":
            stack.append(stack[-1])
        elif name == "pop":
            stack.pop()
        elif name == "swap":
            stack[-2:] = stack[-1], stack[-2]
        elif name == "pick":
            stack.append(stack[-1 - operand])
        else:  # rot: a b c => c a b
            stack[-3:] = stack[-1], stack[-3], stack[-2]


def _divided(left: int, right: int) -> int:
    """As C divides, towards zero."""
    quotient = abs(left) // abs(right)
    return -quotient if (left < 0) != (right < 0) else quotient


def _extended(value: int, bits: int) -> int:
    if not 0 < bits < 64:
        return value
    value &= (1 << bits) - 1
    return value - (1 << bits) if value >> bits - 1 else value


_BINARY: dict[str, Callable[[int, int], int]] = {
    "add": lambda a, b: a + b,
    "sub": lambda a, b: a - b,
    "mul": lambda a, b: a * b,
    "div_signed": lambda a, b: _divided(signed(a), signed(b)),
    "div_unsigned": lambda a, b: a // b,
    "rem_signed": lambda a, b: signed(a) - _divided(signed(a), signed(b)) * signed(b),
    "rem_unsigned": lambda a, b: a % b,
    "lsh": lambda a, b: a << b if b < 64 else 0,
    "rsh_signed": lambda a, b: signed(a) >> min(b, 63),
    "rsh_unsigned": lambda a, b: a >> b if b < 64 else 0,
    "bit_and": lambda a, b: a & b,
    "bit_or": lambda a, b: a | b,
    "bit_xor": lambda a, b: a ^ b,
    "equal": lambda a, b: int(a == b),
    "less_signed": lambda a, b: int(a ^ _SIGN_BIT < b ^ _SIGN_BIT),
    "less_unsigned": lambda a, b: int(a < b),
}

_UNARY: dict[str, Callable[[int, int], int]] = {
    "log_not": lambda a, _: int(not a),
    "bit_not": lambda a, _: ~a,
    "ext": _extended,
    "zero_ext": lambda a, bits: a & ((1 << bits) - 1) if bits < 64 else a,
}

__all__ = [
    "OPERANDS",
    "REGISTERS",
    "AgentExpression",
    "CannotEvaluate",
    "NotUnderstood",
    "Value",
]
