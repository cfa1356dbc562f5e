# SPDX-License-Identifier: GPL-2.0-or-later
"""`set sysrift prompt on`: the number of the next event in front of GDB's prompt."""

from __future__ import annotations

import contextlib

import gdb
from sysrift.errors import SysRiftError
from sysrift_gdb import parameters, session

_users: str | None = None  # the prompt that ours was made of
_ours: str | None = None


def _prompt(current: str) -> str | None:
    """Called by GDB before each prompt; what is returned becomes its `set prompt`."""
    global _users, _ours
    if _ours is not None and current == _ours:
        assert _users is not None
        current = _users
    shown = None
    with contextlib.suppress(SysRiftError, gdb.error):
        session.drop_if_dead()
        if parameters.prompt() and session.current is not None:
            replay = session.current
            mark = " called" if replay.user_call else " changed" if replay.is_changed else ""
            shown = f"[{replay.engine.next}{mark}]"
    if shown is None:
        was_ours, _ours = _ours is not None, None
        return current if was_ours else None
    _users, _ours = current, f"{shown} {current}"
    return _ours


def register() -> None:
    """Connect to GDB, unless somebody else makes the prompt already."""
    if gdb.prompt_hook is None:
        gdb.prompt_hook = _prompt
