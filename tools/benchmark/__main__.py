# SPDX-License-Identifier: GPL-2.0-or-later
"""`make bench-full`: what programs feel of being recorded, row by row; see docs/performance.md.

Exit status: 0 all was measured (goals may be missed); 1 a program could not be recorded, replayed
or run, or --check and a goal is missed; 2 wrong use; 130 interrupted.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

from tools.benchmark import drawing, measuring, report
from tools.benchmark.figures import machine_facts
from tools.benchmark.results import Result, Results, ResultsError, load
from tools.benchmark.rows import ROWS, Row
from tools.benchmark.running import RunFailed

ROOT = Path(__file__).resolve().parent.parent.parent
KEPT = ROOT / ".bench"
DOCS = ROOT / "docs"
FORWARD = "getppid, 2M"  # whose replay tells how fast events are run through


class Progress:
    """What is being measured, on stderr: one line that changes, or at no terminal a line a row."""

    def __init__(self, total: int) -> None:
        self._total = total
        self._number = 0
        self._name = ""
        self._terminal = sys.stderr.isatty()

    def row(self, name: str) -> None:
        """A row begins."""
        self._number += 1
        self._name = name
        if not self._terminal:
            print(f"[{self._number}/{self._total}] {name}", file=sys.stderr, flush=True)

    def __call__(self, text: str) -> None:
        """What is done for it now."""
        if self._terminal:
            line = f"[{self._number}/{self._total}] {self._name}: {text}"
            print(f"\r\x1b[K{line}", end="", file=sys.stderr, flush=True)

    def clear(self) -> None:
        """Take the line away."""
        if self._terminal:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tools.benchmark",
        description="measure what recording and replaying whole programs costs",
    )
    effort = measuring.Effort()
    parser.add_argument("--runs", type=_positive, default=effort.runs, help="samples (default 5)")
    parser.add_argument("--only", metavar="REGEX", type=_regex, help="only the rows so named")
    parser.add_argument("--list", action="store_true", help="print the names of the rows, and end")
    parser.add_argument(
        "--timeout", type=_positive, default=effort.timeout, help="seconds for one run (120)"
    )
    parser.add_argument("--check", action="store_true", help="fail when a goal is missed")
    parser.add_argument(
        "--from", dest="source", metavar="FILE", type=Path, help="show these results, measure none"
    )
    parser.add_argument(
        "-o", "--output", type=Path, default=KEPT / "bench-full.json", help="the JSON file to write"
    )
    parser.add_argument(
        "--docs",
        action="store_true",
        help="also write docs/performance.json and .svg, and the table of docs/performance.md",
    )
    return parser.parse_args()


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise ValueError
    return value


def _regex(text: str) -> re.Pattern[str]:
    try:
        return re.compile(text)
    except re.error as error:
        raise argparse.ArgumentTypeError(f"{text!r}: {error}") from error


def _measured(rows: list[Row], args: argparse.Namespace) -> Results:
    for tool in ("strace", "cc", "make"):
        if shutil.which(tool) is None:
            sys.exit(f"bench-full: {tool} is missing: tools/setup.sh check says how to install it")
    subprocess.run(
        ["make", "--silent", "--no-print-directory", "-C", str(ROOT / "fixtures")],
        check=True,
        env={key: value for key, value in os.environ.items() if not key.startswith("MAKE")},
    )
    KEPT.mkdir(exist_ok=True)
    progress = Progress(len(rows))
    results: list[Result] = []
    with ExitStack() as stack:
        memory = Path("/dev/shm")
        fast, scratch = (
            stack.enter_context(tempfile.TemporaryDirectory(prefix="sysrift-bench-", dir=parent))
            for parent in (memory if os.access(memory, os.W_OK) else KEPT, KEPT)
        )
        stack.callback(progress.clear)
        places = measuring.Places(
            built=ROOT / "fixtures" / "build",
            material=KEPT / "material",
            scratch=Path(scratch),
            fast=Path(fast),
            failed=KEPT / "failed",
        )
        effort = measuring.Effort(args.runs, args.timeout)
        extra = measuring.start_up(places, effort)
        for row in rows:
            progress.row(row.name)
            results.append(measuring.Measuring(row, places, effort, progress).measure())
            if row.name == FORWARD:
                extra += measuring.fast_forward(results[-1], extra[1].value)
    return Results({**machine_facts(), "runs": args.runs}, results, extra)


def main() -> int:
    """Measure, or read what was measured; show it and keep it."""
    args = _arguments()
    rows = [row for row in ROWS if args.only is None or args.only.search(row.name)]
    if args.list:
        print("\n".join(row.name for row in rows))
        return 0
    if not rows:
        print("bench-full: no row is so named; --list names them", file=sys.stderr)
        return 2
    try:
        results = load(args.source) if args.source else _measured(rows, args)
    except (ResultsError, RunFailed, OSError) as error:
        print(f"bench-full: {error}", file=sys.stderr)
        return 1
    print(report.terminal(results), end="")
    if not args.source:
        results.save(args.output)
        args.output.with_suffix(".svg").write_text(drawing.svg(results))
        print(f"\n{args.output} and .svg hold it all", file=sys.stderr)
    if args.docs:
        results.save(DOCS / "performance.json")
        (DOCS / "performance.svg").write_text(drawing.svg(results))
        report.put_into(DOCS / "performance.md", report.markdown(results))
    failed = any(row.failures for row in results.rows)
    missed = any(one.verdict == "MISS" for one in results.figures)
    return int(failed or (args.check and missed))


def _interrupted(*_: object) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, _interrupted)
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        print("bench-full: interrupted", file=sys.stderr)
        sys.exit(130)
