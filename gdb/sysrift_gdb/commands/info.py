# SPDX-License-Identifier: GPL-2.0-or-later
"""`sysrift-info`."""

from __future__ import annotations

from sysrift.views.summary import duration_text, size_text, summarize
from sysrift_gdb import console, session
from sysrift_gdb.commands import ReplayCommand


class Info(ReplayCommand):
    """Say what is being replayed: sysrift-info"""

    name = "sysrift-info"

    def run(self, words: list[str], from_tty: bool) -> None:
        """Say it."""
        replay = session.active()
        summary = summarize(replay.trace)
        facts = {
            "trace": f"{summary.path} ({size_text(summary.size)}, {summary.recorder})",
            "program": summary.program,
            "executable": summary.exe,
            "directory": summary.cwd,
            "recorded": f"{summary.started or '?'} on {summary.host} ({summary.kernel})",
            "processor": summary.cpu_model,
            "events": f"{summary.events} in {duration_text(summary.duration_us)}",
            "ended": summary.ended,
            "now": f"before event {replay.engine.next}" + _changed(replay),
        }
        for name, value in facts.items():
            console.emit(f"{name:>11}: {value}")
        for note in summary.notes:
            console.emit(f"{'note':>11}: {note}")


def _changed(replay: session.Replay) -> str:
    if replay.user_call:
        return ", in a function called from GDB"
    return ", changed by you" if replay.is_changed else ""


def register() -> None:
    """Make the command known to GDB."""
    Info()
