# SPDX-License-Identifier: GPL-2.0-or-later
"""`layout sysrift`: a window of GDB's TUI with the events around now, below the source.

GDB draws it by `render` when it likes, scrolls it by `vscroll` and `hscroll` (`focus sysrift`, then
the cursor keys; or the mouse), and tells of clicks.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from typing import Any

import gdb
from sysrift.errors import SysRiftError
from sysrift.trace.reader import Trace
from sysrift.views.lexer import highlight
from sysrift_gdb import arrivals, console, session
from sysrift_gdb.event_rows import Row, bookmarks_by_event, end_row, event_rows

NAME = "sysrift"
_LAYOUT = f"tui new-layout {NAME} src 3 status 0 {NAME} 2 cmd 2"
_ESCAPE = re.compile(r"(\x1b\[[\d;]*m)")
_REVERSE, _RED, _PLAIN = "\x1b[7m", "\x1b[31m", "\x1b[m"


class EventsWindow:
    """The window; GDB makes one when a layout with it is chosen."""

    def __init__(self, window: Any) -> None:
        """`window` is GDB's `gdb.TuiWindow`."""
        self._window = window
        self._top = 1  # the event in the first line
        self._left = 0  # how many columns are scrolled out on the left
        self._seen: tuple[Trace, int] | None = None  # what the window was made to show last
        self._rows: list[Row] = []  # what the lines show now
        _open.append(self)

    def close(self) -> None:
        """Called by GDB."""
        _open.remove(self)

    def render(self) -> None:
        """Called by GDB when the window has to be drawn anew."""
        self._draw()

    def vscroll(self, lines: int) -> None:
        """Called by GDB: so many lines down."""
        replay = session.current
        if replay is not None:
            self._top = min(max(1, self._top + lines), replay.trace.event_count + 1)
        self._draw()

    def hscroll(self, columns: int) -> None:
        """Called by GDB: so many columns to the right."""
        self._left = max(0, self._left + columns)
        self._draw()

    def click(self, _x: int, y: int, button: int) -> None:
        """Called by GDB: the left button goes to the event."""
        if button == 1 and 0 <= y < len(self._rows):
            number = self._rows[y].event
            # Later: GDB is in the midst of reading the keyboard.
            gdb.post_event(lambda: _go_to(number))

    def follow(self, moved: bool) -> None:
        """Show where the replay stands, if it does not stand where it stood, or GDB has stopped;
        else what was scrolled to stays."""
        replay = session.current
        if replay is None:
            self._seen = None
        else:
            trace, here = replay.trace, replay.engine.next
            if moved or self._seen != (trace, here):
                self._seen = trace, here
                shown = [row.event for row in self._rows]
                # Not in the last line: what comes next is looked at, too.
                if here not in shown[:-1]:
                    self._top = max(1, here - self._window.height // 3)
        self._draw()

    def _draw(self) -> None:
        if not self._window.is_valid():
            return
        height, width = self._window.height, self._window.width
        replay = session.current
        self._rows = []
        lines = ["No replay: sysrift-replay TRACE begins one."[:width]]
        title = "SysRift"
        if replay is not None:
            title = _title(replay)
            try:
                self._rows = _rows(replay, self._top, height)
                styled = console.styled()
                lines = [cut(_coloured(row, styled), self._left, width) for row in self._rows]
            except (SysRiftError, OSError) as error:
                lines = [str(error)[:width]]
        self._window.title = title
        self._window.erase()
        self._window.write("\n".join(lines))


_open: list[EventsWindow] = []


def _title(replay: session.Replay) -> str:
    number, count = replay.engine.next, replay.trace.event_count
    name = replay.engine.image.exe.rsplit("/", 1)[-1]
    where = f"before event {number} of {count}" if number <= count else f"after {count} events"
    return f"process {replay.trace.process.pid} {name}: {where}"


def _rows(replay: session.Replay, first: int, count: int) -> list[Row]:
    """`count` rows, or as many as there are, from event `first` on. Raises TraceError."""
    trace, here = replay.trace, replay.engine.next
    bookmarks = bookmarks_by_event(trace, complain=False)

    def all_rows() -> Iterator[Row]:
        for event in trace.events(first, min(first + count, trace.event_count)):
            yield from event_rows(trace, event, here, bookmarks)
        yield end_row(trace, here)

    return [row for row, _ in zip(all_rows(), range(count))]


def _coloured(row: Row, styled: bool) -> str:
    """A row as a terminal shows it: the current one reversed, failed ones red."""
    if not styled:
        return row.mark + row.line
    colours = (_REVERSE if row.is_current else "") + (_RED if row.is_failed else "")
    if colours:
        return f"{colours}{row.mark}{row.line}{_PLAIN}"
    return row.mark + highlight(row.line, True)


def cut(text: str, start: int, width: int) -> str:
    """The columns `start` to `start + width` of a line, with all of its colours."""
    kept = []
    column = 0
    for part in _ESCAPE.split(text):
        if part.startswith("\x1b"):
            kept.append(part)
            continue
        kept.append(part[max(0, start - column) : max(0, start + width - column)])
        column += len(part)
    return "".join(kept)


def _go_to(number: int) -> None:
    """What a click does; what it has to say goes into the command window."""
    with contextlib.suppress(gdb.error):  # which has been printed
        gdb.execute(f"sysrift-goto {number}", from_tty=True)


def _follow(moved: bool) -> None:
    for window in _open:
        window.follow(moved)


def register() -> None:
    """Make window and layout known to GDB, if it has a TUI."""
    if not hasattr(gdb, "register_window_type"):
        return
    gdb.register_window_type(NAME, EventsWindow)
    with contextlib.suppress(gdb.error):  # built without the TUI
        gdb.execute(_LAYOUT, to_string=True)
        arrivals.connect(_follow)
