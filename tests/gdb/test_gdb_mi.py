# SPDX-License-Identifier: GPL-2.0-or-later
"""A front end that speaks GDB/MI over a replay."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import harness
import pytest

_SCRIPT = harness.ROOT / "gdb" / "sysrift.gdb"


@pytest.mark.both_gdbs
def test_running_stepping_and_going_places_by_mi(recorded: Callable[..., Any], gdb: str) -> None:
    recording = recorded("deep")
    console = [f"source {_SCRIPT}", f"sysrift-replay {recording.trace}", "sysrift-goto 12"]
    commands = [
        "-gdb-set mi-async off", *(f'-interpreter-exec console "{line}"' for line in console),
        '-data-evaluate-expression "$_event"', "-break-insert deep.c:measure", "-exec-continue",
        "-exec-next", "-exec-next", "-stack-list-variables --simple-values", "-exec-finish",
        '-data-evaluate-expression "shape.area"', '-interpreter-exec console "sysrift-back"',
        '-data-evaluate-expression "$_event"', "-gdb-exit",
    ]  # fmt: skip
    done = harness.run(
        [gdb, "-nx", "-q", "--interpreter=mi3"], stdin="".join(f"{c}\n" for c in commands)
    )
    text = done.stdout
    assert "^error" not in text, text
    values = re.findall(r'\^done,value="([^"]*)"', text)
    assert values == ["12", "12.5", "1"], text
    reasons = re.findall(r'^\*stopped,reason="([^"]*)"', text, re.MULTILINE)
    assert reasons == [
        "breakpoint-hit", "end-stepping-range", "end-stepping-range", "function-finished"
    ], text  # fmt: skip
    assert '{name="height",type="int",value="5"}' in text
