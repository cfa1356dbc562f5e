# SPDX-License-Identifier: GPL-2.0-or-later
"""The one family of errors that a user may see: a line of what happened and what to do.

An exception here is turned into one line on stderr and an exit code in one place
(`sysrift.cli.main`), and into one line of GDB output in `sysrift_gdb`.
"""

from __future__ import annotations


class SysRiftError(Exception):
    """A user-visible failure; `exit_code` is what the command ends with."""

    exit_code = 2


class UsageError(SysRiftError):
    """The command line asks for something that cannot be."""

    exit_code = 2


class TraceError(SysRiftError):
    """A trace cannot be used: not a trace, damaged, of a newer version, files it needs changed."""

    exit_code = 2


class RecordError(SysRiftError):
    """Recording cannot start or go on; the program itself is not to blame."""

    exit_code = 125


class CannotExecute(RecordError):
    """The program cannot be executed: 127 when it does not exist, 126 otherwise, as in POSIX sh."""

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


class ReplayError(SysRiftError):
    """Replaying is impossible here for a reason other than a divergence (ptrace refused, ...)."""

    exit_code = 2
