# SPDX-License-Identifier: GPL-2.0-or-later
"""Memory and registers that the user writes to during a replay: asked for, marked, taken back."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import harness
import pytest
from gdb_prompt import Prompt
from harness import line_of

Replay = Callable[..., Any]

COUNTING = f"break diverted.c:{line_of('diverted.c', 'line: counting')}"
COMPUTING = f"break diverted.c:{line_of('diverted.c', 'line: computing')}"
MARK = "the program is changed from here on"
QUESTION = "Change it? (y or n) "


@pytest.fixture(scope="module")
def recording(built_fixtures: None, tmp_path_factory: pytest.TempPathFactory) -> harness.Recording:
    """One recording of the fixture serves all tests."""
    made = harness.record(
        [harness.built("diverted")], trace=tmp_path_factory.mktemp("changed") / "trace.srl"
    )
    assert made.returncode == 0, made
    return made


@pytest.fixture
def changed(recording: harness.Recording, in_gdb: Replay) -> Replay:
    """A function that replays it under commands."""
    return lambda *commands: in_gdb(recording, *commands)


def ends_as_recorded(run: Any) -> bool:
    """Whether the replay has come to the recorded end."""
    return "end of the recording: exited with status 0" in run.text and all(
        line in run.text for line in run.recording.stdout.splitlines()
    )


@pytest.mark.parametrize(
    "change",
    ["set var counter = 40", "print counter = 40", "set counter = 40", "print counter += 40"],
)
def test_a_divergence_behind_a_change_names_the_change(changed: Replay, change: str) -> None:
    run = changed(COUNTING, "continue", change, "print counter", "delete", "continue")
    assert run.text.count(MARK) == 1 and run.values[-1] == "40", run.text
    said = re.search(r"divergence at event .*; likely cause: (.*)$", run.text, re.MULTILINE)
    assert said and said[1].startswith("you have changed the program"), run.text


def test_several_changes_are_announced_once_until_they_are_taken_back(changed: Replay) -> None:
    run = changed(
        COUNTING, "continue", "set var counter = 7", "set var $rax = 7", "print buffer[3] = 7",
        "sysrift-restore", "print counter", "print buffer[3]", "set var counter = 8",
        "sysrift-goto +1", "print counter", "delete", "continue",
    )  # fmt: skip
    assert run.text.count(MARK) == 2, run.text
    assert run.values[1:] == ["0", "0 '\\000'", "2"], run.text
    assert ends_as_recorded(run), run.text


@pytest.mark.parametrize(
    ("back", "counter"),
    [("sysrift-restore", "0"), ("sysrift-goto start", ""), ("sysrift-goto 46", "2"),
     ("sysrift-goto end", "5"), ("reverse-stepi", "0"), ("reverse-next", "0")],
)  # fmt: skip
@pytest.mark.parametrize("goes_on", [[], ["delete", "continue"]], ids=["at once", "diverged"])
def test_what_leads_back_to_the_recording(
    changed: Replay, back: str, counter: str, goes_on: list[str]
) -> None:
    run = changed(
        COUNTING, "continue", "set var counter = 40", *goes_on, back, "print 1000 + counter",
        "sysrift-info", "delete", "continue",
    )  # fmt: skip
    if counter:
        assert run.values[-1] == f"{1000 + int(counter)}", run.text
    assert "changed by you" not in run.text, run.text
    assert "end of the recording: exited with status 0" in run.text, run.text


def test_a_change_in_the_midst_of_a_computation(changed: Replay) -> None:
    run = changed(
        f"{COMPUTING} if i == 1000", "continue", "delete", "print sum", "set var i = 3",
        "print $pc = compute", "continue", "reverse-stepi", "print i", "print sum",
        "set var sum = 0", "continue", "sysrift-restore", "print i", "print sum", "continue",
    )  # fmt: skip
    values = [run.values[n] for n in (0, 2, 3, 4, 5)]
    assert values == [values[0], "1000", values[0], "1000", values[0]], run.text
    assert run.text.count("back to where you changed the program") == 2, run.text
    assert ends_as_recorded(run), run.text


def test_a_function_called_in_a_changed_program_sees_the_change(changed: Replay) -> None:
    run = changed(
        COUNTING, "continue", "set var counter = 40", "print bump()", "print counter",
        "sysrift-restore", "print bump()", "print counter", "delete", "continue",
    )  # fmt: skip
    assert run.values == ["41", "40", "1", "0"], run.text
    assert ends_as_recorded(run), run.text


def test_what_is_written_in_a_called_function_goes_with_it(changed: Replay) -> None:
    inside = f"break diverted.c:{line_of('diverted.c', 'line: inside')}"
    run = changed(
        COUNTING, inside, "continue", "print step_by_step(1)", "set var counter = 99",
        "print counter", "finish", "print counter", "delete", "continue",
    )  # fmt: skip
    assert run.values[0] == "99" and run.values[-1] == "0", run.text
    assert MARK not in run.text and ends_as_recorded(run), run.text


@pytest.mark.parametrize("back", ["sysrift-restore", "sysrift-goto 46", "reverse-stepi"])
def test_code_that_the_user_changed_is_put_back(changed: Replay, back: str) -> None:
    look = "print *(char *) &compute == 1"
    run = changed(
        "sysrift-goto 45", look, "set var *(char *) &compute = 1", look, back, look, "sysrift-when",
        "continue",
    )  # fmt: skip
    assert run.values == ["0", "1", "0"], run.text
    assert "you have changed" not in run.text and ends_as_recorded(run), run.text


def test_returning_from_a_frame_is_a_change(changed: Replay) -> None:
    run = changed(
        COMPUTING, "continue", "return 5", "sysrift-when", "sysrift-restore", "print i", "delete",
        "continue",
    )  # fmt: skip
    assert "you have changed the program" in run.text, run.text
    assert run.values == ["0"] and ends_as_recorded(run), run.text


def test_a_changed_place_is_no_bookmark(changed: Replay) -> None:
    run = changed(
        COUNTING, "continue", "set var counter = 40", "sysrift-bookmark here", "sysrift-when",
        "sysrift-restore", "sysrift-bookmark here", "continue", "sysrift-goto here",
        "print counter", "sysrift-bookmark --delete here",
    )  # fmt: skip
    assert "the program is not as recorded here" in run.text, run.text
    assert "you have changed the program" in run.text
    assert run.values == ["0"], run.text


# -- at a terminal --------------------------------------------------------------------------------


def test_the_user_is_asked_once_and_may_decline(prompt: Prompt) -> None:
    prompt.do(COUNTING)
    prompt.do("continue")
    for command in ("set var counter = 40", "print $rax = 40", "print counter++"):
        prompt.gdb.sendline(command)
        prompt.gdb.expect_exact(QUESTION)
        assert "nothing was changed" in prompt.do("n")
    assert " = 0" in prompt.do("print counter")
    assert "you have changed" not in prompt.do("sysrift-when")
    prompt.ask("set var counter = 41")
    assert " = 42" in prompt.do("print counter = 42")
    prompt.do("set sysrift prompt on")
    prompt.gdb.sendline("")
    prompt.gdb.expect(r"\[\d+ changed\] \(gdb\) ")
    assert "diverted.c" in prompt.do("sysrift-restore")
    assert " = 0" in prompt.do("print counter")
    prompt.ask("print counter = 43")


def test_no_question_without_confirmation(prompt: Prompt) -> None:
    prompt.do("set confirm off")
    prompt.do(COUNTING)
    prompt.do("continue")
    assert MARK in prompt.do("set var counter = 40")
    assert " = 40" in prompt.do("print counter")
