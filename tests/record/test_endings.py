# SPDX-License-Identifier: GPL-2.0-or-later
"""However a program ends, the recorder ends the same way and the trace says and replays it."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from harness import Recording, assert_faithful, gdb_batch, line_of, record, sysrift, wait_until

Fixture = Callable[[str], Path]

ENDINGS = {
    "ends_segv": (128 + 11, "SIGSEGV"),
    "ends_segv-O2": (128 + 11, "SIGSEGV"),
    "ends_segv-static": (128 + 11, "SIGSEGV"),
    "ends_abort": (128 + 6, "SIGABRT"),
    "ends_fpe": (128 + 8, "SIGFPE"),
    "ends_ill": (128 + 4, "SIGILL"),
    "ends_bus": (128 + 7, "SIGBUS"),
    "ends_sigkill_self": (128 + 9, "SIGKILL"),
    "ends_sigterm_self": (128 + 15, "SIGTERM"),
    "linked_list_crash": (128 + 11, "SIGSEGV"),
    "ends_exit_open_files": (3, "3"),
    "ends_return42": (42, "42"),
}


def recorded(argv: list[str | Path]) -> Recording:
    """Record a program (with a summary) and verify its trace."""
    recording = record(argv, options=["--checksum"])
    assert_faithful(recording.trace)
    return recording


@pytest.mark.parametrize("name", ENDINGS)
def test_ending_is_kept_told_and_replayed(name: str, fixture_program: Fixture) -> None:
    status, word = ENDINGS[name]
    plain = subprocess.run([fixture_program(name)], capture_output=True, text=True)
    recording = recorded([fixture_program(name)])
    assert recording.returncode == status, recording
    # A plain run's status is the signal's, negative; the recorder ends as a shell would.
    assert plain.returncode in (status, 128 - status)
    assert recording.stdout == plain.stdout
    summary = recording.stderr.splitlines()[-1]
    assert re.search(rf"\b{word}\b", summary), recording
    info = sysrift("info", recording.trace)
    assert info.returncode == 0
    assert re.search(rf"\b{word}\b", info.stdout), info


def test_text_of_a_failed_assertion_reaches_stderr(fixture_program: Fixture) -> None:
    recording = recorded([fixture_program("ends_abort")])
    assert "Assertion `rest >= 0' failed." in recording.stderr


def test_last_words_of_exit_handlers_are_recorded(fixture_program: Fixture) -> None:
    recording = recorded([fixture_program("ends_exit_open_files")])
    assert recording.stdout == "20 files open\nhandler\nlast words\n"
    dump = sysrift("dump", recording.trace)
    assert "last words" in dump.stdout
    assert re.search(r"exit_group\(3\)[^\n]*\n *\+\+\+ exited with 3 \+\+\+\n\Z", dump.stdout), dump


@pytest.mark.parametrize(
    ("name", "wanted", "function"),
    [
        ("ends_segv", "SIGSEGV", "store"),
        ("ends_segv-static", "SIGSEGV", "store"),
        ("ends_bus", "SIGBUS", "main"),
        ("ends_ill", "SIGILL", "main"),
        ("linked_list_crash", "SIGSEGV", "longest_name"),
    ],
)
def test_gdb_stops_on_the_line_of_the_crash(
    name: str, wanted: str, function: str, fixture_program: Fixture
) -> None:
    source = f"{name.partition('-')[0]}.c"
    trace = recorded([fixture_program(name)]).trace
    output = gdb_batch(["continue", "frame", "info program"], trace)
    assert wanted in output, output
    assert re.search(rf"#0 .*{function} \(.*{source}:{line_of(source, 'the crash')}\b", output), (
        output
    )


def test_gdb_shows_the_frames_of_a_failed_assertion(fixture_program: Fixture) -> None:
    trace = recorded([fixture_program("ends_abort")]).trace
    output = gdb_batch(
        ["continue", "backtrace", "frame function balance", "info locals", "info args"], trace
    )
    assert "SIGABRT" in output, output
    assert "in balance (income=10, expenses=14)" in output
    assert "rest = -4" in output


def test_division_by_zero_shows_its_divisor(fixture_program: Fixture) -> None:
    trace = recorded([fixture_program("ends_fpe")]).trace
    output = gdb_batch(["continue", "print count", "print sum"], trace)
    assert "SIGFPE" in output, output
    assert "$1 = 0" in output
    assert "$2 = 0" in output


def test_end_without_a_crash_stays_inspectable(fixture_program: Fixture) -> None:
    trace = recorded([fixture_program("ends_return42")]).trace
    output = gdb_batch(["continue", "info registers rip rdi", "continue", "print $rdi"], trace)
    assert "$1 = 42" in output, output


WAITER = """
open(my $file, '>', "$ARGV[0].pid"); print $file $$; close $file;
rename "$ARGV[0].pid", "$ARGV[0].ready";
open(my $fifo, '<', $ARGV[0]);
"""


def test_program_killed_by_another_process(tmp_path: Path) -> None:
    fifo, ready = tmp_path / "fifo", tmp_path / "fifo.ready"
    os.mkfifo(fifo)

    def kill_it() -> None:
        pid = int(wait_until(lambda: ready.exists() and ready.read_text()))
        time.sleep(0.3)  # for it to block in its open
        os.kill(pid, signal.SIGTERM)

    killer = threading.Thread(target=kill_it)
    killer.start()
    recording = record(["perl", "-e", WAITER, fifo], options=[])
    killer.join()
    assert recording.returncode == 128 + 15, recording
    assert "SIGTERM" in recording.stderr
    assert_faithful(recording.trace)


def test_crash_of_the_demonstration_is_caught_within_40_runs(
    fixture_program: Fixture, tmp_path: Path
) -> None:
    program = fixture_program("flaky")
    for _ in range(40):
        recording = record([program, tmp_path / "none.conf"], options=["-q"])
        if recording.returncode != 0:
            break
        recording.trace.unlink()
    assert recording.returncode == 128 + 11, recording
    assert_faithful(recording.trace)
    failed = sysrift("dump", recording.trace)
    assert re.search(r"openat\(.*none\.conf.*ENOENT", failed.stdout), failed.stdout[-3000:]
    # Three replays show the very same customer, whom no second run of the program would meet.
    commands = ["continue", "print *customer", "print config", "print cents", "backtrace"]
    outputs = [gdb_batch(commands, recording.trace) for _ in range(3)]
    assert outputs[0] == outputs[1] == outputs[2]
    number = recording.stdout.split()[1].lstrip("0")
    assert "is_member = 1" in outputs[0], outputs[0]
    assert f"id = {int(number, 16)}" in outputs[0]
    assert "$2 = (const struct config *) 0x0" in outputs[0]
