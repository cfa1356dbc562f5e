# SPDX-License-Identifier: GPL-2.0-or-later
"""Beginning, restarting and ending a replay in GDB; what goes wrong is one clear line."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import harness
import pytest

Replay = Callable[..., Any]


def _complaints(text: str) -> list[str]:
    return [line for line in text.splitlines() if line.startswith("SysRift: ")]


# -- run, start, kill, delete, detach -------------------------------------------------------------


def test_run_restarts_the_replay(replayed: Replay) -> None:
    run = replayed("time_all_ways", "continue", "run", "run")
    assert run.text.count(run.recording.stdout) == 3, run.text
    assert run.text.count("back at the start of") == 2
    assert "exited normally" not in run.text


def test_run_from_the_middle_stops_at_breakpoints(replayed: Replay) -> None:
    run = replayed(
        "deep", "break descend if depth == 3", "continue", "run", "print depth", "run",
        "print global_counter",
    )  # fmt: skip
    assert run.values == ["3", "2"], run.text
    assert run.count(r"^Breakpoint \d+, descend \(depth=3, ") == 3


def test_start_restarts_the_replay_and_stops_in_main(replayed: Replay) -> None:
    run = replayed("watch_me", "continue", "print watched", "start", "print watched", "next")
    assert run.values == ["7", "0"], run.text
    assert run.count(r"^Temporary breakpoint \d+, main ") == 1


@pytest.mark.both_gdbs
def test_starti_restarts_the_replay(replayed: Replay) -> None:
    run = replayed("watch_me", "print/x $pc", "continue", "starti", "print/x $pc", "sysrift-when")
    assert run.values[0] == run.values[1], run.text
    assert "before event 1 of" in run.text, run.text


def test_nothing_is_executed_again(tmp_path: Path, recorded: Replay, in_gdb: Replay) -> None:
    touched = tmp_path / "touched"
    recording = recorded(Path("/usr/bin/touch"), str(touched))
    assert touched.exists()
    touched.unlink()
    run = in_gdb(recording, "continue", "run", "run", "sysrift-goto start", "continue")
    assert run.text.count("end of the recording: exited with status 0") >= 2, run.text
    assert not touched.exists()


def test_values_from_pid_time_and_random_are_the_recorded_ones(
    recorded: Replay, in_gdb: Replay
) -> None:
    recording = recorded("flaky")
    customer = recording.stdout.split()[1]
    for _ in range(2):
        run = in_gdb(
            recording, "break checkout", "continue", "print/x customer->id", "run",
            "print/x customer->id",
        )  # fmt: skip
        assert [int(value, 16) for value in run.values] == [int(customer, 16)] * 2, run.text


def test_kill_ends_the_replay(replayed: Replay) -> None:
    run = replayed("watch_me", "break main", "continue", "kill", "sysrift-when", "info breakpoints")
    assert "no replay is going on" in run.text, run.text
    # What is the user's stays; what is SysRift's goes.
    table = run.text.partition("Num ")[2]
    assert "main" in table and "_sysrift" not in table, run.text


def test_replay_again_after_kill(recorded: Replay, in_gdb: Replay) -> None:
    recording = recorded("watch_me")
    run = in_gdb(
        recording, "break by_the_kernel", "continue", "kill", f"sysrift-replay {recording.trace}",
        "continue", "print watched", "continue",
    )  # fmt: skip
    assert run.count(r"^Breakpoint \d+, by_the_kernel ") == 2, run.text
    assert run.values == ["30"]
    assert "end of the recording: exited with status 0" in run.text


def test_detach_ends_the_replay(replayed: Replay) -> None:
    run = replayed("watch_me", "continue", "detach", "sysrift-when")
    assert "the replay ends instead" in run.text, run.text
    assert "no replay is going on" in run.text


def test_delete_leaves_only_the_replay(replayed: Replay) -> None:
    run = replayed("watch_me", "break main", "watch watched", "delete", "continue")
    assert "Old value" not in run.text and "Breakpoint 3, main" not in run.text, run.text
    assert "end of the recording: exited with status 0" in run.text


# -- echo -----------------------------------------------------------------------------------------


def test_echo(recorded: Replay, in_gdb: Replay) -> None:
    recording = recorded("watch_me")
    assert recording.stdout in in_gdb(recording, "continue").text
    silent = in_gdb(recording, "set sysrift echo off", "show sysrift echo", "continue")
    assert "7 99" not in silent.text, silent.text
    assert re.search(r"recorded output while replaying is off\.", silent.text)
    again = in_gdb(recording, "set sysrift echo off", "continue", "set sysrift echo on", "run")
    assert again.text.count(recording.stdout) == 1, again.text


def test_echo_has_stderr_too(replayed: Replay) -> None:
    run = replayed("ends_abort", "continue")
    assert run.recording.stderr.strip() in run.text, run.text


def test_echo_comes_when_it_was_written(replayed: Replay) -> None:
    run = replayed("watch_me", "break in_computation", "continue", "echo here\\n", "continue")
    before, _, after = run.text.partition("here\n")
    assert re.search(r"^3$", before, re.MULTILINE) and not re.search(r"^30$", before, re.MULTILINE)
    assert re.search(r"^30$", after, re.MULTILINE), run.text


# -- more than one replay -------------------------------------------------------------------------


def test_two_replays_in_one_gdb(recorded: Replay, in_gdb: Replay) -> None:
    first, second = recorded("watch_me"), recorded("ends_segv")
    run = in_gdb(
        first, "break between_calls", "continue", f"sysrift-replay {second.trace}", "continue",
        # GDB itself disables a breakpoint whose function the other program does not have.
        "print depth", f"sysrift-replay {first.trace}", "enable", "continue", "delete", "continue",
        "print watched",
    )  # fmt: skip
    assert run.text.count("ending the replay of") == 2, run.text
    assert run.values == ["3", "7"], run.text
    assert "Program received signal SIGSEGV" in run.text
    assert run.count(r"^Breakpoint \d+, between_calls ") == 2


def test_the_latest_trace_is_the_default(recorded: Replay) -> None:
    recording = recorded("ends_return42")
    text = harness.gdb_batch(["sysrift-replay", "continue"], None)
    assert str(harness.built("ends_return42")) in text, text
    assert "exited with status 42" in text
    assert recording.trace.exists()


def test_settings_of_gdb_come_back(replayed: Replay) -> None:
    run = replayed(
        "watch_me", "kill", "sysrift-when",
        "show startup-with-shell", "show disable-randomization", "show confirm",
    )  # fmt: skip
    assert "Use of shell to start subprocesses is on." in run.text, run.text
    assert "Whether to confirm potentially dangerous operations is on." in run.text


# -- what goes wrong ------------------------------------------------------------------------------


def test_divergence_is_shown(recorded: Replay, in_gdb: Replay) -> None:
    recording = recorded("getppid_loop", "50")
    loop = [e for e in in_gdb(recording).events() if e["name"] == "getppid"]
    run = in_gdb(
        recording, f"sysrift-goto {loop[9]['number']}", "frame function main", "set var count = 20",
        "continue", "backtrace", "sysrift-goto start", "continue",
    )  # fmt: skip
    told = [line for line in run.text.splitlines() if "getppid" in line and "expected" in line]
    assert told or ("getppid" in run.text and "clock_gettime" in run.text), run.text
    assert str(loop[20]["number"]) in run.text, run.text
    # And the replay can start again, as recorded.
    assert run.text.rstrip().count("end of the recording: exited with status 0") == 1, run.text
    assert recording.stdout in run.text


def test_missing_trace() -> None:
    text = harness.gdb_batch(["sysrift-replay /nonexistent/trace.srl"], None)
    assert "Traceback" not in text and "Python" not in text, text
    assert len(_complaints(text)) == 1 and "/nonexistent/trace.srl" in text, text


def test_no_trace_at_all() -> None:
    text = harness.gdb_batch(["sysrift-replay"], None)
    assert len(_complaints(text)) == 1 and "latest" in text, text


@pytest.mark.parametrize("content", [b"", b"not a trace at all\n" * 50, b"\x7fELF" + bytes(4000)])
def test_foreign_file(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "foreign.srl"
    path.write_bytes(content)
    text = harness.gdb_batch([f"sysrift-replay {path}", "sysrift-when"], None)
    assert "Traceback" not in text, text
    assert len(_complaints(text)) == 2, text
    assert "no replay is going on" in text


@pytest.mark.parametrize(
    "command", ["sysrift-when", "sysrift-goto 3", "sysrift-events", "sysrift-info"]
)
def test_no_replay(command: str) -> None:
    text = harness.gdb_batch([command], None)
    assert "Traceback" not in text, text
    assert text.strip() == _complaints(text)[0] and "no replay is going on" in text, text


def test_live_program_is_left_alone(recorded: Replay) -> None:
    recording = recorded("watch_me")
    program = harness.built("deep")
    text = harness.gdb_batch(
        [f"file {program}", "break measure", "run", f"sysrift-replay {recording.trace}",
         "print shape->name", "kill"],
        None,
    )  # fmt: skip
    assert "Traceback" not in text, text
    assert len(_complaints(text)) == 1 and "live program" in _complaints(text)[0], text
    assert '"triangle"' in text


def test_sourcing_twice_is_harmless(replayed: Replay) -> None:
    script = harness.ROOT / "gdb" / "sysrift.gdb"
    run = replayed("watch_me", f"source {script}", "break main", "continue", "print watched")
    assert run.values == ["0"], run.text


def test_gdb_that_is_too_old_says_so(tmp_path: Path) -> None:
    old = tmp_path / "old-gdb"
    real = harness.GDB
    old.write_text(f'#!/bin/sh\nexec {real} -ex \'python gdb.VERSION = "11.2"\' "$@"\n')
    old.chmod(0o755)
    text = harness.gdb_batch([], None, gdb=str(old))
    assert "SysRift needs GDB 12 or newer, this is GDB 11.2" in text, text
    assert "Traceback" not in text, text
