# SPDX-License-Identifier: GPL-2.0-or-later
"""`sysrift record`."""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping
from pathlib import Path

DEFAULT_CHECKSUM_EVERY = 1000
DEFAULT_AGENT_FROM = 100
"""Putting the agent into a program costs about as much as so many stops."""


class RecordCommand:
    """Record a program at the system call boundary, until it ends, or a running process (-p).

    The program keeps its stdin, stdout, stderr, terminal, directory and environment. The exit
    status is the program's own: 128+N when signal N ended it, 126 or 127 when it cannot be
    executed; 125 is SysRift's own failure.

    Without -o the trace goes to $SYSRIFT_TRACE_DIR, else $XDG_DATA_HOME/sysrift, else
    ~/.local/share/sysrift, and every other command finds it there as the latest one.
    """

    def prepare_parser(self, parser: argparse.ArgumentParser) -> None:
        """Declare the command's arguments."""
        self._parser = parser
        parser.add_argument("-o", "--output", type=Path, metavar="FILE", help="the trace to write")
        parser.add_argument(
            "-q", "--quiet", action="store_true", help="print no summary line at the end"
        )
        parser.add_argument(
            "--checksum",
            metavar="N",
            nargs="?",
            type=_positive,
            const=DEFAULT_CHECKSUM_EVERY,
            default=0,
            help="keep a checksum of all writable memory at every N-th event (default "
            f"{DEFAULT_CHECKSUM_EVERY}) and at the end, for verify; write --checksum=N",
        )
        parser.add_argument(
            "--store-all",
            action="store_true",
            help="store every mapped file in the trace, the system's libraries too, so that it "
            "replays after they changed",
        )
        parser.add_argument(
            "--no-pin",
            action="store_true",
            help="let program and recorder run on different CPUs (a stop costs 3-10 times more)",
        )
        parser.add_argument(
            "--agent",
            metavar="N",
            nargs="?",
            type=_positive,
            const=DEFAULT_AGENT_FROM,
            default=_agent_of(os.environ),
            help="record plain system calls within the program, without stopping it, from its N-th "
            f"call on (default: $SYSRIFT_AGENT, else {DEFAULT_AGENT_FROM}); write --agent=N",
        )
        parser.add_argument(
            "--no-agent",
            dest="agent",
            action="store_const",
            const=0,
            help="stop the program at every call (also: SYSRIFT_AGENT=0)",
        )
        parser.add_argument(
            "-f",
            "--follow",
            choices=("all", "none"),
            default="all",
            help="which processes that the program starts are recorded too (default: all)",
        )
        parser.add_argument(
            "--no-wait",
            action="store_true",
            help="end the recording when the program itself ends, though processes that it started "
            "go on (they are let go)",
        )
        parser.add_argument(
            "-p",
            "--pid",
            type=_pid,
            metavar="PID",
            help="record a process that runs already, from where it is, until it ends, or Ctrl-C, "
            "which lets it go on unrecorded",
        )
        parser.add_argument(
            "--for",
            dest="seconds",
            type=_seconds,
            metavar="SECONDS",
            default=0.0,
            help="with -p: let the process go after so many seconds",
        )
        parser.add_argument(
            "--events",
            type=_positive,
            metavar="N",
            default=0,
            help="with -p: let the process go after N events",
        )
        parser.add_argument("program", metavar="PROGRAM", nargs="?", help="the program to run")
        parser.add_argument(
            "arguments", metavar="ARGS", nargs=argparse.REMAINDER, help="its arguments"
        )

    def run(self, args: argparse.Namespace) -> int:
        """Record; returns the program's exit status."""
        if args.pid is not None:
            return self._attach(args)
        if args.program is None:
            self._parser.error("the following arguments are required: PROGRAM (or -p PID)")
        if args.seconds or args.events:
            self._parser.error("--for and --events are for a running process (-p PID)")
        from sysrift.record.session import RecordOptions, record

        return record(
            RecordOptions(
                argv=[args.program, *args.arguments],
                output=args.output,
                quiet=args.quiet,
                checksum_every=args.checksum,
                store_all_files=args.store_all,
                pin=not args.no_pin,
                follow=args.follow == "all",
                wait=not args.no_wait,
                agent=args.agent,
            )
        )

    def _attach(self, args: argparse.Namespace) -> int:
        from sysrift.record.attach_session import AttachOptions, attach

        if args.program is not None:
            self._parser.error("either a PROGRAM to run, or -p PID, not both")
        return attach(
            AttachOptions(
                pid=args.pid,
                output=args.output,
                quiet=args.quiet,
                checksum_every=args.checksum,
                store_all_files=args.store_all,
                pin=not args.no_pin,
                follow=args.follow == "all",
                wait=not args.no_wait,
                seconds=args.seconds,
                events=args.events,
            )
        )


def _agent_of(environment: Mapping[str, str]) -> int:
    """$SYSRIFT_AGENT: from which call on; 0 or what is no number means never."""
    text = environment.get("SYSRIFT_AGENT") or str(DEFAULT_AGENT_FROM)
    return int(text) if text.isascii() and text.isdigit() else 0


def _pid(text: str) -> int:
    number = int(text) if text.isascii() and text.isdigit() else 0
    if not 0 < number < 1 << 31:
        raise argparse.ArgumentTypeError(f"{text!r} is not the number of a process")
    return number


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < 1e9:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds")
    return seconds


def _positive(text: str) -> int:
    number = int(text) if text.isdigit() else 0
    if number < 1:
        raise argparse.ArgumentTypeError(
            f"{text!r} is not a number of events (a program's name goes after --)"
        )
    return number
