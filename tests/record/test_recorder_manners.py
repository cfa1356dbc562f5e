# SPDX-License-Identifier: GPL-2.0-or-later
"""The recorder stays out of the way: terminal, input, directory, environment, status, files."""

from __future__ import annotations

import os
import re
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pexpect
import pytest
from harness import (
    assert_faithful,
    assert_no_traceback,
    assert_one_line_error,
    command,
    descendants,
    record,
    run,
    sysrift,
    wait_until,
)

Fixture = Callable[[str], Path]


# -- what the program keeps -----------------------------------------------------------------------


def test_standard_streams_are_the_programs_own(tmp_path: Path) -> None:
    script = "read a; echo out:$a; echo err:$a >&2; exit 5"
    recording = record(["bash", "-c", script], stdin="hello\nleft\n")
    assert recording.returncode == 5
    assert recording.stdout == "out:hello\n"
    assert recording.stderr == "err:hello\n"


def test_input_beyond_what_the_program_reads_is_left(tmp_path: Path) -> None:
    # A recorder that read ahead would take the second program's lines away.
    source = tmp_path / "lines"
    source.write_text("one\ntwo\n")
    script = (
        f"{command('sysrift-record')} -q -o {tmp_path}/a.srl -- bash -c 'read l; echo got $l'; "
        "read l; echo left $l"
    )
    with open(source) as lines:
        done = subprocess.run(
            ["bash", "-c", script], stdin=lines, capture_output=True, text=True, timeout=60
        )
    assert done.stdout == "got one\nleft two\n"


def test_closed_streams_stay_closed(tmp_path: Path) -> None:
    look = "for f in 0 1 2; do [ -e /proc/$$/fd/$f ] && echo open $f >&2; done; exit 4"
    inner = f"{command('sysrift-record')} -q -o {tmp_path}/a.srl -- bash --norc -c '{look}'"
    done = run(["bash", "-c", f"{inner} <&- >&-"])
    assert (done.returncode, done.stderr) == (4, "open 2\n"), done


def test_no_descriptor_of_the_recorder_leaks_into_the_program() -> None:
    listing = 'opendir(my $d, "/proc/self/fd"); print join(",", sort grep /^\\d/, readdir $d)'
    plain = run(["perl", "-e", listing])
    assert record(["perl", "-e", listing]).stdout == plain.stdout


def test_signal_dispositions_and_mask_are_the_shells() -> None:
    script = "grep -E '^Sig(Blk|Ign|Cgt)' /proc/self/status"
    argv = ["bash", "-c", f"exec {script}"]
    ignoring = ["bash", "-c", f"trap '' USR2; exec {script}"]
    assert record(argv).stdout == run(argv).stdout
    assert record(ignoring).stdout == run(ignoring).stdout


def test_working_directory_and_environment(tmp_path: Path) -> None:
    directory = tmp_path / "a directory"
    directory.mkdir()
    environment = {"SPECIAL": "value with spaces", "EMPTY": ""}
    argv = ["bash", "-c", 'pwd; echo "[$SPECIAL][${EMPTY-unset}][${SYSRIFT_NONE-unset}]"']
    recording = record(argv, cwd=directory, env=environment)
    assert recording.stdout == f"{directory}\n[value with spaces][][unset]\n"
    assert_faithful(recording.trace)


def test_limits_and_umask_are_kept() -> None:
    argv = ["bash", "-c", "umask; ulimit -s; ulimit -c; ulimit -n"]
    assert record(argv).stdout == run(argv).stdout


def test_relative_output_and_program(fixture_program: Fixture, tmp_path: Path) -> None:
    (tmp_path / "program").symlink_to(fixture_program("ends_return42"))
    done = run([command("sysrift-record"), "-q", "-o", "here.srl", "./program"], cwd=tmp_path)
    assert done.returncode == 42, done
    assert (tmp_path / "here.srl").is_file()


# -- the exit status ------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [0, 1, 42, 125, 126, 255])
def test_exit_status_is_the_programs(status: int) -> None:
    assert record(["bash", "-c", f"exit {status}"]).returncode == status


@pytest.mark.parametrize("name", ["TERM", "KILL", "HUP", "USR1", "PIPE", "RTMIN"])
def test_exit_status_of_a_fatal_signal(name: str) -> None:
    recording = record(["bash", "--norc", "-c", f"kill -{name} $$"])
    number = signal.SIGRTMIN if name == "RTMIN" else signal.Signals[f"SIG{name}"]
    assert recording.returncode == 128 + number, recording
    assert_faithful(recording.trace)


def test_bad_command_line_is_125() -> None:
    done = run([command("sysrift-record"), "--no-such-option", "true"])
    assert done.returncode == 125
    assert_no_traceback(done)
    done = run([command("sysrift-record")])
    assert done.returncode == 125
    assert_no_traceback(done)


def test_options_of_the_program_are_its_own(trace_dir: Path) -> None:
    # Everything behind the program's name is the program's, with and without --.
    for separator in ([], ["--"]):
        trace = trace_dir / f"{len(separator)}.srl"
        done = run([command("sysrift-record"), "-q", "-o", trace, *separator, "echo", "-q", "-o"])
        assert done.stdout == "-q -o\n", done


def test_sysrift_record_is_sysrift_record(trace_dir: Path) -> None:
    done = sysrift("record", "-q", "-o", trace_dir / "a.srl", "--", "echo", "x")
    assert (done.returncode, done.stdout, done.stderr) == (0, "x\n", "")


# -- the summary ----------------------------------------------------------------------------------


def test_summary_is_one_line_with_file_events_bytes_and_ending() -> None:
    recording = record(["true"], options=[])
    lines = recording.stderr.splitlines()
    assert len(lines) == 1, recording
    assert str(recording.trace) in lines[0]
    assert re.search(r"\b\d[\d,]* events\b", lines[0]), lines
    assert re.search(r"\b[\d.,]+ ?([KM]i?B|bytes)\b", lines[0]), lines
    assert re.search(r"\bstatus 0\b", lines[0]), lines


def test_quiet_prints_nothing() -> None:
    recording = record(["true"], options=["-q"])
    assert (recording.stdout, recording.stderr) == ("", "")


def test_number_of_events_is_that_of_dump() -> None:
    recording = record(["cat", "/etc/passwd"], options=[])
    count = re.search(r"\b(\d[\d,]*) events\b", recording.stderr)
    assert count
    dump = sysrift("dump", "--json", recording.trace)
    assert dump.returncode == 0
    events = [line for line in dump.stdout.splitlines() if '"kind": "end"' not in line]
    assert len(events) == int(count[1].replace(",", ""))


# -- where traces go ------------------------------------------------------------------------------


def record_without_a_name(env: dict[str, str], program: str = "true") -> None:
    done = run([command("sysrift-record"), "-q", program], env=env)
    assert done.returncode in (0, 1), done


def test_default_files_are_fresh_and_latest_points_to_the_newest(trace_dir: Path) -> None:
    record_without_a_name({})
    first = set(trace_dir.glob("*.srl"))
    record_without_a_name({}, "false")
    both = set(trace_dir.glob("*.srl"))
    assert len(first) == 1
    assert len(both) == 2
    newest = (both - first).pop()
    assert sysrift("info").stdout == sysrift("info", newest).stdout
    assert sysrift("verify").returncode == 0
    listing = sysrift("ls")
    assert listing.returncode == 0
    for trace in both:
        assert trace.stem in listing.stdout, listing


@pytest.mark.parametrize(
    ("variable", "place"),
    [("XDG_DATA_HOME", "xdg/sysrift"), ("HOME", "home2/.local/share/sysrift")],
)
def test_default_directory(
    variable: str, place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SYSRIFT_TRACE_DIR")
    record_without_a_name({variable: str(tmp_path / place.partition("/")[0])})
    assert len(list((tmp_path / place).glob("*.srl"))) == 1
    done = run(
        [command("sysrift"), "info"],
        env={variable: str(tmp_path / place.partition("/")[0])},
    )
    assert done.returncode == 0, done


def test_latest_before_any_recording(tmp_path: Path) -> None:
    done = sysrift("info", env={"SYSRIFT_TRACE_DIR": str(tmp_path / "nothing")})
    assert done.returncode == 2
    assert_one_line_error(done, "sysrift-record")


def test_trace_is_readable_by_its_owner_only() -> None:
    # It holds everything the program read, passwords included.
    trace = record(["true"]).trace
    assert trace.stat().st_mode & 0o777 == 0o600


# -- the terminal ---------------------------------------------------------------------------------


@pytest.fixture
def terminals() -> Iterator[list[pexpect.spawn]]:
    """Programs on terminals, to be closed whatever happens."""
    opened: list[pexpect.spawn] = []
    yield opened
    for terminal in opened:
        terminal.close(force=True)


def on_a_terminal(terminals: list[pexpect.spawn], argv: list[str]) -> pexpect.spawn:
    """Start a program on a pseudo-terminal of 33 rows and 99 columns."""
    terminal = pexpect.spawn(
        argv[0], argv[1:], timeout=30, dimensions=(33, 99), encoding="utf-8", echo=True
    )
    terminals.append(terminal)
    return terminal


def recorded_on_a_terminal(
    terminals: list[pexpect.spawn], trace: Path, argv: list[str], *options: str
) -> pexpect.spawn:
    return on_a_terminal(
        terminals, [command("sysrift-record"), *options, "-o", str(trace), "--", *argv]
    )


def test_program_on_a_terminal(
    terminals: list[pexpect.spawn], trace_dir: Path, fixture_program: Fixture
) -> None:
    trace = trace_dir / "terminal.srl"
    terminal = recorded_on_a_terminal(
        terminals, trace, [str(fixture_program("interactive"))], "-q", "--checksum"
    )
    terminal.expect_exact("name? ")
    terminal.sendline("Ada")
    terminal.expect_exact("word? ")
    terminal.sendline("secret")
    terminal.expect_exact("hello Ada, a word of 6 letters, 33 rows, 99 columns")
    terminal.expect(pexpect.EOF)
    assert "secret" not in terminal.before
    terminal.close()
    assert terminal.exitstatus == 0
    assert_faithful(trace)


def test_program_is_in_the_foreground_of_its_terminal(
    terminals: list[pexpect.spawn], trace_dir: Path
) -> None:
    script = 'read -ra s < /proc/$$/stat; [ "${s[4]}" = "${s[7]}" ] && echo in the foreground'
    terminal = recorded_on_a_terminal(terminals, trace_dir / "a.srl", ["bash", "-c", script], "-q")
    terminal.expect_exact("in the foreground")
    terminal.expect(pexpect.EOF)


@pytest.mark.parametrize(("mode", "status"), [("wait", 128 + signal.SIGINT), ("catch", 21)])
def test_ctrl_c_is_the_programs(
    mode: str,
    status: int,
    terminals: list[pexpect.spawn],
    trace_dir: Path,
    fixture_program: Fixture,
) -> None:
    trace = trace_dir / "interrupted.srl"
    terminal = recorded_on_a_terminal(
        terminals, trace, [str(fixture_program("interactive")), mode], "--checksum"
    )
    terminal.expect_exact("name? ")
    terminal.sendline("Ada")
    terminal.expect_exact("word? ")
    terminal.sendline("secret")
    terminal.expect_exact("waiting")
    wait_until(lambda: sleeping_in_a_call(terminal.pid, "interactive"))
    terminal.sendintr()
    terminal.expect(r"\d events")
    terminal.expect(pexpect.EOF)
    terminal.close()
    assert terminal.exitstatus == status
    info = sysrift("info", trace)
    assert ("SIGINT" in info.stdout) == (mode == "wait"), info
    assert_faithful(trace)


def sleeping_in_a_call(recorder: int, name: str) -> bool:
    """Whether the program below the recorder waits in the kernel, not in a ptrace-stop."""
    return any(p.name == name and p.state == "S" for p in descendants(recorder))


def test_ctrl_backslash_ends_the_program_and_closes_the_trace(
    terminals: list[pexpect.spawn], trace_dir: Path
) -> None:
    trace = trace_dir / "quit.srl"
    terminal = recorded_on_a_terminal(terminals, trace, ["cat"])
    wait_until(lambda: sleeping_in_a_call(terminal.pid, "cat"))
    terminal.send("\x1c")
    terminal.expect("SIGQUIT")
    terminal.expect(pexpect.EOF)
    terminal.close()
    assert terminal.exitstatus == 128 + signal.SIGQUIT
    assert_faithful(trace)


def test_ctrl_z_stops_and_fg_goes_on(terminals: list[pexpect.spawn], trace_dir: Path) -> None:
    # As under a shell with job control: the terminal comes back, fg continues the program.
    trace = trace_dir / "stopped.srl"
    terminal = on_a_terminal(terminals, ["bash", "--norc", "--noprofile", "-i"])
    terminal.sendline("PS1='ready'\\> ")
    terminal.expect_exact("ready>")
    terminal.sendline(f"{command('sysrift-record')} -q -o {trace} -- cat")
    wait_until(lambda: sleeping_in_a_call(terminal.pid, "cat"))
    terminal.sendline("before")
    terminal.expect_exact("before\r\nbefore\r\n")
    terminal.send("\x1a")
    terminal.expect_exact("ready>")
    terminal.sendline("fg")
    terminal.expect_exact("cat\r\n")
    terminal.sendline("after")
    terminal.expect_exact("after\r\nafter\r\n")
    terminal.sendeof()
    terminal.expect_exact("ready>")
    terminal.sendline("echo status $?; exit")
    terminal.expect_exact("status 0\r\n")
    terminal.expect(pexpect.EOF)
    assert_faithful(trace)


def test_sigterm_to_the_recorder_reaches_the_program(trace_dir: Path) -> None:
    trace = trace_dir / "terminated.srl"
    with subprocess.Popen(
        [command("sysrift-record"), "-q", "-o", str(trace), "sleep", "100"]
    ) as process:
        wait_until(lambda: sleeping_in_a_call(process.pid, "sleep"))
        os.kill(process.pid, signal.SIGTERM)
        assert process.wait(20) == 128 + signal.SIGTERM
    assert_faithful(trace)
