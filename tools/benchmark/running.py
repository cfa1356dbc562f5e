# SPDX-License-Identifier: GPL-2.0-or-later
"""Running a program for the benchmark: how long it took, and how much memory it had at most."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tools.benchmark.material import PLAIN_GIT

_LOOK = 0.02  # seconds between looks at a process's memory
_GRACE = 5.0  # seconds that a process has for ending when asked to
_SHOWN = 300  # characters of what a failed program said


class RunFailed(Exception):
    """A program did not do what it should: which, and what it said."""


@dataclass(frozen=True)
class Run:
    """One run of a command."""

    seconds: float  # from before it was started until it had ended
    peak_kib: int  # its largest resident set (VmHWM, proc(5)), without its children's


def environment() -> dict[str, str]:
    """That of every run: nothing of the user's settings changes what is measured."""
    kept = {
        key: value
        for key, value in os.environ.items()
        if not key.startswith(("SYSRIFT_", "GIT_", "MAKE", "MFLAGS", "PYTHON", "BENCH_"))
    }
    return {**kept, **PLAIN_GIT, "LC_ALL": "C", "DEBUGINFOD_URLS": ""}


class Started:
    """A command that runs, in a session of its own; as a context it ends with it, whatever came."""

    def __init__(self, words: Sequence[str | Path], cwd: Path, scratch: Path) -> None:
        """Start it: stdin is empty, stdout and stderr go to files in `scratch`."""
        self._words = [str(word) for word in words]
        self._errors = scratch / "stderr"
        self._output = scratch / "stdout"
        self.peak_kib = 0
        with self._output.open("wb") as output, self._errors.open("wb") as errors:
            self._start = time.perf_counter()
            self._process = subprocess.Popen(
                self._words,
                cwd=cwd,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=errors,
                env=environment(),
                start_new_session=True,
            )
        self._pidfd = os.pidfd_open(self._process.pid)

    @property
    def pid(self) -> int:
        """Its process id, which is its session's too."""
        return self._process.pid

    def __enter__(self) -> Started:
        return self

    def __exit__(self, *_: object) -> None:
        try:
            if self._process.returncode is None:
                self._end()
        finally:
            os.close(self._pidfd)

    def _end(self) -> None:
        """End it and all that it started: first by SIGTERM, which a recorder passes on."""
        for number in (signal.SIGTERM, signal.SIGKILL):
            # Not reaped yet, so the session's id cannot be somebody else's.
            os.killpg(self._process.pid, number)
            if select.select([self._pidfd], [], [], _GRACE)[0]:
                break
        self._process.wait()

    def wait(self, timeout: float, statuses: Sequence[int] = (0,)) -> Run:
        """Wait until it has ended. Raises RunFailed when it takes too long or ends otherwise."""
        until = time.perf_counter() + timeout
        while not select.select([self._pidfd], [], [], _LOOK)[0]:
            self._look()
            if time.perf_counter() > until:
                self._end()
                raise RunFailed(f"{self._said()}: still running after {timeout:.0f} s")
        seconds = time.perf_counter() - self._start
        status = self._process.wait()
        if status not in statuses:
            raise RunFailed(f"{self._said()}: status {status}: {self._text(self._errors)}")
        return Run(seconds, self.peak_kib)

    def _look(self) -> None:
        try:
            with open(f"/proc/{self._process.pid}/status") as file:
                for line in file:
                    if line.startswith("VmHWM:"):
                        self.peak_kib = max(self.peak_kib, int(line.split()[1]))
        except (OSError, ValueError):
            pass  # it has just ended

    def _said(self) -> str:
        text = " ".join(self._words)
        return text if len(text) <= _SHOWN else text[:_SHOWN] + "..."

    def _text(self, path: Path) -> str:
        return path.read_text(errors="replace").strip()[-_SHOWN:]

    @property
    def output(self) -> str:
        """What it has printed."""
        return self._output.read_text(errors="replace")

    @property
    def errors(self) -> str:
        """What it has printed on stderr."""
        return self._text(self._errors)


def run(words: Sequence[str | Path], cwd: Path, scratch: Path, timeout: float) -> Run:
    """Run a command to its end. Raises RunFailed."""
    with Started(words, cwd, scratch) as started:
        return started.wait(timeout)


def asked(
    words: Sequence[str | Path],
    client: Sequence[str | Path],
    cwd: Path,
    scratch: Path,
    timeout: float,
) -> tuple[Run, float]:
    """Run a server, ask it by a client, end it by SIGQUIT; also the seconds by the client's clock.

    The server writes its process id to `pid` in `cwd`, the client prints nanoseconds.
    """
    own = scratch / "client"
    own.mkdir(exist_ok=True)
    with Started(words, cwd, scratch) as server:
        with Started(client, cwd, own) as asking:
            asking.wait(timeout)
            taken = int(asking.output) / 1e9
        os.kill(int((cwd / "pid").read_text()), signal.SIGQUIT)
        return server.wait(timeout), taken
