# SPDX-License-Identifier: GPL-2.0-or-later
"""Going back in the midst of some 20 million instructions without a system call."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import harness
import pytest

Replay = Callable[..., Any]

WHERE = r'printf "\nAT %#lx %#lx %d %ld\n", $pc, $sp, $_event, passes'
LOOP, COMPUTED, RARE = (
    harness.line_of("computes.c", f"line: {name}") for name in ("loop", "computed", "rare")
)
TO_THE_END = ("break main", "continue", "delete", f"tbreak {COMPUTED}",
              "continue")  # fmt: skip


def _walked(text: str) -> list[str]:
    return re.findall(r"^AT .*$", text, re.MULTILINE)


@pytest.fixture
def computed(recorded: Replay) -> harness.Recording:
    """A recording of a long computation."""
    recording: harness.Recording = recorded("computes")
    return recording


def test_over_the_whole_computation(computed: harness.Recording, in_gdb: Replay) -> None:
    run = in_gdb(
        computed, *TO_THE_END, "print passes", "reverse-next", "print passes", "next",
        "print passes", "reverse-stepi", "reverse-finish", "print passes", "reverse-continue",
        "print $_event", timeout=200,
    )  # fmt: skip
    assert run.values[:4] == ["300000", "0", "300000", "0"], run.text
    assert run.values[4] == "1" and "No more reverse-execution history." in run.text
    assert run.count(r"compute\(n\); /\* line: computes") >= 2, run.text


def test_who_wrote_it_in_the_midst_of_it(computed: harness.Recording, in_gdb: Replay) -> None:
    run = in_gdb(
        computed, *TO_THE_END, "print rare", "sysrift-last-write rare", "print passes",
        "sysrift-last-write rare", "print passes", "sysrift-back", "print passes", "sysrift-back",
        "print passes", timeout=200,
    )  # fmt: skip
    assert run.values == ["277777", "277777", "177777", "277777", "300000"], run.text
    assert run.count("rare is about to be changed here:") == 2, run.text


@pytest.mark.parametrize(("forwards", "backwards"), [("stepi", "reverse-stepi"),
                                                     ("next", "reverse-next"),
                                                     ("step", "reverse-step")])  # fmt: skip
def test_there_and_back(
    computed: harness.Recording, in_gdb: Replay, forwards: str, backwards: str
) -> None:
    walk = [WHERE]
    for command in [forwards] * 12 + [backwards] * 12:
        walk += [command, WHERE]
    start = ["sysrift-last-write rare"]
    if forwards != "stepi":
        start += [f"advance {LOOP}", "next"]
    run = in_gdb(computed, *TO_THE_END, *start, *walk, timeout=200)
    places = _walked(run.text)
    assert len(places) == 25, run.text
    assert len(set(places)) > 8, run.text
    if forwards == "stepi":
        assert places == places[::-1], run.text
    else:
        # Backwards there are the lines with a function's opening brace, too.
        lines = re.findall(r"^(\d+)\t", run.text[run.text.index("\nAT ") :], re.MULTILINE)
        assert len(lines) == 24 and set(lines[6:12]) <= set(lines[12:]), run.text
        assert all(int(place.rsplit(None, 1)[1]) >= 277777 for place in places), run.text


def test_to_breakpoints_in_it(computed: harness.Recording, in_gdb: Replay) -> None:
    run = in_gdb(
        computed, *TO_THE_END, "break mix", "reverse-continue", "print i", "reverse-continue",
        "print i", "delete", f"break {RARE}", "reverse-continue",
        "print i", "reverse-continue", "print i", "reverse-stepi", "stepi", "print i", timeout=200,
    )  # fmt: skip
    assert run.values == ["299999", "299998", "277777", "177777", "177777"], run.text


@pytest.mark.keeps_files
def test_a_bookmark_in_it(computed: harness.Recording, in_gdb: Replay) -> None:
    run = in_gdb(
        computed, *TO_THE_END, "sysrift-last-write rare", "print $pc", "sysrift-bookmark there",
        "sysrift-goto end", "sysrift-goto there", "print $pc", "print passes", timeout=200,
    )  # fmt: skip
    assert run.values[0] == run.values[1] and run.values[2] == "277777", run.text
