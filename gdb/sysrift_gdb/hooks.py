# SPDX-License-Identifier: GPL-2.0-or-later
"""What GDB's own commands call before or after themselves (`define hook-...` in sysrift.gdb)."""

from __future__ import annotations


def before_detach() -> None:
    """A replayed process cannot live without the replayer: end the replay instead."""
    from sysrift_gdb import session

    session.end_instead_of_detaching()


def after_breakpoints_changed() -> None:
    """`delete` and `disable` without arguments also hit the catchpoints that a replay lives by."""
    from sysrift_gdb import session

    if session.current is not None:
        session.current.catchpoints.ensure()


def before_starti() -> None:
    """`starti` would execute the real program: let it start another stub."""
    from sysrift_gdb import dap, session

    with dap.silence():
        session.prepare_starti()


def after_starti() -> None:
    """And begin the replay again in its place."""
    from sysrift_gdb import dap, session
    from sysrift_gdb.commands import show_position

    with dap.silence():
        begun = session.replay_after_starti()
    if begun:
        show_position()


def before_evaluating() -> None:
    """A command is about to be executed that may call the program's functions, or change it."""
    from sysrift_gdb import session

    if session.current is not None:
        session.current.diversions.after_command()
        session.current.changes.before_command()


def after_evaluating() -> None:
    """Such a command is over."""
    from sysrift_gdb import session

    if session.current is not None:
        session.current.diversions.after_command()


def after_return() -> None:
    """`return`: the program is elsewhere."""
    from sysrift_gdb import session

    if session.current is not None:
        was_called = session.current.user_call
        session.current.diversions.after_command()
        if not was_called:
            session.current.changes.on_change()


def before_stepping_by_line() -> None:
    """GDB is about to step through a line by its range of addresses (`line_steps`)."""
    from sysrift_gdb import session

    if session.current is not None:
        session.current.steps_by_line = True
