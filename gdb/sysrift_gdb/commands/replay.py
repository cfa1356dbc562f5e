# SPDX-License-Identifier: GPL-2.0-or-later
"""`sysrift-replay`, and what `run`, `start` and `starti` mean while a replay goes on."""

from __future__ import annotations

import gdb
from sysrift import machine
from sysrift.trace import store
from sysrift.trace.reader import Trace
from sysrift.views.lexer import highlight
from sysrift.views.summary import duration_text, summarize
from sysrift.views.text import event_line
from sysrift_gdb import arguments, console, dap, session
from sysrift_gdb.commands import ReplayCommand, show_position


class Replay(ReplayCommand):
    """Replay a recorded run: sysrift-replay [--process PID|NAME] [TRACE]

    Rebuilds the recorded process and stops at its beginning. TRACE is a file, or the name of a
    trace in the trace directory; the newest one if there is no argument. Of several processes the
    one that crashed is replayed, else the first, or the one that --process says (`sysrift-ps` lists
    them). From there GDB's ordinary
    commands work over the recorded run; `sysrift-goto`, `sysrift-events`, `sysrift-when` and
    `sysrift-info` go with it. `run` and `start` restart the replay, `kill` ends it."""

    name = "sysrift-replay"

    def __init__(self) -> None:
        super().__init__(gdb.COMPLETE_FILENAME)

    def run(self, words: list[str], from_tty: bool) -> None:
        """Begin a replay."""
        options = arguments.parser("sysrift-replay")
        options.add_argument("--process")
        options.add_argument("trace", nargs="?")
        chosen = options.parse_args(words)
        session.drop_if_dead()
        if chosen.trace is None and chosen.process is not None and session.current is not None:
            path = session.current.trace.path  # another process of the same recording
        else:
            path = store.resolve(chosen.trace)
        replay = session.begin(path, chosen.process)
        take_over_run()
        _introduce(replay.trace)
        show_position()


def _introduce(trace: Trace) -> None:
    """Say what was recorded, how it ended, and what failed last."""
    summary = summarize(trace)
    if summary.processes > 1:
        console.say(f"process {trace.process.pid} of {summary.processes} (sysrift-ps lists them)")
    console.say(f"{summary.program} (recorded {summary.started:%Y-%m-%d %H:%M:%S})"
                if summary.started else summary.program)  # fmt: skip
    console.say(f"{summary.events} events in {duration_text(summary.duration_us)}; {summary.ended}")
    for note in summary.notes:
        console.say(f"note: {note}")
    if trace.metadata.get("cpu_model") not in (None, machine.cpu_model()):
        console.say(
            f"warning: recorded on another processor ({trace.metadata['cpu_model']}), this one is "
            f"{machine.cpu_model()}: the program may take other paths here"
        )
    if summary.last_failures:
        console.say("system calls that failed last:")
        for event in summary.last_failures:
            console.emit(highlight(event_line(event, trace), console.styled()))


def _restart(replay: session.Replay) -> None:
    replay.goto(0)
    console.say(f"back at the start of {replay.trace.path}")


class Run(gdb.Command):
    """Start the program, or, while a SysRift replay goes on, restart the replay."""

    def __init__(self) -> None:
        super().__init__("run", gdb.COMMAND_RUNNING, gdb.COMPLETE_FILENAME)

    def invoke(self, argument: str, from_tty: bool) -> None:
        """Called by GDB for `run` and `r`."""
        session.drop_if_dead()
        if session.current is not None:
            _restart(session.current)
            if dap.stay_at_entry():
                return
        else:
            console.say("no replay is going on: this runs the program itself, live")
            if argument:
                gdb.execute(f"set args {argument}")
            gdb.execute("starti", from_tty, to_string=True)
        gdb.execute("continue", from_tty)


class Start(gdb.Command):
    """Start the program and stop in main, or, while a SysRift replay goes on, restart that."""

    def __init__(self) -> None:
        super().__init__("start", gdb.COMMAND_RUNNING, gdb.COMPLETE_FILENAME)

    def invoke(self, argument: str, from_tty: bool) -> None:
        """Called by GDB for `start`."""
        gdb.execute("tbreak main")
        gdb.execute(f"run {argument}", from_tty)


_taken_over = False


def take_over_run() -> None:
    """Make `run` and `start` mean the replay: GDB's own would execute the program again."""
    global _taken_over
    if not _taken_over:
        _taken_over = True
        Run()
        Start()


def register() -> None:
    """Make the command known to GDB."""
    Replay()
