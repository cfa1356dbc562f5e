# SPDX-License-Identifier: GPL-2.0-or-later
"""A recording of a process that was attached to, in GDB: it begins in the midst of the program."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import harness
import pytest


@pytest.fixture
def trace(fixture_program: Callable[[str], Path]) -> Path:
    process = subprocess.Popen(
        [fixture_program("endless"), "hold", "1"], stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        while process.stdout.readline() != "ready\n":
            pass
        target = harness.fresh_trace()
        done = harness.run(
            [harness.command("sysrift-record"), "-q", "-o", target, "--events", "40",
             "-p", str(process.pid)]
        )  # fmt: skip
        assert done.returncode == 0, done
    finally:
        process.terminate()
        process.communicate(timeout=20)
    return target


def test_backtrace_at_the_beginning_has_source(trace: Path) -> None:
    text = harness.gdb_batch(["bt", "frame function hold", "print mebibytes", "info line"], trace)
    assert "hold (mebibytes=1) at endless.c:" in text, text
    assert "main (argc=3, argv=0x" in text
    assert "$1 = 1\n" in text


def test_breakpoint_values_and_positions(trace: Path) -> None:
    line = harness.line_of("endless.c", "work")
    text = harness.gdb_batch(
        [
            f"break endless.c:{line}", "continue", "bt", "print words", "print done", "continue",
            "delete", "sysrift-goto 21", "sysrift-when", "bt", "sysrift-goto start", "sysrift-when",
            "sysrift-events 1-3", "continue",
        ],
        trace,
    )  # fmt: skip
    assert text.count(f"hold (mebibytes=1) at endless.c:{line}") >= 2, text
    assert "$1 = 131072\n" in text and "$2 = 0\n" in text
    assert "clock_nanosleep" in text
    assert text.count("main (argc=3") >= 2
    assert "Traceback" not in text
