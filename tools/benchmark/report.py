# SPDX-License-Identifier: GPL-2.0-or-later
"""Results as a table: for a terminal, and for docs/performance.md."""

from __future__ import annotations

import re
from pathlib import Path

from sysrift.views.summary import size_text
from tools.benchmark.results import Result, Results

HEADINGS = (
    "program",
    "native",
    "record",
    "command",
    "no agent",
    "strace",
    "verify",
    "calls",
    "B/call",
    "in all",
    "trace",
    "memory",
    "missed",
)
LEGEND = (
    ("native", "seconds, median"),
    ("record", "`sysrift-record`, the program from its execve to its end, compared with native"),
    ("command", "the same, all that the user waits for: start-up, and compressing what is left"),
    ("no agent", "`sysrift-record --no-agent`, the program: every call is a stop"),
    ("strace", "`strace -f -o FILE`, the command"),
    ("verify", "`sysrift verify`, the command, its start-up included: replaying"),
    ("B/call", "bytes of the trace for a system call, beside the memory that calls moved"),
    ("in all", "the whole trace, by system calls"),
    ("memory", "the recorder's largest resident set, MiB"),
)
STOPS_LEGEND = (
    "One more recording of each (of repeated ones, one), with a clock around what the recorder "
    "does at a stop.\nTwo switches between processes, some 10 µs a stop, are not in its time, nor "
    "what the agent takes itself."
)
_TOP, _WORTH = 4, 0.03  # what is named: so many at most, each at least such a part of the time
BEGIN, END = "<!-- bench-full: begin -->", "<!-- bench-full: end -->"


def _ratio(value: float | None, mark: bool = False) -> str:
    if value is None:
        return "–"
    text = f"{value:.2f}" if value < 10 else f"{value:.0f}"
    return f"{text}{'!' if mark else ''}"


def _count(number: int) -> str:
    return f"{number / 1e6:.1f}M" if number >= 1e6 else f"{number:,}"


def cells(row: Result) -> list[str]:
    """A row's cells, as HEADINGS. `!` marks what misses its goal, `–` what is not known."""
    if row.absent:
        return [row.name, f"not measured: {row.absent} is not installed", *[""] * 11]
    native = row.native_seconds
    missed = row.missed
    peak = row.peak_mib
    whole = row.bytes_a_call
    failed = [f"{one.split(':')[0]} FAILED" for one in row.failures]
    return [
        row.name,
        f"{native:.2f} s" if native is not None else "–",
        _ratio(row.ratio("record"), "record" in missed),
        _ratio(row.ratio("record", whole=True)),
        _ratio(row.ratio("no_agent")),
        _ratio(row.ratio("strace")),
        _ratio(row.ratio("verify", whole=True)),
        _count(row.events) if row.events else "–",
        f"{row.beside:.1f}{'!' if 'bytes' in missed else ''}" if row.events else "–",
        f"{whole:.1f}" if whole is not None else "–",
        size_text(row.trace_bytes) if row.events else "–",
        f"{peak:.0f}{'!' if 'memory' in missed else ''}" if peak is not None else "–",
        ", ".join(missed + failed),
    ]


def terminal(results: Results) -> str:
    """The table for people at a terminal, the goals, and what is to be said of single rows."""
    table = [list(HEADINGS), *(cells(row) for row in results.rows)]
    # What is said of an absent program is as long as it is.
    measured = [line for line, row in zip(table[1:], results.rows) if not row.absent]
    widths = [max(len(line[i]) for line in [table[0], *measured]) for i in range(len(HEADINGS))]
    widths[0] = max(len(line[0]) for line in table)
    lines = []
    for line in table:
        first, *others = (
            cell.ljust(width) if i in (0, len(HEADINGS) - 1) else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(line, widths))
        )
        lines.append("  ".join([first, *others]).rstrip())
    lines.append("")
    for figure in results.figures:
        verdict = f"{figure.goal_text:<24}{figure.verdict}"
        lines.append(f"{figure.name:<48}{figure.value_text:>20}  {verdict}".rstrip())
    remarks = list(_remarks(results))
    return "\n".join([*lines, *([""] if remarks else []), *remarks]) + "\n"


def _stops(row: Result) -> list[str]:
    """A row of the table of stops: how many, how much of the program's time, what most are."""
    count = sum(number for _, number, _ in row.top_stops)
    seconds = sum(taken for _, _, taken in row.top_stops)
    share = f"{100 * seconds / row.stops_program:.0f}%" if row.stops_program else "–"
    most = [
        f"{label}: {number:,} × {_us(taken / number)}"
        for label, number, taken in row.top_stops[:_TOP]
        if taken > _WORTH * seconds
    ]
    return [row.name, f"{count:,}", f"{seconds:.2f} s", share, "; ".join(most)]


def _us(seconds: float) -> str:
    return f"{seconds * 1e6:.0f} µs" if seconds < 1e-3 else f"{seconds * 1e3:.1f} ms"


def _remarks(results: Results) -> list[str]:
    found = [f"{row.name}: {row.note}" for row in results.rows if row.note and not row.absent]
    shares = [
        f"{row.name}: {name} made {column.share:.3g} of the calls, compared with so much of native"
        for row in results.rows
        for name, column in row.columns.items()
        if column.share != 1
    ]
    failures = [f"{row.name}: FAILED: {text}" for row in results.rows for text in row.failures]
    return found + shares + failures


def machine(results: Results) -> str:
    """What was measured where, in a sentence."""
    facts = results.facts
    kind = "virtual machine" if facts.get("virtual") else "machine"
    version = re.match(r"\d+\.\d+", str(facts.get("kernel", "")))
    return (
        f"Measured {str(facts.get('time', ''))[:10]} on a {kind} with {facts.get('cpus')} CPUs "
        f"({facts.get('cpu')}) and {facts.get('memory_gib')} GiB, "
        f"Linux {version.group() if version else '?'}, Python {facts.get('python')}; "
        f"{_medians(facts.get('runs'))}, all columns in turns."
    )


def _medians(runs: object) -> str:
    return "one run" if runs == 1 else f"medians of {runs} runs"


def markdown(results: Results) -> str:
    """The generated part of docs/performance.md, without its markers."""
    lines = [machine(results), ""]
    lines.append("| " + " | ".join(HEADINGS) + " |")
    lines.append("|---|" + "---:|" * (len(HEADINGS) - 2) + "---|")
    for row in results.rows:
        marked = (f"**{one.rstrip('!')}**" if one.endswith("!") else one for one in cells(row))
        lines.append("| " + " | ".join(marked) + " |")
    lines += ["", "Ratios are to native; what misses its goal is bold.", ""]
    lines += [f"- **{name}**: {text}" for name, text in LEGEND]
    lines += ["", "| figure | measured | goal | |", "|---|---:|---|---|"]
    for figure in results.figures:
        verdict = f"**{figure.verdict}**" if figure.verdict == "MISS" else figure.verdict
        lines.append(
            f"| {figure.name.strip()} | {figure.value_text} | {figure.goal_text} | {verdict} |"
        )
    lines += ["", *(f"- {remark}" for remark in _remarks(results))]
    lines += ["", "## Where the recorder stops a program", "", STOPS_LEGEND, ""]
    lines += ["| program | stops | recorder's time | of the program's | most of it |"]
    lines += ["|---|---:|---:|---:|---|"]
    lines += [f"| {' | '.join(_stops(row))} |" for row in results.rows if row.stops]
    text = "\n".join(lines).rstrip() + "\n"
    return text.replace("<=", "≤").replace(">=", "≥")


def put_into(page: Path, text: str) -> None:
    """Replace what stands between the markers of a page. Raises ValueError when it has none."""
    old = page.read_text()
    before, begin, rest = old.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"{page} has no {BEGIN} and {END}")
    page.write_text(f"{before}{BEGIN}\n{text}{END}{after}")
