# SPDX-License-Identifier: GPL-2.0-or-later
"""A whole recording: from the command line's words to the program's exit status."""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import sys
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import sysrift
from sysrift import machine
from sysrift.errors import CannotExecute
from sysrift.record import launch
from sysrift.record.loop import Options, Recording
from sysrift.trace import store
from sysrift.trace.writer import TraceWriter


@dataclass(frozen=True)
class RecordOptions:
    """What `sysrift-record` was asked for."""

    argv: list[str]
    output: Path | None = None
    quiet: bool = False
    checksum_every: int = 0
    store_all_files: bool = False
    pin: bool = True
    follow: bool = True
    agent: int = 0
    wait: bool = True
    environment: dict[str, str] = field(default_factory=lambda: dict(os.environ))


def warn(text: str) -> None:
    """A remark to the user, beside whatever the program prints."""
    print(f"sysrift: {text}", file=sys.stderr, flush=True)


def _metadata(options: RecordOptions, path: str, cpu: int | None) -> dict[str, Any]:
    limits = {
        name: list(resource.getrlimit(getattr(resource, f"RLIMIT_{name.upper()}")))
        for name in ("stack", "nofile", "data", "as", "core")
    }
    return {
        "argv": options.argv,
        "exe": os.path.realpath(path),
        "cwd": os.getcwd(),
        "envp": [f"{key}={value}" for key, value in options.environment.items()],
        "limits": limits,
        **machine_facts(cpu, options.checksum_every),
    }


def machine_facts(cpu: int | None, checksum_every: int) -> dict[str, Any]:
    """What the metadata of every recording says of where and how it was made."""
    return {
        "started": datetime.now().astimezone().isoformat(timespec="milliseconds"),
        "recorder": sysrift.__version__,
        "kernel": machine.kernel_release(),
        "machine": os.uname().machine,
        "host": os.uname().nodename,
        "cpu_model": machine.cpu_model(),
        "cpu_count": os.cpu_count(),
        "cpu": cpu,
        "checksum_every": checksum_every,
        "clock": "monotonic",
    }


def _current_cpu() -> int:
    """The CPU this runs on: the scheduler's choice, so the least busy one a moment ago."""
    cpu: int = ctypes.CDLL(None).sched_getcpu()
    return cpu if cpu >= 0 else min(os.sched_getaffinity(0))


def record(options: RecordOptions) -> int:
    """Record a program to its end; returns the exit status that the command should have.

    Raises SysRiftError when recording could not begin; the program did not run then.
    """
    path = launch.find_program(options.argv[0], options.environment)
    launch.refuse_setuid(path)
    own_file = options.output is None
    target = options.output or store.fresh_path(path)
    writer = None
    affinity = frozenset(os.sched_getaffinity(0))
    cpu = _current_cpu() if options.pin else None
    try:
        writer = TraceWriter(target, _metadata(options, path, cpu), affinity - {cpu} or affinity)
        pid = launch.spawn(path, options.argv, options.environment, cpu)
    except BaseException as error:
        if writer is not None:
            writer.abandon()
        if writer is not None or own_file:
            target.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise CannotExecute(f"cannot write the trace {target}: {error.strerror}", 125) from None
        raise
    if cpu is not None:
        os.sched_setaffinity(0, {cpu})
    recording = Recording(
        pid,
        writer,
        Options(options.checksum_every, affinity, cpu, options.follow, options.wait, options.agent),
        warn=warn,
        store_all_files=options.store_all_files,
    )
    restore = _step_aside(pid, recording)
    try:
        status = recording.run()
    finally:
        restore()
        os.sched_setaffinity(0, affinity)
    if not writer.images:
        target.unlink(missing_ok=True)
        warn("nothing was recorded: the program was killed before its first instruction")
        return exit_status(status)
    store.set_latest(target)
    if not options.quiet:
        _summary(writer, target, status, recording.stopped)
    return exit_status(status)


def exit_status(status: int) -> int:
    """What a shell would show for a wait status."""
    if os.WIFSIGNALED(status):
        return 128 + os.WTERMSIG(status)
    return os.WEXITSTATUS(status)


def _step_aside(pid: int, recording: Recording) -> Any:
    """Keyboard signals are the program's, and a SIGTERM is passed on to it. Returns the undoing.

    When the program itself is over and only processes that it started go on, Ctrl-C or a SIGTERM
    ends the recording.
    """

    def forward(sig: int, _: object) -> None:
        if recording.first_has_ended:
            recording.request_stop(f"the recorder got {signal.Signals(sig).name}")
        elif sig == signal.SIGTERM:
            try:
                os.kill(pid, sig)
            except ProcessLookupError:
                pass

    previous = {sig: signal.signal(sig, forward) for sig in (signal.SIGINT, signal.SIGTERM)}
    for sig in (signal.SIGQUIT, signal.SIGHUP):
        previous[sig] = signal.signal(sig, signal.SIG_IGN)

    def undo() -> None:
        for sig, handler in previous.items():
            signal.signal(sig, handler)

    return undo


def how_it_ended(status: int) -> str:
    """A wait status in words."""
    if not os.WIFSIGNALED(status):
        return f"exited with status {os.WEXITSTATUS(status)}"
    try:
        name = signal.Signals(os.WTERMSIG(status)).name
    except ValueError:
        name = f"signal {os.WTERMSIG(status)}"
    return f"killed by {name}"


def _summary(writer: TraceWriter, target: Path, status: int, stopped: str) -> None:
    how = how_it_ended(status)
    if stopped:
        how += f"; recording stopped before: {stopped}"
    warn(f"{target}: {writer.events} events, {writer.size} bytes; {how}")
