# SPDX-License-Identifier: GPL-2.0-or-later
"""`sysrift info`: what is in a trace."""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING, Any

from sysrift.cli.terminal import EventProgress
from sysrift.cli.trace_argument import add_trace_argument, open_trace

if TYPE_CHECKING:
    from collections import Counter

    from sysrift.trace.reader import Trace
    from sysrift.views.summary import Counts, Storage, Summary

_TOP = 10


class InfoCommand:
    """Show what is in a trace.

    What was recorded, when and where; the events by name; what failed; how it ended; which files
    are stored; remarks of the recorder; and what it all takes on the disk.
    """

    def prepare_parser(self, parser: argparse.ArgumentParser) -> None:
        """Declare the arguments."""
        add_trace_argument(parser)
        parser.add_argument("--json", action="store_true", help="print one JSON object")

    def run(self, args: argparse.Namespace) -> int:
        """Print it."""
        from sysrift.views.summary import count_events, storage, summarize

        with open_trace(args) as trace:
            facts = summarize(trace)
            with EventProgress("reading events", trace.file.event_count) as progress:
                counts = count_events(trace, progress.update)
            used = storage(trace)
            if args.json:
                print(json.dumps(_json(trace, facts, counts, used), indent=2))
            else:
                _show(trace, facts, counts, used)
        return 0


def _show(trace: Trace, facts: Summary, counts: Counts, used: Storage) -> None:
    from rich.text import Text

    from sysrift.cli.tables import show, table
    from sysrift.views.text import event_line

    listing = table("", "")
    for label, value in _rows(trace, facts, counts, used):
        if value:
            listing.add_row(Text(label, style="bold"), Text(value))
    show(listing)
    if facts.last_failures:
        show(Text("\nlast failed system calls", style="bold"))
        show(*(Text(event_line(event, trace)) for event in facts.last_failures))
    if facts.notes:
        show(Text("\nnotes", style="bold"), *(Text(f"  {note}") for note in facts.notes))


def _rows(trace: Trace, facts: Summary, counts: Counts, used: Storage) -> list[tuple[str, str]]:
    from sysrift.views.summary import duration_text, size_text

    when = facts.started.astimezone().strftime("%Y-%m-%d %H:%M:%S %z") if facts.started else ""
    in_code = f" of which {counts.signals_in_code} in code" if counts.signals_in_code else ""
    what = (
        f"{facts.all_events} (system calls {counts.system_calls}, "
        f"signals {counts.signals}{in_code}, "
        f"time stamp reads {counts.time_stamps})"
    )
    guessed = f"{counts.guessed} (what they wrote was found by comparing memory)"
    return [
        ("trace", str(facts.path)),
        ("program", facts.program),
        ("executable", facts.exe),
        ("directory", facts.cwd),
        ("recorded", f"{when}, {duration_text(facts.duration_us)}".lstrip(", ")),
        ("on", ", ".join(filter(None, (facts.host, facts.machine, facts.kernel)))),
        ("processor", facts.cpu_model),
        ("recorder", f"SysRift {facts.recorder}" if facts.recorder else ""),
        ("ended", facts.ended),
        ("processes", f"{facts.processes} (sysrift ps lists them)" * (facts.processes > 1)),
        ("closed properly", "yes" if facts.closed else "no: up to the last whole block"),
        ("events", what),
        ("by name", _ranking(counts.by_name)),
        ("failed calls", str(counts.failed) if not counts.failed else _ranking(counts.failures)),
        ("guessed calls", guessed if counts.guessed else ""),
        ("incomplete buffers", str(counts.incomplete or "")),
        ("mapped files", f"{used.files}, {used.files_stored} of them stored in the trace"),
        ("checksums of memory", str(len(trace.checksums) or "")),
        ("size", f"{size_text(facts.size)}: {_sizes(used)}"),
        ("a recorded event", f"{used.bytes_per_event:.1f} bytes beside the memory it carries"),
    ]


def _ranking(counter: Counter[str]) -> str:
    shown = [f"{number} {name}" for name, number in counter.most_common(_TOP)]
    rest = len(counter) - len(shown)
    return ", ".join(shown) + (f", and {rest} more" if rest else "")


def _sizes(used: Storage) -> str:
    from sysrift.views.summary import size_text

    parts = {**used.by_type, "payload of events": used.payload_bytes}
    parts["events"] = used.event_bytes - used.payload_bytes
    largest = sorted(parts.items(), key=lambda part: -part[1])
    return ", ".join(f"{name} {size_text(size)}" for name, size in largest if size)


def _json(trace: Trace, facts: Summary, counts: Counts, used: Storage) -> dict[str, Any]:
    """The same, for programs: metadata as it was recorded, and what was found out."""
    from sysrift.views.json_lines import end_object, event_object

    return {
        "path": str(facts.path),
        "uuid": str(trace.file.uuid),
        "format": trace.file.format,
        "metadata": trace.metadata,
        "program": facts.program,
        "duration_us": facts.duration_us,
        "closed": facts.closed,
        "processes": facts.processes,
        "ended": facts.ended,
        "end": end_object(trace),
        "events": {
            "total": facts.all_events,
            "system_calls": counts.system_calls,
            "signals": counts.signals,
            "signals_in_code": counts.signals_in_code,
            "time_stamps": counts.time_stamps,
            "failed": counts.failed,
            "guessed": counts.guessed,
            "incomplete": counts.incomplete,
            "by_name": dict(counts.by_name.most_common()),
            "failures": dict(counts.failures.most_common()),
        },
        "last_failures": [event_object(event, trace) for event in facts.last_failures],
        "notes": trace.notes,
        "checksums": len(trace.checksums),
        "files": [
            {"path": file.path, "size": file.size, "sha256": file.sha256,
             "stored": bool(file.chunks)}
            for file in trace.files.values()
        ],
        "size": facts.size,
        "stored_bytes": used.by_type,
        "payload_bytes": used.payload_bytes,
        "bytes_per_event": round(used.bytes_per_event, 2),
    }  # fmt: skip
