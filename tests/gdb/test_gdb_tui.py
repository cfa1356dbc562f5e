# SPDX-License-Identifier: GPL-2.0-or-later
"""`layout sysrift` on a terminal, as a person sees it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

import harness
import pytest
from terminal import Terminal

Replay = Callable[..., Any]


class Tui:
    """A GDB that replays, with the window on its screen."""

    def __init__(self, gdb: str, recording: harness.Recording, **env: str) -> None:
        argv = [gdb, "-nx", "-q", "-ex", f"source {harness.ROOT / 'gdb' / 'sysrift.gdb'}"]
        self.terminal = Terminal(argv, env)
        self.wait = self.terminal.wait
        self.wait(lambda: "(gdb)" in self.terminal.text)
        self.do("layout sysrift", "No replay: sysrift-replay TRACE begins one.")
        self.do(f"sysrift-replay {recording.trace}", "before event 1 of")

    def do(self, command: str, shown: str) -> None:
        """Type a command, and wait until the screen shows something."""
        self.terminal.type(command + "\n")
        self.wait(lambda: shown in self.terminal.text)

    @property
    def events(self) -> list[str]:
        """The window's lines; none while it is being drawn."""
        lines = self.terminal.lines
        top = next((i for i, line in enumerate(lines) if "─process " in line), len(lines))
        end = next((i for i in range(top, len(lines)) if lines[i].startswith("└")), top)
        return [line.strip("│").rstrip() for line in lines[top + 1 : end]]

    @property
    def first(self) -> str:
        """The window's first line."""
        return next(iter(self.events), "")

    @property
    def current(self) -> str:
        """The event that is marked."""
        return next((line[3:] for line in self.events if line.startswith("=> ")), "")

    def row_of(self, text: str) -> int | None:
        """The line of the screen that shows the event with this text in the window."""
        lines = self.terminal.lines
        found = [i for i, line in enumerate(lines) if text in line and line.startswith("│")]
        return found[0] if len(found) == 1 else None

    def await_colour(self, text: str, colour: str, reverse: bool) -> None:
        """Wait until the event with this text is shown in this colour."""

        def is_shown() -> bool:
            row = self.row_of(text)
            return row is not None and self.terminal.colour(row, 10) == (colour, reverse)

        self.wait(is_shown)


@pytest.fixture
def tui(gdb: str) -> Iterator[Callable[..., Tui]]:
    """A function that replays a recording in a GDB whose TUI shows the window."""
    begun: list[Tui] = []

    def begin(recording: harness.Recording, **env: str) -> Tui:
        begun.append(Tui(gdb, recording, **env))
        return begun[-1]

    yield begin
    for each in begun:
        each.terminal.close()


def dumped(recording: harness.Recording) -> list[str]:
    """The events as the shell's command prints them."""
    return harness.sysrift("dump", recording.trace).stdout.splitlines()


@pytest.mark.both_gdbs
def test_the_window_follows_the_replay(recorded: Replay, tui: Callable[..., Tui]) -> None:
    recording = recorded("deep")
    lines = dumped(recording)
    screen = tui(recording)
    first = [line[:115].rstrip() for line in lines[:9]]
    screen.wait(lambda: [line[3:] for line in screen.events] == first)
    assert screen.current == lines[0][:115].rstrip()
    screen.do("break measure", "Breakpoint 4 at")
    screen.do("continue", "Breakpoint 4, measure")
    write = next(i for i, line in enumerate(lines) if "triangle" in line)
    screen.wait(lambda: f"before event {write + 1} of" in screen.terminal.text)
    screen.wait(lambda: screen.current == lines[write][:115].rstrip())
    screen.wait(lambda: "int width" in screen.terminal.text)  # the source
    screen.do("next", "In: measure")
    screen.do("sysrift-goto 6", "before event 6 of")
    screen.wait(lambda: screen.current == lines[5][:115].rstrip())
    screen.do("sysrift-back", "before event " + str(write + 1))
    screen.wait(lambda: "In: measure" in screen.terminal.text)
    screen.do("sysrift-goto end", f"before event {len(lines) - 1} of")
    screen.wait(lambda: screen.current == lines[-2])
    assert screen.events[screen.events.index("=> " + lines[-2]) + 1] == f"   {lines[-1]}"


@pytest.mark.both_gdbs
def test_reverse_steps_move_source_and_window(recorded: Replay, tui: Callable[..., Tui]) -> None:
    recording = recorded("deep")
    screen = tui(recording)
    line = harness.line_of("deep.c", "line: area")
    screen.do(f"tbreak deep.c:{line}", "Temporary breakpoint")
    screen.do("continue", f"L{line}")
    screen.do("reverse-next", f"L{line - 2}")
    arrow = re.compile(rf"^│ *B?\+?> +{line - 2} ", re.MULTILINE)
    screen.wait(lambda: arrow.search(screen.terminal.text))
    # What the command said went into the command window, and nowhere else.
    at = screen.terminal.row_with("(gdb) reverse-next")
    screen.wait(lambda: f"deep.c:{line - 2}" in screen.terminal.lines[at + 1])


def test_failed_calls_are_red_and_the_current_one_reversed(
    recorded: Replay, tui: Callable[..., Tui]
) -> None:
    screen = tui(recorded("deep"))
    screen.do("sysrift-goto next-failed", "=>        5")
    screen.await_colour('access("/etc/ld.so.preload"', "red", True)
    screen.do("sysrift-goto 7", "=>        7")
    screen.await_colour('access("/etc/ld.so.preload"', "red", False)
    screen.await_colour('"/etc/ld.so.cache"', "default", True)
    screen.do("set style enabled off", "(gdb) set style enabled off")
    screen.do("sysrift-goto 8", "=>        8")
    screen.await_colour('access("/etc/ld.so.preload"', "default", False)


def test_no_color(recorded: Replay, tui: Callable[..., Tui]) -> None:
    screen = tui(recorded("deep"), NO_COLOR="1")
    screen.do("sysrift-goto 6", "=>        6")
    screen.await_colour('access("/etc/ld.so.preload"', "default", False)
    screen.await_colour("=>        6", "default", False)


@pytest.mark.both_gdbs
def test_scrolling_and_coming_back(recorded: Replay, tui: Callable[..., Tui]) -> None:
    recording = recorded("deep")
    lines = dumped(recording)
    screen = tui(recording)
    screen.do("focus sysrift", "Focus set to sysrift")
    down, right = "\x1b[B", "\x1b[C"
    screen.terminal.type(down * 12)
    screen.wait(lambda: screen.first == "   " + lines[12][:115].rstrip())
    assert not any(line.startswith("=>") for line in screen.events)
    screen.do("print 1", "$1 = 1")  # which moves nothing
    assert screen.first == "   " + lines[12][:115].rstrip()
    screen.terminal.type(right * 5)
    screen.wait(lambda: screen.first == ("   " + lines[12])[5:123].rstrip())
    screen.do("stepi", "$1 = 1\n(gdb) stepi\n0x")  # the next event is the same, far above
    screen.wait(lambda: screen.first == ("=> " + lines[0])[5:123].rstrip())


@pytest.mark.both_gdbs
def test_a_click_goes_to_an_event(recorded: Replay, tui: Callable[..., Tui]) -> None:
    screen = tui(recorded("deep"))
    screen.wait(lambda: screen.row_of("access("))
    row = screen.row_of("access(")
    assert row is not None
    for button in (" ", "#"):  # the left one is pressed, and let go
        screen.terminal.type("\x1b[M" + button + chr(33 + 20) + chr(33 + row))
    screen.wait(lambda: "before event 5 of" in screen.terminal.text)
    screen.wait(lambda: screen.current.split()[:1] == ["5"])
    screen.do("sysrift-when", "SysRift: before event 5 of")


def test_other_layouts_and_the_end_of_the_replay(recorded: Replay, tui: Callable[..., Tui]) -> None:
    screen = tui(recorded("deep"))
    screen.do("layout asm", "0x7ffff7")
    screen.do("sysrift-goto 9", "(gdb) sysrift-goto 9")
    screen.do("layout sysrift", "before event 9 of")
    screen.wait(lambda: screen.current.split()[:1] == ["9"])
    screen.do("tui disable", "(gdb) tui disable")
    screen.do("kill", "(y or n)")
    screen.do("y", "killed]")
    screen.do("layout sysrift", "No replay")
