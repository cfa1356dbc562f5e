# SPDX-License-Identifier: GPL-2.0-or-later
"""A program on a terminal of its own, whose screen is looked at as a person would."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Mapping, Sequence

import pexpect
import pyte

ROWS, COLUMNS = 40, 120


class Terminal:
    """The program, and what its terminal shows."""

    def __init__(self, argv: Sequence[str], env: Mapping[str, str] | None = None) -> None:
        self.screen = pyte.Screen(COLUMNS, ROWS)
        self._stream = pyte.ByteStream(self.screen)
        self._program = pexpect.spawn(
            argv[0],
            list(argv[1:]),
            env={**os.environ, "TERM": "linux", **(env or {})},  # which pyte is
            dimensions=(ROWS, COLUMNS),
            timeout=60,
        )

    @property
    def lines(self) -> list[str]:
        """The screen's lines, without the blanks at their ends."""
        return [line.rstrip() for line in self.screen.display]

    @property
    def text(self) -> str:
        """The whole screen."""
        return "\n".join(self.lines)

    def type(self, text: str) -> None:
        """Press these keys."""
        self._program.send(text)

    def wait(self, shows: Callable[[], object], seconds: float = 60.0) -> None:
        """Until the screen is as wanted; fails the test with the screen otherwise."""
        deadline = time.monotonic() + seconds
        while not shows():
            assert time.monotonic() < deadline, f"the screen is still\n{self.text}"
            try:
                self._stream.feed(self._program.read_nonblocking(65536, timeout=0.2))
            except pexpect.TIMEOUT:
                continue
            except pexpect.EOF:
                raise AssertionError(f"the program is gone, the screen was\n{self.text}") from None

    def row_with(self, text: str) -> int:
        """The number of the only line that has this text."""
        found = [number for number, line in enumerate(self.lines) if text in line]
        assert len(found) == 1, f"{text!r} is in lines {found} of\n{self.text}"
        return found[0]

    def colour(self, row: int, column: int) -> tuple[str, bool]:
        """The foreground colour of a place of the screen, and whether it is reversed."""
        char = self.screen.buffer[row][column]
        return char.fg, char.reverse

    def close(self) -> None:
        """Kill the program."""
        if self._program.isalive():
            self._program.kill(signal.SIGKILL)
            self._program.wait()
        self._program.close()
