# SPDX-License-Identifier: GPL-2.0-or-later
"""GDB's compiler of expressions: `maintenance agent` prints a listing, this makes the bytes of it.

Nothing but a listing comes out of GDB: each line has an offset, an operation and its operand.
"""

from __future__ import annotations

import re

import gdb
from sysrift.replay.agent_expression import OPERANDS, AgentExpression, NotUnderstood

_LINE = re.compile(r"^\s*(\d+)\s+([a-z_0-9]+)(?:\s+(\d+))?\s*$", re.MULTILINE)


def compiled(expression: str) -> AgentExpression | None:
    """The value of an integer expression, where the newest frame is now; None when GDB's compiler
    or the evaluator does not know how."""
    return _compile("maintenance agent-eval", expression)


def collecting(expression: str) -> AgentExpression | None:
    """What names the memory of an expression, and of all that it is found by (the pointers)."""
    return _compile("maintenance agent", expression)


def _compile(command: str, expression: str) -> AgentExpression | None:
    try:
        listing = gdb.execute(f"{command} {expression}", to_string=True)
        return AgentExpression(_assembled(listing))
    except (gdb.error, NotUnderstood):
        return None


def _assembled(listing: str) -> bytes:
    """Raises NotUnderstood."""
    code = b""
    for offset, name, operand in _LINE.findall(listing):
        if name not in OPERANDS or int(offset) != len(code):
            raise NotUnderstood(name)
        opcode, size = OPERANDS[name]
        if bool(size) != bool(operand):
            raise NotUnderstood(name)
        code += bytes([opcode]) + int(operand or 0).to_bytes(size, "big")
    if not code:
        raise NotUnderstood("nothing")
    return code


__all__ = ["collecting", "compiled"]
