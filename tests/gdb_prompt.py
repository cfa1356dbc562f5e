# SPDX-License-Identifier: GPL-2.0-or-later
"""A replay in a GDB on a terminal, driven as a user does."""

from __future__ import annotations

import os

import harness
import pexpect

PROMPT = "(gdb) "


class Prompt:
    """A GDB on a terminal of its own, a replay begun in it."""

    def __init__(self, recording: harness.Recording, gdb: str) -> None:
        self.gdb = pexpect.spawn(
            harness.command("sysrift-replay"),
            ["--gdb", gdb, str(recording.trace), "--", "-nx", "-ex", "set width 0"],
            env={**os.environ, "TERM": "dumb"},
            encoding="utf-8",
            codec_errors="replace",
            dimensions=(1000, 200),  # no paging
            timeout=60,
        )
        self.introduction = self.wait()

    def wait(self) -> str:
        """What was printed until the next prompt."""
        self.gdb.expect_exact(PROMPT)
        return str(self.gdb.before).replace("\r", "")

    def do(self, command: str) -> str:
        """Type a command; what it printed."""
        self.gdb.sendline(command)
        return self.wait()

    def ask(self, command: str) -> str:
        """Type a command that asks back, and answer y; what it printed after that."""
        self.gdb.sendline(command)
        self.gdb.expect_exact("(y or n) ")
        return self.do("y")
