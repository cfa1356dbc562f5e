# SPDX-License-Identifier: GPL-2.0-or-later
"""GDB's run-ahead with events that are replayed without a stop: nobody can tell.

Each story is told twice, with the player from the first call on and without it, and GDB must print
the same. That it is at work is seen from the engine's count.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
from harness import line_of

Story = Callable[..., str]

PLAYED = "python import sysrift_gdb.session as s; print('played', s.current.engine.played)"
SUMMED = line_of("hot_calls.c", "line: summed")
END = line_of("hot_calls.c", "line: end")


@pytest.fixture
def story(recorded: Callable[..., Any], in_gdb: Callable[..., Any]) -> Story:
    """A function that replays `hot_calls` under the given commands, in both ways."""
    recording = recorded("hot_calls", options=["-q"])

    def tell(*commands: str, least: int = 1) -> str:
        texts = []
        for player in ("1", "never"):
            run = in_gdb(recording, *commands, PLAYED, env={"SYSRIFT_PLAYER": player})
            count = int(re.search(r"^played (\d+)$", run.text, re.MULTILINE)[1])
            assert (count >= least) if player == "1" else count == 0, run.text
            texts.append(re.sub(r"events in [\d.]+ s", "", run.text.replace(f"played {count}", "")))
        assert texts[0] == texts[1]
        return texts[0]

    return tell


def test_breakpoint_in_a_loop_of_calls(story: Story) -> None:
    # GDB goes on over a breakpoint that it ignores: each pass of the loop ends a run-ahead.
    text = story(
        f"break {SUMMED} if passes == 211", "continue", "print passes", "sysrift-when", "bt",
        least=100,
    )  # fmt: skip
    assert "$1 = 211" in text


def test_breakpoint_behind_the_loop(story: Story) -> None:
    text = story(f"tbreak {END}", "continue", "print passes", "print/x sum", least=1200)
    assert "$1 = 300" in text


def test_goto_there_and_back(story: Story) -> None:
    text = story(
        "sysrift-goto 900", "print passes", "info registers", "x/4i $pc", "sysrift-goto 333",
        "print passes", "x/8xg $rsp", "stepi", "info registers rax rcx r11 eflags",
        "sysrift-goto 1200", "print passes", "continue",
        least=900,
    )  # fmt: skip
    assert "exited with status 0" in text


def test_breakpoint_on_a_system_call_instruction(story: Story) -> None:
    text = story(
        "sysrift-goto 700", "break *$pc", "continue", "sysrift-when", "print passes", "continue",
        "print passes", "delete", f"tbreak {END}", "continue", "print passes",
        least=500,
    )  # fmt: skip
    assert "$3 = 300" in text
    assert text.count("Breakpoint 1,") == 2 or text.count("Breakpoint ") >= 3


def test_hardware_breakpoint_on_a_system_call_instruction(story: Story) -> None:
    text = story(
        "sysrift-goto 700", "hbreak *$pc", "continue", "sysrift-when", "print passes", "delete",
        f"tbreak {END}", "continue", "print passes",
        least=500,
    )  # fmt: skip
    assert "$2 = 300" in text


def test_breakpoint_behind_a_system_call_instruction(story: Story) -> None:
    text = story(
        "sysrift-goto 700", "break *($pc+2)", "continue", "print passes", "print $rip", "continue",
        "print passes", "disable", f"tbreak {END}", "continue", "print passes",
        least=500,
    )  # fmt: skip
    assert "= 300" in text


def test_watchpoint_of_what_the_program_writes(story: Story) -> None:
    text = story(
        "sysrift-goto 500", "watch passes if passes == 222", "continue", "bt 1", "sysrift-when",
        "print passes",
        least=300,
    )  # fmt: skip
    assert "New value = 222" in text


def test_watchpoint_of_what_the_kernel_writes(story: Story) -> None:
    # A read from outside into a watched variable triggers nothing, however it is replayed.
    text = story(
        "sysrift-goto 500", "watch buffer[0]", f"tbreak {END}", "continue", "print passes",
        least=300,
    )  # fmt: skip
    assert "= 300" in text and "New value" not in text


def test_catch_syscall(story: Story) -> None:
    text = story(
        "sysrift-goto 500", "catch syscall getppid", "continue", "sysrift-when", "continue",
        "sysrift-when", "print $rax", "continue", "sysrift-when", "delete", f"tbreak {END}",
        "continue", "print passes",
        least=400,
    )  # fmt: skip
    assert text.count("call to syscall getppid") == 2, text
    assert text.count("returned from syscall getppid") == 1, text


def test_catch_every_syscall(story: Story) -> None:
    story(
        "sysrift-goto 700", "catch syscall", *["continue", "sysrift-when"] * 6,
        least=500,
    )  # fmt: skip


def test_stepping_after_a_run_ahead(story: Story) -> None:
    story(
        f"tbreak {SUMMED} if passes == 150", "continue", *["next"] * 9, "print passes", "finish",
        "print sum", *["stepi"] * 30, "info registers",
        least=100,
    )  # fmt: skip


def test_what_the_program_prints_comes_once_and_in_its_place(
    recorded: Callable[..., Any], in_gdb: Callable[..., Any]
) -> None:
    recording = recorded("many_calls", options=["-q"])
    texts = [
        in_gdb(recording, "continue", "sysrift-goto start", "continue", env={"SYSRIFT_PLAYER": p})
        for p in ("1", "never")
    ]
    cut = [re.sub(r"events in [\d.]+ s", "", run.text) for run in texts]
    assert cut[0] == cut[1]
    assert recording.stdout in cut[0]
