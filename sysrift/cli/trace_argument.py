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


def add_process_argument(parser: argparse.ArgumentParser, default: str) -> None:
    """Declare --process, whose text `args.process` holds; None when it is not given."""
    parser.add_argument(
        "--process",
        metavar="PID|NAME",
        help=f"which process of the trace, as `sysrift ps` lists them (default: {default})",
    )


def trace_path(args: argparse.Namespace) -> Path:
    """The path of the trace that the command line means. Raises TraceError when there is none."""
    return store.resolve(args.file)


def open_trace(args: argparse.Namespace) -> Trace:
    """The trace that the command line means, opened at the process that it names, if any.

    Raises TraceError when it cannot be used, UsageError when there is no such process.
    """
    from sysrift.trace.reader import Trace

    trace = Trace(trace_path(args))
    if getattr(args, "process", None) is None:
        return trace
    from sysrift.views.processes import find_process

    try:
        return trace.of(find_process(trace, args.process).id)
    except BaseException:
        trace.close()
        raise


def _complete(prefix: str, **_: object) -> list[str]:
    """Names in the store directory, and paths, that begin with `prefix` (for argcomplete)."""
    from argcomplete.completers import FilesCompleter

    try:
        names = [path.stem for path in store.list_traces()]
    except SysRiftError:
        names = []
    found = [name for name in [store.LATEST, *names] if name.startswith(prefix)]
    return found + list(FilesCompleter(["srl"])(prefix))
