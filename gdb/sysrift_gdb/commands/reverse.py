# SPDX-License-Identifier: GPL-2.0-or-later
"""GDB's `reverse-*` commands in a replay; without one they do what they always did."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Optional

import gdb
from sysrift.errors import UsageError
from sysrift_gdb import session
from sysrift_gdb.backwards import Backwards, Moment, Seek, look_back
from sysrift_gdb.commands import ReplayCommand, show_position

_END = "\nNo more reverse-execution history.\n"

Group = Optional[tuple[str, int, int]]  # noqa: UP045 (evaluated, and GDB may have Python 3.9)
"""File, line, and how deep in calls; None: no line is known."""


class _Reverse(ReplayCommand):
    """What they share: a count, and the built-in command where no replay is on."""

    forwards = ""

    def invoke(self, argument: str, from_tty: bool) -> None:
        """Called by GDB."""
        if session.current is not None:
            super().invoke(argument, from_tty)
            return
        # GDB's own `record`: the built-in command does the same.
        gdb.execute("set exec-direction reverse", to_string=True)
        try:
            gdb.execute(f"{self.forwards} {argument}", from_tty)
        finally:
            gdb.execute("set exec-direction forward", to_string=True)

    def run(self, words: list[str], from_tty: bool) -> None:
        """Go back so many times."""
        replay = session.active()
        if len(words) > 1:
            raise UsageError(f"{self.name} takes a count, or nothing")
        try:
            count = int(gdb.parse_and_eval(words[0])) if words else 1
        except (gdb.error, ValueError, TypeError):
            raise UsageError(f"'{words[0]}' is no count") from None
        for _ in range(count):
            if not look_back(replay, self.choose):
                replay.goto(0)
                gdb.write(_END)
                break
        show_position()

    def choose(self, back: Backwards) -> Moment | None:
        """The moment to go to; None when there is none before now."""
        raise NotImplementedError


class ReverseStepi(_Reverse):
    """Step backward exactly one instruction, or COUNT of them.

    In a replay; else what GDB's own reverse-stepi does."""

    name, forwards = "reverse-stepi", "stepi"

    def choose(self, back: Backwards) -> Moment | None:
        """The moment before."""
        moments = back.moments()
        next(moments)
        return next(moments, None)


class ReverseNexti(_Reverse):
    """Step backward one instruction, but over calls.

    In a replay; else what GDB's own reverse-nexti does."""

    name, forwards = "reverse-nexti", "nexti"

    def choose(self, back: Backwards) -> Moment | None:
        """The last one before that is not in a function called meanwhile."""
        moments = back.moments(Seek(over_calls=True))
        next(moments)
        return next((moment for moment in moments if moment.depth <= 0), None)


class ReverseFinish(_Reverse):
    """Go back to just before the current function was called.

    In a replay; else what GDB's own reverse-finish does."""

    name, forwards = "reverse-finish", "finish"

    def choose(self, back: Backwards) -> Moment | None:
        """The call."""
        moments = back.moments(Seek(above=_caller_stack()))
        return next((moment for moment in moments if moment.depth < 0), None)


class ReverseStep(_Reverse):
    """Step backward to the beginning of the line executed before, into functions too.

    In a replay; else what GDB's own reverse-step does."""

    name, forwards = "reverse-step", "step"
    into_functions = True

    def choose(self, back: Backwards) -> Moment | None:
        """The first instruction of the run of them that are of one line."""
        chosen: Moment | None = None
        group: Group = None
        for moment, line in _lines(
            back.moments(Seek(over_calls=not self.into_functions)), self.into_functions
        ):
            if chosen is not None and line != group:
                break
            chosen, group = moment, line
        return chosen


class ReverseNext(ReverseStep):
    """Step backward to the beginning of the line executed before, over functions that were called.

    In a replay; else what GDB's own reverse-next does."""

    name, forwards = "reverse-next", "next"
    into_functions = False


class ReverseContinue(_Reverse):
    """Go back to the last breakpoint that was passed, or to the beginning of the recording.

    In a replay; else what GDB's own reverse-continue does."""

    name, forwards = "reverse-continue", "continue"

    def run(self, words: list[str], from_tty: bool) -> None:
        """Go back to the breakpoint."""
        replay = session.active()
        if words:
            raise UsageError("reverse-continue takes no argument in a replay")
        places = _breakpoints()
        left_out = 0  # hits, newest first, whose condition was not fulfilled
        while True:

            def choose(back: Backwards, skip: int = left_out) -> Moment | None:
                hits = back.hits(places.keys())
                for _ in range(skip):
                    if next(hits, None) is None:
                        return None
                return next(hits, None)

            here = replay.place()
            if not places or not look_back(replay, choose):
                replay.goto(0)
                gdb.write(_END)
                break
            pc = gdb.newest_frame().pc()
            stopped = next((b for b in places.get(pc, []) if _condition_holds(b)), None)
            if stopped is not None:
                show_position(f"Breakpoint {stopped.number}, ")
                return
            left_out += 1
            replay.return_to(here)
        show_position()


def _lines(moments: Iterator[Moment], into_functions: bool) -> Iterator[tuple[Moment, Group]]:
    """The moments before now that a step by lines looks at, each with its line."""
    known: dict[int, tuple[str, int] | None] = {}
    next(moments)
    for moment in moments:
        if moment.depth > 0 and not into_functions:
            continue
        ip = moment.step.ip
        if ip not in known:
            found = gdb.find_pc_line(ip)
            known[ip] = (found.symtab.filename, found.line) if found.symtab else None
        line = known[ip]
        if line is None and moment.depth > 0:
            continue  # a function without lines is stepped over
        yield moment, None if line is None else (*line, moment.depth)


def _caller_stack() -> int:
    """The stack pointer before the current function was called, which it is not while that runs; 0
    when it is not known."""
    frame: gdb.Frame | None = gdb.newest_frame()
    while frame is not None and frame.type() == gdb.INLINE_FRAME:
        frame = frame.older()
    older = frame.older() if frame is not None else None
    if frame is None or older is None:
        return 0
    before = int(older.read_register("sp"))
    return before if before > int(frame.read_register("sp")) else 0


def _breakpoints() -> dict[int, list[gdb.Breakpoint]]:
    """The user's enabled breakpoints by address. Raises UsageError for watchpoints."""
    found: dict[int, list[gdb.Breakpoint]] = {}
    for each in gdb.breakpoints():
        if not each.enabled or not each.visible:
            continue
        if each.type in (
            gdb.BP_WATCHPOINT,
            gdb.BP_HARDWARE_WATCHPOINT,
            gdb.BP_READ_WATCHPOINT,
            gdb.BP_ACCESS_WATCHPOINT,
        ):
            raise UsageError(
                f"reverse-continue does not look at watchpoints yet: disable {each.number}, "
                "or use sysrift-last-write"
            )
        if each.type != gdb.BP_BREAKPOINT or each.pending:
            continue
        for address in _addresses(each):
            found.setdefault(address, []).append(each)
    return found


def _addresses(breakpoint: gdb.Breakpoint) -> list[int]:
    if hasattr(breakpoint, "locations"):
        return [each.address for each in breakpoint.locations if each.enabled]
    _, places = gdb.decode_line(breakpoint.location or "")  # GDB 12
    return [place.pc for place in places or ()]


def _condition_holds(breakpoint: gdb.Breakpoint) -> bool:
    if not breakpoint.condition:
        return True
    try:
        return bool(gdb.parse_and_eval(breakpoint.condition))
    except gdb.error:
        return True  # GDB stops there too


COMMANDS: list[Callable[[], gdb.Command]] = [
    ReverseStepi,
    ReverseNexti,
    ReverseFinish,
    ReverseStep,
    ReverseNext,
    ReverseContinue,
]


def register() -> None:
    """Make the commands known to GDB."""
    for command in COMMANDS:
        command()
