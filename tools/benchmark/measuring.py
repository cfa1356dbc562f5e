# SPDX-License-Identifier: GPL-2.0-or-later
"""Measuring one row: all columns in turns, so that a machine that gets slower does so for all."""

from __future__ import annotations

import json
import shutil
import statistics
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from sysrift.trace.reader import Trace
from sysrift.views.summary import storage
from tools.benchmark import material
from tools.benchmark.figures import Figure, median_of
from tools.benchmark.results import COLUMNS, Column, Result
from tools.benchmark.rows import Row
from tools.benchmark.running import Run, RunFailed, Started, asked, run

BIN = Path(sys.executable).parent
Words = list[str | Path]
SLOW = ("no_agent", "strace")
"""Columns to compare with: no goal is about them, and they take longer than all others together."""


@dataclass(frozen=True)
class Places:
    """Where things are: all of them exist."""

    built: Path  # the fixtures
    material: Path  # kept from one run of the benchmark to the next
    scratch: Path  # traces and outputs, on the disk
    fast: Path  # in memory
    failed: Path  # recordings that did not come out right are kept here


@dataclass(frozen=True)
class Effort:
    """How much is done for a row."""

    runs: int = 5
    timeout: float = 120.0  # seconds for one run of one program
    slow_seconds: float = 10.0  # after so many, a slow column of a row gets no further sample


class Measuring:
    """The samples of one row."""

    def __init__(
        self, row: Row, places: Places, effort: Effort, progress: Callable[[str], None]
    ) -> None:
        self.row = row
        self.places = places
        self.effort = effort
        self._progress = progress
        self._here = places.material
        self._server_ns = 0.0
        self.result = Result(
            row.name,
            row.kind,
            row.missing(),
            row.most,
            row.most_a_call,
            row.execs,
            row.repeat,
            row.note,
        )

    def measure(self) -> Result:
        """Take all samples. A column that fails says why and is not tried again."""
        if self.result.absent:
            return self.result
        self._progress("making what it works on")
        self._here = material.prepared(self.row.make, self.places.material)
        columns = self.result.columns
        shares = {"no_agent": self.row.stops_share, "strace": self.row.strace_share}
        for name in COLUMNS:
            columns[name] = Column(share=shares.get(name, 1.0))
        self._progress("warming up")
        try:
            self._native(Column())
        except RunFailed as failure:
            columns["native"].failure = str(failure)
            return self.result
        for number in range(self.effort.runs):
            for name in COLUMNS:
                column = columns[name]
                if column.failure or (name == "verify" and columns["record"].failure):
                    continue
                if name in SLOW and sum(column.command) > self.effort.slow_seconds:
                    continue
                self._progress(f"run {number + 1} of {self.effort.runs}, {name}")
                self._sample(name, column)
        if not columns["record"].failure:
            self._progress("where the time goes")
            self._count_stops()
        return self.result

    def _count_stops(self) -> None:
        """Record once more, with a clock around what the recorder does at a stop."""
        counts = self.places.scratch / "stops.json"
        recorder: Words = [sys.executable, Path(__file__).with_name("stops.py"), counts]
        try:
            _, self.result.stops_program = self._record(0, "--agent", 1.0, recorder=recorder)
            self.result.stops = json.loads(counts.read_text())
        except RunFailed as failure:
            self.result.columns["record"].failure = f"stops.py: {failure}"

    def _sample(self, name: str, column: Column) -> None:
        ways = {
            "native": self._native,
            "record": self._recorded,
            "verify": self._verified,
            "no_agent": self._recorded_by_stops,
            "strace": self._straced,
        }
        try:
            ways[name](column)
        except RunFailed as failure:
            column.failure = str(failure)
            if name in ("record", "verify"):
                self._keep()

    def _keep(self) -> None:
        """Keep the recordings that something is wrong with."""
        self.places.failed.mkdir(parents=True, exist_ok=True)
        for number in range(self.row.repeat):
            trace = self._trace(number)
            if trace.exists():
                name = "".join(c if c.isalnum() else "-" for c in self.row.name)
                shutil.move(trace, self.places.failed / f"{name}-{number}.srl")

    # -- the columns ----------------------------------------------------------------------------

    def _native(self, column: Column) -> None:
        runs = [self._run([], column.share) for _ in range(self.row.repeat)]
        column.command.append(sum(one.seconds for one, _ in runs))
        column.program.append(sum(felt or one.seconds for one, felt in runs))

    def _straced(self, column: Column) -> None:
        wrapper: Words = ["strace", "-f", "-o", self.places.scratch / "strace.out"]
        runs = [self._run(wrapper, column.share) for _ in range(self.row.repeat)]
        column.command.append(sum(one.seconds for one, _ in runs))
        if self.row.server:
            column.program.append(sum(felt for _, felt in runs))

    def _recorded(self, column: Column) -> None:
        seconds = felt = 0.0
        for number in range(self.row.repeat):
            one, program = self._record(number, "--agent", column.share)
            seconds += one.seconds
            felt += program
            self.result.peak_kib = max(self.result.peak_kib, one.peak_kib)
        column.command.append(seconds)
        column.program.append(felt)
        self._look_at_traces()

    def _recorded_by_stops(self, column: Column) -> None:
        runs = [
            self._record(number, "--no-agent", column.share, "stops")
            for number in range(self.row.repeat)
        ]
        column.command.append(sum(one.seconds for one, _ in runs))
        column.program.append(sum(felt for _, felt in runs))

    def _verified(self, column: Column) -> None:
        seconds = 0.0
        for number in range(self.row.repeat):
            with Started(
                [BIN / "sysrift", "verify", self._trace(number)],
                self.places.scratch,
                self.places.scratch,
            ) as started:
                seconds += started.wait(self.effort.timeout).seconds
                if ": faithful: " not in started.output:
                    raise RunFailed(f"verify said: {started.output}")
                if started.errors:
                    raise RunFailed(f"verify said: {started.errors}")
        column.command.append(seconds)

    # -- one run --------------------------------------------------------------------------------

    def _record(
        self,
        number: int,
        how: str,
        share: float,
        name: str = "trace",
        recorder: Words | None = None,
    ) -> tuple[Run, float]:
        """A recording; also what the program felt, by the recording or by the server's client."""
        trace = self._trace(number, name)
        trace.unlink(missing_ok=True)
        recorder = recorder or [BIN / "sysrift-record"]
        one, felt = self._run([*recorder, "-q", how, "-o", trace, "--"], share)
        recorded = Trace(trace)
        try:
            end = recorded.end
            if end is None or end.how != "exited" or not recorded.file.closed:
                raise RunFailed(f"the recording does not reach the program's end: {end}")
            return one, felt or end.duration_us / 1e6
        finally:
            recorded.close()

    def _run(self, wrapper: Words, share: float) -> tuple[Run, float]:
        """Run the program, by a wrapper or not; a server's client's seconds, else 0."""
        row, here = self.row, self._here
        cwd = here / row.where
        for left in row.made:
            self._remove(left, cwd)
        places = {"here": here, "built": self.places.built, "fast": self.places.fast}
        port = material.serve(here) if row.server else 0
        words = [*wrapper, *row.words(share, **places)]
        try:
            if not row.server:
                return run(words, cwd, self.places.scratch, self.effort.timeout), 0.0
            client: Words = [here / "http_client", str(port), str(round(row.count * share))]
            return asked(words, client, cwd, self.places.scratch, self.effort.timeout)
        finally:
            for left in row.made:
                self._remove(left, cwd)

    def _remove(self, name: str, cwd: Path) -> None:
        path = cwd / name.format(fast=self.places.fast)
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)

    def _trace(self, number: int, name: str = "trace") -> Path:
        return self.places.scratch / f"{name}-{number}.srl"

    def _look_at_traces(self) -> None:
        """Sizes, of all the recordings of one sample."""
        events = size = 0
        beside = 0.0
        for number in range(self.row.repeat):
            trace = Trace(self._trace(number))
            try:
                count = trace.file.event_count
                events += count
                size += trace.file.size
                beside += storage(trace).bytes_per_event * count
            finally:
                trace.close()
        self.result.events, self.result.trace_bytes = events, size
        self.result.beside = beside / events if events else 0.0


def start_up(places: Places, effort: Effort) -> list[Figure]:
    """What recording, and verifying, take for a program that does next to nothing."""
    trace = places.scratch / "true.srl"
    ways: dict[str, Words] = {
        "native": ["/bin/true"],
        "record": [BIN / "sysrift-record", "-q", "-o", trace, "--", "/bin/true"],
        "verify": [BIN / "sysrift", "verify", "-q", trace],
    }
    taken: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(effort.runs):
        for name, words in ways.items():
            one = run(words, places.scratch, places.scratch, effort.timeout)
            taken[name].append(one.seconds)
    native = statistics.median(taken["native"])
    return [
        median_of(
            "recorder's start-up and end, /bin/true",
            [value - native for value in taken["record"]],
            "s",
            0.25,
        ),
        median_of("  that of verify", [value - native for value in taken["verify"]], "s"),
    ]


def fast_forward(result: Result, verify_start: float) -> list[Figure]:
    """Events a second that a replay runs through, start-up taken off, by a row's verify samples."""
    column = result.columns.get("verify")
    if not column or not column.command or not result.events:
        return []
    rates = [result.events / max(value - verify_start, 1e-3) for value in column.command]
    figure = median_of(f"fast-forward, {result.name}", rates, "events/s", 1e6)
    figure.at_least = True
    return [figure]
