# SPDX-License-Identifier: GPL-2.0-or-later
"""Tables on stdout, laid out by rich."""

from __future__ import annotations

import sys

from rich.console import Console
from rich.table import Table
from rich.text import Text

_UNLIMITED = 10_000


def show(*lines: Table | Text) -> None:
    """Print tables and texts on stdout, as wide as the terminal.

    What is piped into another program is neither wrapped nor cut nor filled up with blanks.
    """
    # Markup and guesses at what numbers and paths are have no place in other people's file names.
    terminal = sys.stdout.isatty()
    width = None if terminal else _UNLIMITED
    console = Console(width=width, markup=False, highlight=False, emoji=False)
    for item in lines:
        if terminal:
            console.print(item, soft_wrap=isinstance(item, Text))
            continue
        with console.capture() as capture:
            console.print(item, soft_wrap=isinstance(item, Text))
        for line in capture.get().splitlines():
            print(line.rstrip())


def table(*columns: str) -> Table:
    """An empty table without lines; long cells are folded."""
    made = Table(box=None, pad_edge=False, header_style="bold", show_header=any(columns))
    for column in columns:
        made.add_column(column, overflow="fold")
    return made
