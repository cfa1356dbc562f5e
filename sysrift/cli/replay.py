# SPDX-License-Identifier: GPL-2.0-or-later
"""`sysrift replay`: GDB, with SysRift loaded and a replay begun."""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
from pathlib import Path

from sysrift.cli.gdb_script import gdb_script_path
from sysrift.cli.trace_argument import add_process_argument, add_trace_argument, open_trace
from sysrift.errors import ReplayError

MINIMUM_GDB = 12
_PROBE = "python import sys; print('sysrift-probe', gdb.VERSION)"


class ReplayCommand:
    """Start GDB on a recorded run, stopped at its beginning.

    What follows -- goes to GDB: sysrift-replay run.srl -- -batch -ex continue -ex bt
    """

    def prepare_parser(self, parser: argparse.ArgumentParser) -> None:
        """Declare the command's arguments."""
        parser.add_argument(
            "--gdb",
            default=os.environ.get("SYSRIFT_GDB", "gdb"),
            metavar="PATH",
            help="the GDB to use (default: $SYSRIFT_GDB, else gdb)",
        )
        add_process_argument(parser, "the one that crashed, else the first")
        add_trace_argument(parser)
        parser.usage = "%(prog)s [-h] [--gdb PATH] [--process PID|NAME] [FILE] [-- GDB-ARGS ...]"
        parser.set_defaults(rest=[])

    def run(self, args: argparse.Namespace) -> int:
        """Become GDB. Raises TraceError or ReplayError when that makes no sense."""
        with open_trace(args) as trace:
            path = trace.path.resolve()
            which = [] if args.process is None else ["--process", str(trace.process.pid)]
        gdb = _usable_gdb(args.gdb)
        quoted = '"' + str(path).replace("\\", "\\\\").replace('"', '\\"') + '"'
        words = [
            gdb,
            "-q",
            "-ex", f"python import sys; sys.path.append({_libraries()!r})",
            "-ex", f"source {gdb_script_path()}",
            "-ex", " ".join(["sysrift-replay", *which, quoted]),
            *args.rest,
        ]  # fmt: skip
        os.execv(gdb, words)


def _libraries() -> str:
    """Where construct and pygments are: GDB's Python may be another one than this."""
    import construct

    return str(Path(construct.__file__).parent.parent)


def _usable_gdb(name: str) -> str:
    """The path of a GDB that SysRift works in; ReplayError says what is wrong with it."""
    gdb = shutil.which(name)
    if gdb is None:
        raise ReplayError(
            f"there is no {name}: install GDB (apt-get install gdb), or name one: --gdb"
        )
    try:
        probe = subprocess.run(
            [gdb, "-nx", "-batch", "-ex", _PROBE],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=30,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ReplayError(f"cannot run {gdb}: {error}") from None
    words = probe.stdout.split()
    if "sysrift-probe" not in words:
        raise ReplayError(
            f"{gdb} has no Python, which SysRift needs: use a GDB {MINIMUM_GDB} or newer built "
            "with Python (Debian's gdb, not gdb-minimal)"
        )
    version = words[words.index("sysrift-probe") + 1]
    major = version.split(".")[0]
    if major.isdigit() and int(major) < MINIMUM_GDB:
        raise ReplayError(f"{gdb} is GDB {version}: SysRift needs GDB {MINIMUM_GDB} or newer")
    return str(Path(gdb).absolute())
