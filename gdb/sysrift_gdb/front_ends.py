# SPDX-License-Identifier: GPL-2.0-or-later
"""What GDB would tell its user interface at a stop, told when a command has gone elsewhere.

To GDB that is no stop: it has not run anything. `stepi 0` runs nothing either, but ends as a step
does (gdb/infcmd.c, step_1; infrun.c, normal_stop): GDB/MI sends a `*stopped` record, and the TUI
shows the new place in all of its windows.
"""

from __future__ import annotations

import functools
import re
from pathlib import Path

import gdb
from sysrift_gdb import arrivals, dap

_OPTION = re.compile(r"--?(?:i|int(?:e(?:r(?:p(?:r(?:e(?:t(?:er?)?)?)?)?)?)?)?)(?:=(.*))?")


def show_position(why: str = "") -> None:
    """Show where the program stands, as GDB does after a stop: behind `why`, if that is given."""
    arrivals.tell()
    try:
        gdb.newest_frame().select()
        if has_windows() or speaks("mi"):
            gdb.write("\n" + why if why else "")
            gdb.execute("stepi 0")
        elif why:
            gdb.write("\n" + why + gdb.execute("frame", to_string=True).removeprefix("#0  "))
        else:
            gdb.execute("frame")
    except gdb.error as error:
        gdb.write(f"{error}\n")
    if speaks("dap"):
        dap.announce(why)


def has_windows() -> bool:
    """Whether the TUI is on; there what `gdb.execute` prints would go astray."""
    try:
        return "is not active" not in gdb.execute("info win", to_string=True)
    except gdb.error:
        return False  # a GDB without it


@functools.cache
def speaks(interpreter: str) -> bool:
    """Whether GDB was started for a front end that speaks this: `mi` (of any version) or `dap`."""
    words = Path("/proc/self/cmdline").read_bytes().decode(errors="replace").split("\0")
    return _interpreter(words).startswith(interpreter)


def _interpreter(words: list[str]) -> str:
    """What a command line says by `-i`, or `--interpreter` and its abbreviations, if anything.

    Nothing else chooses the interpreter, and GDB does not tell which it is.
    """
    for word, following in zip(words, words[1:]):  # noqa: RUF007 - Python 3.9 has no pairwise
        if word in ("--args", "-args"):
            break
        option = _OPTION.fullmatch(word)
        if option is not None:
            return option.group(1) or following
    return ""
