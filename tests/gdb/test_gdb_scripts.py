# SPDX-License-Identifier: GPL-2.0-or-later
"""Python scripts in GDB that use a replay: `sysrift_gdb.on_event` and its like."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Replay = Callable[..., Any]


@pytest.fixture
def script(tmp_path: Path) -> Callable[[str], str]:
    """A function that makes the command that runs a Python script in GDB."""

    def write(text: str) -> str:
        path = tmp_path / "script.py"
        path.write_text(f"import gdb\nimport sysrift_gdb\n{text}")
        return f"source {path}"

    return write


NOTE = """
def note(event):
    here = sysrift_gdb.current_event()
    function = gdb.newest_frame().name()
    print("told", event.number, here and here.number, hex(event.site), hex(gdb.newest_frame().pc()))
connection = sysrift_gdb.on_event(note, {})
"""


def told(text: str) -> list[int]:
    """The numbers of the events that the script was told of."""
    return [int(number) for number in re.findall(r"^told (\d+)", text, re.MULTILINE)]


def numbers(run: Any, *options: str) -> list[int]:
    """The numbers of the events that `sysrift dump` prints with these options."""
    return [event["number"] for event in run.events(*options)]


@pytest.mark.both_gdbs
@pytest.mark.parametrize("program", ["deep", "handlers", "ends_segv", "ends_abort", "sync_signals"])
def test_told_of_every_event_once_and_in_order(
    recorded: Replay, in_gdb: Replay, script: Callable[[str], str], program: str
) -> None:
    run = in_gdb(recorded(program), script(NOTE.format("")), "continue")
    assert told(run.text) == numbers(run), run.text


def test_told_of_where_the_program_stands(
    recorded: Replay, in_gdb: Replay, script: Callable[[str], str]
) -> None:
    run = in_gdb(recorded("deep"), script(NOTE.format("names='write,openat,rdtsc'")), "continue")
    assert told(run.text) == numbers(run, "--name", "write,openat,rdtsc"), run.text
    for event, here, site, pc in re.findall(r"^told (\d+) (\d+) (\w+) (\w+)$", run.text, re.M):
        assert event == here
        # A system call has been entered, its instruction is behind; rdtsc is still to come.
        assert int(pc, 16) - int(site, 16) in (0, 2)


def test_told_however_gdb_goes_forwards(
    recorded: Replay, in_gdb: Replay, script: Callable[[str], str]
) -> None:
    recording = recorded("deep")
    run = in_gdb(
        recording, "break main", "continue", script(NOTE.format("names='write'")),
        *["next"] * 12, "step", "stepi", "tbreak measure", "continue", "finish",
        "watch list", "continue", "continue", "delete", "continue",
    )  # fmt: skip
    assert told(run.text) == numbers(run, "--name", "write"), run.text
    # Instruction by instruction over one.
    first = numbers(run, "--name", "write")[0]
    run = in_gdb(
        recording, f"sysrift-goto {first}", script(NOTE.format("names='write'")), "stepi", "stepi",
        f"sysrift-goto {first}", "nexti", "sysrift-when",
    )  # fmt: skip
    assert told(run.text) == [first, first], run.text
    assert f"before event {first + 1} of" in run.text


def test_told_of_failed_calls_again_after_going_back(
    recorded: Replay, in_gdb: Replay, script: Callable[[str], str]
) -> None:
    run = in_gdb(
        recorded("deep"), script(NOTE.format("failed=True")), "sysrift-goto end", "echo <1>\\n",
        "sysrift-goto start", "tbreak main", "continue", "echo <2>\\n", "reverse-stepi",
        "sysrift-goto start", "continue", "python connection.disconnect()", "run",
        "python print(connection)",
    )  # fmt: skip
    failed = numbers(run, "--failed")
    going, once, again = re.split("<1>|<2>", run.text)
    assert told(going) == []
    assert told(once) == failed, run.text
    assert told(again) == failed
    assert "disconnected>" in again


@pytest.mark.both_gdbs
def test_a_callback_stops_gdb(
    recorded: Replay, in_gdb: Replay, script: Callable[[str], str]
) -> None:
    recording = recorded("deep")
    stop = "sysrift_gdb.on_event(lambda event: True, names='write')"
    run = in_gdb(recording, script(stop), *["continue", "sysrift-when", "backtrace"] * 3, "next")
    writes = numbers(run, "--name", "write")
    stops = [int(n) for n in re.findall(r"^SysRift: before event (\d+) of", run.text, re.MULTILINE)]
    assert stops == writes[:3], run.text
    assert run.count(r"^Catchpoint \d+ \(call to syscall write\)") == 3
    assert run.count(r"^#\d+ .*\bmain \(") == 3
    # To the end it is the same program, whatever stopped it.
    run = in_gdb(recording, script(stop), *["continue"] * (len(writes) + 1))
    assert all(line in run.text for line in recording.stdout.splitlines())
    assert "end of the recording: exited with status 0" in run.text


@pytest.mark.parametrize("name", ["rdtsc", "SIGUSR1", "SIGALRM"])
def test_a_callback_stops_gdb_at_other_events(
    recorded: Replay, in_gdb: Replay, script: Callable[[str], str], name: str
) -> None:
    recording = recorded("handlers")
    stop = (
        f"sysrift_gdb.on_event(lambda event: print('told', event.number) or True, names='{name}')"
    )
    run = in_gdb(recording, script(stop), *["continue"] * 30)
    assert told(run.text) == numbers(run, "--name", name), run.text
    assert recording.stdout.strip().splitlines()[-1] in run.text
    assert "end of the recording: exited with status 0" in run.text


def test_bad_callbacks(recorded: Replay, in_gdb: Replay, script: Callable[[str], str]) -> None:
    run = in_gdb(
        recorded("deep"),
        script(
            "def bad(event):\n"
            "    if event.number > 8:\n"
            "        return 1 // 0\n"
            "    sysrift_gdb.goto(3)\n"
            "sysrift_gdb.on_event(bad, first=8, last=9)\n"
            "try:\n"
            "    sysrift_gdb.on_event(print, names='nonsense')\n"
            "except gdb.GdbError as error:\n"
            "    print(error)\n"
        ),
        "continue",
    )
    assert "there is no system call or signal named 'nonsense'" in run.text
    assert (
        "on_event: bad at event 8: GdbError: SysRift: a callback of on_event cannot go" in run.text
    )
    assert "on_event: bad at event 9: ZeroDivisionError: " in run.text
    assert "end of the recording: exited with status 0" in run.text


def test_many_events_nobody_wants(
    recorded: Replay, in_gdb: Replay, script: Callable[[str], str]
) -> None:
    recording = recorded("hot_calls", "30000", options=["-q", "--agent"], timeout=200)
    run = in_gdb(recording, script(NOTE.format("names='exit_group'")), "continue", timeout=200)
    assert told(run.text) == numbers(run, "--name", "exit_group"), run.text
    assert len(told(run.text)) == 1
