# SPDX-License-Identifier: GPL-2.0-or-later
"""`sysrift verify`."""

from __future__ import annotations

import argparse
import os
import sys
import time
from typing import TYPE_CHECKING

from sysrift.cli.trace_argument import add_process_argument, add_trace_argument, open_trace

if TYPE_CHECKING:
    from sysrift.replay.verify import Verified
    from sysrift.trace.reader import Trace

_PATIENCE = 2.0
"""Seconds without a sign of life that a user is fine with."""


class VerifyCommand:
    """Replay a whole trace without a debugger and check every event.

    Number, arguments, call site, stack pointer and the data handed in must be as recorded at every
    system call, and so must the end; with a trace recorded with --checksum, memory too.

    Exit status: 0 the replay is faithful, 3 it diverged (the event, both sides and the likely
    cause are printed), 2 the trace cannot be used.
    """

    def prepare_parser(self, parser: argparse.ArgumentParser) -> None:
        """Declare the command's arguments."""
        parser.add_argument("-q", "--quiet", action="store_true", help="say nothing when faithful")
        parser.add_argument(
            "--no-agent",
            action="store_true",
            help="stop the program at every call, rather than play what can be within it",
        )
        add_process_argument(parser, "all of them")
        add_trace_argument(parser)

    def run(self, args: argparse.Namespace) -> int:
        """Verify; returns the exit code."""
        with open_trace(args) as trace:
            progress = _Progress(trace.file.event_count)
            try:
                verified = _verified(trace, progress, args)
            finally:
                progress.clear()
            if not args.quiet:
                many = f"{verified.processes} processes, " if verified.processes > 1 else ""
                played = f" ({verified.played} without a stop)" if verified.played else ""
                sums = f", {verified.checksums} memory checksums" if verified.checksums else ""
                print(
                    f"{trace.path}: faithful: {many}{verified.events} events{played}{sums}; "
                    f"{verified.ending}"
                )
        return 0


def _verified(trace: Trace, progress: _Progress, args: argparse.Namespace) -> Verified:
    """Verify it as the arguments and $SYSRIFT_PLAYER say.

    The player changes the program's code, which a program can read. So where nobody asked for the
    player, a replay counts as diverged only when it does so without.
    """
    from sysrift.replay.divergence import Divergence
    from sysrift.replay.player import PATCH_AT, patch_at
    from sysrift.replay.verify import verify

    alone = args.process is not None
    if args.no_agent:
        return verify(trace, progress, alone, player_at=None)
    if os.environ.get("SYSRIFT_PLAYER"):
        return verify(trace, progress, alone, player_at=patch_at(os.environ))
    try:
        return verify(trace, progress, alone, player_at=PATCH_AT)
    except Divergence as divergence:
        verified = verify(trace, progress, alone, player_at=None)
        print(
            "sysrift: only with a stop at every call (--no-agent): the program seems to look at "
            f"its own code; otherwise: {divergence}",
            file=sys.stderr,
        )
        return verified


class _Progress:
    """How far it is, on a terminal's stderr, once it takes longer than people like to wait."""

    def __init__(self, total: int) -> None:
        self._total = total
        self._started = time.monotonic()
        self._shown = False

    def __call__(self, done: int) -> None:
        """Called now and then with the number of events done."""
        if time.monotonic() - self._started > _PATIENCE and sys.stderr.isatty():
            self._shown = True
            percent = 100 * done // max(self._total, 1)
            print(f"\rverify: {done} of {self._total} events ({percent}%)", end="", file=sys.stderr)
            sys.stderr.flush()

    def clear(self) -> None:
        """Take the line away again."""
        if self._shown:
            print("\r\x1b[K", end="", file=sys.stderr)
