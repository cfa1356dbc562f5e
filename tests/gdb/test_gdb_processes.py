# SPDX-License-Identifier: GPL-2.0-or-later
"""Any process of a recorded tree is debugged in GDB: forked, executed, or lent its memory."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from harness import FIXTURES, Recording, built, line_of, record, sysrift

InGdb = Callable[..., Any]
PROCESSES = "programs/processes"


def recorded(name: str) -> Recording:
    recording = record([built(f"programs/{name}")], options=["-q"])
    assert recording.returncode == 0, recording
    return recording


def pids_of(recording: Recording) -> list[int]:
    done = sysrift("ps", "--json", recording.trace)
    return [each["pid"] for each in json.loads(done.stdout)]


def events_of(recording: Recording, pid: int) -> list[dict[str, Any]]:
    done = sysrift("dump", "--json", "--process", str(pid), recording.trace)
    assert done.returncode == 0, done
    return [each for each in map(json.loads, done.stdout.splitlines()) if "number" in each]


def place(recording: Recording, pid: int) -> str:
    """The command that opens one process of a recording."""
    return f"sysrift-replay --process {pid} {recording.trace}"


def test_crash_of_a_forked_child(built_fixtures: None, in_gdb: InGdb) -> None:
    # Without a word about processes, the one that crashed is replayed, from its birth on.
    recording = recorded("processes/child_segfault")
    child = pids_of(recording)[1]
    run = in_gdb(
        recording, "print (long)nowhere", "break deep", "continue", "print depth", "backtrace",
        "delete", "continue", "print depth", "backtrace", "print *nowhere", "continue",
        "sysrift-when",
    )  # fmt: skip
    assert f"process {child} of 2" in run.text, run.text
    assert run.values[:3] == ["0", "5", "0"], run.text
    assert re.search(r"^Breakpoint \d+, deep \(depth=5\)", run.text, re.MULTILINE), run.text
    assert "Program received signal SIGSEGV" in run.text
    line = line_of(f"../fixtures/{PROCESSES}/child_segfault.c", "the crash")
    assert re.search(rf"^{line}\t.*the crash", run.text, re.MULTILINE), run.text
    frames = re.findall(r"^#\d+ +(?:0x\S+ in )?(\w+) \(", run.text, re.MULTILINE)
    assert frames[-7:] == ["deep"] * 6 + ["main"], run.text
    assert "Cannot access memory" in run.text
    assert "exited" not in run.text.partition("Program received")[2]


def test_child_sees_what_it_saw_and_its_parent_what_that_saw(
    built_fixtures: None, in_gdb: InGdb
) -> None:
    recording = recorded("processes/pids_printed")
    parent, *children = pids_of(recording)
    in_child = in_gdb(
        recording, place(recording, children[2]), "break _exit", "continue", "up", "print i",
        "print child",
    )  # fmt: skip
    assert in_child.values == ["2", "0"], in_child.text
    assert f"{children[2]}<{parent} " in in_child.text
    assert f"{children[1]}<" not in in_child.text.partition("_exit")[2]
    line = _line(f"{PROCESSES}/pids_printed.c", "sum = sum * 31")
    in_parent = in_gdb(
        recording, place(recording, parent), f"break {line}", *["continue", "print child"] * 5
    )
    assert in_parent.values == [str(pid) for pid in children], in_parent.text


def _line(source: str, text: str) -> int:
    lines = (FIXTURES / source).read_text().splitlines()
    return next(number for number, line in enumerate(lines, 1) if text in line)


def test_executed_child_from_its_own_image(built_fixtures: None, in_gdb: InGdb) -> None:
    recording = recorded("exec/time_after")
    parent, child = pids_of(recording)
    run = in_gdb(
        recording, place(recording, child), "info proc", "break main", "continue", "print argc",
        "print argv[0]", "next", "next", "finish", "sysrift-when",
    )  # fmt: skip
    assert f"process {child} of 2" in run.text
    assert run.values[0] == "2" and '"again"' in run.values[1], run.text
    first = in_gdb(recording, place(recording, parent), "break main", "continue", "print argc")
    assert first.values == ["1"], first.text


def test_goto_the_parents_history_and_back(built_fixtures: None, in_gdb: InGdb) -> None:
    recording = recorded("processes/fork_twins")
    parent, child = pids_of(recording)
    birth = next(e["number"] for e in events_of(recording, child))
    history = events_of(recording, parent)
    random = max(
        e["number"]
        for e in history
        if e["number"] < birth and e.get("call", "").startswith("getrandom")
    )
    last = events_of(recording, child)[-1]["number"]
    run = in_gdb(
        recording, place(recording, child), "sysrift-when", f"sysrift-goto {random}", "backtrace",
        "sysrift-when", f"sysrift-goto {last}", "backtrace", f"sysrift-goto {birth}",
        "sysrift-when", "break _exit", "continue", "up", "print mine == before",
        "sysrift-goto start", "sysrift-when",
    )  # fmt: skip
    assert run.count(rf"event {random}\b") >= 1, run.text
    assert "in unforeseeable ()" in run.text
    assert re.search(r"^#0 .*_exit \(", run.text, re.MULTILINE), run.text
    assert run.values == ["0"], run.text
    assert run.count(rf"event {birth + 1}\b") >= 2, run.text


def test_vfork_parent_across_the_vfork(built_fixtures: None, in_gdb: InGdb) -> None:
    recording = recorded("processes/vfork_writes")
    parent = pids_of(recording)[0]
    line = _line(f"{PROCESSES}/vfork_writes.c", "CHECK(global == secret &&")
    run = in_gdb(
        recording, place(recording, parent), "break main", "continue", "print global",
        f"break {line}", "continue", "print global == secret && secret != 0",
        "print local == secret + 1", "print (char)secret == page[4096]", "print page[4095]",
        "next", "print $_siginfo.si_signo", "continue",
    )  # fmt: skip
    assert run.values[0] == "0"
    assert run.values[1:4] == ["1", "1", "1"], run.text
    assert "the child has been here" in run.text
    assert "status 0" in run.text


def test_vfork_child(built_fixtures: None, in_gdb: InGdb) -> None:
    recording = recorded("processes/vfork_writes")
    child = pids_of(recording)[1]
    run = in_gdb(
        recording, place(recording, child), "break _exit", "continue", "up",
        "print global == secret && secret != 0", "print child",
    )  # fmt: skip
    assert run.values == ["1", "0"], run.text


def test_vfork_parent_whose_child_mapped_memory(built_fixtures: None, in_gdb: InGdb) -> None:
    recording = recorded("processes/vfork_maps")
    parent = pids_of(recording)[0]
    run = in_gdb(
        recording, place(recording, parent), "break reap", "continue", "continue",
        "up", "print top == heap", "print (int)top[100]", "print fresh[4096] != 0",
    )  # fmt: skip
    assert "mapped some of it anew" in run.text, run.text
    assert "became" not in run.text
    assert run.values == ["1", "7", "1"], run.text


def test_child_that_began_with_other_memory(built_fixtures: None, in_gdb: InGdb) -> None:
    recording = recorded("processes/memory_advice")
    child = pids_of(recording)[1]
    run = in_gdb(
        recording, place(recording, child), "up 3", "sysrift-when", "break _exit", "continue",
        "up", "print wiped[4095]", "print (int)wiped[4096]", "print (int)gone[1]",
    )  # fmt: skip
    assert run.values == ["119 'w'", "0", "0"], run.text


def test_list_processes_and_switch_between_them(built_fixtures: None, in_gdb: InGdb) -> None:
    recording = recorded("processes/child_segfault")
    parent, child = pids_of(recording)
    run = in_gdb(
        recording, "sysrift-ps", f"sysrift-replay --process {parent}", "sysrift-ps",
        "sysrift-replay --process 99999999", "sysrift-info", f"sysrift-replay --process {child}",
        "continue", "print depth", f"sysrift-replay --process {parent}", "break reap", "continue",
        "print child", "finish",
    )  # fmt: skip
    assert run.count(rf"^=> +{child} ") == 1 and run.count(rf"^=> +{parent} ") == 1, run.text
    assert run.count(rf"^ +{parent} +\d+ events, exited with status 0") == 1
    assert "no process 99999999 was recorded" in run.text
    assert "Program received signal SIGSEGV" in run.text
    assert run.values[:2] == ["0", str(child)], run.text
    assert run.count(r"^Value returned is \$\d+ = (139|11)$") == 1, run.text


@pytest.mark.parametrize("named", ["cat", "sort"])
def test_process_by_name_in_gdb(named: str, in_gdb: InGdb, tmp_path: Path) -> None:
    recording = record(["sh", "-c", "echo word | cat | sort"], options=["-q"])
    run = in_gdb(
        recording, f"sysrift-replay --process {named} {recording.trace}", "catch syscall write",
        "continue", "sysrift-events --name write", "delete", "continue",
    )  # fmt: skip
    assert 'write(1, "word\\n"' in run.text, run.text
    assert "exited with status 0" in run.text
