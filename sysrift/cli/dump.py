# SPDX-License-Identifier: GPL-2.0-or-later
"""`sysrift dump`: the events of a trace, as text or JSON."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

from sysrift.cli.terminal import add_color_argument, use_color
from sysrift.cli.trace_argument import add_process_argument, add_trace_argument, open_trace
from sysrift.errors import UsageError

if TYPE_CHECKING:
    from sysrift.trace.model import Event
    from sysrift.trace.reader import Trace
    from sysrift.views.filters import EventFilter


class DumpCommand:
    """Print the events of a trace.

    One event a line, much as strace prints it: number, seconds since the beginning, call, result;
    also signals, time stamp reads, and at last how it ended. Where several processes were recorded,
    the process id comes first, and numbers are each process's own. With --json, one object a line
    (its fields are described in `pydoc sysrift.views.json_lines`).
    """

    def prepare_parser(self, parser: argparse.ArgumentParser) -> None:
        """Declare the arguments."""
        add_process_argument(parser, "all of them")
        add_trace_argument(parser)
        parser.add_argument("--json", action="store_true", help="print JSON, one object a line")
        parser.add_argument("--failed", action="store_true", help="only calls that failed")
        parser.add_argument(
            "--name",
            metavar="NAMES",
            help="only these calls, and signals: openat,read,SIGSEGV,rdtsc",
        )
        parser.add_argument(
            "-e",
            "--range",
            metavar="A-B",
            help="only events A to B; also A- (from A on), -B (up to B; write -e=-B) and A",
        )
        parser.add_argument(
            "-s",
            "--bytes",
            type=int,
            metavar="N",
            help="show at most N bytes of a buffer (default: 32, in JSON 4096)",
        )
        add_color_argument(parser)

    def run(self, args: argparse.Namespace) -> int:
        """Print them."""
        if args.bytes is not None and args.bytes < 0:
            raise UsageError("--bytes must not be negative")
        lines = _json_lines(args) if args.json else _text_lines(args)
        write = sys.stdout.write
        for line in lines:
            write(line + "\n")
        return 0


def _text_lines(args: argparse.Namespace) -> Iterator[str]:
    from sysrift.views.text import SHOWN_BYTES, end_line, event_line

    wanted = _wanted(args)
    limit = SHOWN_BYTES if args.bytes is None else args.bytes
    color = use_color(args.color)
    if color:
        from sysrift.views.lexer import highlight
    with open_trace(args) as trace:
        for timeline, event in _chosen(args, trace, wanted):
            line = end_line(timeline) if event is None else event_line(event, timeline, limit)
            if len(trace.processes) > 1:
                line = f"{timeline.process.pid:>7} {line}"
            yield highlight(line, True) if color else line


def _json_lines(args: argparse.Namespace) -> Iterator[str]:
    from sysrift.views.json_lines import SHOWN_BYTES, end_object, event_json

    wanted = _wanted(args)
    limit = SHOWN_BYTES if args.bytes is None else args.bytes
    with open_trace(args) as trace:
        for timeline, event in _chosen(args, trace, wanted):
            if event is None:
                yield json.dumps(end_object(timeline))
            else:
                yield event_json(event, timeline, limit)


def _chosen(
    args: argparse.Namespace, trace: Trace, wanted: EventFilter
) -> Iterator[tuple[Trace, Event | None]]:
    """The wanted events, each with its process's timeline; None stands for the process's end."""
    from sysrift.views.processes import all_events

    if args.process is not None or len(trace.processes) == 1:
        for event in wanted.select(trace):
            if event.number >= trace.process.first_event:
                yield trace, event
        if wanted.reaches_end(trace):
            yield trace, None
        return
    timelines = {number: trace.of(number) for number in trace.processes}
    for event in all_events(trace):
        timeline = timelines[event.task]
        if wanted.includes(event):
            yield timeline, event
        if event.number == timeline.event_count and wanted.reaches_end(timeline):
            yield timeline, None


def _wanted(args: argparse.Namespace) -> EventFilter:
    """The filter that the command line asks for. Raises UsageError."""
    from sysrift.views.filters import EventFilter, parse_names, parse_range

    first, last = parse_range(args.range) if args.range is not None else (1, None)
    names = parse_names(args.name) if args.name is not None else None
    return EventFilter(first, last, args.failed, names)
