# SPDX-License-Identifier: GPL-2.0-or-later
"""The user's breakpoints after a stop that going backwards has come to: messages, ignore counts,
commands, and what is temporary."""

from __future__ import annotations

from typing import NamedTuple

import gdb
from sysrift.syscalls import lookup
from sysrift.views.lexer import highlight
from sysrift.views.text import event_line
from sysrift_gdb import console, session, variables
from sysrift_gdb.commands import show_position
from sysrift_gdb.search_back import Detail, Found, MomentKind, ScopeEnd
from sysrift_gdb.session import Replay
from sysrift_gdb.targets import Change, CodeTarget, SyscallTarget, Target, WatchTarget, out_of_scope

_WATCHPOINTS = {
    gdb.BP_HARDWARE_WATCHPOINT: "Hardware watchpoint",
    gdb.BP_READ_WATCHPOINT: "Hardware read watchpoint",
    gdb.BP_ACCESS_WATCHPOINT: "Hardware access (read/write) watchpoint",
}


def show_stop(
    replay: Replay, looked_for: list[Target], found: Found, refuted: list[Target]
) -> None:
    """The replay stands where some of the breakpoints stop that were looked for: say so, as GDB
    does, and do what it does then."""
    stopping = [(target, detail) for target, detail in found.stopping if target not in refuted]
    count_passed(looked_for)
    variables.update()
    first = stopping[0][0]
    if (isinstance(first, SyscallTarget) and _let_gdb_catch(replay, first, found)) or (
        isinstance(first, CodeTarget) and _let_gdb_break(replay)
    ):
        _note_stop(first.number)
        return
    show_position(_reason(replay, found, stopping))
    _note_stop(first.number)
    for target, detail in stopping:
        if target.breakpoint is not None and (target.is_temporary or isinstance(detail, ScopeEnd)):
            target.breakpoint.delete()


def _reason(replay: Replay, found: Found, stopping: list[tuple[Target, Detail]]) -> str:
    """What GDB says in front of the position."""
    first = stopping[0][0]
    if isinstance(first, CodeTarget):
        kind = "Temporary breakpoint" if first.is_temporary else "Breakpoint"
        return f"{kind} {first.number}, "
    if isinstance(first, SyscallTarget):
        return f"{_catchpoint(replay, first, found)}, "
    said = [_watchpoint(t, detail) for t, detail in stopping if isinstance(t, WatchTarget)]
    if found.moment.kind is MomentKind.CALL:
        event = replay.trace.event(found.moment.event)
        line = highlight(event_line(event, replay.trace), console.styled())
        said.append(f"SysRift: changed by event {event.number}:\n{line}\n")
    return "".join(said).lstrip("\n")


def _let_gdb_break(replay: Replay) -> bool:
    """Let GDB run onto the breakpoint that the program stands at, which counts the stop, shows it,
    and has all done that the user wants to be done then.

    It does not step over breakpoints where it is told to go on at another place, though it be the
    same. A breakpoint of our own sees to it that the program does not run away if a condition has
    another value now.
    """
    pc, event = gdb.newest_frame().pc(), replay.engine.next
    fence = gdb.Breakpoint(f"*{pc:#x}", internal=True, temporary=True)
    fence.silent = True
    with console.setting("confirm", "off"), replay.changes.none():
        gdb.execute(f"jump *{pc:#x}")
    if fence.is_valid():
        fence.delete()
    return gdb.newest_frame().pc() == pc and replay.engine.next == event


def _let_gdb_catch(replay: Replay, target: SyscallTarget, found: Found) -> bool:
    """From the instruction of a call that the user catches, let GDB go to its entry or return.

    False, with the replay where it was, if GDB stops elsewhere: it has reasons not to see the call.
    """
    event, after = found.moment.event, replay.engine.next
    returns = found.moment.kind is MomentKind.RETURN
    if returns:
        replay.goto(event)
        passed_over = int(target.holds_at_rest())  # the entry
    else:
        passed_over = 0
    target.ignore(passed_over)
    gdb.execute("continue")
    if replay.engine.next == after and replay.is_in_call is not returns:
        return True
    target.ignore(0)
    replay.travel(lambda: replay.go_behind(event if returns else event - 1))
    if not returns:
        replay.goto(event)
    return False


def count_passed(looked_for: list[Target]) -> None:
    """The stops that were passed over have used up ignore counts."""
    for target in looked_for:
        if target.breakpoint is not None and target.needed > 1:
            target.breakpoint.ignore_count = max(target.needed - 1 - target.passed, 0)


def ignore_where_stopped(replay: Replay, count: int) -> None:
    """What GDB does with the argument of `continue`, less one."""
    if count <= 0:
        return
    stopped = _stopped
    if stopped is None or (stopped.event, stopped.pc) != _where(replay):
        gdb.write("Not stopped at any breakpoint; argument ignored.\n")
        return
    gdb.write(gdb.execute(f"ignore {stopped.number} {count}", True, True))


class _Stopped(NamedTuple):
    """The last stop at a breakpoint, and where that was."""

    number: int
    event: int
    pc: int


_stopped: _Stopped | None = None


def _where(replay: Replay) -> tuple[int, int]:
    return replay.engine.next, gdb.newest_frame().pc()


def _note_stop(number: int) -> None:
    global _stopped
    if session.current is not None:
        _stopped = _Stopped(number, *_where(session.current))


def _on_stop(event: gdb.Event) -> None:
    if session.current is None:
        return
    own = session.current.catchpoints.own
    for breakpoint in getattr(event, "breakpoints", ()):
        if breakpoint.is_valid() and breakpoint.number > 0 and breakpoint.number not in own:
            _note_stop(breakpoint.number)
            return


def register() -> None:
    """Connect to GDB."""
    gdb.events.stop.connect(_on_stop)


def _watchpoint(target: WatchTarget, detail: Detail) -> str:
    if not isinstance(detail, Change):
        return out_of_scope(target.number)
    name = _WATCHPOINTS[target.kind]
    expression = target.breakpoint.expression if target.breakpoint is not None else ""
    head = f"\n{name} {target.number}: {expression}\n\n"
    if detail.old == detail.new:
        return f"{head}Value = {target.shown(detail.new)}\n"
    return f"{head}Old value = {target.shown(detail.old)}\nNew value = {target.shown(detail.new)}\n"


def _catchpoint(replay: Replay, target: SyscallTarget, found: Found) -> str:
    nr = replay.trace.event(found.moment.event).nr
    row = lookup(nr)
    name = row.name if row is not None else str(nr)
    what = "call to" if found.moment.kind is MomentKind.CALL else "returned from"
    return f"Catchpoint {target.number} ({what} syscall {name})"


__all__ = ["count_passed", "ignore_where_stopped", "register", "show_stop"]
