# SPDX-License-Identifier: GPL-2.0-or-later
"""What a person may write for a place in a trace: a number, a time, the next failure.

12   +3   -3   start   end   next-failed   previous-failed   @12.5s   @-10ms
"""

from __future__ import annotations

import re

from sysrift.errors import UsageError
from sysrift.trace.reader import Trace
from sysrift.views.filters import is_failure
from sysrift.views.summary import recorded_us

START = 0
"""The event number that stands for the beginning."""

WORDS = ("start", "end", "next-failed", "previous-failed")

_UNITS = {"us": 1, "ms": 1000, "s": 1000000, "": 1000000, "min": 60000000}
_TIME = re.compile(r"@(-?)(\d{1,12}(?:\.\d{1,9})?)(us|ms|s|min|)")


def event_at(text: str, trace: Trace, here: int, stands_at: bool) -> int | None:
    """The number of the event that `text` means; START, or one more than there are: the end.

    `here` is the next event, `stands_at` whether the program stands at it. None when `text` is no
    such thing at all; UsageError when there is no such event.
    """
    count = trace.event_count
    if text == "start":
        return START
    if text == "end":
        return count + 1
    if text == "next-failed":
        return _failed(trace, range(here + stands_at, count + 1), f"after event {here}")
    if text == "previous-failed":
        return _failed(trace, range(min(here - 1, count), 0, -1), f"before event {here}")
    if text.startswith("@"):
        return at_time(text, trace)
    if not re.fullmatch(r"[+-]?\d{1,18}", text):
        return None
    number = int(text) + (here if text[0] in "+-" else 0)
    if not 0 <= number <= count + 1:
        raise UsageError(f"there is no event {number}: this trace has events 1 to {count}")
    return number


def _failed(trace: Trace, numbers: range, where: str) -> int:
    for number in numbers:
        if is_failure(trace.event(number)):
            return number
    raise UsageError(f"no system call failed {where}")


def at_time(text: str, trace: Trace) -> int:
    """The first event at or after a time: `@12.5s` since the recording began, `@-10ms` before the
    process's end. One more than there are events when all are before. Raises UsageError."""
    match = _TIME.fullmatch(text)
    if match is None:
        raise UsageError(f"{text!r} is no time: write @12.5s, or @-10ms (before the end)")
    wanted = round(float(match[2]) * _UNITS[match[3]])
    if match[1]:
        wanted = recorded_us(trace) - wanted
    first, last = 1, trace.event_count + 1
    while first < last:  # events are in the order of their times
        middle = (first + last) // 2
        if trace.event(middle).time_us < wanted:
            first = middle + 1
        else:
            last = middle
    return first
