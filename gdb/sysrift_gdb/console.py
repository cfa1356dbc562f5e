# SPDX-License-Identifier: GPL-2.0-or-later
"""Talking to the user of GDB."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import gdb
from sysrift.errors import SysRiftError
from sysrift.tracee import RemoteSyscallError
from sysrift_gdb import dap


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
    """Keep GDB from announcing a stop, which it does whatever becomes of a command's output.

    It writes that to its first output stream, which neither `to_string` nor `set logging`
    redirects; so the descriptor itself leads nowhere for a while. A DAP client is not told either.
    """
    gdb.flush(gdb.STDOUT)
    saved = os.dup(1)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.close(nowhere)
    try:
        with dap.silence():
            yield
    finally:
        gdb.flush(gdb.STDOUT)
        os.dup2(saved, 1)
        os.close(saved)


def is_machine_interface() -> bool:
    """Whether a front end drives this GDB (MI, DAP), and no user types its commands."""
    words = Path("/proc/self/cmdline").read_bytes().replace(b"\0", b" ")
    return any(form in words for form in (b"-i=", b"-i mi", b"-i dap", b"-interpreter"))


@contextlib.contextmanager
def plainly() -> Iterator[None]:
    """What goes wrong within it is one line for the user."""
    try:
        yield
    except (SysRiftError, OSError, gdb.error, RemoteSyscallError) as error:
        say(str(error))


def forget_caches() -> None:
    """Registers and memory were changed behind GDB's back: make it look again."""
    gdb.execute("maint flush register-cache", to_string=True)
    forget_memory()


def forget_memory() -> None:
    """Memory was changed behind GDB's back; frames, and which one is selected, are as they were."""
    with contextlib.suppress(gdb.error):
        gdb.execute("maint flush dcache", to_string=True)
