# SPDX-License-Identifier: GPL-2.0-or-later
"""A front end that speaks the Debug Adapter Protocol with `gdb -i dap`, as editors do.

https://microsoft.github.io/debug-adapter-protocol/specification
"""

from __future__ import annotations

import json
import os
import queue
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import IO, Any

Message = dict[str, Any]

TIMEOUT = 60.0


class DapClient:
    """The adapter's process, and what it has said."""

    def __init__(self, argv: Sequence[str], env: Mapping[str, str] | None = None) -> None:
        self._adapter = subprocess.Popen(
            argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env={**os.environ, **(env or {})}
        )
        assert self._adapter.stdin is not None and self._adapter.stdout is not None
        self._input = self._adapter.stdin
        self._sent = 0
        self._incoming: queue.Queue[Message | None] = queue.Queue()
        self.events: list[Message] = []
        """All events that have come, the oldest first."""
        self._reader = threading.Thread(
            target=_read_all, args=(self._adapter.stdout, self._incoming), daemon=True
        )
        self._reader.start()

    def send(self, command: str, **arguments: Any) -> int:
        """Send a request; returns its number."""
        self._sent += 1
        body = {"seq": self._sent, "type": "request", "command": command, "arguments": arguments}
        data = json.dumps(body).encode()
        self._input.write(b"Content-Length: %d\r\n\r\n" % len(data) + data)
        self._input.flush()
        return self._sent

    def response(self, number: int) -> Message:
        """The response to a request, once it is there."""
        while True:
            message = self._next()
            if message["type"] == "response" and message["request_seq"] == number:
                return message

    def request(self, command: str, **arguments: Any) -> Any:
        """Send a request and return the body of its response; fails the test when it failed."""
        answer = self.response(self.send(command, **arguments))
        assert answer["success"], answer
        return answer.get("body")

    def event(self, name: str, since: int = 0) -> Message:
        """The body of the first event of this name among `events[since:]`, once it is there."""
        found = self.wait(
            lambda: next((e for e in self.events[since:] if e["event"] == name), None)
        )
        return dict(found.get("body") or {})

    def wait(self, condition: Callable[[], Any]) -> Any:
        """Read what comes until `condition()` is true; its value."""
        while True:
            value = condition()
            if value:
                return value
            self._next()

    def _next(self) -> Message:
        message = self._incoming.get(timeout=TIMEOUT)
        assert message is not None, "the adapter has gone"
        if message["type"] == "event":
            self.events.append(message)
        return message

    @property
    def output(self) -> str:
        """What the adapter wanted to be shown in the console."""
        texts = [e["body"]["output"] for e in self.events if e["event"] == "output"]
        return "".join(texts)

    def close(self) -> int:
        """End the conversation; the adapter's exit status."""
        self._input.close()
        deadline = time.monotonic() + 10
        while self._adapter.poll() is None and time.monotonic() < deadline:
            time.sleep(0.05)
        if self._adapter.poll() is None:
            self._adapter.kill()
        self._reader.join(5)
        assert self._adapter.stdout is not None
        self._adapter.stdout.close()
        return self._adapter.wait()


def _read_all(stream: IO[bytes], into: queue.Queue[Message | None]) -> None:
    while True:
        length = None
        while True:
            line = stream.readline()
            if not line:
                into.put(None)
                return
            if line == b"\r\n":
                break
            name, _, value = line.partition(b":")
            # Anything else would mean that something was printed in between.
            assert name.strip().lower() == b"content-length", line
            length = int(value)
        assert length is not None
        into.put(json.loads(stream.read(length)))
