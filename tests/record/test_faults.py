# SPDX-License-Identifier: GPL-2.0-or-later
"""Bad input and faults: one clear line, nothing lost, no traceback, no process left behind.

(The last of these is checked after every test by `conftest.own_surroundings`.)
"""

from __future__ import annotations

import os
import re
import resource
import shutil
import signal
import stat
import struct
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from harness import (
    Finished,
    assert_faithful,
    assert_no_traceback,
    assert_one_line_error,
    command,
    descendants,
    gdb_batch,
    is_gone,
    kill_recorder,
    record,
    run,
    sysrift,
    verify,
    wait_until,
)

Fixture = Callable[[str], Path]
NOBODY = 65534


# -- programs that cannot be recorded -------------------------------------------------------------


def refused(argv: Sequence[str | Path], status: int, *words: str, **options: object) -> Finished:
    """Try to record; expect this status, one line with these words, and no trace left."""
    recording = record(argv, options=[], **options)  # type: ignore[arg-type]
    assert recording.returncode == status, recording
    assert recording.stdout == ""
    assert_one_line_error(recording, *words)
    assert not recording.trace.exists()
    return recording


def test_missing_program(tmp_path: Path) -> None:
    refused([tmp_path / "none"], 127, str(tmp_path / "none"))


def test_program_missing_in_path() -> None:
    refused(["no-such-program-anywhere"], 127, "no-such-program-anywhere", "path")


def test_program_that_is_not_executable(tmp_path: Path) -> None:
    program = tmp_path / "data"
    program.write_text("no program\n")
    program.chmod(0o644)
    refused([program], 126, str(program), "not executable")


def test_program_that_is_a_directory(tmp_path: Path) -> None:
    refused([tmp_path], 126, str(tmp_path), "directory")


def test_program_of_another_architecture(tmp_path: Path) -> None:
    aarch64 = 183
    program = tmp_path / "arm"
    identity = b"\x7fELF" + bytes([2, 1, 1, 0]) + bytes(8)
    header = struct.pack("<HHIQQQIHHHHHH", 2, aarch64, 1, 0x400000, 64, 0, 0, 64, 56, 1, 64, 0, 0)
    segment = struct.pack("<IIQQQQQQ", 1, 5, 0, 0x400000, 0x400000, 4096, 4096, 4096)
    program.write_bytes((identity + header + segment).ljust(4096, b"\0"))
    program.chmod(0o755)
    refused([program], 126, str(program), "architecture")


def test_executable_of_no_format(tmp_path: Path) -> None:
    program = tmp_path / "empty"
    program.write_bytes(b"")
    program.chmod(0o755)
    refused([program], 126, str(program))


def test_script_whose_interpreter_is_missing(tmp_path: Path) -> None:
    program = tmp_path / "script"
    program.write_text("#!/no/such/interpreter\n")
    program.chmod(0o755)
    refused([program], 126, str(program), "interpreter")


def test_script_is_recorded_by_its_interpreter(tmp_path: Path) -> None:
    program = tmp_path / "script"
    program.write_text("#!/bin/bash --norc\necho script $1\n")
    program.chmod(0o755)
    recording = record([program, "x"])
    assert recording.stdout == "script x\n", recording
    assert_faithful(recording.trace)


def as_nobody() -> list[str]:
    """The prefix that runs a command without root's powers; empty when there are none to drop.

    It keeps the capability to read everything: the checkout may lie where only root can look.
    """
    if os.geteuid() != 0:
        return []
    return [
        "setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups",
        "--inh-caps=-all,+dac_override", "--ambient-caps=-all,+dac_override",
        # Or access(2) would ignore the capability.
        "--securebits=+no_setuid_fixup", "--",
    ]  # fmt: skip


def test_setuid_program_is_refused_for_a_user(tmp_path: Path, fixture_program: Fixture) -> None:
    # Without root there is no making one: any of the system's own will do then.
    if os.geteuid() == 0:
        program = tmp_path / "setuid"
        shutil.copy(fixture_program("ends_return42"), program)
        program.chmod(0o4755)
    else:
        found = [
            path
            for directory in ("/usr/bin", "/bin", "/usr/sbin", "/sbin")
            for path in Path(directory).iterdir()
            if path.is_file() and path.stat().st_mode & stat.S_ISUID and path.stat().st_uid == 0
        ]
        assert found, "no set-user-ID program on this machine, and no root to make one"
        program = found[0]
    refused([program], 126, str(program), "set-user-ID", "root", prefix=as_nobody())


def test_user_without_powers_records_and_verifies(fixture_program: Fixture) -> None:
    # Nothing of recording or replaying needs more than an ordinary user may do.
    recording = record([fixture_program("deep")], prefix=as_nobody())
    assert recording.returncode == 0, recording
    done = run([*as_nobody(), command("sysrift"), "verify", recording.trace])
    assert done.returncode == 0, done


@pytest.mark.parametrize("refusal", ["sysrift-record", "verify", "gdb"])
def test_ptrace_is_not_permitted(refusal: str, fixture_program: Fixture) -> None:
    noptrace = fixture_program("noptrace")
    if refusal == "sysrift-record":
        refused(["true"], 125, "ptrace", "sysrift doctor", prefix=[noptrace])
        return
    recording = record([fixture_program("ends_return42")])
    if refusal == "verify":
        done = run([noptrace, command("sysrift"), "verify", recording.trace])
        assert done.returncode == 2, done
        assert_one_line_error(done, "ptrace", "sysrift doctor")
    else:
        done = run([noptrace, command("sysrift-replay"), recording.trace, "--", "-nx", "-batch"])
        assert_no_traceback(done)
        assert "sysrift doctor" in done.stdout + done.stderr, done


def test_doctor_sees_that_ptrace_is_not_permitted(fixture_program: Fixture) -> None:
    healthy = sysrift("doctor")
    assert_no_traceback(healthy)
    sick = run([fixture_program("noptrace"), command("sysrift"), "doctor"])
    assert sick.returncode == 1, sick
    assert_no_traceback(sick)
    assert "ptrace" in sick.stdout


# -- what is not recorded yet ---------------------------------------------------------------------


@pytest.mark.parametrize(("name", "word"), [("forks", "process"), ("threads", "thread")])
def test_more_than_one_task_is_told_clearly(name: str, word: str, fixture_program: Fixture) -> None:
    plain = run([fixture_program(name)])
    recording = record([fixture_program(name)], options=["--checksum", "--follow=none"])
    # The program itself is unharmed.
    assert recording.returncode == 0, recording
    assert sorted(recording.stdout.splitlines()) == sorted(plain.stdout.splitlines())
    assert_no_traceback(recording)
    told = [line for line in recording.stderr.splitlines() if word in line and "record" in line]
    assert told, recording
    # Told again by the trace itself, and what it holds is right as far as it goes.
    info = sysrift("info", recording.trace)
    assert told[0].rpartition(": ")[2] in " ".join(info.stdout.split()), info
    assert_faithful(recording.trace)


def test_parent_that_waits_for_its_child_is_recorded_to_its_end(fixture_program: Fixture) -> None:
    recording = record([fixture_program("forks")], options=[])
    dump = sysrift("dump", recording.trace)
    assert "wait4" in dump.stdout
    assert "forked child ended with 5" in dump.stdout
    assert dump.stdout.endswith("+++ exited with 0 +++\n")


def test_bash_pipeline_runs_and_verifies() -> None:
    script = "for i in 1 2 3; do echo $(( i * i )) | cat; done; x=$(echo sub); echo $x"
    recording = record(["bash", "--norc", "-c", script], options=["--checksum"])
    assert recording.stdout == "1\n4\n9\nsub\n", recording
    assert_faithful(recording.trace)


def test_unknown_calls_are_warned_of_once_and_recorded(fixture_program: Fixture) -> None:
    recording = record([fixture_program("unknown_call")], options=["--checksum"])
    assert recording.returncode == 0, recording
    warnings = [line for line in recording.stderr.splitlines() if "9999" in line]
    assert len(warnings) == 1, recording
    assert_faithful(recording.trace)


# -- traces that are no traces --------------------------------------------------------------------

COMMANDS = ["verify", "info", "dump"]


@pytest.fixture
def good_trace(fixture_program: Fixture) -> Path:
    return record([fixture_program("deep")]).trace


def unusable(trace: Path, *words: str) -> None:
    """Every command must refuse this trace with status 2 and one line, and GDB with a message."""
    for name in COMMANDS:
        done = sysrift(name, trace)
        assert done.returncode == 2, done
        assert_one_line_error(done, *words)
    output = gdb_batch(["info program"], trace)
    assert "Traceback" not in output, output
    for word in words:
        assert word.lower() in output.lower(), output


def test_missing_trace(tmp_path: Path) -> None:
    unusable(tmp_path / "none.srl", "none.srl")


def test_empty_trace(tmp_path: Path) -> None:
    trace = tmp_path / "empty.srl"
    trace.write_bytes(b"")
    unusable(trace, "empty.srl")


@pytest.mark.parametrize("content", [b"x", b"GIF89a" + bytes(1000), b"\x7fELF" + bytes(4096)])
def test_foreign_file(content: bytes, tmp_path: Path) -> None:
    trace = tmp_path / "foreign.srl"
    trace.write_bytes(content)
    unusable(trace, "foreign.srl")


def test_directory_as_a_trace(tmp_path: Path) -> None:
    unusable(tmp_path, str(tmp_path))


def test_trace_of_a_newer_version(good_trace: Path, tmp_path: Path) -> None:
    trace = tmp_path / "newer.srl"
    content = bytearray(good_trace.read_bytes())
    content[8:10] = struct.pack("<H", 9)
    trace.write_bytes(content)
    unusable(trace, "newer")


def test_truncated_trace_is_used_up_to_its_last_whole_block(
    good_trace: Path, tmp_path: Path
) -> None:
    content = good_trace.read_bytes()
    statuses = set()
    for tenths in range(10):
        trace = tmp_path / f"cut{tenths}.srl"
        trace.write_bytes(content[: len(content) * tenths // 10])
        done = verify(trace)
        assert_no_traceback(done)
        assert done.returncode in (0, 2), done
        statuses.add(done.returncode)
        if done.returncode == 2:
            assert_one_line_error(done)
    assert 2 in statuses
    # Only the end is gone: everything else can be used, and one is told.
    trace = tmp_path / "endless.srl"
    trace.write_bytes(content[:-20])
    assert verify(trace).returncode == 0
    info = sysrift("info", trace)
    assert info.returncode == 0
    assert re.search("abnormal|cut off|not closed|incomplete", info.stdout, re.I), info


def test_flipped_bits_never_pass_for_a_faithful_replay_of_something_else(
    good_trace: Path, tmp_path: Path
) -> None:
    content = good_trace.read_bytes()
    facts = sysrift("dump", good_trace).stdout
    step = len(content) // 14
    for number, position in enumerate(range(step // 2, len(content), step)):
        trace = tmp_path / f"flipped{number}.srl"
        damaged = bytearray(content)
        damaged[position] ^= 1 << number % 8
        trace.write_bytes(damaged)
        done = verify(trace)
        assert_no_traceback(done)
        # 0 where nothing that was read was hit (the index is rebuilt by a scan, say).
        assert done.returncode in (0, 2), done
        if done.returncode == 0:
            assert sysrift("dump", trace).stdout == facts


# -- where the trace cannot be written ------------------------------------------------------------


def test_output_in_a_missing_directory(tmp_path: Path) -> None:
    target = tmp_path / "none" / "x.srl"
    done = run([command("sysrift-record"), "-o", target, "touch", tmp_path / "touched"])
    assert done.returncode == 125
    assert_one_line_error(done, str(target))
    assert not (tmp_path / "touched").exists()


def test_output_that_is_a_directory(tmp_path: Path) -> None:
    done = run([command("sysrift-record"), "-o", tmp_path, "true"])
    assert done.returncode == 125
    assert_one_line_error(done, str(tmp_path))


def test_output_that_is_always_full(tmp_path: Path) -> None:
    done = run([command("sysrift-record"), "-o", "/dev/full", "touch", tmp_path / "touched"])
    assert_no_traceback(done)
    assert "/dev/full" in done.stderr, done
    assert done.returncode in (0, 125), done
    # Either recording did not begin, or the program was not hurt by its failing.
    assert (tmp_path / "touched").exists() == (done.returncode == 0)


def with_file_size_limit(limit: int) -> Callable[[], None]:
    """For Popen: writing files beyond `limit` bytes fails with EFBIG, without a signal."""

    def set_up() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    return set_up


@pytest.mark.parametrize("extra", [1 << 20, 3_000_000])
def test_disk_full_while_recording(extra: int, fixture_program: Fixture, trace_dir: Path) -> None:
    # 16 MiB of random bytes, in a trace that may have what a start takes and a little more.
    beginning = record([fixture_program("ends_return42")]).trace.stat().st_size
    trace = trace_dir / "full.srl"
    recording = record(
        [fixture_program("big_read"), "/dev/urandom", "16"],
        trace=trace,
        options=["--checksum"],
        preexec_fn=with_file_size_limit(beginning + extra),
    )
    # The program ran to its end all the same.
    assert recording.returncode == 0, recording
    assert recording.stdout.startswith("16777216 bytes")
    assert_no_traceback(recording)
    assert re.search("no space|too large|full|cannot write|stopped", recording.stderr, re.I)
    assert trace.stat().st_size <= beginning + extra
    # The trace holds what fits (all that came before the large read, at least), and says so.
    assert "/dev/urandom" in sysrift("dump", trace).stdout
    info = sysrift("info", trace)
    assert info.returncode == 0, info
    assert re.search("stopped|full|too large|cut off", info.stdout, re.I), info
    assert_faithful(trace)


def test_disk_full_with_many_events(fixture_program: Fixture, trace_dir: Path) -> None:
    beginning = record([fixture_program("ends_return42")]).trace.stat().st_size
    trace = trace_dir / "full.srl"
    recording = record(
        [fixture_program("many_calls"), "20000"],
        trace=trace,
        options=[],
        preexec_fn=with_file_size_limit(beginning + 30_000),
    )
    assert recording.returncode == 0, recording
    assert recording.stdout.startswith("20000 calls")
    dump = sysrift("dump", trace)
    assert 100 < len(dump.stdout.splitlines()) < 20_000
    assert_faithful(trace)


def test_disk_full_on_a_full_file_system(fixture_program: Fixture, tmp_path: Path) -> None:
    # The same with a real ENOSPC; the tests above hold where nothing can be mounted, too.
    small = tmp_path / "small"
    small.mkdir()
    mounted = run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", small])
    if mounted.returncode != 0:
        pytest.skip(f"no file system can be mounted here: {mounted.stderr.strip()}")
    try:
        recording = record(
            [fixture_program("big_read"), "/dev/urandom", "16"],
            trace=small / "full.srl",
            options=["--checksum"],
        )
        assert recording.returncode == 0, recording
        assert_no_traceback(recording)
        assert_faithful(small / "full.srl")
    finally:
        run(["umount", "-l", small])


# -- killed, changed ------------------------------------------------------------------------------


@pytest.mark.keeps_files
def test_recorder_killed_leaves_a_usable_trace_and_no_program(
    fixture_program: Fixture, trace_dir: Path
) -> None:
    trace = trace_dir / "killed.srl"
    words = ["-q", "-o", trace, fixture_program("many_calls"), "10000000"]
    kill_recorder(words, 2.5, "many_calls")
    info = sysrift("info", trace)
    assert info.returncode == 0, info
    assert re.search("abnormal|cut off|not closed|incomplete", info.stdout, re.I), info
    assert len(sysrift("dump", trace).stdout.splitlines()) > 1000
    assert_faithful(trace)


@pytest.mark.keeps_files
def test_recorder_killed_while_the_program_waits(trace_dir: Path) -> None:
    # What was recorded must have reached the file before: nothing happens for a while here.
    trace = trace_dir / "killed.srl"
    recorder = subprocess.Popen([command("sysrift-record"), "-q", "-o", trace, "sleep", "100"])
    try:
        program = wait_until(
            lambda: [
                p.pid for p in descendants(recorder.pid) if (p.name, p.state) == ("sleep", "S")
            ]
        )[0]
        time.sleep(1.5)
    finally:
        recorder.kill()
        recorder.wait()
    wait_until(lambda: is_gone(program), what="the program dies with its recorder")
    dump = sysrift("dump", trace)
    assert "close(" in dump.stdout, dump
    assert_faithful(trace)


def test_program_changed_after_recording(fixture_program: Fixture, tmp_path: Path) -> None:
    program = tmp_path / "program"
    shutil.copy(fixture_program("deep"), program)
    recording = record([program])
    assert recording.returncode == 0
    # Rebuilt: another program at the same path; and then none at all.
    shutil.copy(fixture_program("watch_me"), program)
    assert_faithful(recording.trace)
    program.unlink()
    assert_faithful(recording.trace)
    output = gdb_batch(["break descend", "continue", "info args", "next", "info locals"],
                       recording.trace)  # fmt: skip
    assert re.search(r"Breakpoint \d+, descend \(depth=1, limit=8\)", output), output


def test_input_file_changed_after_recording(tmp_path: Path) -> None:
    source = tmp_path / "input"
    source.write_text("as it was\n")
    recording = record(["cat", source])
    source.write_text("as it is now, longer\n")
    assert_faithful(recording.trace)
    source.unlink()
    assert_faithful(recording.trace)


def test_mapped_library_changed_after_recording(fixture_program: Fixture, tmp_path: Path) -> None:
    for name in ("dlopen_user", "dlopen_lib.so"):
        shutil.copy(fixture_program(name), tmp_path / name)
    recording = record([tmp_path / "dlopen_user"])
    assert recording.returncode == 0, recording
    library = tmp_path / "dlopen_lib.so"
    content = bytearray(library.read_bytes())
    content[0x1000:0x1100] = bytes(0x100)
    library.write_bytes(content)
    assert_faithful(recording.trace)


def test_two_recorders_at_once_do_not_mix(fixture_program: Fixture, trace_dir: Path) -> None:
    argv = [command("sysrift-record"), "-q", fixture_program("many_calls"), "2000"]
    both = [subprocess.Popen(argv, stdout=subprocess.DEVNULL) for _ in range(2)]
    assert [process.wait(60) for process in both] == [0, 0]
    traces = list(trace_dir.glob("*.srl"))
    assert len(traces) == 2
    for trace in traces:
        assert_faithful(trace)


def test_recorder_under_strace_refuses(fixture_program: Fixture) -> None:
    # A program under strace cannot have a second tracer; SysRift says so instead of hanging.
    done = run(
        ["strace", "-f", "-o", "/dev/null", command("sysrift-record"), "-q",
         "-o", os.environ["SYSRIFT_TRACE_DIR"] + "/x.srl", fixture_program("ends_return42")]
    )  # fmt: skip
    assert done.returncode == 125, done
    assert_one_line_error(done, "ptrace")


def test_reader_of_dump_goes_away(good_trace: Path) -> None:
    script = f'{command("sysrift")} dump {good_trace} | head -n 1; echo "${{PIPESTATUS[0]}}"'
    done = run(["bash", "-c", script])
    assert done.stderr == "", done
    assert done.stdout.splitlines()[-1] in ("0", "141")
