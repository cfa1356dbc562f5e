# SPDX-License-Identifier: GPL-2.0-or-later
"""`sysrift-restore`, and what goes before commands that resume the program."""

from __future__ import annotations

import gdb
from sysrift.errors import UsageError
from sysrift_gdb import session
from sysrift_gdb.commands import ReplayCommand, show_position


class Restore(ReplayCommand):
    """Let the program be what the recording says again: sysrift-restore

    What you have written to memory or registers is taken back: the program stands where that was. A
    function called from GDB that has stopped in its midst is left, and all that it has changed is
    as it was."""

    name = "sysrift-restore"

    def run(self, words: list[str], from_tty: bool) -> None:
        """Do it."""
        if words:
            raise UsageError("sysrift-restore takes no arguments")
        replay = session.active()
        replay.restore()
        show_position()


class BeforeResuming(ReplayCommand):
    """For hooks: GDB is about to execute a command that resumes the program."""

    name = "maintenance sysrift before-resuming"

    def run(self, words: list[str], from_tty: bool) -> None:
        """An error keeps GDB from executing that command; without a traceback, since this is one of
        its own."""
        if session.current is not None:
            session.current.diversions.before_resuming()


class _MaintenancePrefix(gdb.Command):
    """What SysRift's hooks use."""

    def __init__(self) -> None:
        super().__init__("maintenance sysrift", gdb.COMMAND_MAINTENANCE, gdb.COMPLETE_NONE, True)


def register() -> None:
    """Make the commands known to GDB."""
    _MaintenancePrefix()
    Restore()
    BeforeResuming()
