# SPDX-License-Identifier: GPL-2.0-or-later
"""The families of small programs in fixtures/programs/, and what each says about itself.

A program is fixtures/programs/FAMILY/NAME.c. After its SPDX line stand comments of one line (the
first may have more):

    /* proves: what a right recording and replay of it shows */
    /* varies */            two runs ask the kernel for different things; see `requests`
    /* cflags: -pthread */  further options for the compiler
    /* args: a b */         its arguments
    /* status: 3 */         its exit status, or the signal that kills it (SIGTERM); 0 if left out
    /* output: varies */    two runs may print different things
    /* time: 5 */           seconds it may take by itself, when that is more than two
"""

from __future__ import annotations

import re
import signal
from dataclasses import dataclass
from pathlib import Path

from harness import BUILT, FIXTURES

from sysrift.trace import EventKind
from sysrift.trace.reader import Trace

FAMILIES = FIXTURES / "programs"
_DIRECTIVE = re.compile(r"/\* (proves|varies|cflags|args|status|output|time)\b:? ?(.*?) ?\*/", re.S)


@dataclass(frozen=True)
class SmallProgram:
    """One of them, as its comments say."""

    name: str  # FAMILY/NAME
    proves: str
    varies: bool
    args: tuple[str, ...]
    status: int  # as subprocess gives it: negative for a signal
    output_varies: bool
    seconds: float

    @property
    def path(self) -> Path:
        """The built program."""
        return BUILT / "programs" / self.name

    @property
    def recorded_status(self) -> int:
        """What sysrift-record exits with."""
        return self.status if self.status >= 0 else 128 - self.status


def _read(source: Path) -> SmallProgram:
    head = source.read_text().split("#include", 1)[0]
    said = {key: " ".join(value.split()) for key, value in _DIRECTIVE.findall(head)}
    status = said.get("status", "0")
    return SmallProgram(
        name=str(source.relative_to(FAMILIES).with_suffix("")),
        proves=said.get("proves", ""),
        varies="varies" in said,
        args=tuple(said.get("args", "").split()),
        status=-signal.Signals[status].value if status.startswith("SIG") else int(status),
        output_varies=said.get("output", "") == "varies",
        seconds=float(said.get("time", "2")),
    )


PROGRAMS = [_read(source) for source in sorted(FAMILIES.glob("*/*.c"))]


def requests(trace: Path) -> list[tuple[object, ...]]:
    """What the program asked for, event by event: all that a replayer can compare.

    Two recordings of a program that asks for the same in every run say nothing of where its
    answers came from: a replayer that made the calls again would pass just as well.
    """
    asked: list[tuple[object, ...]] = []
    for event in Trace(trace).events():
        args = event.args if event.kind == EventKind.SYSCALL else ()
        asked.append((event.kind, event.nr, event.site, event.rsp, args, event.input_crc))
    return asked
