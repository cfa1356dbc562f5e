# SPDX-License-Identifier: GPL-2.0-or-later
"""Every small program of fixtures/programs/: it behaves recorded as it does alone, and its
recording is replayed faithfully. What each proves is said in its first lines (`small_programs`).
"""

from __future__ import annotations

from pathlib import Path

import pytest
from harness import assert_faithful, assert_no_traceback, record, run
from small_programs import PROGRAMS, SmallProgram, requests

SLOWER = 10
"""How many times longer a program may take while it is recorded, before it counts as hanging."""


TRIES = 8


@pytest.mark.parametrize("agent", ["--no-agent", "--agent=1"])
@pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: program.name)
def test_small_program(
    program: SmallProgram, agent: str, built_fixtures: None, tmp_path: Path
) -> None:
    argv = [program.path, *program.args]
    places = [tmp_path / name for name in ("alone", "recorded", "again")]
    for place in places:
        place.mkdir()
    alone = run(argv, cwd=places[0], timeout=10 + program.seconds)
    assert alone.returncode == program.status, alone

    limit = 20 + SLOWER * program.seconds
    recording = record(argv, cwd=places[1], options=["-q", "--checksum=50", agent], timeout=limit)
    assert_no_traceback(recording)
    assert recording.returncode == program.recorded_status, recording
    assert "recording stops" not in recording.stderr, recording
    if not program.output_varies:
        assert recording.stdout == alone.stdout, recording
    assert_faithful(recording.trace, timeout=limit)
    # Without a stop wherever that is possible, from the first call on.
    assert_faithful(recording.trace, timeout=limit, env={"SYSRIFT_PLAYER": "1"})

    if program.varies and agent == "--no-agent":
        # A number of few values comes out the same now and then.
        for _ in range(TRIES):
            again = record(argv, cwd=places[2], options=["-q"], timeout=limit)
            assert again.returncode == program.recorded_status, again
            if requests(again.trace) != requests(recording.trace):
                return
        raise AssertionError(
            f"{program.name} asks for the same in every run: it does not tell a replay from a "
            "second execution"
        )


def test_every_program_says_what_it_proves() -> None:
    assert PROGRAMS
    assert not [program.name for program in PROGRAMS if len(program.proves) < 10]


def test_most_programs_vary() -> None:
    # That these do vary is checked above, by recording each of them twice.
    varying = sum(program.varies for program in PROGRAMS)
    assert varying >= 0.6 * len(PROGRAMS), f"{varying} of {len(PROGRAMS)}"
