# SPDX-License-Identifier: GPL-2.0-or-later
"""What a recorder must outlive: memory that cannot be read or is hidden from it, and much of it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from harness import (
    BUILT,
    assert_faithful,
    assert_no_traceback,
    command,
    record,
    run,
    sysrift,
)
from test_faults import as_nobody

Fixture = Callable[[str], Path]
PROGRAMS = BUILT / "programs"

FLAT = 150 << 20
"""Bytes of memory that a recorder may use, whatever it records."""

# Records as sysrift-record does, but every EVERY-th read of the program's memory fails.
FAILING_READS = """
import itertools, sys
from sysrift.syscalls import BadAddress
from sysrift.tracee import process

count = itertools.count(1)
every = int(sys.argv.pop(1))
read, read_some = process.Tracee.read, process.Tracee.read_some

def failing_read(self, address, length):
    # A program begins with its vDSO being read: without that nothing can be recorded at all.
    if self.remote_site and next(count) % every == 0:
        raise BadAddress(f"no memory at {address:#x}")
    return read(self, address, length)

def failing_read_some(self, address, length):
    data = read_some(self, address, length)
    # (The instruction that has just been executed, an rdtsc perhaps, can always be read.)
    return data[: length // 2] if length > 3 and next(count) % every == 0 else data

process.Tracee.read, process.Tracee.read_some = failing_read, failing_read_some
from sysrift.cli.main import record_main
sys.exit(record_main())
"""


@pytest.mark.parametrize("every", [2, 3, 7])
@pytest.mark.parametrize(
    "program",
    ["memory/bad_pointers", "memory/shared_file_writes_of_all_kinds", "survive/netlink",
     "memory/own_memory_by_vm_calls", "memory/vectors", "refusals/filter_trap",
     "memory/sysv_shm", "signals/handler_siginfo"],
)  # fmt: skip
def test_recording_goes_on_after_failed_reads(
    program: str, every: int, built_fixtures: None, trace_dir: Path, tmp_path: Path
) -> None:
    trace = trace_dir / "failing.srl"
    done = run(
        [sys.executable, "-c", FAILING_READS, str(every), "--checksum=50", "-o", trace, "--",
         PROGRAMS / program],
        cwd=tmp_path,
    )  # fmt: skip
    # The program saw nothing of it, and what could be recorded was, to the end.
    assert done.returncode == 0, done
    assert_no_traceback(done)
    assert "internal error" not in done.stderr and "recording stops" not in done.stderr, done
    dump = sysrift("dump", trace)
    assert "exited with 0" in dump.stdout, dump


@pytest.mark.parametrize("program", ["not_dumpable", "no_new_privileges", "strict_mode_ends_well",
                                     "filter_kill_all_others", "filter_then_execve",
                                     "filter_errno_for_prctl"])  # fmt: skip
def test_program_of_a_user_without_powers(
    program: str, built_fixtures: None, trace_dir: Path, tmp_path: Path
) -> None:
    # For root the kernel makes exceptions: nobody else may look into what is not dumpable.
    place = tmp_path / "place"
    place.mkdir()
    place.chmod(0o777)
    trace_dir.chmod(0o777)
    argv = [PROGRAMS / "refusals" / program]
    alone = run([*as_nobody(), *argv], cwd=place)
    recording = record(argv, cwd=place, options=["--checksum=50"], prefix=as_nobody())
    assert recording.returncode == alone.returncode, recording
    assert "recording stops" not in recording.stderr, recording
    assert_faithful(recording.trace)


def test_what_was_refused_is_told_once(built_fixtures: None) -> None:
    for program, told in (
        ("io_uring", "io_uring_setup answers ENOSYS"),
        ("linux_aio", "io_setup answers ENOSYS"),
        ("userfaultfd", "userfaultfd answers ENOSYS"),
        ("traces_itself", "the program uses ptrace itself"),
    ):
        recording = record([PROGRAMS / "refusals" / program], options=[])
        assert recording.returncode == 0, recording
        assert recording.stderr.count(told) == 1, recording
        info = sysrift("info", recording.trace)
        assert info.stdout.count(told) == 1, info


def test_recorded_program_under_a_filter_is_let_go(built_fixtures: None, tmp_path: Path) -> None:
    # Recording must end where a thread starts; the program, under a filter that kills for the
    # recorder's own calls, goes on all the same.
    source = tmp_path / "thread.c"
    source.write_text(
        '#include "refusals/filter.h"\n#include <pthread.h>\n'
        "static void *run(void *mark) { *(int *)mark = 1; return mark; }\n"
        "int main(void) { pthread_t thread; int mark = 0;\n"
        "install(SYS_prctl, SECCOMP_RET_KILL_PROCESS);\n"
        "CHECK(pthread_create(&thread, NULL, run, &mark) == 0);\n"
        'CHECK(pthread_join(thread, NULL) == 0 && mark == 1); puts("done"); return 0; }\n'
    )
    program = tmp_path / "thread"
    programs = BUILT.parent / "programs"
    built = run(["cc", f"-I{programs}", "-o", program, source, "-pthread"])
    assert built.returncode == 0, built
    recording = record([program], options=[])
    assert recording.returncode == 0 and recording.stdout == "done\n", recording


def peak_memory(argv: list[str | Path]) -> tuple[int, int]:
    """Run a command; its exit status, and the most memory (VmHWM, bytes) that it itself had."""
    process = subprocess.Popen([str(part) for part in argv], stdout=subprocess.DEVNULL)
    peak = 0
    while process.poll() is None:
        status = Path(f"/proc/{process.pid}/status").read_text()
        found = re.search(r"VmHWM:\s+(\d+) kB", status)
        peak = max(peak, int(found[1]) << 10) if found else peak
        time.sleep(0.02)
    return process.returncode, peak


@pytest.mark.slow
@pytest.mark.parametrize(
    ("program", "arguments"),
    [("big_read", ["/dev/zero", "1024"]), ("many_calls", ["300000"])],
    ids=["large reads", "many events"],
)
def test_recorder_stays_small(
    program: str, arguments: list[str], fixture_program: Fixture, trace_dir: Path
) -> None:
    argv = [command("sysrift-record"), "-q", "-o", trace_dir / "x.srl", "--",
            fixture_program(program), *arguments]  # fmt: skip
    status, peak = peak_memory(argv)
    assert status == 0
    assert 0 < peak < FLAT, f"{peak >> 20} MiB"
    os.unlink(trace_dir / "x.srl")
