# SPDX-License-Identifier: GPL-2.0-or-later
"""A replay under GDB's own DAP server (`gdb -i dap`; GDB 14 or newer).

That server has no requests to go back, and does not look again when a command has gone elsewhere
without running anything. Here are both, on its modules (gdb/data-directory/python/gdb/dap); what
they lack in some version is left out.

https://microsoft.github.io/debug-adapter-protocol/specification
"""

from __future__ import annotations

import contextlib
import re
import sys
from collections.abc import Iterator
from typing import Any

import gdb

_FORGET = (
    ("frames", "_clear_frame_ids"),
    ("scopes", "clear_scopes"),
    ("varref", "clear_vars"),
)
"""What the server does when the program is resumed: all that the client knows is void then."""

_ABOUT_RUNNING = ("continued", "stopped", "thread", "process", "exited", "terminated")

_requested = False  # a request to go back is being carried out
_beginning = False  # a replay is being begun for the client, which waits for its own first stop
_to_entry = False  # which shall be at the beginning


def _module(name: str) -> Any:
    return sys.modules.get(f"gdb.dap.{name}")


def _is_connected() -> bool:
    """Whether a client has said hello."""
    return hasattr(getattr(_module("server"), "_server", None), "config")


@contextlib.contextmanager
def silence() -> Iterator[None]:
    """The client does not hear of processes that start, stop and end meanwhile."""
    server = getattr(_module("server"), "_server", None)
    if server is None or not hasattr(server, "send_event_maybe_later"):
        yield
        return
    send = server.send_event_maybe_later

    def send_others(event: str, body: Any = None) -> None:
        if event not in _ABOUT_RUNNING:
            send(event, body)

    server.send_event_maybe_later = send_others
    try:
        yield
    finally:
        server.send_event_maybe_later = send


def announce(why: str = "") -> None:
    """The program stands elsewhere, but has not run: let the client look at it anew.

    `why` is empty, or begins with the breakpoint or watchpoint that was come to.
    """
    server = _module("server")
    if server is None or _beginning or not _is_connected():
        return
    for name, function in _FORGET:
        forget = getattr(_module(name), function, None)
        if forget is not None:
            forget(None)
    if not _requested:
        thread = gdb.selected_thread()
        number = thread.global_num if thread else 0
        server.send_event("continued", {"threadId": number, "allThreadsContinued": True})
    _send_stopped(_reason(why))


def stay_at_entry() -> bool:
    """What is launched is at its beginning: if the client wants to look at it there, it is told."""
    global _to_entry
    if not _to_entry:
        return False
    _to_entry = False
    # What waits for a `run`, which begins to run.
    events = _module("events")
    if hasattr(events, "_suppress_cont"):
        events._suppress_cont = False
    _send_stopped({"reason": "entry"})
    return True


def _send_stopped(reason: dict[str, Any]) -> None:
    thread = gdb.selected_thread()
    number = thread.global_num if thread else 0
    _module("server").send_event(
        "stopped", {"threadId": number, "allThreadsStopped": True, **reason}
    )


def _reason(why: str) -> dict[str, Any]:
    breakpoint = re.search(r"(\w+) (\d+)", why)
    if breakpoint is None:
        return {"reason": "step" if _requested else "goto"}
    is_watchpoint = "watchpoint" in why.lower()
    return {
        "reason": "data breakpoint" if is_watchpoint else "breakpoint",
        "hitBreakpointIds": [int(breakpoint.group(2))],
    }


def _go(command: str) -> None:
    """Carry out a request. Raises what GDB's server makes a failed response of."""
    global _requested
    _requested = True
    try:
        gdb.execute(command, from_tty=True, to_string=True)
    finally:
        _requested = False


def _begin(trace: str | None, process: str | int | None, to_entry: bool) -> bool:
    """For `launch`: begin to replay, if a trace or a process is named; the client is told of it by
    what is launched then. Returns whether a replay goes on, maybe since before."""
    global _beginning, _to_entry
    from sysrift_gdb import session

    if trace is not None or process is not None:
        words = ["sysrift-replay"]
        if process is not None:
            words += ["--process", str(process)]
        if trace:
            words.append('"' + trace.replace("\\", "\\\\").replace('"', '\\"') + '"')
        _beginning = True
        try:
            gdb.execute(" ".join(words), from_tty=True)
        finally:
            _beginning = False
    session.drop_if_dead()
    if session.current is None:
        return False
    _to_entry = to_entry
    return True


def register() -> None:
    """Add the requests `stepBack` and `reverseContinue` to GDB's DAP server, and to `launch` the
    arguments `trace` (a file or the name of a trace; empty: the newest) and `process`."""
    server = _module("server")
    request = getattr(server, "request", None)
    capability = getattr(server, "capability", None)
    in_gdb = getattr(server, "send_gdb_with_response", None)
    known = getattr(server, "_commands", {})
    if request is None or capability is None or "stepBack" in known:
        return

    def step_back(*, granularity: str = "statement", **_args: Any) -> None:
        _go("reverse-nexti" if granularity == "instruction" else "reverse-next")

    def reverse_continue(**_args: Any) -> None:
        _go("reverse-continue")

    capability("supportsStepBack")(request("stepBack")(step_back))
    request("reverseContinue")(reverse_continue)

    if "launch" in known and in_gdb is not None:
        launch = known["launch"]

        def launch_replay(
            *,
            trace: str | None = None,
            process: str | int | None = None,
            stopOnEntry: bool = False,
            **args: Any,
        ) -> Any:
            if not in_gdb(lambda: _begin(trace, process, stopOnEntry)):
                return launch(stopOnEntry=stopOnEntry, **args)
            # What is the program, its arguments and its environment is in the trace.
            for name in ("program", "args", "env", "cwd"):
                args.pop(name, None)
            return launch(**args)

        known["launch"] = launch_replay


__all__ = ["announce", "register", "silence"]
