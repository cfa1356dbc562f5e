# SPDX-License-Identifier: GPL-2.0-or-later
"""The user's watchpoints, as memory: what GDB's expressions mean at any moment of a replay.

GDB knows an expression by the block in which it was set. Where the program is elsewhere, its
variables are found by their addresses only; so these take the names' places when it is set.
"""

from __future__ import annotations

import re
from typing import NamedTuple

import gdb
from sysrift_gdb import session

TYPES = (gdb.BP_HARDWARE_WATCHPOINT, gdb.BP_READ_WATCHPOINT, gdb.BP_ACCESS_WATCHPOINT)

_SCOPE = re.compile(
    r"^(-\d+)\s+watchpoint scope\s.*(?:\n-\d+\.\d+ .*)?\n\s+stop only in stack frame", re.MULTILINE
)
_FRAME = re.compile(r"frame at (0x[0-9a-f]+)")
_LOCATION = re.compile(r"^-l(?:o(?:c(?:a(?:t(?:i(?:on?)?)?)?)?)?)?\s+")
_WORD = re.compile(r"(\$?[A-Za-z_]\w*|\.\d\w*|\d\w*|->|::|\.|'(?:\\.|[^'])*'|\"(?:\\.|[^\"])*\")")
_MASK = (1 << 64) - 1
_PLAIN_TYPE = re.compile(r"^[\w ]+[*\[\]\d ]*$")


class Meaning(NamedTuple):
    """An expression that means the same anywhere, and the frame that its variables end with: the
    address behind the return address (its CFA), 0 for none, and where its function begins."""

    expression: str
    frame: int = 0
    entry: int = 0


_known: dict[int, Meaning] = {}
_scopes: set[str] = set()


def meaning(breakpoint: gdb.Breakpoint) -> Meaning:
    """Of a watchpoint of the user's."""
    found = _known.get(breakpoint.number)
    return found or Meaning(with_addresses(breakpoint.expression or ""))


def has_ended(breakpoint: gdb.Breakpoint) -> bool:
    """Whether the frame of a watchpoint of the user's is not there any more."""
    wanted = meaning(breakpoint).frame
    frame = gdb.newest_frame() if wanted else None
    while frame is not None:
        older = frame.older()
        if older is not None and int(older.read_register("rsp")) & _MASK == wanted:
            return False
        frame = older
    return bool(wanted)


def with_addresses(expression: str) -> str:
    """The expression with the variables' addresses in the place of their names."""
    whole = _LOCATION.match(expression)
    if whole:
        expression = expression[whole.end() :]
        try:
            value = gdb.parse_and_eval(expression)
        except gdb.error:
            return expression
        return _memory(value) or expression
    parts = _WORD.split(expression)
    for at in range(1, len(parts), 2):
        before = parts[at - 2] if at > 1 and not parts[at - 1].strip() else ""
        if re.match(r"[A-Za-z_]", parts[at]) and before not in (".", "->", "::", "struct", "union"):
            parts[at] = _variable(parts[at]) or parts[at]
    return "".join(parts)


def _variable(name: str) -> str | None:
    try:
        symbol, _ = gdb.lookup_symbol(name)
        if symbol is None or not (symbol.is_variable or symbol.is_argument):
            return None
        if symbol.needs_frame:
            return _memory(gdb.parse_and_eval(name))
        return _memory(symbol.value())
    except gdb.error:
        return None


def _memory(value: gdb.Value) -> str | None:
    """An expression for a value by its address; None for one that has none, or no plain type."""
    if value.address is None or not _PLAIN_TYPE.match(str(value.type)):
        return None
    return f"({{{value.type}}} {int(value.address):#x})"


def _new_scope() -> tuple[int, int]:
    """CFA and function of the selected frame, if GDB has just bound a watchpoint to it; else 0."""
    global _scopes
    scopes = set(_SCOPE.findall(gdb.execute("maint info breakpoints", to_string=True)))
    new, _scopes = scopes - _scopes, scopes
    frame: gdb.Frame | None = gdb.selected_frame()
    match = _FRAME.search(gdb.execute("info frame", to_string=True))
    if not new or match is None:
        return 0, 0
    while frame is not None and frame.type() == gdb.INLINE_FRAME:
        frame = frame.older()
    function = frame.function() if frame is not None else None
    entry = function.value().address if function is not None else None
    return int(match.group(1), 16), int(entry) if entry is not None else 0


def _compare_anew() -> None:
    """The program is somewhere else: what GDB takes for the value before the next change is of
    where it was, and a change to that very value would go unnoticed.

    GDB reads it anew where the user writes to watched memory (gdb/breakpoint.c,
    invalidate_bp_value_on_memory_change); so what is there is written there.
    """
    replay = session.current
    if replay is None:
        return
    with replay.changes.none():
        for breakpoint in gdb.breakpoints():
            if breakpoint.type == gdb.BP_HARDWARE_WATCHPOINT and breakpoint.enabled:
                _write_what_is_there(breakpoint)


def _write_what_is_there(breakpoint: gdb.Breakpoint) -> None:
    try:
        value = gdb.parse_and_eval(meaning(breakpoint).expression)
        if value.address is not None:
            address, length = int(value.address), value.type.sizeof
            inferior = gdb.selected_inferior()
            inferior.write_memory(address, bytes(inferior.read_memory(address, length)))
    except gdb.error:
        pass  # it has no value here


def _on_created(breakpoint: gdb.Breakpoint) -> None:
    if session.current is None or breakpoint.type not in TYPES:
        return
    try:
        expression = with_addresses(breakpoint.expression or "")
        _known[breakpoint.number] = Meaning(expression, *_new_scope())
    except gdb.error:
        return


def _on_deleted(breakpoint: gdb.Breakpoint) -> None:
    _known.pop(breakpoint.number, None)


def register() -> None:
    """Connect to GDB."""
    gdb.events.breakpoint_created.connect(_on_created)
    gdb.events.breakpoint_deleted.connect(_on_deleted)
    session.travelled.append(_compare_anew)


__all__ = ["TYPES", "Meaning", "has_ended", "meaning", "register", "with_addresses"]
