# SPDX-License-Identifier: GPL-2.0-or-later
"""Going to a time, a failure, a bookmark; and back to where one came from."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import harness
import pytest

Replay = Callable[..., Any]


def _told(text: str) -> list[int]:
    return [int(number) for number in re.findall(r"before event (\d+) of", text)]


def test_failures_forwards_and_back(recorded: Replay, in_gdb: Replay) -> None:
    recording = recorded("deep")
    failed = [int(e["number"]) for e in in_gdb(recording).events("--failed")]
    assert len(failed) > 1
    run = in_gdb(
        recording, "sysrift-goto next-failed", "sysrift-when", "sysrift-goto next-failed",
        "sysrift-when", "sysrift-goto previous-failed", "sysrift-when",
        "sysrift-goto previous-failed", "sysrift-when", "sysrift-goto end",
        "sysrift-goto previous-failed", "sysrift-when",
    )  # fmt: skip
    assert _told(run.text) == [*failed[:2], failed[0], failed[0], failed[-1]], run.text
    assert f"no system call failed before event {failed[0]}" in run.text


def test_times(recorded: Replay, in_gdb: Replay) -> None:
    recording = recorded("watch_me")
    events = in_gdb(recording).events()
    times = {int(e["number"]): e["time_us"] for e in events}
    wanted = times[20]
    first = min(number for number, time in times.items() if time >= wanted)
    run = in_gdb(
        recording, f"sysrift-goto @{wanted}us", "sysrift-when", "print $_event",
        "print $_sysrift_time", f"sysrift-goto @{wanted / 1e6:.6f}s", "sysrift-when",
        "sysrift-goto @-0s", "print watched", "sysrift-goto @0", "sysrift-when",
        "sysrift-goto @-99min", "sysrift-when", "sysrift-goto @5parsecs", "sysrift-goto @",
    )  # fmt: skip
    assert _told(run.text) == [first, first, 1, 1], run.text
    assert run.values[0] == str(first)
    assert float(run.values[1]) == pytest.approx(times[first] / 1e6)
    assert run.values[2] == "7"
    assert run.text.count("is no time: write @12.5s") == 2


def test_event_variables_follow_the_stops(replayed: Replay) -> None:
    run = replayed(
        "watch_me", "break main", "continue", "print $_event", "sysrift-when",
        "catch syscall getppid", "continue", "print $_event", "sysrift-when", "kill",
    )  # fmt: skip
    assert [int(value) for value in run.values] == _told(run.text), run.text


def test_back_as_in_a_browser(replayed: Replay) -> None:
    run = replayed(
        "watch_me", "sysrift-back", "sysrift-goto 9", "sysrift-goto 20", "sysrift-goto 12",
        "sysrift-back", "sysrift-when", "sysrift-back", "sysrift-when", "sysrift-goto 30",
        "sysrift-goto 31", "sysrift-back 2", "sysrift-when", "sysrift-back 7", "sysrift-back x",
    )  # fmt: skip
    assert _told(run.text) == [20, 9, 9], run.text
    assert "no place to go back to" in run.text
    assert "there are only 1 places to go back to" in run.text
    assert "takes the number of steps" in run.text


def test_back_into_the_midst_of_a_computation(recorded: Replay, in_gdb: Replay) -> None:
    # The loop passes this line several times between the same two events: it must be that pass.
    recording = recorded("deep")
    line = harness.line_of("deep.c", "line: sum")
    state = ("print/x $pc", "print/x $sp", "info locals", "info registers")
    run = in_gdb(
        recording, f"break deep.c:{line}", "continue", "continue", "continue", "delete", "stepi",
        "echo <1>\\n", *state, "echo <2>\\n", "sysrift-goto 5", "sysrift-back",
        "echo <3>\\n", *state, "echo <4>\\n", "next", "continue",
    )  # fmt: skip
    before = run.text.partition("<1>\n")[2].partition("<2>\n")[0]
    after = run.text.partition("<3>\n")[2].partition("<4>\n")[0]
    assert "node = 0x" in before and _plain(before) == _plain(after), run.text
    assert "end of the recording: exited with status 0" in run.text


def _plain(text: str) -> str:
    return re.sub(r"^\$\d+", "$", text, flags=re.MULTILINE)


@pytest.mark.both_gdbs
@pytest.mark.keeps_files
def test_bookmarks_outlive_the_session(recorded: Replay, in_gdb: Replay) -> None:
    recording = recorded("deep")
    line = harness.line_of("deep.c", "line: sum")
    state = ("print/x $pc", "print/x $sp", "info locals")
    first = in_gdb(
        recording, "sysrift-goto 12", "sysrift-bookmark twelve", f"break deep.c:{line}", "continue",
        "continue", "sysrift-bookmark in_loop", "echo <1>\\n", *state, "echo <2>\\n",
    )  # fmt: skip
    again = in_gdb(
        recording, "sysrift-bookmark", "sysrift-goto in_loop", "echo <1>\\n", *state,
        "echo <2>\\n", "sysrift-goto twelve", "sysrift-when", "sysrift-events 12",
        "complete sysrift-goto tw", "complete sysrift-goto previous-f",
        "sysrift-bookmark --delete twelve", "sysrift-goto twelve",
        "sysrift-bookmark --delete twelve", "sysrift-bookmark",
    )  # fmt: skip
    states = [run.text.partition("<1>\n")[2].partition("<2>\n")[0] for run in (first, again)]
    assert "node = 0x" in states[0] and states[0] == states[1], again.text
    assert _told(again.text) == [12]
    assert "^ bookmark twelve" in again.text
    assert "sysrift-goto twelve\nsysrift-goto previous-failed\n" in again.text, again.text
    assert again.count(r"^ +12 twelve$") == 1, again.text
    assert again.count(r"^ +\d+ in_loop, in the midst before it$") == 2, first.text + again.text
    assert "'twelve' is no event" in again.text
    assert "there is no bookmark 'twelve'" in again.text


@pytest.mark.parametrize("name", ["start", "7", "a/b", "next-failed"])
def test_names_that_cannot_be(replayed: Replay, name: str) -> None:
    run = replayed("watch_me", f"sysrift-bookmark {name}", "sysrift-bookmark")
    assert "cannot be a bookmark's name" in run.text
    assert "there are no bookmarks" in run.text


@pytest.mark.keeps_files
def test_bookmarks_of_another_trace(recorded: Replay, in_gdb: Replay) -> None:
    one, other = recorded("watch_me"), recorded("deep")
    in_gdb(one, "sysrift-bookmark here")
    shutil.copy(f"{one.trace}.bookmarks", f"{other.trace}.bookmarks")
    run = in_gdb(other, "sysrift-bookmark here", "sysrift-goto here", "sysrift-events 3")
    assert run.text.count("has the bookmarks of another trace") == 3, run.text
    assert run.count(r"^ +3 +\d+\.\d+ ") == 1, run.text
    Path(f"{other.trace}.bookmarks").write_text("{nonsense")
    assert "is damaged: remove it" in in_gdb(other, "sysrift-bookmark").text


@pytest.mark.keeps_files
def test_damaged_bookmark(recorded: Replay, in_gdb: Replay) -> None:
    recording = recorded("watch_me")
    in_gdb(recording, "sysrift-goto 12", "sysrift-bookmark here")
    path = Path(f"{recording.trace}.bookmarks")
    content = json.loads(path.read_text())
    (marks,) = content["bookmarks"].values()
    for damage in ({"event": 12, "state": "AAAA"}, {"event": 12, "state": "%"}, {"event": 10**9}):
        marks["here"] = damage
        path.write_text(json.dumps(content))
        run = in_gdb(recording, "sysrift-goto here", "sysrift-when")
        assert "SysRift: the bookmark here is " in run.text, run.text
        assert _told(run.text) == [1]


@pytest.mark.keeps_files
def test_no_place_for_bookmarks(recorded: Replay, in_gdb: Replay) -> None:
    recording = recorded("watch_me")
    Path(f"{recording.trace}.bookmarks").mkdir()
    run = in_gdb(recording, "sysrift-bookmark here", "sysrift-when")
    assert run.count(r"^SysRift: cannot read .*\.bookmarks: ") == 1, run.text


def test_the_python_example_of_the_page(tmp_path: Path, recorded: Replay, in_gdb: Replay) -> None:
    page = (harness.ROOT / "docs" / "commands" / "gdb.md").read_text()
    script = tmp_path / "example.py"
    script.write_text(page.partition("```python\n")[2].partition("```")[0])
    failing = tmp_path / "failing.py"
    failing.write_text(
        "import gdb, sysrift_gdb\n"
        "try:\n    sysrift_gdb.goto(10**6)\nexcept gdb.GdbError as error:\n    print(error)\n"
    )
    recording = recorded("deep")
    run = in_gdb(
        recording, f"source {script}", "sysrift-when", "sysrift-back", "sysrift-when",
        "python print(sysrift_gdb.current_event().number)",
        f"source {failing}", "sysrift-goto end",
        "python print(len(list(sysrift_gdb.events())))", "kill",
        f"source {failing}",
    )  # fmt: skip
    missing = [e["number"] for e in run.events("--failed") if e["result"] == -2]
    told = _told(run.text)
    assert missing and told[0] == missing[-1], run.text
    assert run.count(rf"^{told[1]}$") == 1
    assert run.count(r"^#0 ") >= 2 * len(missing)
    assert "there is no event 1000000" in run.text
    assert run.count(rf"^{len(run.events())}$") == 1
    assert "no replay is going on" in run.text
