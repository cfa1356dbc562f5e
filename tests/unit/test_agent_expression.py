# SPDX-License-Identifier: GPL-2.0-or-later
"""GDB's agent expressions, evaluated: against what C would come to, and what is no program."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sysrift.replay.agent_expression import (
    OPERANDS,
    AgentExpression,
    CannotEvaluate,
    NotUnderstood,
)
from sysrift.tracee import BadAddress, Registers
from sysrift.tracee.registers import MASK, signed

WORDS = st.integers(0, MASK) | st.sampled_from([0, 1, MASK, 1 << 63, (1 << 63) - 1])
MEMORY = {0x1000: bytes(range(1, 17)), 0x2000: struct.pack("<Q", 0x1008)}


def _read(address: int, length: int) -> bytes:
    for start, data in MEMORY.items():
        if start <= address and address + length <= start + len(data):
            return data[address - start : address - start + length]
    raise BadAddress(f"no memory at {address:#x}")


def _program(*operations: str) -> bytes:
    code = b""
    for text in operations:
        name, _, operand = text.partition(" ")
        opcode, size = OPERANDS[name]
        code += bytes([opcode]) + int(operand or "0", 0).to_bytes(size, "big")
    return code


def _value(*operations: str, registers: Registers | None = None) -> int:
    program = AgentExpression(_program(*operations, "end"))
    return program.evaluate(registers or Registers(), _read).value


@given(WORDS, WORDS)
def test_arithmetic_is_that_of_64_bits(left: int, right: int) -> None:
    operands = f"const64 {left}", f"const64 {right}"
    a, b = signed(left), signed(right)
    assert _value(*operands, "add") == (left + right) & MASK
    assert _value(*operands, "sub") == (left - right) & MASK
    assert _value(*operands, "mul") == (left * right) & MASK
    assert _value(*operands, "less_signed") == (a < b)
    assert _value(*operands, "less_unsigned") == (left < right)
    assert _value(*operands, "equal") == (left == right)
    assert _value(*operands, "bit_and") == left & right
    assert _value(*operands, "bit_xor") == left ^ right
    assert _value(*operands, "swap", "sub") == (right - left) & MASK
    if right:
        quotient = signed(_value(*operands, "div_signed"))
        rest = signed(_value(*operands, "rem_signed"))
        assert (quotient * b + rest - a) & MASK == 0
        assert abs(rest) < abs(b) and (rest == 0 or (rest < 0) == (a < 0))
        assert _value(*operands, "div_unsigned") == left // right


@given(WORDS, st.integers(1, 64))
def test_extending(word: int, bits: int) -> None:
    low = word & ((1 << bits) - 1)
    expected = low - (1 << bits) if low >> bits - 1 else low
    assert signed(_value(f"const64 {word}", f"ext {bits}")) == signed(expected & MASK)
    assert _value(f"const64 {word}", f"zero_ext {bits}") == low


def test_memory_and_what_was_looked_at() -> None:
    program = AgentExpression(_program("const16 0x2000", "ref64", "ref16", "end"))
    value = program.evaluate(Registers(), _read)
    assert value.value == 0x0A09 and value.read == ((0x2000, 8), (0x1008, 2))
    with pytest.raises(CannotEvaluate) as caught:
        AgentExpression(_program("const16 0x3000", "ref8")).evaluate(Registers(), _read)
    assert caught.value.args[0] == ((0x3000, 1),)
    with pytest.raises(CannotEvaluate):
        _value("const8 1", "const8 0", "div_signed")


def test_traces_jumps_and_registers() -> None:
    traced = AgentExpression(_program("const16 0x1000", "trace_quick 4", "const8 3", "trace"))
    assert traced.evaluate(Registers(), _read).traced == ((0x1000, 4), (0x1000, 3))
    registers = Registers()
    registers.rbp = 0x77
    assert _value("reg 6", registers=registers) == 0x77
    # 0: const8 1; 2: if_goto 8; 5: const8 5; 7: end; 8: const8 6
    assert _value("const8 1", "if_goto 8", "const8 5", "end", "const8 6") == 6
    assert _value("const8 0", "if_goto 8", "const8 5", "end", "const8 6") == 5


@pytest.mark.parametrize(
    "code",
    [
        b"\x1b",  # ref_float
        b"\x22",  # an operand is cut off
        b"\x26\x00\x60",  # no general register
        b"\x21\x00\x09",  # out of the program
        b"\x21\x00\x01\x22\x00",  # into an operand
        b"\xff",
    ],
)
def test_what_is_not_understood(code: bytes) -> None:
    with pytest.raises(NotUnderstood):
        AgentExpression(code)


def test_an_endless_program_ends() -> None:
    with pytest.raises(CannotEvaluate):
        AgentExpression(b"\x21\x00\x00").evaluate(Registers(), _read)


@given(st.binary(max_size=40))
def test_no_bytes_hurt(code: bytes) -> None:
    try:
        AgentExpression(code).evaluate(Registers(), _read)
    except (NotUnderstood, CannotEvaluate):
        pass
