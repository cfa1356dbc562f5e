# SPDX-License-Identifier: GPL-2.0-or-later
"""The negative control on small programs: what a replayer that makes the system calls again would
put into the process is refused, by the program's own requests alone (no memory checksums here).
"""

from __future__ import annotations

from pathlib import Path

import pytest
from harness import assert_faithful, record, verify
from rewriting import events_of, forge
from small_programs import PROGRAMS, SmallProgram

from sysrift.trace import Event, SegmentKind

EVERY = 6
TRIES = 8
SAMPLE = [program for program in PROGRAMS if program.varies][::EVERY]


@pytest.mark.parametrize("program", SAMPLE, ids=lambda program: program.name)
def test_second_execution_is_not_taken_for_a_replay(
    program: SmallProgram, built_fixtures: None, tmp_path: Path
) -> None:
    argv = [program.path, *program.args]
    place = tmp_path / "first"
    place.mkdir()
    first = record(argv, cwd=place, options=["-q"]).trace
    # A number of few values comes out the same now and then.
    assert any(_is_refused(argv, first, tmp_path / str(i)) for i in range(TRIES)), program
    assert_faithful(first)


def _is_refused(argv: list[str | Path], first: Path, place: Path) -> bool:
    """Run it once more, and put what that run got into a copy of the first one's trace."""
    place.mkdir()
    second = record(argv, cwd=place, options=["-q"]).trace
    again = {event.number: event for event in events_of(second)}
    in_step = True

    def executed_again(event: Event) -> Event:
        # Up to where the second run makes another call than the first, which is found anyway.
        nonlocal in_step
        other = again.get(event.number)
        in_step = in_step and other is not None and (other.kind, other.nr) == (event.kind, event.nr)
        if not in_step or other is None:
            return event
        handed_in = tuple(s for s in event.segments if s.kind == SegmentKind.IN)
        given = tuple(s for s in other.segments if s.kind != SegmentKind.IN)
        return event._replace(result=other.result, segments=handed_in + given)

    forged = forge(first, place / "x.srl", executed_again)
    # Out of step, the second run itself asked for something else than was recorded.
    return not in_step or verify(forged).returncode == 3
