# SPDX-License-Identifier: GPL-2.0-or-later
"""Trees under duress: killed at random moments, by the hundred, and what recording them costs.

Whatever is killed, the trace opens and verifies up to its end, and nothing is left behind (which
`conftest.own_surroundings` checks after each test). SYSRIFT_SOAK=N asks for N rounds of each.
"""

from __future__ import annotations

import functools
import itertools
import os
import random
import re
import signal
import statistics
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from harness import (
    assert_faithful,
    assert_no_traceback,
    command,
    descendants,
    record,
    verify,
    wait_until,
)

ROUNDS = int(os.environ.get("SYSRIFT_SOAK", "12"))
FLAKY_RUNS = int(os.environ.get("SYSRIFT_SOAK", "10"))
MOST_MEMORY = 150 << 10  # KiB
SCRIPT = (
    "for i in 1 2 3 4 5; do ls /usr/bin | sort -r | head -1 >/dev/null; "
    "(/bin/true; cat /proc/self/stat >/dev/null) & /bin/true; done; wait"
)

CUT_OFF_EARLY = re.compile("is cut off (before|within)|is empty: nothing was recorded")
"""What a command says of a trace whose recorder died before the first image was in it."""


def _start(trace: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [
            command("sysrift-record"), "-q", "--checksum=50", "-o", trace,
            "bash", "--norc", "-c", SCRIPT,
        ],
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        start_new_session=True,
    )  # fmt: skip


def _recorder(process: subprocess.Popen[str]) -> int | None:
    return process.pid


def _program(process: subprocess.Popen[str]) -> int | None:
    below = [p.pid for p in descendants(process.pid) if p.parent == process.pid]
    return below[0] if below else None


def _random_child(process: subprocess.Popen[str]) -> int | None:
    below = [p.pid for p in descendants(process.pid) if p.parent != process.pid]
    return random.choice(below) if below else None


@pytest.mark.keeps_files
@pytest.mark.parametrize("victim", [_recorder, _program, _random_child])
def test_killed_at_a_random_moment(
    victim: Callable[[subprocess.Popen[str]], int | None], tmp_path: Path
) -> None:
    seed = random.randrange(1 << 30)
    random.seed(seed)
    hit = verified = 0
    for round_ in range(ROUNDS):
        trace = tmp_path / f"killed-{round_}.srl"
        process = _start(trace)
        try:
            if round_ % 4:
                # Most of the time some way into the program, on however busy a machine.
                _wait_for(functools.partial(_random_child, process), process)
                time.sleep(random.uniform(0, 0.3))
            else:
                time.sleep(random.uniform(0.02, 0.5))
            pid = _wait_for(functools.partial(victim, process), process)
            if pid is not None:
                try:
                    os.kill(pid, signal.SIGKILL)
                    hit += 1
                except ProcessLookupError:
                    pass
            _, errors = process.communicate(timeout=30)
        except BaseException:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
            raise
        where = f"round {round_} with seed {seed}"
        assert "Traceback" not in errors and "internal error" not in errors, (where, errors)
        wait_until(lambda: not _alive(), what=f"all gone in {where}")
        if not trace.exists():
            continue
        done = verify(trace)
        assert_no_traceback(done)
        if done.returncode != 0:
            assert victim is not _random_child, (where, done)
            assert done.returncode == 2 and CUT_OFF_EARLY.search(done.stderr), (where, done)
        else:
            verified += 1
        trace.unlink()
    # Neither does every kill miss, nor is every trace one of nothing.
    assert hit >= ROUNDS // 3, f"{hit} of {ROUNDS} hit"
    assert verified >= ROUNDS // 3, f"{verified} of {ROUNDS} verified"


def _wait_for(victim: Callable[[], int | None], process: subprocess.Popen[str]) -> int | None:
    """A process to kill, as soon as there is one; None when all is over before."""
    deadline = time.monotonic() + 20
    while process.poll() is None and time.monotonic() < deadline:
        pid = victim()
        if pid is not None:
            return pid
    return None


def _alive() -> list[str]:
    """Processes of a killed tree that still run; zombies that we inherited are reaped."""
    left = []
    for process in descendants(os.getpid()):
        if process.name not in ("bash", "ls", "sort", "head", "cat", "true", "sysrift-record"):
            continue
        if process.state == "Z" and process.parent == os.getpid():
            try:
                os.waitpid(process.pid, os.WNOHANG)
            except ChildProcessError:
                pass
            continue
        left.append(f"{process.name} {process.pid} {process.state}")
    return left


def test_program_that_crashes_sometimes_always_verifies(
    fixture_program: Callable[[str], Path], tmp_path: Path
) -> None:
    statuses = []
    for round_ in range(FLAKY_RUNS):
        trace = tmp_path / f"flaky-{round_}.srl"
        recording = record([fixture_program("flaky")], options=["-q", "--checksum"], trace=trace)
        statuses.append(recording.returncode)
        told = assert_faithful(trace).stdout
        crashed = recording.returncode == 128 + signal.SIGSEGV
        assert crashed == ("killed by SIGSEGV" in told), told
        assert crashed or recording.returncode == 0, recording
        trace.unlink()
    if FLAKY_RUNS >= 50:
        assert 0 in statuses and 128 + signal.SIGSEGV in statuses, statuses


# -- cost -----------------------------------------------------------------------------------------


MANY = """
my ($count, $at_once) = @ARGV;
pipe(my $in, my $out);
for (my $first = 0; $first < $count; $first += $at_once) {
    for (1 .. $at_once) {
        my $pid = fork;
        defined $pid or die;
        next if $pid;
        if ($at_once > 1) { close $out; sysread $in, my $x, 1 }
        exec {"/bin/true"} "true" if $_ % 50 == 1 && $at_once > 1;
        exit 0;
    }
    close $out if $at_once > 1;
    for (1 .. $at_once) { wait > 0 or die; $? == 0 or die }
}
"""


@pytest.mark.parametrize(("count", "at_once"), [(2000, 1), (200, 200)])
def test_memory_of_the_recorder(count: int, at_once: int, tmp_path: Path) -> None:
    trace = tmp_path / "many.srl"
    argv = [
        command("sysrift-record"), "-q", "-o", str(trace), "perl", "-e", MANY, str(count),
        str(at_once),
    ]  # fmt: skip
    recorder = subprocess.Popen(argv, stdin=subprocess.DEVNULL, start_new_session=True)
    peak = 0
    deadline = time.monotonic() + 100
    while recorder.poll() is None:
        peak = max(peak, _peak_of(recorder.pid))
        if time.monotonic() > deadline:
            os.killpg(recorder.pid, signal.SIGKILL)
            recorder.wait()
            raise AssertionError("the recording did not end")
        time.sleep(0.02)
    assert recorder.returncode == 0
    assert 10 << 10 < peak <= MOST_MEMORY, f"{peak} KiB"


def _peak_of(pid: int) -> int:
    """VmHWM in KiB; 0 when the process is gone."""
    try:
        text = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0
    found = re.search(r"VmHWM:\s+(\d+) kB", text)
    return int(found[1]) if found else 0


def test_time_of_a_fork_and_exec(tmp_path: Path) -> None:
    # Each child tells the time between its fork and its end, by the clock of the recording.
    script = "i=0; while [ $i -lt 50 ]; do /bin/true; i=$((i+1)); done"
    recording = record(["sh", "-c", script], options=["-q"])
    assert recording.returncode == 0, recording
    from sysrift.trace.reader import Trace

    with Trace(recording.trace) as trace:
        births = [each.time_us for each in trace.processes.values() if each.parent]
    assert len(births) == 50
    each = [later - earlier for earlier, later in itertools.pairwise(births)]
    median = statistics.median(each) / 1000
    print(f"a fork and exec of /bin/true: {median:.1f} ms recorded")
    assert median <= 3 * 40, f"{median:.1f} ms"
