# SPDX-License-Identifier: GPL-2.0-or-later
"""`sysrift-goto`, `sysrift-when`, `sysrift-events` and `sysrift-info`."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import harness
import pytest

Replay = Callable[..., Any]

_LINE = re.compile(r"^(=>|  ) +(\d+) +\d+\.\d{6} (.*)$", re.MULTILINE)


def _getppids(recording: harness.Recording, in_gdb: Replay) -> list[int]:
    return [e["number"] for e in in_gdb(recording).events() if e["name"] == "getppid"]


def test_goto_stands_on_the_event(recorded: Replay, in_gdb: Replay) -> None:
    recording = recorded("watch_me")
    numbers = _getppids(recording, in_gdb)
    run = in_gdb(
        recording,
        f"sysrift-goto {numbers[3]}", "print watched", "sysrift-when", "backtrace",
        f"sysrift-goto {numbers[0]}", "print watched", "sysrift-when",
        f"sysrift-goto {numbers[5]}", "print watched", "sysrift-when",
    )  # fmt: skip
    assert run.values == ["2", "0", "3"], run.text
    for number in (numbers[3], numbers[0], numbers[5]):
        assert re.search(rf"before event {number} of \d+, ", run.text), run.text
    assert run.count(r"^ +\d+ +\d+\.\d{6} getppid\(\) += \d+$") == 3
    assert re.search(r"^#1 .*between_calls \(\)", run.text, re.MULTILINE)


def test_goto_relative_and_by_a_convenience_variable(recorded: Replay, in_gdb: Replay) -> None:
    recording = recorded("watch_me")
    number = _getppids(recording, in_gdb)[0]
    run = in_gdb(
        recording, f"set $place = {number}", "sysrift-goto $place", "sysrift-when",
        "sysrift-goto +2", "sysrift-when", "sysrift-goto -1", "sysrift-when",
    )  # fmt: skip
    told = [int(n) for n in re.findall(r"before event (\d+) of", run.text)]
    assert told == [number, number + 2, number + 1], run.text


def test_goto_the_same_event_twice(recorded: Replay, in_gdb: Replay) -> None:
    recording = recorded("watch_me")
    number = _getppids(recording, in_gdb)[2]
    run = in_gdb(
        recording, f"sysrift-goto {number}", "print/x $pc", f"sysrift-goto {number}",
        "print/x $pc", "sysrift-when", "continue",
    )  # fmt: skip
    assert run.values[0] == run.values[1], run.text
    assert f"before event {number} of" in run.text
    assert "end of the recording: exited with status 0" in run.text


def test_goto_start_and_end(replayed: Replay) -> None:
    run = replayed(
        "watch_me", "print/x $pc", "sysrift-goto end", "print watched", "sysrift-when",
        "sysrift-goto start", "print/x $pc", "break main", "continue", "print watched",
    )  # fmt: skip
    first, at_end, again, in_main = run.values
    assert first == again, run.text
    assert (at_end, in_main) == ("7", "0")
    assert "exited with status 0" in run.text


def test_goto_end_of_a_crash(replayed: Replay) -> None:
    run = replayed("ends_segv", "sysrift-goto end", "print depth", "sysrift-when", "continue")
    assert run.values == ["3"], run.text
    assert "Program received signal SIGSEGV" in run.text
    assert re.search(r"\bstore \(depth=3, value=42\)", run.text)


def test_goto_passes_breakpoints(recorded: Replay, in_gdb: Replay) -> None:
    recording = recorded("watch_me")
    number = _getppids(recording, in_gdb)[4]
    run = in_gdb(
        recording, "break between_calls", "break main", f"sysrift-goto {number}", "print watched",
        "continue", "sysrift-goto start", "continue", "continue", "print watched",
    )  # fmt: skip
    assert run.values == ["2", "0"], run.text
    assert run.count(r"^Breakpoint \d+, main ") == 1
    assert run.count(r"^Breakpoint \d+, between_calls ") == 1


def test_goto_from_a_caught_system_call(recorded: Replay, in_gdb: Replay) -> None:
    recording = recorded("watch_me")
    numbers = _getppids(recording, in_gdb)
    run = in_gdb(
        recording, "catch syscall getppid", "continue", f"sysrift-goto {numbers[4]}",
        "sysrift-when", "continue", "continue", "print $rax",
        f"sysrift-goto {numbers[1]}", "sysrift-when", "delete", "continue",
    )  # fmt: skip
    told = [int(n) for n in re.findall(r"before event (\d+) of", run.text)]
    assert told == [numbers[4], numbers[1]], run.text
    result = next(e["result"] for e in run.events() if e["number"] == numbers[4])
    assert run.values == [str(result)]
    assert "end of the recording: exited with status 0" in run.text


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("9999", "no event 9999"),
        ("", "one place"),
        ("1 2", "one place"),
        ("nonsense", "'nonsense' is no event"),
        ("-5", "no event -4"),
    ],
)
def test_goto_nowhere(replayed: Replay, arguments: str, words: str) -> None:
    run = replayed("watch_me", f"sysrift-goto {arguments}", "sysrift-when")
    assert [line for line in run.text.splitlines() if words in line], run.text
    assert "before event 1 of" in run.text


def test_events_are_those_of_dump(recorded: Replay, in_gdb: Replay) -> None:
    recording = recorded("watch_me")
    dump = harness.sysrift("dump", recording.trace, env={"NO_COLOR": "1"})
    assert dump.returncode == 0, dump
    expected = [line.strip() for line in dump.stdout.splitlines() if re.match(r"\s*\d+ ", line)]
    run = in_gdb(recording, "echo begin\\n", "sysrift-events 1-end")
    listing = run.text.partition("begin\n")[2]
    assert [line.removeprefix("=>").strip() for line in listing.splitlines()][
        : len(expected)
    ] == expected
    assert "+++ exited with 0 +++" in listing
    assert [match[2] for match in _LINE.finditer(listing) if match[1] == "=>"] == ["1"]


def test_events_ranges(recorded: Replay, in_gdb: Replay) -> None:
    recording = recorded("watch_me")
    number = _getppids(recording, in_gdb)[2]
    count = in_gdb(recording).events()[-1]["number"]

    def numbers(*commands: str) -> list[int]:
        text = in_gdb(recording, *commands[:-1], "echo begin\\n", commands[-1]).text
        return [int(m[2]) for m in _LINE.finditer(text.partition("begin\n")[2])]

    assert numbers("sysrift-events 7-9") == [7, 8, 9]
    assert numbers("sysrift-events 7") == [7]
    assert numbers("sysrift-events -3") == [1, 2, 3]
    assert numbers(f"sysrift-events {count - 1}-") == [count - 1, count]
    around = numbers(f"sysrift-goto {number}", "sysrift-events")
    assert around == list(range(number - 10, min(number + 10, count) + 1))


def test_events_by_failure_and_name(recorded: Replay, in_gdb: Replay) -> None:
    recording = recorded("watch_me")
    run = in_gdb(recording, "echo begin\\n", "sysrift-events --failed")
    failed = [m[3] for m in _LINE.finditer(run.text.partition("begin\n")[2])]
    assert failed and all(re.search(r"= -1 E[A-Z]+ \(", line) for line in failed), run.text
    run = in_gdb(recording, "echo begin\\n", "sysrift-events --name openat,getppid")
    named = [m[3] for m in _LINE.finditer(run.text.partition("begin\n")[2])]
    assert {line.partition("(")[0] for line in named} == {"openat", "getppid"}, run.text
    assert sum(line.startswith("getppid(") for line in named) == 6


def test_returning_from_a_handler_is_no_failure(recorded: Replay, in_gdb: Replay) -> None:
    # rt_sigreturn puts back rax, which may be the -EINTR of the call that was interrupted.
    run = in_gdb(recorded("handlers"), "sysrift-events --failed")
    assert "rt_sigreturn" not in run.text, run.text


@pytest.mark.parametrize(
    "arguments", ["--name nonsense", "9-3", "999-", "--whatever", "a-b", "1 2 3"]
)
def test_events_that_make_no_sense(replayed: Replay, arguments: str) -> None:
    run = replayed("watch_me", "echo begin\\n", f"sysrift-events {arguments}")
    lines = run.text.partition("begin\n")[2].splitlines() or run.text.splitlines()
    assert any(line.startswith("SysRift: ") for line in run.text.splitlines()), run.text
    assert not any(_LINE.match(line) for line in lines), run.text


def test_colours(recorded: Replay, in_gdb: Replay) -> None:
    recording = recorded("watch_me")
    term = {"TERM": "xterm-256color"}
    commands = ("set style enabled on", "sysrift-events", "sysrift-when")
    assert "\x1b[" in in_gdb(recording, *commands, env=term).text
    assert "\x1b" not in in_gdb(recording, *commands, env={**term, "NO_COLOR": "1"}).text
    assert "\x1b" not in in_gdb(recording, *commands[1:], env=term).text  # style enabled is off
    assert "\x1b" not in in_gdb(recording, *commands, env={"TERM": "dumb"}).text


def test_info(replayed: Replay) -> None:
    run = replayed("watch_me", "sysrift-info", "sysrift-goto 5", "sysrift-info")
    count = run.events()[-1]["number"]
    for fact in (
        str(run.recording.trace), str(harness.built("watch_me")), f"events: {count} in",
        "ended: exited with status 0", "now: before event 1\n", "now: before event 5\n",
    ):  # fmt: skip
        assert fact in run.text, run.text


def test_introduction(replayed: Replay) -> None:
    run = replayed("flaky")
    count = run.events()[-1]["number"]
    ended = "exited with status 0" if run.recording.returncode == 0 else "killed by SIGSEGV"
    assert f"SysRift: {harness.built('flaky')} (recorded 20" in run.text, run.text
    assert re.search(rf"^SysRift: {count} events in .* s; {ended}$", run.text, re.M), run.text
    # The last failures, the program's own among them (those of the recorder's doing are left out).
    shown = re.findall(r"^ +(\d+) +\d+\.\d{6} .* = -1 E", run.text, re.M)
    failed = {event["number"]: event["call"] for event in run.events("--failed")}
    assert {int(number) for number in shown} <= set(failed), run.text
    assert any("flaky.conf" in failed[int(number)] for number in shown), run.text


def test_help_says_what_each_command_does() -> None:
    names = ("replay", "goto", "when", "events", "info")
    text = harness.gdb_batch([f"help sysrift-{name}" for name in names], None)
    for name in names:
        assert re.search(rf": sysrift-{name}\b", text), text
