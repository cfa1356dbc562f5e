# SPDX-License-Identifier: GPL-2.0-or-later
"""Functions of the program's that the user lets GDB call during a replay, and what stays of them.

The oracle is the recording: it has a checksum of all writable memory at every event, which is
compared when the replay goes on to its end; and the program itself looks at its end.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import harness
import pexpect
import pytest
from gdb_prompt import Prompt
from harness import line_of

from sysrift.trace.reader import Trace

Replay = Callable[..., Any]

COUNTING = f"break diverted.c:{line_of('diverted.c', 'line: counting')}"
COMPUTING = f"break diverted.c:{line_of('diverted.c', 'line: computing')}"
INSIDE = f"break diverted.c:{line_of('diverted.c', 'line: inside')}"
CHECKED = "python import sysrift_gdb.session as s; s.current.engine.check_checksums = True"
TO_THE_END = (
    "delete",
    "continue",
    "python s.current.engine.check_final_memory()",
    "python print('checksums:', s.current.engine.checksums_checked)",
)


@pytest.fixture(scope="module")
def recording(built_fixtures: None, tmp_path_factory: pytest.TempPathFactory) -> harness.Recording:
    """One recording of the fixture serves all tests."""
    made = harness.record(
        [harness.built("diverted")],
        options=["-q", "--checksum=1"],
        trace=tmp_path_factory.mktemp("diverted") / "trace.srl",
    )
    assert made.returncode == 0 and "kept 1 1 1 1" in made.stdout, made
    return made


@pytest.fixture
def diverted(recording: harness.Recording, in_gdb: Replay) -> Replay:
    """A function that replays it under commands, and then to the end, which must be faithful."""

    def replay(*commands: str, **options: Any) -> Any:
        run = in_gdb(recording, CHECKED, *commands, *TO_THE_END, **options)
        faithful(run)
        return run

    return replay


def faithful(run: Any) -> None:
    """The replay has come to the recorded end by the recorded way."""
    for line in run.recording.stdout.splitlines():
        assert line in run.text, run.text
    assert "divergence" not in run.text, run.text
    assert "end of the recording: exited with status 0" in run.text, run.text
    checked = re.search(r"^checksums: (\d+)$", run.text, re.MULTILINE)
    assert checked and int(checked[1]) > 10, run.text


# -- what a called function does is undone --------------------------------------------------------


def test_what_a_called_function_counted_is_gone_with_the_command(diverted: Replay) -> None:
    run = diverted(
        COUNTING, "continue", "print bump()", "print counter", "print add(40)", "call (void)bump()",
        "print counter", "output add(2)", "echo \\n", "print counter",
    )  # fmt: skip
    assert run.values == ["1", "0", "40", "0", "0"] and "\n2\n" in run.text, run.text


def test_a_string_and_a_structure_that_a_called_function_returns(diverted: Replay) -> None:
    run = diverted(
        COUNTING, "continue", "print name()", "print pair()", "print buffer[0]",
        'printf "%s|%d\\n", name(), counter',
    )  # fmt: skip
    assert run.values[0].endswith('"called 1"'), run.text
    assert run.values[1:] == ["{first = 1, second = 2, third = 3, fourth = 4}", "0 '\\000'"]
    assert "called 1|1\n" in run.text  # one command sees what its own function did


def test_gdb_allocates_strings_in_the_program(diverted: Replay) -> None:
    run = diverted(
        COUNTING, "continue", 'print length("abcdef")', 'print $_strlen("four")',
        'print $_streq(name(), "called 1")', "print counter",
    )  # fmt: skip
    assert run.values == ["6", "4", "1", "0"], run.text


def test_memory_of_all_kinds_is_put_back(diverted: Replay) -> None:
    looks = [f"print *{name}" for name in ("large", "readonly", "shared", "block")]
    run = diverted(COUNTING, "continue", "print trample()", *looks, "print trample()")
    assert run.values[0] == run.values[-1] == "77", run.text
    assert [value.split()[0] for value in run.values[1:-1]] == ["7"] * 4, run.text


def test_memory_that_a_called_function_maps_is_gone_afterwards(diverted: Replay) -> None:
    maps = "python print('MAPS', open(f'/proc/{s.current.pid}/maps').read().encode())"
    calls = ["print deep(300)", "print allocate(60)", "print allocate(9)"]
    run = diverted(COUNTING, "continue", maps, *calls, maps)
    assert run.values == ["0", "61", "10"], run.text
    before, after = re.findall(r"^MAPS (.*)$", run.text, re.MULTILINE)
    assert before == after


def test_vector_registers_are_put_back(diverted: Replay) -> None:
    run = diverted(
        COMPUTING, *["continue"] * 5, "print $xmm0.v2_double[0]", "print vectors(2.5)",
        "print $xmm0.v2_double[0]", "print vectors(x)",
    )  # fmt: skip
    assert run.values[0] == run.values[2], run.text
    assert run.values[1] == "302.5"


def test_the_selected_frame_stays_selected(diverted: Replay) -> None:
    run = diverted(COMPUTING, "continue", "up", "print bump()", "print text[0] != 1", "frame")
    assert len(run.values) == 2 and run.count(r"^#1 .* in main ") == 2, run.text


def test_any_number_of_them(diverted: Replay) -> None:
    several = ["continue", "print allocate(3)", "print name()", "print trample()"]
    run = diverted(COUNTING, *several * 5, "delete", COMPUTING, *several * 5)
    assert len(run.values) == 30 and run.values.count("77") == 10, run.text


def test_expressions_that_a_script_evaluates(diverted: Replay) -> None:
    script = "python print('is', int(gdb.parse_and_eval('add(3)')))"
    run = diverted(COUNTING, "continue", script, "print counter", script, "print counter")
    assert run.text.count("is 3\n") == 2 and run.values == ["0", "0"], run.text


def test_gdb_ends_well_right_after_one(recording: harness.Recording, in_gdb: Replay) -> None:
    run = in_gdb(recording, COUNTING, "continue", "print bump() + bump()")
    assert run.values == ["3"] and "Fatal signal" not in run.text, run.text


def test_without_putting_things_back_the_divergence_is_found(
    recording: harness.Recording, in_gdb: Replay
) -> None:
    spoil = "python import sysrift.replay.saved as saved; saved.Saved.put_back = lambda self: False"
    commands = [COUNTING, "continue", "print bump()", "print counter", "delete", "continue"]
    run = in_gdb(recording, CHECKED, spoil, *commands)
    assert run.values == ["1", "1"], run.text
    assert "divergence at event" in run.text, run.text


# -- system calls ---------------------------------------------------------------------------------


def test_what_a_called_function_writes_is_shown(diverted: Replay) -> None:
    run = diverted(
        COUNTING, "continue", 'print say("well, well\\n")', "print say_by_stdio(42)",
    )  # fmt: skip
    shown = r"^well, well\n\$1 = 11\nnumber 42\n\$2 = 10$"
    assert re.search(shown, run.text, re.MULTILINE), run.text


def test_a_called_function_touches_nothing_outside(diverted: Replay, tmp_path: Path) -> None:
    there, not_there = tmp_path / "there", tmp_path / "not there"
    there.write_text("still")
    run = diverted(
        COUNTING, "continue", f'print open_a_file("{not_there}")',
        f'print remove_a_file("{there}")', "print fork_one()", "print counter",
        f'print open_a_file("{there}")',
    )  # fmt: skip
    assert run.values == ["-38", "-38", "-38", "0", "-38"], run.text
    for name in ("openat", "unlink", "clone"):
        assert f"gets ENOSYS for {name}: " in run.text, run.text
    assert there.read_text() == "still" and not not_there.exists()


def test_a_called_function_is_told_the_recorded_process(diverted: Replay) -> None:
    run = diverted(COUNTING, "continue", "print who()")
    with Trace(run.recording.trace) as trace:
        assert run.values == [str(trace.process.pid)], run.text


# -- functions that do not come back --------------------------------------------------------------


def test_a_called_function_that_crashes(diverted: Replay) -> None:
    run = diverted(
        COUNTING, "continue", "print crash()", "print counter", "backtrace 1", "continue",
        "print counter", "backtrace 1", "print bump()",
    )  # fmt: skip
    assert "the function called from GDB has got SIGSEGV" in run.text
    assert "back from the function called from GDB" in run.text
    assert run.values == ["1", "0", "1"], run.text
    assert re.findall(r"^#0  (\w+) \(", run.text, re.MULTILINE) == ["crash", "main"], run.text


@pytest.mark.parametrize("by", ["next", "sysrift-restore", "finish", "stepi"])
def test_leaving_a_crashed_function(diverted: Replay, by: str) -> None:
    run = diverted(
        COUNTING, "continue", "print crash()", by, "print counter", "info source", "frame",
        "maint info breakpoints",
    )  # fmt: skip
    assert run.values == ["0"], run.text
    line = line_of("diverted.c", "line: counting")
    assert f"main () at diverted.c:{line}\n" in run.text[run.text.index("$1 = ") :], run.text
    assert "call dummy" not in run.text


def test_going_elsewhere_from_a_crashed_function(diverted: Replay) -> None:
    run = diverted(
        COUNTING, "continue", "continue", "print crash()", "sysrift-goto 20", "sysrift-back",
        "print counter", "print crash()", "reverse-stepi", "print counter", "print $pc != &crash",
    )  # fmt: skip
    assert run.values == ["1", "1", "1"], run.text


@pytest.mark.parametrize(
    ("function", "how"),
    [
        ("leave(3)", "would have ended the program, by exit(3)"),
        ("jump_away()", "would have ended the program, by exit(9)"),
        ("give_up()", "has got SIGABRT"),
    ],
)
def test_a_called_function_that_would_end_the_program(
    diverted: Replay, function: str, how: str
) -> None:
    run = diverted(
        COUNTING, "continue", f"print {function}", "print counter", "next", "print counter",
        "delete", "next", "print counter",
    )  # fmt: skip
    assert f"the function called from GDB {how}" in run.text, run.text
    assert run.values == ["1", "0", "1"], run.text


def test_unwindonsignal(diverted: Replay) -> None:
    run = diverted(
        "set unwindonsignal on", COUNTING, "continue", "print crash()", "print counter",
        "backtrace 1",
    )  # fmt: skip
    assert run.values == ["0"] and run.count(r"^#0  main ") == 1, run.text


# -- looking into a called function ---------------------------------------------------------------


@pytest.mark.parametrize("by", [["finish"], ["continue"], ["next"] * 4], ids=" ".join)
def test_a_breakpoint_in_a_called_function(diverted: Replay, by: list[str]) -> None:
    run = diverted(
        COUNTING, INSIDE, "continue", "print step_by_step(5)", "next", "print counter",
        "print bump()", "print counter", *by, "print counter", "backtrace 1",
    )  # fmt: skip
    assert run.text.count("this is in a function called from GDB") == 1, run.text
    assert run.values[:3] == ["5", "6", "6"] and run.values[-1] == "0", run.text
    assert re.search(r"^#0  main ", run.text, re.MULTILINE), run.text


def test_stepping_by_instructions_over_its_system_calls(diverted: Replay) -> None:
    steps = ["stepi", "print $rax == -38"] * 6
    run = diverted(
        COUNTING, INSIDE, "continue", "print step_by_step(5)", "break getppid", "continue", *steps,
        "finish", "finish", "print counter",
    )  # fmt: skip
    assert run.values.count("1") >= 1 and run.values[-1] == "0", run.text


def test_a_caught_system_call_is_still_to_come(diverted: Replay) -> None:
    run = diverted(
        "catch syscall getppid", "continue", "print bump()", "print name()", "print counter",
        "sysrift-when", "continue", "continue", "print $rax", "sysrift-when",
    )  # fmt: skip
    assert run.values[0] == "1" and run.values[2] == "0", run.text
    calls = [event for event in run.events() if event["name"] == "getppid"]
    assert run.values[3] == str(calls[0]["result"]), run.text
    whens = re.findall(r"before event (\d+) of", run.text)
    assert [int(when) - calls[0]["number"] for when in whens] == [0, 1], run.text


# -- conditions -----------------------------------------------------------------------------------


def test_a_breakpoint_whose_condition_calls_a_function(diverted: Replay) -> None:
    run = diverted(
        f"{COUNTING} if bump() == 4", "continue", "print counter", "delete",
        f"{COMPUTING} if add(i) == 1005", "continue", "print i", "print counter",
    )  # fmt: skip
    assert run.values == ["3", "1000", "5"], run.text


def test_a_watchpoint_whose_condition_calls_a_function(diverted: Replay) -> None:
    watch = 'watch counter if length("abc") == counter'
    run = diverted("break main", "continue", watch, "continue", "print counter")
    assert run.values == ["3"], run.text


def test_a_catchpoint_whose_condition_calls_a_function(diverted: Replay) -> None:
    # GDB 13 itself fails where one is true.
    run = diverted("catch syscall getppid", "condition 4 bump() == 100", "continue")
    assert "call to syscall getppid" not in run.text, run.text


def test_a_condition_with_a_string_for_the_function(diverted: Replay) -> None:
    run = diverted(f'{COMPUTING} if length("abcde") == i', "continue", "print i")
    assert run.values == ["5"], run.text


# -- at the end of a recording --------------------------------------------------------------------


@pytest.mark.parametrize("program", ["ends_abort", "ends_segv", "ends_fpe", "linked_list_crash"])
def test_calling_functions_where_the_program_has_ended(replayed: Replay, program: str) -> None:
    calls = ['print (int)strlen("abcd")', "print (long)malloc(200000) != 0"]
    run = replayed(program, "continue", "backtrace", *calls, "backtrace", "continue", "backtrace")
    assert run.values == ["4", "1"], run.text
    traces = re.findall(r"^#0 .*(?:\n#.*)*", run.text, re.MULTILINE)[-3:]
    assert traces[0] == traces[1] == traces[2], run.text
    assert "divergence" not in run.text, run.text


# -- at a terminal --------------------------------------------------------------------------------


def test_ctrl_c_in_a_called_function_that_loops(prompt: Prompt) -> None:
    prompt.do(COUNTING)
    prompt.do("continue")
    prompt.gdb.sendline("print loop()")
    with pytest.raises(pexpect.TIMEOUT):
        prompt.gdb.expect_exact("(gdb) ", timeout=0.7)
    prompt.gdb.sendintr()
    assert "this is in a function called from GDB" in prompt.wait()
    assert "loop ()" in prompt.do("backtrace 1")
    assert " = 1" in prompt.do("print counter != 0")
    assert "main ()" in prompt.do("sysrift-restore")
    assert " = 0" in prompt.do("print counter")
    prompt.ask("delete")
    assert "exited with status 0" in prompt.do("continue")


def test_the_prompt_shows_a_called_function(prompt: Prompt) -> None:
    prompt.do("set sysrift prompt on")
    for command in (COUNTING, INSIDE, "continue"):
        prompt.do(command)
    prompt.gdb.sendline("print step_by_step(1)")
    prompt.gdb.expect(r"\[\d+ called\] \(gdb\) ")
    prompt.gdb.sendline("finish")
    prompt.gdb.expect(r"\[\d+\] \(gdb\) ")
