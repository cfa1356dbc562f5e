# SPDX-License-Identifier: GPL-2.0-or-later
"""SysRift's commands in GDB, a file each; `ReplayCommand` is what they share."""

from __future__ import annotations

import gdb
from sysrift.errors import SysRiftError
from sysrift_gdb import session
from sysrift_gdb.front_ends import show_position


class ReplayCommand(gdb.Command):
    """A command whose user errors are one line, and whose docstring is its help."""

    name = ""

    def __init__(self, completion: int | None = gdb.COMPLETE_NONE) -> None:
        """`completion`: how GDB completes arguments; None: it asks the method `complete`."""
        if completion is None:
            super().__init__(self.name, gdb.COMMAND_RUNNING)
        else:
            super().__init__(self.name, gdb.COMMAND_RUNNING, completion)

    def invoke(self, argument: str, from_tty: bool) -> None:
        """Called by GDB."""
        try:
            self.run(gdb.string_to_argv(argument), from_tty)
        except (SysRiftError, session.RemoteSyscallError, OSError) as error:
            raise gdb.GdbError(f"SysRift: {error}") from None
        except session.TraceeGone:
            session.drop_if_dead()
            raise gdb.GdbError("SysRift: the replayed process is gone") from None

    def run(self, words: list[str], from_tty: bool) -> None:
        """Do it; `words` are the command's arguments."""
        raise NotImplementedError


def completed(text: str, word: str | None, names: list[str]) -> list[str]:
    """For `complete`: those of `names` that begin with `text`, which is all of the argument so far;
    `word` is the end of it that GDB completes (it takes '-' for a separator), None while GDB finds
    out where that begins."""
    if word is None:
        return []
    return [name[len(text) - len(word) :] for name in names if name.startswith(text)]


__all__ = ["ReplayCommand", "completed", "show_position"]
