# SPDX-License-Identifier: GPL-2.0-or-later
"""Where GDB calls in: the conditions of the catchpoints, and GDB's events.

An exception in a condition makes GDB stop with a message that nobody understands, so everything is
caught here and said plainly.
"""

from __future__ import annotations

import os
from collections.abc import Callable

import gdb
from sysrift.errors import SysRiftError
from sysrift_gdb import console, session


class EventFunction(gdb.Function):
    """$_sysrift_event(): 1 when the user should see this syscall-stop."""

    def __init__(self) -> None:
        super().__init__("_sysrift_event")

    def invoke(self, *_args: gdb.Value) -> int:
        """Called by GDB for the condition of our `catch syscall`."""
        return _judge(lambda replay: replay.on_syscall_stop())


class SignalFunction(gdb.Function):
    """$_sysrift_signal(): 1 when the user should see this SIGSYS or fault."""

    def __init__(self) -> None:
        super().__init__("_sysrift_signal")

    def invoke(self, *_args: gdb.Value) -> int:
        """Called by GDB for the condition of our `catch signal`."""
        return _judge(lambda replay: replay.on_signal_stop())


def _judge(decide: Callable[[session.Replay], bool]) -> int:
    replay = session.current
    if replay is None or gdb.selected_inferior().pid != replay.pid:
        return 0
    try:
        return int(decide(replay))
    except (SysRiftError, OSError, session.RemoteSyscallError, session.TraceeGone) as error:
        replay.fail(error)
    except Exception as bug:
        if os.environ.get("SYSRIFT_DEBUG"):
            import traceback

            gdb.write(traceback.format_exc())
        replay.fail(RuntimeError(f"internal error: {type(bug).__name__}: {bug}"))
    return 1


def _on_stop(_event: object) -> None:
    if session.current is not None:
        with console.plainly():
            session.current.on_stop()


def _on_exited(_event: object) -> None:
    with console.plainly():
        session.drop_if_dead()


def _on_inferior_call(event: object) -> None:
    if session.current is not None:
        with console.plainly():
            session.current.diversions.on_call(isinstance(event, gdb.InferiorCallPreEvent))


def _on_resume(_event: object) -> None:
    if session.current is not None:
        with console.plainly():
            session.current.diversions.on_resume()
            session.current.changes.on_resume()


def _on_change(event: object) -> None:
    if session.current is not None:
        with console.plainly():
            if isinstance(event, gdb.MemoryChangedEvent):
                session.current.changes.on_change(int(event.address), int(event.length))
            else:
                session.current.changes.on_change()


def _before_prompt(_none: object = None) -> None:
    with console.plainly():
        session.drop_if_dead()
        if session.current is not None:
            session.current.diversions.after_command()
            session.current.catchpoints.ensure()


def register() -> None:
    """Connect to GDB."""
    EventFunction()
    SignalFunction()
    gdb.events.stop.connect(_on_stop)
    gdb.events.exited.connect(_on_exited)
    gdb.events.cont.connect(_on_resume)
    gdb.events.inferior_call.connect(_on_inferior_call)
    gdb.events.memory_changed.connect(_on_change)
    gdb.events.register_changed.connect(_on_change)
    gdb.events.before_prompt.connect(_before_prompt)
