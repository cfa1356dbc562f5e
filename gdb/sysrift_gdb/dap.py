# SPDX-License-Identifier: GPL-2.0-or-later
"""A replay under GDB's own DAP server (`gdb -i dap`; GDB 14 or newer).

That server has no requests to go back, and does not look again when a command has gone elsewhere
without running anything. Here are both, on its modules (gdb/data-directory/python/gdb/dap); what
they lack in some version is left out.

https://microsoft.github.io/debug-adapter-protocol/specification
"""

from __future__ import annotations

import re
import sys
from typing import Any

import gdb

_FORGET = (
    ("frames", "_clear_frame_ids"),
    ("scopes", "clear_scopes"),
    ("varref", "clear_vars"),
)
"""What the server does when the program is resumed: all that the client knows is void then."""

_requested = False  # a request to go back is being carried out


def _module(name: str) -> Any:
    return sys.modules.get(f"gdb.dap.{name}")


def _is_connected() -> bool:
    """Whether a client has said hello."""
    return hasattr(getattr(_module("server"), "_server", None), "config")


def announce(why: str = "") -> None:
    """The program stands elsewhere, but has not run: let the client look at it anew.

    `why` is empty, or begins with the breakpoint or watchpoint that was come to.
    """
    server = _module("server")
    if server is None or not _is_connected():
        return
    for name, function in _FORGET:
        forget = getattr(_module(name), function, None)
        if forget is not None:
            forget(None)
    thread = gdb.selected_thread()
    where: dict[str, Any] = {"threadId": thread.global_num if thread else 0}
    if not _requested:
        server.send_event("continued", {**where, "allThreadsContinued": True})
    server.send_event("stopped", {**where, "allThreadsStopped": True, **_reason(why)})


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


def register() -> None:
    """Add the requests `stepBack` and `reverseContinue` to GDB's DAP server."""
    server = _module("server")
    request = getattr(server, "request", None)
    capability = getattr(server, "capability", None)
    known = getattr(server, "_commands", {})
    if request is None or capability is None or "stepBack" in known:
        return

    def step_back(*, granularity: str = "statement", **_args: Any) -> None:
        _go("reverse-nexti" if granularity == "instruction" else "reverse-next")

    def reverse_continue(**_args: Any) -> None:
        _go("reverse-continue")

    capability("supportsStepBack")(request("stepBack")(step_back))
    request("reverseContinue")(reverse_continue)


__all__ = ["announce", "register"]
