# SPDX-License-Identifier: GPL-2.0-or-later
"""What was measured, and what is told by it: ratios, misses, and the figures that have goals.

All of it goes to a JSON file and comes back from there.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from tools.benchmark.figures import Figure

VERSION = 1
COLUMNS = ("native", "record", "verify", "no_agent", "strace")
MEMORY_GOAL = 150.0  # MiB
EXEC_GOAL = 8.0  # ms


class ResultsError(Exception):
    """A file does not hold results."""


@dataclass
class Column:
    """The samples of one way to run a program, in seconds."""

    command: list[float] = field(default_factory=list)  # all that the user waits for
    program: list[float] = field(default_factory=list)  # from the program's execve to its end
    share: float = 1.0  # of what the native column does
    failure: str = ""

    @property
    def felt(self) -> float:
        """The median of the program's seconds (of the command's where only these are known)."""
        return statistics.median(self.program or self.command)

    @property
    def whole(self) -> float:
        """The median of the command's seconds."""
        return statistics.median(self.command)


@dataclass
class Result:
    """A row's samples, and its trace."""

    name: str
    kind: str = "single"
    absent: str = ""  # the program that is not installed
    most: float = 1.5
    most_a_call: float = 12
    execs: int = 0
    repeat: int = 1
    note: str = ""
    columns: dict[str, Column] = field(default_factory=dict)
    events: int = 0  # of one sample's recording
    trace_bytes: int = 0
    beside: float = 0.0  # bytes of the event blocks a call, beside payload
    peak_kib: int = 0  # of the recorder
    stops: dict[str, list[float]] = field(default_factory=dict)
    """Of one more recording: what stops were about, to [how many, the recorder's seconds]."""
    stops_program: float = 0.0  # the program's seconds then, of the first of its `repeat` runs

    @property
    def failures(self) -> list[str]:
        """What went wrong, by column."""
        return [f"{name}: {one.failure}" for name, one in self.columns.items() if one.failure]

    def ratio(self, name: str, whole: bool = False) -> float | None:
        """How many times as long as natively it took (the same part of the work), if known."""
        native, column = self.columns.get("native"), self.columns.get(name)
        if not native or not column or not native.command or not column.command or column.failure:
            return None
        if whole:
            return column.whole / (native.whole * column.share)
        return column.felt / (native.felt * column.share)

    @property
    def native_seconds(self) -> float | None:
        """The native median."""
        native = self.columns.get("native")
        return native.felt if native and native.command else None

    @property
    def exec_ms(self) -> float | None:
        """What recording adds for each program executed, in ms."""
        ratio, native = self.ratio("record"), self.native_seconds
        if ratio is None or native is None or not self.execs:
            return None
        return (ratio - 1) * native / (self.execs * self.repeat) * 1000

    @property
    def top_stops(self) -> list[tuple[str, int, float]]:
        """(what about, how many, seconds) of the stops, those first that took longest."""
        listed = [(label, int(count), taken) for label, (count, taken) in self.stops.items()]
        return sorted(listed, key=lambda one: -one[2])

    @property
    def bytes_a_call(self) -> float | None:
        """All of the trace, by system calls."""
        return self.trace_bytes / self.events if self.events else None

    @property
    def peak_mib(self) -> float | None:
        """The recorder's largest resident set."""
        return self.peak_kib / 1024 if self.peak_kib else None

    @property
    def missed(self) -> list[str]:
        """The goals that this row misses: `record`, `verify`, `bytes`, `memory`, `exec`."""
        checks = (
            ("record", self.ratio("record"), self.most),
            ("exec", self.exec_ms, EXEC_GOAL),
            ("bytes", self.beside if self.events else None, self.most_a_call),
            ("memory", self.peak_mib, MEMORY_GOAL),
        )
        return [name for name, value, most in checks if value is not None and value > most]


@dataclass
class Results:
    """A run of the benchmark."""

    facts: dict[str, object]
    rows: list[Result]
    extra: list[Figure] = field(default_factory=list)  # measured apart: start-up, fast-forward

    @property
    def figures(self) -> list[Figure]:
        """The figures that have goals."""
        single = [row for row in self.rows if row.kind == "single"]
        made: list[Figure] = []
        recorded = _known(row.ratio("record") for row in single)
        if recorded:
            mean = statistics.geometric_mean(recorded)
            made.append(Figure("record / native, single-process rows", mean, "x", 1.15))
            worst = max(single, key=lambda row: row.ratio("record") or 0)
            name = f"  the worst of them: {worst.name}"
            made.append(Figure(name, max(recorded), "x", 1.5))
        for row in self.rows:
            ratio = row.ratio("record")
            if row.kind == "loop" and ratio is not None:
                made.append(Figure(f"record / native, {row.name}", ratio, "x", row.most))
            if row.kind == "tree" and ratio is not None and row.exec_ms is not None:
                made.append(Figure(f"record / native, {row.name}", ratio, "x", row.most))
                made.append(Figure("  added for each exec", row.exec_ms, "ms", EXEC_GOAL))
        verified = _known(row.ratio("verify", whole=True) for row in self.rows)
        if verified:
            mean = statistics.geometric_mean(verified)
            made.append(Figure("verify / native, all rows", mean, "x", 1.0))
        peaks = _known(row.peak_mib for row in self.rows)
        if peaks:
            made.append(Figure("recorder's memory, at most", max(peaks), "MiB", MEMORY_GOAL))
        return made + self.extra

    def save(self, path: Path) -> None:
        """Write a JSON file, with what follows from the samples too."""
        value = {
            "version": VERSION,
            "facts": self.facts,
            "rows": [{**asdict(row), "told": _told(row)} for row in self.rows],
            "extra": [asdict(one) for one in self.extra],
            "figures": [{**asdict(one), "verdict": one.verdict} for one in self.figures],
        }
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(value, indent=1) + "\n")


def load(path: Path) -> Results:
    """The results in a JSON file. Raises ResultsError when it holds none, OSError."""
    try:
        value = json.loads(path.read_text())
        if value["version"] != VERSION:
            raise ResultsError(f"{path}: version {value['version']}, not {VERSION}")
        rows = []
        for row in value["rows"]:
            row.pop("told", None)
            columns = {name: Column(**column) for name, column in row.pop("columns").items()}
            rows.append(Result(**row, columns=columns))
        return Results(value["facts"], rows, [Figure(**one) for one in value["extra"]])
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ResultsError(f"{path}: not results of the benchmark: {error}") from error


def _told(row: Result) -> dict[str, object]:
    ratios = {
        f"{name}_{kind}": row.ratio(name, whole=kind == "command")
        for name in COLUMNS[1:]
        for kind in ("program", "command")
    }
    return {
        **ratios,
        "exec_ms": row.exec_ms,
        "bytes_a_call": row.bytes_a_call,
        "missed": row.missed,
    }


def _known(values: Iterable[float | None]) -> Sequence[float]:
    return [value for value in values if value is not None]
