# SPDX-License-Identifier: GPL-2.0-or-later
"""Running SysRift as its users do: real commands, each a process with a time limit.

Nothing here imports SysRift; what a test learns it learns from the commands' output, their exit
status, and the files that they leave.
"""

from __future__ import annotations

import fcntl
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
FIXTURES = ROOT / "fixtures"
BUILT = FIXTURES / "build"
BIN = Path(sys.executable).parent

GDB = os.environ.get("SYSRIFT_TEST_GDB", "gdb")
"""The GDB that the tests run in."""

NEWER_GDB = ROOT / ".venv" / "gdb" / "bin" / "gdb"
"""GDB 18, which tools/setup.sh installs for the tests (the wheel gdb-for-pwndbg)."""

TIMEOUT = 120.0
"""Seconds that a command may take; far more than any needs, so that a hang fails by itself."""


@dataclass(frozen=True)
class Finished:
    """A command that has ended."""

    argv: tuple[str, ...]
    returncode: int
    stdout: str
    stderr: str

    def __str__(self) -> str:
        """All of it, for the message of a failing assertion."""
        return (
            f"$ {' '.join(self.argv)}\n[status {self.returncode}]\n"
            f"--- stdout\n{_shortened(self.stdout)}\n--- stderr\n{_shortened(self.stderr)}"
        )


@dataclass(frozen=True)
class Recording(Finished):
    """A finished `sysrift-record`, and the trace file that it was told to write."""

    trace: Path


def _shortened(text: str) -> str:
    return text if len(text) < 6000 else f"{text[:3000]}\n[...]\n{text[-3000:]}"


def command(name: str) -> str:
    """The path of one of SysRift's commands, as installed beside this Python."""
    return str(BIN / name)


def run(
    argv: Sequence[str | Path],
    *,
    stdin: str | bytes | None = None,
    cwd: str | Path | None = None,
    env: Mapping[str, str] | None = None,
    timeout: float = TIMEOUT,
    **options: Any,
) -> Finished:
    """Run a command to its end. `env` is added to the test's own environment.

    Output that is no UTF-8 is kept with surrogates. On a timeout the command and all of its
    process group are killed, and subprocess.TimeoutExpired is raised.
    """
    data = stdin.encode() if isinstance(stdin, str) else stdin
    process = subprocess.Popen(
        [str(part) for part in argv],
        stdin=subprocess.DEVNULL if data is None else subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=cwd,
        env={**os.environ, **(env or {})},
        start_new_session=True,
        **options,
    )
    try:
        stdout, stderr = process.communicate(data, timeout=timeout)
    except BaseException:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        raise
    return Finished(
        tuple(str(part) for part in argv),
        process.returncode,
        stdout.decode(errors="surrogateescape"),
        stderr.decode(errors="surrogateescape"),
    )


def record(
    argv: Sequence[str | Path],
    *,
    stdin: str | bytes | None = None,
    cwd: str | Path | None = None,
    env: Mapping[str, str] | None = None,
    options: Sequence[str] = ("-q", "--checksum"),
    trace: Path | None = None,
    timeout: float = TIMEOUT,
    prefix: Sequence[str | Path] = (),
    **more: Any,
) -> Recording:
    """Record a program into `trace` (a fresh file of the test's trace directory when not given).

    `options` go before the program, `prefix` before sysrift-record itself. The status is not
    looked at.
    """
    target = trace if trace is not None else fresh_trace()
    done = run(
        [*prefix, command("sysrift-record"), "-o", target, *options, "--", *argv],
        stdin=stdin, cwd=cwd, env=env, timeout=timeout, **more,
    )  # fmt: skip
    return Recording(done.argv, done.returncode, done.stdout, done.stderr, target)


def fresh_trace() -> Path:
    """A trace file's name that is not taken, in $SYSRIFT_TRACE_DIR."""
    directory = Path(os.environ["SYSRIFT_TRACE_DIR"])
    directory.mkdir(parents=True, exist_ok=True)
    taken = {path.name for path in directory.iterdir()}
    number = next(n for n in range(1000) if f"test-{n}.srl" not in taken)
    return directory / f"test-{number}.srl"


def sysrift(*arguments: str | Path, **options: Any) -> Finished:
    """Run `sysrift` with these arguments."""
    return run([command("sysrift"), *arguments], **options)


def verify(trace: Path, *, timeout: float = TIMEOUT, **options: Any) -> Finished:
    """Run `sysrift verify` on a trace."""
    return sysrift("verify", trace, timeout=timeout, **options)


def assert_faithful(trace: Path, **options: Any) -> Finished:
    """Verify a trace; anything but exit status 0 fails the test with verify's own words."""
    done = verify(trace, **options)
    assert done.returncode == 0, done
    assert_no_traceback(done)
    return done


def record_and_verify(argv: Sequence[str | Path], **options: Any) -> Recording:
    """Record a program and verify the trace; the recorder must not have failed itself."""
    recording = record(argv, **options)
    assert recording.returncode not in (125, 126, 127), recording
    assert_no_traceback(recording)
    assert_faithful(recording.trace)
    return recording


def assert_no_traceback(done: Finished) -> None:
    """A user's mistake and a full disk are told in a line, not by Python's innards."""
    for text in (done.stdout, done.stderr):
        # A recorded Python script may well print a traceback of its own.
        assert not re.search(r"Traceback \(most recent call last\)(.|\n)*sysrift", text), done


def assert_one_line_error(done: Finished, *words: str) -> None:
    """The command said what went wrong in exactly one line on stderr, with all of these words."""
    assert_no_traceback(done)
    lines = [line for line in done.stderr.splitlines() if line.strip()]
    assert len(lines) == 1, done
    for word in words:
        assert word.lower() in lines[0].lower(), done


def gdb_batch(
    commands: Sequence[str],
    trace: Path | None,
    *,
    gdb: str | None = None,
    timeout: float = TIMEOUT,
    env: Mapping[str, str] | None = None,
    cwd: str | Path | None = None,
) -> str:
    """Run GDB commands over a replayed trace and return all that GDB printed.

    Each is a GDB of its own, with no init files. Without a `trace` no replay is started. The exit
    status is GDB's own affair (batch mode ends with the last command's) and is not looked at.
    """
    argv = [gdb or GDB, "-nx", "-q", "-batch"]
    script = ["set width 0", "set style enabled off", f"source {ROOT / 'gdb' / 'sysrift.gdb'}"]
    if trace is not None:
        script.append(f"sysrift-replay {trace}")
    for line in (*script, *commands):
        argv += ["-ex", line]
    done = run(argv, timeout=timeout, env=env, cwd=cwd)
    return done.stdout + done.stderr


def built(name: str) -> Path:
    """The path of a built fixture; see `conftest.fixture_program`, which builds them first."""
    path = BUILT / name
    assert path.exists(), f"fixtures/Makefile did not build {name}"
    return path


def build_fixtures() -> None:
    """Build fixtures/ if anything changed; one process at a time."""
    BUILT.mkdir(exist_ok=True)
    with open(BUILT / ".lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        done = subprocess.run(
            ["make", "--no-print-directory", f"--jobs={os.cpu_count()}", "-C", str(FIXTURES)],
            capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=300,
            env={key: value for key, value in os.environ.items() if key != "MAKEFLAGS"},
        )  # fmt: skip
    assert done.returncode == 0, f"the fixtures do not build:\n{done.stdout}\n{done.stderr}"


def line_of(source: str, marker: str) -> int:
    """The line number of the comment `/* MARKER */` in fixtures/SOURCE."""
    lines = (FIXTURES / source).read_text().splitlines()
    found = [number for number, line in enumerate(lines, 1) if f"/* {marker} */" in line]
    assert len(found) == 1, f"{source} has {len(found)} lines marked {marker!r}"
    return found[0]


# -- processes ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Process:
    """A line of /proc/PID/stat."""

    pid: int
    parent: int
    name: str
    state: str


def processes() -> list[Process]:
    """All processes of the machine."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                text = (entry / "stat").read_text(errors="replace")
            except OSError:
                continue
            match = re.fullmatch(r"(\d+) \((.*)\) (\S) (\d+) .*\n?", text, re.DOTALL)
            if match:
                found.append(Process(int(match[1]), int(match[4]), match[2], match[3]))
    return found


def descendants(of: int) -> list[Process]:
    """The living and zombie processes below process `of`, children before their children."""
    everyone = processes()
    found: list[Process] = []
    parents = {of}
    while parents:
        level = [process for process in everyone if process.parent in parents]
        found += level
        parents = {process.pid for process in level}
    return found


def computing_python(passes: int) -> str:
    """A Python script that computes, while a timer interrupts it every 3 ms; what its handler saw
    of the computation is printed at the end."""
    return f"""
import signal
seen, n, x = [], 0, 1
signal.signal(signal.SIGALRM, lambda sig, frame: seen.append((n, frame.f_lasti)))
signal.setitimer(signal.ITIMER_REAL, 0.003, 0.003)
while n < {passes}:
    n += 1
    x = (x * 6364136223846793005 + n) & 0xFFFFFFFFFFFFFFFF
signal.setitimer(signal.ITIMER_REAL, 0)
print(x, seen)
"""


def kill_recorder(words: Sequence[str | Path], seconds: float, program: str = "") -> None:
    """Start a sysrift-record with these arguments, and kill it so many seconds after its program,
    the process of that name, has come to be. That has to die, too."""
    recorder = subprocess.Popen([command("sysrift-record"), *words], stdout=subprocess.DEVNULL)
    try:
        pid = wait_until(
            lambda: [p.pid for p in descendants(recorder.pid) if program in (p.name, "")]
        )[0]
        time.sleep(seconds)
    finally:
        recorder.kill()
        recorder.wait()
    wait_until(lambda: is_gone(pid), what="the program dies with its recorder")


def is_gone(pid: int) -> bool:
    """Whether a process is dead (a zombie that nobody waits for is)."""
    try:
        return " Z " in Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return True


def wait_until(condition: Any, *, seconds: float = 10.0, what: str = "") -> Any:
    """Poll until `condition()` is true and return its value; fail the test after `seconds`."""
    deadline = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        assert time.monotonic() < deadline, f"did not happen in {seconds} s: {what or condition}"
        time.sleep(0.02)
