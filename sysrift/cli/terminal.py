# SPDX-License-Identifier: GPL-2.0-or-later
"""What the terminal may be shown: colours, and progress of what takes long."""

from __future__ import annotations

import argparse
import os
import sys
import time
from types import TracebackType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.progress import Progress

_PATIENCE = 2.0  # seconds without a word


def add_color_argument(parser: argparse.ArgumentParser) -> None:
    """Declare --color."""
    parser.add_argument(
        "--color",
        choices=("auto", "always", "never"),
        default="auto",
        help="colours: auto (the default) is on a terminal unless NO_COLOR is set",
    )


def use_color(choice: str) -> bool:
    """Whether to write colours to stdout, by --color's value (see no-color.org)."""
    if choice != "auto":
        return choice == "always"
    if os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb":
        return False
    return sys.stdout.isatty()


class EventProgress:
    """A bar on stderr over the events of a trace; shown only on a terminal and after two seconds.

    A context manager; `update` takes the number of events done.
    """

    def __init__(self, what: str, total: int) -> None:
        self._what = what
        self._total = total
        self._begin = time.monotonic()
        self._wanted = sys.stderr.isatty()
        self._bar: Progress | None = None

    def __enter__(self) -> EventProgress:
        return self

    def update(self, done: int) -> None:
        """Show that `done` events are behind."""
        if not self._wanted:
            return
        if self._bar is None:
            if time.monotonic() - self._begin < _PATIENCE:
                return
            from rich.console import Console
            from rich.progress import Progress

            self._bar = Progress(console=Console(stderr=True), transient=True)
            self._bar.add_task(self._what, total=self._total)
            self._bar.start()
        self._bar.update(self._bar.task_ids[0], completed=done)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._bar is not None:
            self._bar.stop()
