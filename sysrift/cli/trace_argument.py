# SPDX-License-Identifier: GPL-2.0-or-later
"""The FILE argument of every command that reads a trace."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from sysrift.errors import SysRiftError
from sysrift.trace import store

if TYPE_CHECKING:
    from sysrift.trace.reader import Trace


def add_trace_argument(parser: argparse.ArgumentParser) -> None:
    """Declare FILE, which `args.file` holds: None when no trace is named."""
    action = parser.add_argument(
        "file",
        nargs="?",
        metavar="FILE",
        help="a trace: a path, or a name that `sysrift ls` shows (default: the latest one)",
    )
    action.completer = _complete  # type: ignore[attr-defined]  # argcomplete's


def trace_path(args: argparse.Namespace) -> Path:
    """The path of the trace that the command line means. Raises TraceError when there is none."""
    return store.resolve(args.file)


def open_trace(args: argparse.Namespace) -> Trace:
    """The trace that the command line means, opened. Raises TraceError when it cannot be used."""
    from sysrift.trace.reader import Trace

    return Trace(trace_path(args))


def _complete(prefix: str, **_: object) -> list[str]:
    """Names in the store directory, and paths, that begin with `prefix` (for argcomplete)."""
    from argcomplete.completers import FilesCompleter

    try:
        names = [path.stem for path in store.list_traces()]
    except SysRiftError:
        names = []
    found = [name for name in [store.LATEST, *names] if name.startswith(prefix)]
    return found + list(FilesCompleter(["srl"])(prefix))
