# SPDX-License-Identifier: GPL-2.0-or-later
"""Checkpoints: back in a process that has gone on, it is the same again, and replays to its end."""

from __future__ import annotations

from pathlib import Path

import pytest
from harness import record

from sysrift import image as images
from sysrift.replay.checkpoints import Checkpoints
from sysrift.replay.engine import Engine, Reason
from sysrift.replay.stub import headless_stub
from sysrift.trace.reader import Trace

SCRIPT = "import os\nd = {}\nfor i in range(400):\n    d[i] = os.urandom(3000)\n    os.getppid()\n"


def _state(engine: Engine) -> tuple[object, ...]:
    tracee = engine.tracee
    registers = tracee.registers()
    return (engine.next, bytes(registers), images.checksum(tracee, registers.rsp), tracee.xsave())


@pytest.fixture(scope="module")
def traced(tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("checkpoints") / "x.srl"
    return record(["/usr/bin/python3", "-c", SCRIPT], trace=target, options=["-q"]).trace


@pytest.mark.parametrize("budget", [256 << 20, 12 << 20])
def test_process_is_the_same_again(traced: Path, budget: int) -> None:
    trace = Trace(traced)
    with headless_stub(trace) as tracee:
        engine = Engine(trace, tracee)
        checkpoints = Checkpoints(engine, budget)
        engine.load(0)
        states = {}
        for _ in range(12):
            assert engine.advance(limit=trace.event_count // 14).reason is Reason.REACHED
            before = _state(engine)
            checkpoints.take()
            assert _state(engine) == before
            states[engine.next] = before
            assert checkpoints.size <= budget
        assert engine.advance().reason is Reason.END
        end = _state(engine)
        assert checkpoints.events
        if budget >= 256 << 20:
            assert len(checkpoints.events) >= 6
        for event in [*reversed(checkpoints.events), *checkpoints.events]:
            checkpoints.restore(event)
            assert _state(engine) == states[event]
        checkpoints.restore(checkpoints.events[0])
        assert engine.advance().reason is Reason.END
        assert _state(engine) == end
        checkpoints.close()
        engine.close()
    trace.close()
