# SPDX-License-Identifier: GPL-2.0-or-later
"""Talking to the user of GDB."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

import gdb


def say(text: str) -> None:
    """A line of SysRift's own to GDB's output."""
    gdb.write(f"SysRift: {text}\n")
    gdb.flush()


def emit(text: str) -> None:
    """Text as it is, through GDB's pager."""
    gdb.write(text if text.endswith("\n") else text + "\n")


def styled() -> bool:
    """Whether colours are wanted: `set style enabled`, NO_COLOR, and a terminal that has them."""
    if os.environ.get("NO_COLOR") or os.environ.get("TERM", "dumb") == "dumb":
        return False
    return bool(gdb.parameter("style enabled"))


def quietly(command: str) -> str:
    """Run a GDB command, no questions asked, and return what it printed."""
    with setting("confirm", "off"):
        printed: str = gdb.execute(command, from_tty=False, to_string=True)
    return printed


def _text(value: bool | int | str | None) -> str:
    if value is None:
        return "unlimited"
    if isinstance(value, bool):
        return "on" if value else "off"
    return str(value)


@contextlib.contextmanager
def setting(name: str, value: str) -> Iterator[None]:
    """A GDB setting for a while."""
    before = _text(gdb.parameter(name))
    gdb.execute(f"set {name} {value}", to_string=True)
    try:
        yield
    finally:
        gdb.execute(f"set {name} {before}", to_string=True)


@contextlib.contextmanager
def silence() -> Iterator[None]:
    """Keep GDB from announcing stops, which it prints whatever becomes of a command's output."""
    if gdb.parameter("logging enabled"):
        yield  # the user keeps a log already
        return
    file, redirect = gdb.parameter("logging file"), gdb.parameter("logging redirect")
    gdb.execute(f"set logging file {os.devnull}", to_string=True)
    gdb.execute("set logging redirect on", to_string=True)
    gdb.execute("set logging enabled on", to_string=True)
    try:
        yield
    finally:
        gdb.execute("set logging enabled off", to_string=True)
        gdb.execute(f"set logging redirect {_text(redirect)}", to_string=True)
        gdb.execute(f"set logging file {_text(file)}", to_string=True)


def forget_caches() -> None:
    """Registers and memory were changed behind GDB's back: make it look again."""
    gdb.execute("maint flush register-cache", to_string=True)
    with contextlib.suppress(gdb.error):
        gdb.execute("maint flush dcache", to_string=True)
