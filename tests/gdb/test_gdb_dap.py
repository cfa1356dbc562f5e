# SPDX-License-Identifier: GPL-2.0-or-later
"""A front end that speaks DAP with `gdb -i dap` over a replay. The system's GDB may be too old for
that, so this is the newer one."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import harness
import pytest
from conftest import newer_gdb
from dap_client import DapClient

Replay = Callable[..., Any]

_SCRIPT = harness.ROOT / "gdb" / "sysrift.gdb"
SOURCE = str(harness.FIXTURES / "deep.c")


class Editor(DapClient):
    """An editor that has begun to debug."""

    thread = 1

    def begin(self, lines: list[int], functions: list[str], **launch: Any) -> dict[str, Any]:
        """What every editor does at first; the body of the first `stopped` event."""
        launched = self.send("launch", **launch)
        self.event("initialized")
        points = self.request(
            "setBreakpoints",
            source={"path": SOURCE},
            breakpoints=[{"line": line} for line in lines],
        )
        assert [each["verified"] for each in points["breakpoints"]] == [True] * len(lines)
        self.request("setFunctionBreakpoints", breakpoints=[{"name": name} for name in functions])
        # Nothing has run yet, as far as the editor knows.
        assert not {"stopped", "continued", "exited"} & {each["event"] for each in self.events}
        self.request("configurationDone")
        assert self.response(launched)["success"]
        stopped = self.event("stopped")
        self.thread = self.request("threads")["threads"][0]["id"]
        return stopped

    def where(self) -> tuple[str, int]:
        """Function and line of the innermost frame."""
        frame = self.frames()[0]
        return frame["name"], frame["line"]

    def frames(self) -> list[dict[str, Any]]:
        """All frames."""
        found = self.request("stackTrace", threadId=self.thread)["stackFrames"]
        return list(found)

    def variables(self, scope: str) -> dict[str, str]:
        """Names and values that a scope of the innermost frame has."""
        scopes = self.request("scopes", frameId=self.frames()[0]["id"])["scopes"]
        chosen = next(each for each in scopes if each["name"] == scope)
        reference = chosen["variablesReference"]
        answer = self.request("variables", variablesReference=reference)
        return {each["name"]: each["value"] for each in answer["variables"]}

    def go(self, request: str, **arguments: Any) -> dict[str, Any]:
        """Send a request that lets the program go somewhere; how it stopped."""
        since = len(self.events)
        self.request(request, threadId=self.thread, **arguments)
        return self.event("stopped", since)

    def type(self, command: str) -> dict[str, Any]:
        """Type a command that goes somewhere into the console; how it stopped."""
        since = len(self.events)
        self.request("evaluate", expression=command, context="repl")
        stopped = self.event("stopped", since)
        names = [event["event"] for event in self.events[since:]]
        assert names.index("continued") < names.index("stopped")
        return stopped


@pytest.fixture
def editor() -> Iterator[Callable[..., Editor]]:
    """A function that starts GDB's adapter with these commands, and says hello to it."""
    begun: list[Editor] = []

    def begin(*commands: str, **env: str) -> Editor:
        argv = [newer_gdb(), "-q", "-i", "dap"]
        for command in commands:
            argv += ["-ex", command]
        begun.append(Editor(argv, env))
        capabilities = begun[-1].request("initialize", adapterID="sysrift", linesStartAt1=True)
        assert capabilities["supportsStepBack"] is True
        return begun[-1]

    yield begin
    assert [each.close() for each in begun] == [0] * len(begun)


@pytest.fixture
def replay(recorded: Replay, editor: Callable[..., Editor]) -> Editor:
    """An editor whose GDB was told on its command line what to replay."""
    recording = recorded("deep")
    return editor(f"source {_SCRIPT}", f"sysrift-replay {recording.trace}")


AREA = harness.line_of("deep.c", "line: area")
LIST = harness.line_of("deep.c", "line: list")


def test_breakpoints_values_and_steps(replay: Editor) -> None:
    stopped = replay.begin([AREA], ["sum_list"])
    assert stopped["reason"] == "breakpoint"
    assert [frame["name"] for frame in replay.frames()] == ["sum_list", "main"]
    assert replay.frames()[0]["source"]["path"] == SOURCE
    assert replay.frames()[1]["line"] == LIST
    assert replay.go("continue")["reason"] == "breakpoint"
    assert replay.where() == ("measure", AREA)
    assert replay.variables("Locals") == {"width": "5", "height": "5"}
    frame = replay.frames()[0]["id"]
    product = replay.request("evaluate", expression="width * height", frameId=frame)
    assert product["result"] == "25"
    assert replay.go("next")["reason"] == "step"
    assert replay.go("stepOut")["reason"] == "step"
    assert replay.where()[0] == "main"
    for _ in range(2):  # the program's end is no end of the conversation
        replay.go("continue")
        assert "exit" in replay.where()[0]
    assert "end of the recording: exited with status 0" in replay.output


def test_stopping_on_entry_of_what_the_command_line_replays(replay: Editor) -> None:
    stopped = replay.begin([AREA], [], stopOnEntry=True, program="/not/looked/at")
    assert stopped["reason"] == "entry"
    assert replay.where()[0] == "_start"
    replay.go("continue")
    assert replay.where() == ("measure", AREA)


def test_back_by_the_buttons(replay: Editor) -> None:
    replay.begin([AREA], ["sum_list"])
    replay.go("continue")
    assert replay.go("stepBack")["reason"] == "step"
    assert replay.where() == ("measure", AREA - 2)
    assert "height" in replay.variables("Locals")
    pc = replay.frames()[0]["instructionPointerReference"]
    assert replay.go("stepBack", granularity="instruction")["reason"] == "step"
    assert int(replay.frames()[0]["instructionPointerReference"], 16) < int(pc, 16)
    stopped = replay.go("reverseContinue")
    assert stopped["reason"] == "breakpoint"
    assert replay.where()[0] == "sum_list"
    assert "sum" in replay.variables("Locals")
    replay.go("reverseContinue")  # to the beginning
    assert replay.where()[0] == "_start"
    # And all of it once more.
    replay.go("continue")
    assert replay.where()[0] == "sum_list"


def test_back_by_commands(replay: Editor) -> None:
    replay.begin([AREA], [])
    assert replay.type("reverse-step")["reason"] == "goto"
    assert replay.where() == ("measure", AREA - 2)
    assert replay.type("reverse-finish")["reason"] == "goto"
    assert replay.where()[0] == "main"
    assert replay.type("sysrift-goto 12")["reason"] == "goto"
    event = replay.request("evaluate", expression="$_event", context="watch")
    assert event["result"] == "12"
    assert replay.type("continue")["reason"] == "breakpoint"
    assert replay.where() == ("measure", AREA)
    assert replay.type("sysrift-last-write shape->corner[1].x")["reason"] == "goto"
    assert replay.where()[0] == "main"
    answer = replay.request("evaluate", expression="sysrift-events --failed", context="repl")
    assert "ENOENT" in answer["result"]
    failed = replay.response(replay.send("evaluate", expression="sysrift-goto x", context="repl"))
    assert not failed["success"] and "is no event" in failed["message"]


def test_launching_names_the_trace(recorded: Replay, editor: Callable[..., Editor]) -> None:
    recording = recorded("deep")
    one = editor(f"source {_SCRIPT}")
    one.begin([AREA], [], trace=str(recording.trace), program="/not/looked/at")
    assert one.where() == ("measure", AREA)
    one.request("disconnect")
    # On entry, that is: in the dynamic linker, before anything has happened.
    other = editor(f"source {_SCRIPT}")
    stopped = other.begin([AREA], [], trace=str(recording.trace), stopOnEntry=True)
    assert stopped["reason"] == "entry"
    assert other.where()[0] == "_start"
    other.go("continue")
    assert other.where() == ("measure", AREA)


def test_the_newest_trace_from_an_init_file(
    recorded: Replay, editor: Callable[..., Editor]
) -> None:
    recorded("deep")
    Path(os.environ["HOME"], ".gdbinit").write_text(f"source {_SCRIPT}\n")
    it = editor()
    it.begin([], [], trace="", stopAtBeginningOfMainSubprogram=True)
    assert it.where()[0] == "main"


def test_a_live_program_is_launched_as_ever(
    built_fixtures: None, editor: Callable[..., Editor]
) -> None:
    it = editor(f"source {_SCRIPT}")
    program = str(harness.built("deep"))
    launched = it.send("launch", program=program, stopAtBeginningOfMainSubprogram=True)
    it.request("configurationDone")
    assert it.response(launched)["success"]
    it.event("stopped")
    assert it.where()[0] == "main"
    failed = it.response(it.send("stepBack", threadId=1))
    assert not failed["success"]
    it.request("disconnect", terminateDebuggee=True)


def test_a_trace_that_is_none(editor: Callable[..., Editor]) -> None:
    it = editor(f"source {_SCRIPT}")
    answer = it.response(it.send("launch", trace="/nonexistent.srl"))
    assert not answer["success"] and "/nonexistent.srl" in answer["message"]
    it.request("disconnect")
