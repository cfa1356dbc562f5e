# SPDX-License-Identifier: GPL-2.0-or-later
"""Going back by a checkpoint shows what running there from the start shows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

Replay = Callable[..., Any]

_AT_ONCE = "set sysrift checkpoint-interval 0"
_LOOK = ("info registers", "backtrace", "x/64xg $sp", "info sharedlibrary", "sysrift-when")


@pytest.mark.parametrize("program", ["watch_me", "handlers"])
def test_back_by_checkpoints_is_the_same(recorded: Replay, in_gdb: Replay, program: str) -> None:
    recording = recorded(program)
    last = in_gdb(recording).events()[-1]["number"]
    targets = sorted({last // 3, last // 2, last * 3 // 4, last - 1})
    seen = {}
    for target in targets:
        alone = in_gdb(recording, f"sysrift-goto {target}", "echo <look>\\n", *_LOOK)
        seen[target] = alone.text.split("<look>\n")[1]
    there = [f"sysrift-goto {target}" for target in targets]
    back: list[str] = []
    for target in reversed(targets):
        back += [f"sysrift-goto {target}", "echo <look>\\n", *_LOOK]
    run = in_gdb(recording, _AT_ONCE, *there, "sysrift-goto end", "sysrift-checkpoints", *back)
    looks = run.text.split("<look>\n")
    assert run.count(r"^ +\d+ +\d+$") >= 2, run.text
    for target, look in zip(reversed(targets), looks[1:], strict=True):
        first = seen[target].splitlines()
        assert look.splitlines()[: len(first) - 2] == first[:-2], run.text


@pytest.mark.both_gdbs
def test_memory_of_checkpoints_is_bounded(replayed: Replay) -> None:
    run = replayed(
        "watch_me", _AT_ONCE, "set sysrift checkpoint-memory 0", "sysrift-goto end",
        "sysrift-checkpoints", "show sysrift checkpoint-memory",
    )  # fmt: skip
    assert "no checkpoints" in run.text
    assert "is 0 MiB" in run.text


def test_what_the_user_changed_is_in_no_checkpoint(recorded: Replay, in_gdb: Replay) -> None:
    recording = recorded("watch_me")
    last = in_gdb(recording).events()[-1]["number"]
    run = in_gdb(
        recording, _AT_ONCE, f"sysrift-goto {last - 4}", "print *(char *) &main == 1",
        "set var *(char *) &main = 1", "print *(char *) &main == 1",
        f"sysrift-goto {last - 2}", "print *(char *) &main == 1", "sysrift-goto start",
        f"sysrift-goto {last - 2}", "print *(char *) &main == 1",
    )  # fmt: skip
    assert run.values == ["0", "1", "0", "0"], run.text
