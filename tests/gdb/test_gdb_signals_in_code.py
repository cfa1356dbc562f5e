# SPDX-License-Identifier: GPL-2.0-or-later
"""Signals in the middle of a computation, seen in GDB."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

Replay = Callable[..., Any]


def test_breakpoint_in_the_handler(recorded: Replay, in_gdb: Replay) -> None:
    recording = recorded("spin_signals", "count", "5")
    wanted = re.search(r"count: (\d+), (\d+) signals", recording.stdout)
    assert wanted, recording
    signals = int(wanted[2])
    stops = [command for _ in range(signals) for command in ("continue", "print hits")]
    run = in_gdb(recording, "break on_signal", *stops, "delete", "continue")
    assert run.values == [str(number) for number in range(signals)], run.text
    # The program's own count, and all that its handler saw, came out as recorded.
    assert recording.stdout.strip() in run.text, run.text
    assert "divergence" not in run.text, run.text


def test_goto_over_such_signals_and_back(recorded: Replay, in_gdb: Replay) -> None:
    recording = recorded("spin_signals", "count", "5")
    events = in_gdb(recording).events()
    signals = [event["number"] for event in events if event["kind"] == "signal"]
    assert any("in_code" in event.get("flags", ()) for event in events), events
    # The call that stops the timer, when every handler is done.
    after = [event["number"] for event in events if event["name"] == "setitimer"][-1]
    run = in_gdb(
        recording,
        f"sysrift-goto {after}", "print hits",
        f"sysrift-goto {signals[0] - 1}", "print hits",
        f"sysrift-goto {after}", "print hits",
    )  # fmt: skip
    assert run.values[0] == run.values[2] == str(len(signals)), run.text
    assert run.values[1] == "0", run.text
    assert "divergence" not in run.text, run.text
