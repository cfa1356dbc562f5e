# SPDX-License-Identifier: GPL-2.0-or-later
"""`sysrift gdb-script`: where GDB finds SysRift."""

from __future__ import annotations

import argparse
import importlib.util
from pathlib import Path

import sysrift
from sysrift.errors import SysRiftError

SCRIPT = "sysrift.gdb"


def gdb_script_path() -> Path:
    """The script that GDB is to source. Raises SysRiftError when it is not there.

    In a checkout it is `gdb/sysrift.gdb`; an installed one lies in the `sysrift_gdb` package.
    """
    # A checkout comes first: an installed sysrift_gdb would be another version than this sysrift.
    candidates = [Path(sysrift.__file__).resolve().parent.parent / "gdb" / SCRIPT]
    # Only located: the package can be imported inside GDB alone.
    spec = importlib.util.find_spec("sysrift_gdb")
    if spec is not None and spec.submodule_search_locations:
        candidates += [Path(place) / SCRIPT for place in spec.submodule_search_locations]
    for candidate in candidates:
        if candidate.is_file():
            return candidate
    raise SysRiftError(f"{SCRIPT} is not there (looked for {candidates[-1]}): reinstall SysRift")


class GdbScriptCommand:
    """Print the path of the script that adds SysRift to GDB.

    In GDB, `source` that path; or put such a line into ~/.gdbinit.
    """

    def prepare_parser(self, parser: argparse.ArgumentParser) -> None:
        """Declare the arguments: none."""

    def run(self, args: argparse.Namespace) -> int:
        """Print it."""
        print(gdb_script_path())
        return 0
