# SPDX-License-Identifier: GPL-2.0-or-later
"""The system call table: the one place that knows what each call does with memory."""

from __future__ import annotations

from .memory import BadAddress, Memory
from .plan import Args, Range
from .row import Argument, ReplayClass, Row
from .table import NAMES, TABLE, lookup

__all__ = [
    "NAMES",
    "TABLE",
    "Args",
    "Argument",
    "BadAddress",
    "Memory",
    "Range",
    "ReplayClass",
    "Row",
    "lookup",
]
