# SPDX-License-Identifier: GPL-2.0-or-later
"""Memory in all its corners, looked at in GDB: moved, shared, replaced, run, missing, grown."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from harness import BUILT, FIXTURES

Replay = Callable[..., Any]
SOURCES = FIXTURES / "programs" / "memory"
AT_THE_END = "end of the recording: exited with status 0"


@pytest.fixture
def program(recorded: Replay, in_gdb: Replay, tmp_path: Path) -> Replay:
    """A function that records a small program of the family, and replays it under commands."""

    def both(name: str, *commands: str) -> Any:
        recording = recorded(BUILT / "programs" / "memory" / name, cwd=tmp_path)
        assert recording.returncode == 0, recording
        run = in_gdb(recording, *commands)
        assert "divergence" not in run.text.lower(), run.text
        return run

    return both


def line(name: str, text: str) -> int:
    """The number of the first line of a program that has `text` in it."""
    lines = (SOURCES / f"{name}.c").read_text().splitlines()
    return next(number for number, each in enumerate(lines, 1) if text in each)


def test_breakpoint_after_mremap(program: Replay) -> None:
    run = program(
        "mremap_moves",
        f"break {line('mremap_moves', 'tell(two')}", "continue",
        "print/x *(long *)two@2", "print/x *(long *)(two + 8184)",
        f"break {line('mremap_moves', 'tell(moved')}", "continue",
        "print/x *(long *)moved@2", "print/x *(long *)(moved + 8184)", "print moved == two",
        "print two[0]", "x/2bx moved + 8192", "delete", "continue",
    )  # fmt: skip
    values = run.values
    assert values[0] == values[2] and values[1] == values[3] and values[4] == "0", run.text
    assert values[0] != "{0x0, 0x0}"
    assert "Cannot access memory" in run.text, run.text
    assert run.count(r":\s+0x00\s+0x00$") == 1, run.text
    assert AT_THE_END in run.text


def test_bytes_of_a_shared_mapping(program: Replay) -> None:
    where = line("shared_file_pwrite", "tell(shared + at")
    look = ["continue", "print shared[at] == part[0] && shared[at + 8999] == part[8999]",
            "print at"]  # fmt: skip
    run = program("shared_file_pwrite", f"break {where}", *look * 3, "delete", "continue")
    assert run.values[::2] == ["1", "1", "1"], run.text
    assert len(set(run.values[1::2])) == 3, run.text
    assert AT_THE_END in run.text


def test_two_files_of_one_name_and_back_to_the_start(program: Replay) -> None:
    where = line("memfds_of_one_name", "tell(one")
    look = ["continue", "print i", "print one[i][4096] == two[i][0]", "print one[0][9] != 0",
            "print/x *(long *)one[i] == *(long *)one[1 - i]",
            "print one[i][8192] == word[0]"]  # fmt: skip
    run = program(
        "memfds_of_one_name", f"break {where}", *look * 2, "sysrift-goto start", *look * 2,
        "delete", "continue",
    )  # fmt: skip
    first, second = run.values[:10], run.values[10:]
    assert first == second, run.text
    assert [first[0], first[1], first[3], first[4]] == ["0", "1", "0x0", "1"], run.text
    assert [first[5], first[6], first[8], first[9]] == ["1", "1", "0x0", "1"], run.text
    assert AT_THE_END in run.text


def test_mapping_replaced_in_parts(program: Replay) -> None:
    run = program(
        "map_fixed_over_parts", "break tell",
        "continue", "up", "print *(long *)(area + 8192)", "print *(long *)(area + 4096) != 0",
        "continue", "up", "print *(long *)(area + 12288) != 0", "print *(long *)(area + 8192)",
        "continue", "up", "print *(long *)(area + 16384)", "print *(long *)(area + 12288) != 0",
        "delete", "continue",
    )  # fmt: skip
    assert run.values == ["0", "1", "1", "0", "0", "1"], run.text
    assert AT_THE_END in run.text


@pytest.mark.parametrize(
    ("name", "way"),
    [("jit_toggled", ["tbreak *(long)function", "continue"]),
     # No debugger can write a breakpoint into a shared mapping that is not writable.
     ("jit_mapped_twice", ["stepi 2"])],
)  # fmt: skip
def test_code_made_at_run_time_under_a_backtrace(
    name: str, way: list[str], program: Replay
) -> None:
    run = program(
        name, f"break {line(name, 'CHECK(function() == number)')}",
        "continue", "continue", "continue", "print i", "print number",
        *way, "x/i $pc", "backtrace", "stepi",
        "print (unsigned)$eax", "up", "print (unsigned)$eax == number",
        "delete", "continue",
    )  # fmt: skip
    assert run.values[0] == "2" and run.values[3] == "1", run.text
    assert re.search(rf"=> 0x\w+:\s+mov +\$0x{int(run.values[1]):x},%eax", run.text), run.text
    assert re.search(r"^#0 +0x\w+ in \?\? \(\)$", run.text, re.MULTILINE), run.text
    assert re.search(r"^#1 +0x\w+ in main \(\) at .*\.c:\d+$", run.text, re.MULTILINE), run.text
    assert AT_THE_END in run.text


def test_handled_sigbus_past_the_end_of_a_file(program: Replay) -> None:
    run = program(
        "hole_past_end", "handle SIGBUS SIGSEGV nostop noprint", "break told_fault", "continue",
        "print number", "backtrace", "print told_signal",
        "print (long)info->_sifields._sigfault.si_addr % 4096", "print info->si_code",
        "delete", "continue",
    )  # fmt: skip
    assert run.values[0] == "7", run.text
    assert run.values[2:] == ["0", "2"], run.text
    assert re.search(r"^#\d+ .*fault_of_read \(at=0x", run.text, re.MULTILINE), run.text
    assert re.search(r"^#\d+ .*main \(\)", run.text, re.MULTILINE), run.text
    assert AT_THE_END in run.text


def test_file_cut_while_it_is_mapped(program: Replay) -> None:
    # A debugger's look at what is not there fails; where the file has grown again, there are zeros.
    name = "private_file_cut_and_grown"
    run = program(
        name, "handle SIGBUS SIGSEGV nostop noprint",
        f"break {line(name, 'CHECK(fault_of_read(private + 2 * PAGE) == 0)')}", "continue",
        "print private[5 * 4096]", "print private[100] == shared[100]",
        f"break {line(name, 'fill(shared + 4 * PAGE')}", "continue",
        "print private[5 * 4096]", "print private[100] == shared[100]", "delete", "continue",
    )  # fmt: skip
    assert "Cannot access memory at address" in run.text, run.text
    assert run.values == ["1", "0 '\\000'", "1"], run.text
    assert AT_THE_END in run.text


def test_stack_overflow_handled(program: Replay) -> None:
    run = program(
        "stack_to_the_limit", "handle SIGSEGV nostop noprint", "break told_fault",
        "continue", "print depth", "backtrace 3", "continue", "print depth",
        "delete", "continue",
    )  # fmt: skip
    assert run.values[0] == run.values[1] and int(run.values[0]) > 300, run.text
    assert run.count(r"^#2 .*descend \(above=") == 1, run.text
    assert AT_THE_END in run.text
