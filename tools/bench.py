# SPDX-License-Identifier: GPL-2.0-or-later
"""`make bench`: what recording and replaying cost, measured here and now.

Everything runs on one CPU (tracer and tracee take turns anyway), what is compared runs in turns
(a machine that gets slower meanwhile does so for both), and medians are given. A table goes to
stdout, the same with all samples to .bench/bench.json. Exit status 0, with --check 1 on a miss.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

from tools.benchmark.figures import Figure, machine_facts, median_of, print_figures

ROOT = Path(__file__).resolve().parent.parent
BIN = Path(sys.executable).parent
FIXTURES = ROOT / "fixtures"
BUILT = FIXTURES / "build"
RESULT = ROOT / ".bench" / "bench.json"

ROUNDS = 5
LOOP = 5000  # calls of the recording benchmark
COMPRESSED = 20 << 20  # bytes
STARTED = 50  # programs that a shell starts
REPLAYED = 20_000  # calls of the replaying benchmark

Sample = Callable[[], float]


class Bench:
    """The measurements, in a directory of their own, on one CPU."""

    def __init__(self, folder: Path, cpu: int, rounds: int) -> None:
        self.folder = folder
        self.cpu = cpu
        self.rounds = rounds
        self.gdb = os.environ.get("SYSRIFT_GDB", "gdb")

    # -- running --------------------------------------------------------------------------------

    def seconds(self, *argv: str | Path, check: bool = True, anywhere: bool = False) -> float:
        """Run a command on the CPU, or `anywhere`; its wall clock time."""
        words = [] if anywhere else ["taskset", "-c", str(self.cpu)]
        words += map(str, argv)
        with (
            open(self.folder / "stdout", "w") as output,
            open(self.folder / "stderr", "w+") as errors,
        ):
            start = time.perf_counter()
            done = subprocess.run(
                words,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=errors,
                timeout=170,
                check=False,
                env={**os.environ, "DEBUGINFOD_URLS": ""},
            )
            taken = time.perf_counter() - start
            if check and done.returncode != 0:
                errors.seek(0)
                raise SystemExit(
                    f"bench: {' '.join(words)}: status {done.returncode}: {errors.read().strip()}"
                )
        return taken

    def record(self, trace: str, *argv: str | Path, agent: bool = False) -> float:
        """Record a command; its wall clock time."""
        path = self.folder / trace
        how = "--agent" if agent else "--no-agent"
        words = [BIN / "sysrift-record", "-q", how, "-o", path, "--", *argv]
        return self.seconds(*words, anywhere=agent)

    def replay(self, trace: str, *commands: str) -> float:
        """Replay in GDB under commands; wall clock time until GDB has ended."""
        words = ["-nx", "-batch", "-ex", "set sysrift echo off"]
        for command in commands:
            words += ["-ex", command]
        path = self.folder / trace
        # The exit status of GDB in batch mode is that of whatever came last.
        taken = self.seconds(
            BIN / "sysrift-replay", "--gdb", self.gdb, path, "--", *words, check=False
        )
        printed = (self.folder / "stdout").read_text(errors="replace")
        expected = "SysRift: end of the recording" if commands else " events in "
        if expected not in printed:
            raise SystemExit(f"bench: a replay in GDB did not work:\n{printed}")
        return taken

    def in_turns(self, **samples: Sample) -> dict[str, list[float]]:
        """Take each sample once a round; the first round warms the caches and is not counted."""
        taken: dict[str, list[float]] = {name: [] for name in samples}
        for number in range(self.rounds + 1):
            for name, sample in samples.items():
                value = sample()
                if number:
                    taken[name].append(value)
        return taken

    # -- figures --------------------------------------------------------------------------------

    def recording(self) -> list[Figure]:
        """What a recorded system call costs, and what strace takes for it."""
        loop = BUILT / "getppid_loop"
        log = self.folder / "strace.out"

        def traced(count: int) -> float:
            return self.seconds("strace", "-f", "-o", log, loop, str(count))

        taken = self.in_turns(
            record=lambda: self.record("loop.srl", loop, str(LOOP)),
            strace=lambda: traced(LOOP),
            record_none=lambda: self.record("none.srl", loop, "0"),
            strace_none=lambda: traced(0),
        )
        ours = _per(taken["record"], taken["record_none"], LOOP)
        theirs = _per(taken["strace"], taken["strace_none"], LOOP)
        ratios = [one / other for one, other in zip(ours, theirs, strict=True)]
        return [
            median_of("recording a system call", ours, "us", 120),
            median_of("strace -f -o FILE, the same", theirs, "us"),
            median_of("recording, compared with strace", ratios, "x", 4),
        ]

    def programs(self) -> list[Figure]:
        """What a program that computes feels of being recorded, and what starting others costs."""
        source = self.folder / "text"
        with source.open("w") as file:
            numbers = random.Random(1)
            while file.tell() < COMPRESSED:
                file.write(f"{numbers.getrandbits(200):x} {numbers.randrange(10**6)}\n")
        loop = f"i=0; while [ $i -lt {STARTED} ]; do /bin/true; i=$((i+1)); done"
        taken = self.in_turns(
            bzip2=lambda: self.seconds("bzip2", "-kf", source),
            bzip2_recorded=lambda: self.record("bzip2.srl", "bzip2", "-kf", source),
            true=lambda: self.seconds("sh", "-c", loop),
            true_recorded=lambda: self.record("started.srl", "sh", "-c", loop),
            none_recorded=lambda: self.record("none.srl", "sh", "-c", ":"),
        )
        # The recorder's own start-up and end are shown apart.
        own = statistics.median(taken["none_recorded"])
        ratios = [
            (recorded - own) / native
            for recorded, native in zip(taken["bzip2_recorded"], taken["bzip2"], strict=True)
        ]
        started = [(recorded - own) / STARTED * 1000 for recorded in taken["true_recorded"]]
        native = [value / STARTED * 1000 for value in taken["true"]]
        return [
            median_of("recorded / native, bzip2 of 20 MB", ratios, "x", 1.05),
            median_of("fork and exec of /bin/true, recorded", started, "ms", 40),
            median_of("  the same, native", native, "ms"),
        ]

    def agent(self) -> list[Figure]:
        """What programs that make many calls feel of being recorded by the agent.

        On all CPUs: events are compressed on another one than the program's.
        """
        copy = self.folder / "copy"
        rows: dict[str, tuple[float, list[str | Path]]] = {
            "1,000,000 getppid": (1.6, [BUILT / "getppid_loop", "1000000"]),
            "grep -r, /usr/include": (1.5, ["grep", "-rc", "include", "/usr/include"]),
            "find, /usr/share": (1.5, ["find", "/usr/share", "-size", "+100M"]),
            "du, /usr/share": (1.5, ["du", "-s", "/usr/share"]),
            "cp -r /usr/include": (1.5, ["cp", "-rT", "/usr/include", copy]),
            "bzip2 of 20 MB": (1.5, ["bzip2", "-kf", self.folder / "text"]),
        }

        def sample(argv: list[str | Path], recorded: bool) -> Sample:
            def take() -> float:
                shutil.rmtree(copy, ignore_errors=True)
                if recorded:
                    return self.record("agent.srl", *argv, agent=True)
                return self.seconds(*argv, check=False, anywhere=True)

            return take

        figures = []
        for name, (goal, argv) in rows.items():
            taken = self.in_turns(
                native=sample(argv, False),
                recorded=sample(argv, True),
                felt=lambda: self._felt("agent.srl"),
            )
            ratios = [a / b for a, b in zip(taken["felt"], taken["native"], strict=True)]
            whole = [a / b for a, b in zip(taken["recorded"], taken["native"], strict=True)]
            figures.append(median_of(f"--agent / native, {name}", ratios, "x", goal))
            figures.append(median_of("  the command, start-up and end included", whole, "x"))
        return figures

    def _felt(self, trace: str) -> float:
        """Seconds from a recorded program's execve to its end."""
        from sysrift.trace.reader import Trace

        recorded = Trace(self.folder / trace)
        try:
            assert recorded.end is not None
            return recorded.end.duration_us / 1e6
        finally:
            recorded.close()

    def trace_size(self) -> list[Figure]:
        """How many bytes of the trace a call takes beside the memory that it moved."""
        from sysrift.trace.reader import Trace
        from sysrift.views.summary import storage

        self.record("ls.srl", "ls", "-lR", "/usr/include")
        path = self.folder / "ls.srl"
        trace = Trace(path)
        try:
            used = storage(trace)
            count = trace.event_count
        finally:
            trace.close()
        return [
            Figure("trace beside payload, ls -lR /usr/include", used.bytes_per_event, "bytes", 40),
            Figure("  all of the trace, a call", path.stat().st_size / max(count, 1), "bytes"),
            Figure("  system calls of that recording", count, ""),
        ]

    def running_ahead(self) -> list[Figure]:
        """What a replayed system call costs in GDB, and how long its first prompt takes."""
        self.record("calls.srl", BUILT / "many_calls", str(REPLAYED))
        taken = self.in_turns(
            run=lambda: self.replay("calls.srl", "continue"),
            none=lambda: self.replay("calls.srl"),
        )
        calls = _per(taken["run"], taken["none"], REPLAYED)
        return [
            median_of("running ahead over a call in GDB", calls, "us", 150),
            median_of("sysrift-replay to the first prompt", taken["none"], "s", 1.5),
            median_of("  GDB alone", self.in_turns(gdb=self._gdb_alone)["gdb"], "s"),
        ]

    def _gdb_alone(self) -> float:
        return self.seconds(self.gdb, "-nx", "-batch", "-ex", "python pass")

    def start_up(self) -> list[Figure]:
        """What recording adds to a program that does next to nothing."""
        smallest = BUILT / "nolibc"  # no library, three system calls
        taken = self.in_turns(
            record=lambda: self.record("true.srl", "/bin/true"),
            native=lambda: self.seconds("/bin/true"),
            record_smallest=lambda: self._recorded_smallest(smallest),
            smallest=lambda: self.seconds(smallest, check=False),
        )
        of_true = _differences(taken["record"], taken["native"])
        of_smallest = _differences(taken["record_smallest"], taken["smallest"])
        return [
            median_of("recorder's start-up and end, /bin/true", of_true, "s", 0.25),
            median_of("  the same with no library to load", of_smallest, "s", 0.25),
        ]

    def _recorded_smallest(self, program: Path) -> float:
        path = self.folder / "smallest.srl"
        # The program's own exit status, which is 7, is the recorder's.
        return self.seconds(BIN / "sysrift-record", "-q", "-o", path, "--", program, check=False)


def _differences(more: Sequence[float], less: Sequence[float]) -> list[float]:
    base = statistics.median(less)
    return [value - base for value in more]


def _per(more: Sequence[float], less: Sequence[float], count: int) -> list[float]:
    """Microseconds each, the cost of starting and ending taken off."""
    return [value / count * 1e6 for value in _differences(more, less)]


def main() -> int:
    """Measure, print, and keep the figures."""
    parser = argparse.ArgumentParser(description="measure what recording and replaying cost")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="samples of each (default 5)")
    parser.add_argument("--check", action="store_true", help="fail when a goal is missed")
    args = parser.parse_args()
    for tool in ("taskset", "strace"):
        if shutil.which(tool) is None:
            sys.exit(f"bench: {tool} is missing: apt-get install util-linux strace")
    subprocess.run(
        ["make", "--silent", "--no-print-directory", "-C", str(FIXTURES)],
        check=True,
        env={key: value for key, value in os.environ.items() if key != "MAKEFLAGS"},
    )
    cpu = max(os.sched_getaffinity(0))  # CPU 0 gets most of the interrupts
    figures: list[Figure] = []
    with tempfile.TemporaryDirectory(prefix="sysrift-bench-") as name:
        bench = Bench(Path(name), cpu, max(1, args.rounds))
        for title, measure in (
            ("recording", bench.recording),
            ("programs", bench.programs),
            ("the agent", bench.agent),
            ("trace size", bench.trace_size),
            ("replaying", bench.running_ahead),
            ("start-up", bench.start_up),
        ):
            print(f"measuring: {title} ...", file=sys.stderr, flush=True)
            figures += measure()
    print_figures(figures)
    RESULT.parent.mkdir(exist_ok=True)
    kept = [{**asdict(figure), "verdict": figure.verdict} for figure in figures]
    RESULT.write_text(
        json.dumps(
            {
                "facts": {**machine_facts(), "pinned_to": cpu, "rounds": args.rounds},
                "figures": kept,
            },
            indent=1,
        )
        + "\n"
    )
    return int(args.check and any(figure.verdict == "MISS" for figure in figures))


if __name__ == "__main__":
    sys.exit(main())
