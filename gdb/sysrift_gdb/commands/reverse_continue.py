# SPDX-License-Identifier: GPL-2.0-or-later
"""`reverse-continue`."""

from __future__ import annotations

import gdb
from sysrift.errors import ReplayError
from sysrift.replay.steps import Interrupted, TooFar
from sysrift_gdb import session
from sysrift_gdb.backwards import Backwards
from sysrift_gdb.commands import show_position
from sysrift_gdb.commands.reverse import END, Reverse
from sysrift_gdb.landing import Landing
from sysrift_gdb.search_back import Found, Moment, MomentKind, Search
from sysrift_gdb.session import Replay
from sysrift_gdb.stopping_back import count_passed, ignore_where_stopped, show_stop
from sysrift_gdb.targets import CodeTarget, Target, targets


class ReverseContinue(Reverse):
    """Go back to where a breakpoint, watchpoint or catchpoint would have stopped last.

    Or to the beginning of the recording, through all programs that the process was. At a watchpoint
    the program stands in front of what changed the value (or read it). A count, as for `continue`,
    sets the ignore count of the breakpoint at which the program stands.

    In a replay; else what GDB's own reverse-continue does."""

    name, forwards = "reverse-continue", "continue"

    def run(self, words: list[str], from_tty: bool) -> None:
        """Go back there."""
        replay = session.active()
        replay.restore()
        ignore_where_stopped(replay, self.count(words) - 1)
        began = replay.place()
        looked_for, counts_here = targets(replay), False
        excluded: list[tuple[int, Moment]] = []
        while True:
            place = replay.place()
            found, interrupted = _search(replay, looked_for, excluded, counts_here)
            if interrupted:
                if counts_here:
                    replay.return_to(began)
                show_position()
                return
            if found is not None:
                refuted = [t for t, _ in found.stopping if t.unsure and not t.holds_at_rest()]
                if len(refuted) < len(found.stopping):
                    show_stop(replay, looked_for, found, refuted)
                    return
                excluded += [(target.number, found.moment) for target in refuted]
                replay.return_to(place)
                continue
            count_passed(looked_for)
            became = replay.engine.image.event
            if became <= replay.trace.beginning:
                break
            replay.goto(became)
            looked_for, counts_here = targets(replay, strict=False), True
        replay.goto(0)
        gdb.write(END)
        show_position()


def _search(
    replay: Replay,
    looked_for: list[Target],
    excluded: list[tuple[int, Moment]],
    counts_here: bool,
) -> tuple[Found | None, bool]:
    """Look for the newest stop, and go there; else the replay stays where it is. Also gives whether
    the user interrupted it. `counts_here`: a stop at the very place counts. Raises SysRiftError."""
    if not looked_for:
        return None, False
    outcome: list[Found | ReplayError | None] = []

    def go() -> bool:
        here = replay.place()
        search = Search(replay, looked_for, excluded, counts_here)
        try:
            if not (excluded or counts_here) and all(target.is_plain for target in looked_for):
                found = _by_counting(replay, looked_for)
                if found is not None:
                    outcome.append(found)
                    return False
            with search.tracking.registers.borrowed():
                found = search.run()
                if found is not None:
                    Landing(replay, search.tracking).go_to(found.moment)
            outcome.append(found)
        except Interrupted:
            replay.go_to_place(here, lambda: False)
            return True
        except ReplayError as error:
            replay.go_to_place(here, lambda: False)
            outcome.append(error)
        else:
            if found is None:
                replay.go_to_place(here, lambda: False)
        return False

    replay.travel(go)
    if not outcome:
        return None, True
    if isinstance(outcome[0], ReplayError):
        raise outcome[0]
    return outcome[0], False


def _by_counting(replay: Replay, looked_for: list[Target]) -> Found | None:
    """Go to the last pass of a breakpoint in a long computation, however many passes there are.

    None, and the replay stands where it stood, when there is none since the event before, or it is
    not a long one. Raises Interrupted."""
    back = Backwards(replay)
    codes = [target for target in looked_for if isinstance(target, CodeTarget)]
    try:
        moment = back.last_pass(frozenset().union(*(target.addresses for target in codes)))
    except TooFar:
        moment = None
    if moment is None:
        back.stay()
        return None
    back.go_to(moment)
    stopping = tuple((target, None) for target in codes if moment.step.ip in target.addresses)
    return Found(Moment(MomentKind.CODE, replay.engine.next), stopping)


def register() -> None:
    """Make the command known to GDB."""
    ReverseContinue()
