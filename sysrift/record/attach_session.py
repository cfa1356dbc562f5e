# SPDX-License-Identifier: GPL-2.0-or-later
"""A whole recording of a running process: from its number to the exit status."""

from __future__ import annotations

import os
import resource
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sysrift.errors import RecordError
from sysrift.record import attachable, pair, rescue, seizing, snapshot
from sysrift.record.attach import AttachedRecording
from sysrift.record.loop import Options
from sysrift.record.session import exit_status, how_it_ended, machine_facts, warn
from sysrift.trace import store
from sysrift.trace.writer import TraceWriter


@dataclass(frozen=True)
class AttachOptions:
    """What `sysrift-record -p` was asked for."""

    pid: int
    output: Path | None = None
    quiet: bool = False
    checksum_every: int = 0
    store_all_files: bool = False
    pin: bool = True
    follow: bool = True
    wait: bool = True
    seconds: float = 0.0  # to record; 0: no limit
    events: int = 0  # to record; 0: no limit


def attach(options: AttachOptions) -> int:
    """Record a running process; returns the exit status that the command should have.

    That is 0 when the process goes on. Raises RecordError when it cannot be attached to.
    """
    attachable.refuse_unattachable(options.pid)
    name = attachable.status_of(options.pid).get("Name", "process")
    target = options.output or store.fresh_path(name)
    try:
        return pair.run(lambda channel: _record(options, target, channel), rescue.put_right)
    finally:
        if options.output is None and target.exists() and not target.stat().st_size:
            target.unlink()


def _record(options: AttachOptions, target: Path, channel: pair.Channel) -> int:
    """In the recorder's process: attach, record, let go, say what was recorded."""
    pid = options.pid
    seizing.seize(pid)
    affinity = frozenset(os.sched_getaffinity(pid))
    cpu = _cpu_of(pid, affinity) if options.pin else None
    metadata = _metadata(options, cpu)
    writer = TraceWriter(target, metadata)
    try:
        recording = AttachedRecording(
            pid,
            writer,
            Options(options.checksum_every, affinity, cpu, options.follow, options.wait),
            warn,
            channel.tell,
            options.store_all_files,
            options.quiet,
            options.events,
        )
        recording.on_begun = channel.begin
        recording.look_at_files()
        snapshot.prepare(writer, pid)
        channel.stop_when_told(
            recording.request_stop, lambda: bool(recording.leaving), options.seconds
        )
        status = recording.run()
    except BaseException:
        writer.abandon()
        target.unlink(missing_ok=True)
        raise
    if recording.failed is not None or not writer.images:
        target.unlink(missing_ok=True)
        raise recording.failed or RecordError(
            f"nothing was recorded of process {pid}: {recording.stopped or 'it has ended'}"
        )
    store.set_latest(target)
    if not options.quiet:
        if recording.outlived:
            how = f"detached, process {pid} goes on ({recording.stopped})"
        else:
            how = how_it_ended(status)
        warn(f"{target}: {writer.events} events, {writer.size} bytes; {how}")
    return 0 if recording.outlived else exit_status(status)


def _cpu_of(pid: int, affinity: frozenset[int]) -> int | None:
    """The CPU that a process last ran on (proc_pid_stat(5), field 39), if the recorder may too."""
    own = os.sched_getaffinity(0) & affinity
    text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    last = int(text.rpartition(")")[2].split()[36])
    return last if last in own else min(own, default=None)


def _metadata(options: AttachOptions, cpu: int | None) -> dict[str, Any]:
    pid = options.pid

    def words(name: str) -> list[str]:
        try:
            raw = Path(f"/proc/{pid}/{name}").read_bytes()
        except OSError:
            return []
        return [os.fsdecode(word) for word in raw.split(b"\0")[:-1]]

    def link(name: str) -> str:
        try:
            return os.readlink(f"/proc/{pid}/{name}")
        except OSError:
            return ""

    limits = {
        name: list(resource.prlimit(pid, getattr(resource, f"RLIMIT_{name.upper()}")))
        for name in ("stack", "nofile", "data", "as", "core")
    }
    exe = link("exe")
    return {
        "argv": words("cmdline") or [exe],
        "exe": exe,
        "cwd": link("cwd"),
        "envp": words("environ"),
        "attached": pid,
        "limits": limits,
        **machine_facts(cpu, options.checksum_every),
    }
