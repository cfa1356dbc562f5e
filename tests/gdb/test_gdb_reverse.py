# SPDX-License-Identifier: GPL-2.0-or-later
"""Going back in a real GDB: the same places as going forward, the other way round."""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import harness
import pytest

Replay = Callable[..., Any]

WHERE = r'printf "\nAT %#lx %#lx %d\n", $pc, $sp, $_event'


def _walked(text: str) -> list[str]:
    return re.findall(r"^AT .*$", text, re.MULTILINE)


def _there_and_back(forwards: str, backwards: str, count: int, where: str = WHERE) -> list[str]:
    commands = [where]
    for command in [forwards] * count + [backwards] * count:
        commands += [command, where]
    return commands


@pytest.mark.parametrize(
    ("program", "start", "count"),
    [
        ("list_spoiled", "tbreak spoil", 60),
        ("handlers", "tbreak main", 60),
        ("deep", "tbreak main", 60),
        ("many_calls", "tbreak main", 40),
    ],
)
def test_instructions_are_the_same_backwards(
    recorded: Replay, in_gdb: Replay, program: str, start: str, count: int
) -> None:
    arguments = ["20"] if program == "many_calls" else []
    run = in_gdb(
        recorded(program, *arguments), start, "continue",
        *_there_and_back("stepi", "reverse-stepi", count), timeout=200,
    )  # fmt: skip
    walk = _walked(run.text)
    assert len(walk) == 2 * count + 1, run.text
    assert walk == walk[::-1], run.text
    assert len(set(walk)) > count / 2


def test_back_through_a_signal_handler(recorded: Replay, in_gdb: Replay) -> None:
    recording = recorded("handlers")
    signals = [e["number"] for e in in_gdb(recording).events() if e["kind"] == "signal"]
    run = in_gdb(
        recording, f"sysrift-goto {signals[0] - 1}",
        *_there_and_back("stepi", "reverse-stepi", 30), timeout=200,
    )  # fmt: skip
    walk = _walked(run.text)
    assert walk == walk[::-1], run.text


def test_lines_are_the_same_backwards(recorded: Replay, in_gdb: Replay) -> None:
    where = r'printf "\nAT %d %d\n", total, $_event'
    run = in_gdb(
        recorded("list_spoiled"), "tbreak main", "continue",
        *_there_and_back("next", "reverse-next", 22, where), timeout=200,
    )  # fmt: skip
    walk = _walked(run.text)
    lines = re.findall(r"^(\d+)\t", run.text, re.MULTILINE)
    assert len(walk) == 45 and walk == walk[::-1], run.text
    assert len(lines) >= 45, run.text
    assert lines[:45] == lines[:45][::-1], run.text


@pytest.mark.both_gdbs
def test_into_functions_and_out_of_them(recorded: Replay, in_gdb: Replay) -> None:
    run = in_gdb(
        recorded("list_spoiled"), "tbreak spoil", "continue", "finish",
        "reverse-step", "info symbol $pc", "reverse-finish", "info symbol $pc", "reverse-step",
        "reverse-nexti 2", "info symbol $pc",
    )  # fmt: skip
    symbols = re.findall(r"^(\w+)(?: \+ \d+)? in section", run.text, re.MULTILINE)
    assert symbols[:2] == ["spoil", "main"] and symbols[2] != "spoil", run.text


@pytest.mark.both_gdbs
def test_to_breakpoints_and_their_conditions(recorded: Replay, in_gdb: Replay) -> None:
    recording = recorded("list_spoiled")
    run = in_gdb(
        recording, "break add", "continue", "continue", "continue", "continue", "continue",
        "continue", "rc", "print value", "rc", "print value", "rc 1", "delete",
        "break add if value == 1", "rc", "print value", "rc",
    )  # fmt: skip
    assert run.values == ["4", "3", "1"], run.text
    assert "No more reverse-execution history." in run.text
    assert run.count(r"^Breakpoint \d+, add \(value=4\) at .*list_spoiled\.c:\d+$") == 2, run.text


def test_a_breakpoint_on_a_system_call_instruction(recorded: Replay, in_gdb: Replay) -> None:
    recording = recorded("list_spoiled")
    calls = [e for e in in_gdb(recording).events() if e["name"] == "getppid"]
    run = in_gdb(
        recording, f"break *{calls[0]['site']}", "sysrift-goto end", *["rc", "print $_event"] * 4
    )
    assert run.values == [str(call["number"]) for call in reversed(calls)][:4], run.text


def test_behind_an_execve_the_program_before_is_no_history(
    recorded: Replay, in_gdb: Replay
) -> None:
    recording = recorded(Path("/usr/bin/env"), harness.built("list_spoiled"))
    run = in_gdb(
        recording, "sysrift-goto end", "break add", "rc", "print value", "rc", "print value",
        "delete", "break main", "rc", "rc",
    )  # fmt: skip
    assert run.values == ["4", "3"], run.text
    assert run.count(r"^Breakpoint \d+, main \(\) at") == 1, run.text
    assert run.count("No more reverse-execution history") == 1, run.text


@pytest.mark.both_gdbs
def test_who_spoiled_the_list(recorded: Replay, in_gdb: Replay) -> None:
    run = in_gdb(
        recorded("list_spoiled"), "continue", "print/x $pc", "sysrift-last-write head->next->next",
        "print head->next->next->value", "sysrift-back", "print/x $pc", "sysrift-who total",
    )  # fmt: skip
    assert run.count(r"^#0  spoil \(\) at ") >= 1, run.text
    assert "total += 7" in run.text
    assert run.values[0] == run.values[2] and run.values[1] == "2", run.text


def test_a_system_call_wrote_it(recorded: Replay, in_gdb: Replay, tmp_path: Path) -> None:
    source = tmp_path / "reads.c"
    source.write_text(
        "#include <unistd.h>\n#include <fcntl.h>\nchar got[16];\nint main(void)\n{\n"
        '    int fd = open("/etc/passwd", O_RDONLY);\n    read(fd, got, 8);\n'
        "    for (int i = 0; i < 5; i++) getppid();\n    return got[0] == 0;\n}\n"
    )
    program = tmp_path / "reads"
    assert harness.run(["cc", "-g", "-o", program, source]).returncode == 0
    run = in_gdb(
        recorded(program), "break 9", "continue", "sysrift-last-write got", "print got[0]",
        "next", "print got[0] != 0",
    )  # fmt: skip
    assert run.count(r"got was changed by event \d+:") == 1, run.text
    assert re.search(r"^ +\d+ .*read\(3, .*= 8$", run.text, re.MULTILINE), run.text
    assert run.values[0] == r"0 '\000'", run.text


@pytest.mark.parametrize(
    ("expression", "said"),
    [
        ("", "takes an expression that lies in memory"),
        ("1 + 2", "does not lie in memory"),
        ("$rip", "does not lie in memory"),
        ("*(int *) 8", "there is no memory at 0x8"),
        ("nonsense", "No symbol"),
    ],
)
def test_what_is_no_memory(recorded: Replay, in_gdb: Replay, expression: str, said: str) -> None:
    run = in_gdb(recorded("list_spoiled"), "continue", f"sysrift-last-write {expression}")
    assert said in run.text, run.text


def test_before_the_start_and_bad_counts(recorded: Replay, in_gdb: Replay) -> None:
    recording = recorded("list_spoiled")
    for command in ("reverse-stepi", "reverse-step", "reverse-next", "reverse-continue"):
        run = in_gdb(recording, command, "print $_event")
        assert "No more reverse-execution history." in run.text, run.text
        assert run.values == ["1"], run.text
    run = in_gdb(recording, "reverse-stepi often")
    assert "is no count" in run.text


def test_a_long_computation_is_refused_plainly(recorded: Replay, in_gdb: Replay) -> None:
    run = in_gdb(recorded("spin_signals-O2"), "sysrift-goto end", "print $_event", "reverse-stepi",
                 "print $_event", timeout=200)  # fmt: skip
    assert run.values[0] == run.values[1], run.text


def test_gdbs_own_recording_works_as_before(built_fixtures: None) -> None:
    program = harness.built("list_spoiled")
    commands = [
        f"file {program}", "break spoil", "run", "record", "next", "stepi", "print $pc", "stepi",
        "reverse-stepi", "print $pc", "delete", "reverse-continue",
    ]  # fmt: skip
    text = harness.gdb_batch(commands, None)
    values = re.findall(r"^\$\d+ = (.*)$", text, re.MULTILINE)
    assert len(values) == 2 and values[0] == values[1], text
    assert "SysRift:" not in text and "o more reverse-execution history" in text, text


def test_random_walks(recorded: Replay, in_gdb: Replay) -> None:
    choose = random.Random(7)
    commands, depth = ["tbreak spoil", "continue", WHERE], 0
    places = {0: 0}
    for at in range(1, 40):
        if depth and choose.random() < 0.5:
            count = choose.randint(1, depth)
            commands.append(f"reverse-stepi {count}")
            depth -= count
        else:
            count = choose.randint(1, 9)
            commands.append(f"stepi {count}")
            depth += count
        commands.append(WHERE)
        places[at] = depth
    run = in_gdb(recorded("list_spoiled"), *commands, timeout=200)
    walk = _walked(run.text)
    assert len(walk) == 40, run.text
    seen: dict[int, str] = {}
    for at, where in enumerate(walk):
        assert seen.setdefault(places[at], where) == where, run.text
