# SPDX-License-Identifier: GPL-2.0-or-later
"""SysRift's side in GDB's process: commands, stops and settings over the replay engine.

Loaded by `sysrift.gdb`. Only the standard library, `construct`, `pygments` and `sysrift` itself
may be imported here: GDB's Python is another one than the user's.
"""

import sys

if getattr(sys.modules.get("gdb"), "VERSION", None) is None:
    raise ImportError("sysrift_gdb works inside GDB only: (gdb) source sysrift.gdb")

import __main__
from sysrift_gdb import hooks
from sysrift_gdb.api import current_event, events, goto, on_event

MINIMUM_VERSION = 12


def install() -> None:
    """Register SysRift's commands, functions and settings with GDB (once)."""
    import gdb

    major = int(gdb.VERSION.split(".")[0]) if gdb.VERSION[0].isdigit() else MINIMUM_VERSION
    if major < MINIMUM_VERSION:
        raise gdb.GdbError(
            f"SysRift needs GDB {MINIMUM_VERSION} or newer, this is GDB {gdb.VERSION}"
        )
    __main__.__dict__["sysrift_gdb"] = sys.modules[__name__]
    if getattr(sys.modules[__name__], "_installed", False):
        return
    from sysrift_gdb import (
        arrivals,
        dap,
        front_ends,
        parameters,
        prompt,
        stopping_back,
        stops,
        tui,
        variables,
        watched,
    )
    from sysrift_gdb.commands import (
        back,
        bookmark,
        checkpoints,
        events,
        goto,
        info,
        last_write,
        ps,
        replay,
        restore,
        reverse,
        reverse_continue,
        when,
    )

    parameters.register()
    stops.register()
    arrivals.register()
    variables.register()
    prompt.register()
    tui.register()
    if front_ends.speaks("dap"):
        dap.register()
    watched.register()
    stopping_back.register()
    for module in (
        replay,
        goto,
        back,
        bookmark,
        when,
        events,
        ps,
        info,
        checkpoints,
        restore,
        reverse,
        reverse_continue,
        last_write,
    ):
        module.register()
    sys.modules[__name__].__dict__["_installed"] = True


__all__ = ["current_event", "events", "goto", "hooks", "install", "on_event"]
