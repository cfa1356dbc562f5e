# SPDX-License-Identifier: GPL-2.0-or-later
"""Results as a drawing: for each program, how many times longer it takes than natively."""

from __future__ import annotations

import math
from dataclasses import dataclass
from html import escape

from tools.benchmark.results import Result, Results

_LEFT, _RIGHT, _TOP, _WIDTH = 180, 56, 76, 900
_BAR, _GAP = 9, 14  # height of a bar, and space between rows
_TICKS = (1, 1.5, 2, 3, 5, 10, 20, 50, 100, 200)


@dataclass(frozen=True)
class _Kind:
    """One kind of bar."""

    column: str
    whole: bool
    colour: str
    label: str


_KINDS = (
    _Kind("record", False, "#2a78b5", "sysrift-record"),
    _Kind("verify", True, "#4a9d5b", "sysrift verify"),
    _Kind("no_agent", False, "#b9c6d2", "sysrift-record --no-agent"),
    _Kind("strace", False, "#e0b46c", "strace -f -o FILE"),
)


def _ratios(row: Result) -> list[tuple[_Kind, float]]:
    found = ((kind, row.ratio(kind.column, kind.whole)) for kind in _KINDS)
    return [(kind, value) for kind, value in found if value is not None]


def svg(results: Results) -> str:
    """An SVG document: a bar for each program and way to run it, on a logarithmic scale."""
    rows = [(row, _ratios(row)) for row in results.rows]
    rows = [(row, ratios) for row, ratios in rows if ratios]
    values = [value for _, ratios in rows for _, value in ratios]
    low = min([0.5, *values]) * 0.9
    high = max([2.0, *values]) * 1.1
    inner = _WIDTH - _LEFT - _RIGHT

    def x(value: float) -> float:
        return _LEFT + inner * math.log(value / low) / math.log(high / low)

    parts: list[str] = []
    y = float(_TOP)
    for row, ratios in rows:
        middle = y + len(ratios) * _BAR / 2 + 4
        parts.append(
            f'<text x="{_LEFT - 8}" y="{middle:.1f}" class="name">{escape(row.name)}</text>'
        )
        for kind, value in ratios:
            left, right = sorted((x(1), x(value)))
            title = f"{row.name}, {kind.label}: {value:.2f} times native"
            parts.append(
                f'<rect x="{left:.1f}" y="{y:.1f}" width="{max(right - left, 1):.1f}" '
                f'height="{_BAR - 1}" fill="{kind.colour}"><title>{escape(title)}</title></rect>'
            )
            end = max(right, x(1)) + 3
            parts.append(
                f'<text x="{end:.1f}" y="{y + _BAR - 1.5:.1f}" class="value">{value:.2f}</text>'
            )
            y += _BAR
        y += _GAP
    height = y + 16
    axis = [
        f'<line x1="{x(tick):.1f}" x2="{x(tick):.1f}" y1="{_TOP - 8}" y2="{y - _GAP + 6:.1f}" '
        f'class="{"one" if tick == 1 else "tick"}"/>'
        f'<text x="{x(tick):.1f}" y="{_TOP - 14}" class="scale">{tick:g}×</text>'
        for tick in _TICKS
        if low < tick < high
    ]
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height:.0f}" '
            f'width="{_WIDTH}" height="{height:.0f}" font-family="sans-serif">',
            "<style>.name{font-size:12px;text-anchor:end;fill:#222}"
            ".value{font-size:8px;fill:#444}.scale{font-size:10px;text-anchor:middle;fill:#555}"
            ".tick{stroke:#ddd}.one{stroke:#222}.title{font-size:14px;font-weight:bold;fill:#222}"
            ".key{font-size:11px;fill:#222}</style>",
            f'<rect width="{_WIDTH}" height="{height:.0f}" fill="#fff"/>',
            '<text x="12" y="20" class="title">How long a program takes, compared with native '
            "(1×); logarithmic</text>",
            *_key(),
            *axis,
            *parts,
            "</svg>",
            "",
        ]
    )


def _key() -> list[str]:
    parts = []
    for number, kind in enumerate(_KINDS):
        x = 12 + number * 200
        parts.append(f'<rect x="{x}" y="32" width="12" height="12" fill="{kind.colour}"/>')
        parts.append(f'<text x="{x + 18}" y="42" class="key">{escape(kind.label)}</text>')
    return parts
