# SPDX-License-Identifier: GPL-2.0-or-later
"""reverse-continue in a real GDB: to watchpoints, catchpoints and breakpoints, the newest first."""

from __future__ import annotations

import itertools
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import harness
import pytest
from harness import line_of

Replay = Callable[..., Any]

END = "No more reverse-execution history."


def _changes(text: str) -> list[tuple[str, str]]:
    """(old, new) of all watchpoints' stops."""
    return re.findall(r"^Old value = (.*)\nNew value = (.*)$", text, re.MULTILINE)


def test_a_global_backwards(recorded: Replay, in_gdb: Replay) -> None:
    run = in_gdb(
        recorded("watch_me"), "sysrift-goto end", "watch watched", *["rc"] * 10, "print $_event"
    )
    values = [7, 0, 100, 30, 20, 10, 3, 2, 1, 0]
    expected = [(str(old), str(new)) for old, new in itertools.pairwise(values)]
    assert _changes(run.text) == expected, run.text
    assert run.text.count(END) == 1 and run.values == ["1"], run.text
    assert run.count(r"^Hardware watchpoint \d+: watched$") == 10, run.text
    # The state before the write: GDB shows the very line that writes.
    written = line_of("watch_me.c", "line: last")
    assert re.search(rf"^main \(\) at watch_me\.c:{written}$", run.text, re.MULTILINE), run.text


def test_a_write_by_a_system_call(recorded: Replay, in_gdb: Replay) -> None:
    run = in_gdb(
        recorded("going_back"), "sysrift-goto end", "watch buffer[3]", "rc", "print $_event",
        "print buffer[3]", "stepi", "print buffer[3]",
    )  # fmt: skip
    read = next(e for e in run.events() if e["name"] == "read" and e["args"][2] == 8)
    assert ("0 '\\000'", "98 'b'") in _changes(run.text), run.text
    assert f"changed by event {read['number']}:" in run.text, run.text
    assert re.search(rf"^ +{read['number']} .*read\(3, .*= 8$", run.text, re.MULTILINE), run.text
    assert run.values == [str(read["number"]), "98 'b'", "0 '\\000'"], run.text


def test_memory_of_the_heap_and_behind_pointers(recorded: Replay, in_gdb: Replay) -> None:
    run = in_gdb(
        recorded("going_back"), "break with_local if n == 1", "continue", "delete",
        "watch word[3]", "rc", "rc", "delete", "continue", "sysrift-goto end",
        "watch head->next->value", "rc", "rc", "delete", "sysrift-goto end", "watch ratio", "rc",
        "rc", "delete", "watch text", "sysrift-goto end", "rc", "delete", "sysrift-goto end",
        "watch -location head->next->value", "rc",
    )  # fmt: skip
    changes = _changes(run.text)
    assert changes[:2] == [("12", "11"), ("11", "0")], run.text
    assert changes[2] == ("9", "1") and changes[3][0] == "1", run.text
    assert changes[4:6] == [("1.5", "0.5"), ("0.5", "0")], run.text
    assert changes[6][0].startswith('"done\\000xxxx'), run.text
    assert changes[7] == ("9", "1"), run.text
    member = line_of("going_back.c", "line: member")
    assert run.count(rf"^(0x\w+ in )?main \(.*\) at going_back\.c:{member}$") == 2, run.text


def test_reads_and_accesses(recorded: Replay, in_gdb: Replay) -> None:
    run = in_gdb(
        recorded("watch_me"), "sysrift-goto end", "rwatch untouched", "awatch watched",
        "rc", "rc", "rc",
    )  # fmt: skip
    stops = re.findall(r"^(Hardware .*)\n\n(Value|Old value) = (\d+)$", run.text, re.MULTILINE)
    assert [(what.split(" watch")[0], value) for what, _, value in stops] == [
        ("Hardware access (read/write)", "7"),
        ("Hardware read", "99"),
        ("Hardware access (read/write)", "7"),
    ], run.text
    assert [kind for _, kind, _ in stops] == ["Value", "Value", "Old value"], run.text


def test_a_local_variable_ends_with_its_frame(recorded: Replay, in_gdb: Replay) -> None:
    line = line_of("going_back.c", "line: local")
    run = in_gdb(
        recorded("going_back"), f"break {line}", "continue", "delete", "watch local", *["rc"] * 4,
        "bt 1", "info breakpoints",
    )  # fmt: skip
    assert [change[1] for change in _changes(run.text)][:2] == ["15", "5"], run.text
    assert "deleted because the program has left the block in" in run.text, run.text
    # In front of the call that makes the frame.
    assert run.count(r"^#0 .* main \(") == 1 and "watchpoint" not in run.text.splitlines()[-1]


def test_a_local_variable_whose_frame_is_gone(recorded: Replay, in_gdb: Replay) -> None:
    line = line_of("going_back.c", "line: local")
    run = in_gdb(
        recorded("going_back"), f"break {line}", "continue", "watch local", "sysrift-goto end",
        "rc", "print n",
    )  # fmt: skip
    assert "deleted because the program has left the block in" in run.text, run.text
    assert run.values == ["1"], run.text


def test_conditions_are_of_the_state_that_is_shown(recorded: Replay, in_gdb: Replay) -> None:
    run = in_gdb(
        recorded("watch_me"), "sysrift-goto end", "watch watched if watched == 20", "rc", "rc"
    )
    assert _changes(run.text) == [("30", "20")], run.text
    assert END in run.text


def test_caught_system_calls(recorded: Replay, in_gdb: Replay) -> None:
    run = in_gdb(
        recorded("watch_me"), "sysrift-goto end", "catch syscall getppid", "rc", "print $rax",
        "rc", "print $orig_rax", "print $_event", "rc", "rc", "print $_event", *["rc"] * 8, "rc",
    )  # fmt: skip
    calls = [e for e in run.events() if e["name"] == "getppid"]
    assert len(calls) == 6
    assert run.count(r"^Catchpoint \d+ \(call to syscall getppid\), ") == 6, run.text
    assert run.count(r"^Catchpoint \d+ \(returned from syscall getppid\), ") == 6, run.text
    numbers = [str(calls[-1]["number"]), str(calls[-2]["number"])]
    assert run.values == [str(calls[-1]["result"]), "110", *numbers], run.text
    assert END in run.text


def test_several_together_the_newest_first(recorded: Replay, in_gdb: Replay) -> None:
    run = in_gdb(
        recorded("going_back"), "sysrift-goto end", "watch counter", "break with_local",
        "catch syscall write", *["rc"] * 9,
    )  # fmt: skip
    stops = re.findall(
        r"^(returned|call|Breakpoint|Hardware|No more)|^Catchpoint \d+ \((returned|call)",
        run.text[run.text.index("Catchpoint 6 (syscall") :],
        re.MULTILINE,
    )
    assert ["".join(stop) for stop in stops] == [
        "returned", "call", "Breakpoint", "Hardware", "Breakpoint", "Hardware", "Hardware",
        "Hardware", "No more",
    ], run.text  # fmt: skip


def test_ignore_counts_and_hit_counts(recorded: Replay, in_gdb: Replay) -> None:
    run = in_gdb(
        recorded("list_spoiled"), "continue", "break add", "ignore $bpnum 2", "rc", "print value",
        "python print('LEFT', gdb.breakpoints()[-1].ignore_count)", "rc", "print value",
        "python print('HIT', gdb.breakpoints()[-1].hit_count > 1)", "rc 2", "print $_event",
    )  # fmt: skip
    assert run.values == ["2", "1", "1"], run.text  # 0 was passed over, up to the beginning
    assert "LEFT 0" in run.text and "HIT True" in run.text, run.text
    assert "Will ignore next crossing of breakpoint" in run.text, run.text
    assert END in run.text


def test_a_count_where_no_breakpoint_is(recorded: Replay, in_gdb: Replay) -> None:
    run = in_gdb(recorded("list_spoiled"), "continue", "break add", "rc 3", "print value")
    assert "Not stopped at any breakpoint; argument ignored." in run.text, run.text
    assert run.values == ["4"], run.text


def test_disabled_temporary_and_with_commands(
    recorded: Replay, in_gdb: Replay, tmp_path: Path
) -> None:
    script = tmp_path / "commands.gdb"
    script.write_text(
        "continue\nbreak add\ncommands\nsilent\nprint value + 100\nend\n"
        "rc\nrc\ndisable\ntbreak add if value == 1\nrc\nprint value\nrc\n"
    )
    run = in_gdb(recorded("list_spoiled"), f"source {script}", "info breakpoints")
    assert run.values == ["104", "103", "1"], run.text
    assert run.count(r"^Temporary breakpoint \d+, add \(value=1\)") == 1, run.text
    assert " del " not in run.text and END in run.text, run.text


def test_a_false_condition_in_a_loop_costs_a_halt_each(recorded: Replay, in_gdb: Replay) -> None:
    began = time.monotonic()
    run = in_gdb(
        recorded("going_back"), "sysrift-goto end", "break hot if i == 7", "rc", "print i",
        "delete", "sysrift-goto end", 'break hot if $_streq("a", "b") || i == 19000', "rc",
        "print i", timeout=250,
    )  # fmt: skip
    assert run.values == ["7", "19000"], run.text
    assert time.monotonic() - began < 200


def test_behind_an_execve(recorded: Replay, in_gdb: Replay) -> None:
    recording = recorded("going_back", str(harness.built("list_spoiled")))
    run = in_gdb(
        recording, "break with_local", "sysrift-goto end", "break add if value < 2", "rc",
        "print value", "rc", "print value", "rc", "print n", "rc", "print n", "rc", "continue",
        "continue", "continue", "continue", "print value",
    )  # fmt: skip
    assert run.values == ["1", "0", "1", "2", "0"], run.text
    assert run.text.count(END) == 1, run.text


def test_what_cannot_be_followed(recorded: Replay, in_gdb: Replay) -> None:
    run = in_gdb(
        recorded("watch_me"), "sysrift-goto end", "print $_event", "watch $rax", "rc", "delete",
        "watch watched", "watch untouched", "watch *(char (*)[24]) $rsp", "rc", "print $_event",
    )  # fmt: skip
    assert "is a software watchpoint, which reverse-continue cannot follow" in run.text, run.text
    assert run.values[0] == run.values[-1], run.text


def test_forwards_after_backwards_no_change_is_missed(recorded: Replay, in_gdb: Replay) -> None:
    run = in_gdb(
        recorded("watch_me"), "sysrift-goto end", "watch watched", "rc", "continue", "rc", "rc",
        "rc", "continue",
    )  # fmt: skip
    assert _changes(run.text) == [
        ("7", "0"), ("0", "7"), ("7", "0"), ("0", "100"), ("100", "30"), ("30", "100"),
    ], run.text  # fmt: skip


@pytest.mark.parametrize("player", ["", "never"])
def test_with_the_calls_played_within_the_program(
    recorded: Replay, in_gdb: Replay, player: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SYSRIFT_PLAYER", player)
    recording = recorded("many_calls", "3000")
    run = in_gdb(
        recording, "break main", "continue", "delete", "sysrift-goto end", "break main", "rc",
        "bt 1", "sysrift-goto end", "delete", "catch syscall exit_group", "rc", "rc",
    )  # fmt: skip
    assert run.count(r"^Breakpoint \d+, main \(") == 2, run.text
    assert END in run.text
