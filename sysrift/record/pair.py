# SPDX-License-Identifier: GPL-2.0-or-later
"""Two processes that watch over each other, so that a kill of either hurts nobody else.

What is attached to must be let go properly, or the next rdtsc kills it. So the recorder is a child,
in a process group of its own, where Ctrl-C, Ctrl-Z and the hangup of the terminal do not reach it.
The command that the user sees passes on what it is asked for; when it is killed, the recorder lets
go and closes the trace; when the recorder is killed, the command puts right what it has left.
"""

from __future__ import annotations

import json
import os
import select
import signal
import threading
import time
from collections.abc import Callable
from typing import Any, NoReturn

from sysrift.errors import RecordError, SysRiftError

_ASK_AGAIN = 0.05
"""Seconds after which the recorder is told again to stop: it may have been about to sleep."""

_STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)
_NOT_FOR_THE_RECORDER = (
    signal.SIGINT, signal.SIGQUIT, signal.SIGHUP, signal.SIGTSTP, signal.SIGTTOU,
)  # fmt: skip


class Channel:
    """The recorder's side."""

    def __init__(self, orders: int, reports: int) -> None:
        self._orders = orders
        self._reports = reports
        self._begun_read, self._begun_write = os.pipe()
        self.stop_reason = ""

    def tell(self, report: dict[str, Any]) -> None:
        """Tell the command something; when that is dead, nobody."""
        data = json.dumps(report).encode() + b"\n"
        try:
            while data:
                data = data[os.write(self._reports, data) :]
        except OSError:
            pass

    def begin(self) -> None:
        """The process runs on and is recorded: its time counts from now."""
        if self._begun_write >= 0:
            os.close(self._begun_write)
            self._begun_write = -1

    def stop_when_told(
        self, request: Callable[[str], None], is_stopping: Callable[[], bool], seconds: float
    ) -> None:
        """Have `request` called, in a signal handler of this thread, when recording shall stop.

        That is when the command says so or is gone, when this process gets a SIGTERM, or `seconds`
        (0: never) after `begin`.
        """
        own = threading.get_ident()

        def on_term(*_: object) -> None:
            request(self.stop_reason or "the recorder got SIGTERM")

        def wait() -> None:
            signal.pthread_sigmask(signal.SIG_BLOCK, set(signal.Signals))
            ready, _, _ = select.select([self._orders, self._begun_read], [], [])
            if self._orders not in ready:
                ready, _, _ = select.select([self._orders], [], [], seconds or None)
            order = os.read(self._orders, 64).decode() if ready else ""
            if not ready:
                self.stop_reason = f"{seconds:g} seconds were recorded"
            else:
                self.stop_reason = order.split("\n")[0] or "the command was killed"
            while not is_stopping():
                signal.pthread_kill(own, signal.SIGTERM)
                time.sleep(_ASK_AGAIN)

        signal.signal(signal.SIGTERM, on_term)
        threading.Thread(target=wait, daemon=True).start()


def run(record: Callable[[Channel], int], put_right: Callable[[dict[str, Any]], bool]) -> int:
    """Run `record` in the recorder's process; returns what it returns.

    When that is killed, `put_right` is called here with what it last told of each process. Raises
    the SysRiftError that `record` raised, RecordError when it was killed.
    """
    orders_read, orders_write = os.pipe()
    reports_read, reports_write = os.pipe()
    previous = {sig: signal.getsignal(sig) for sig in _STOPPING}
    signal.pthread_sigmask(signal.SIG_BLOCK, _STOPPING)
    pid = os.fork()
    if pid == 0:
        os.close(orders_write)
        os.close(reports_read)
        _be_recorder(record, Channel(orders_read, reports_write))
    os.close(orders_read)
    os.close(reports_write)

    def pass_on(sig: int, _: object) -> None:
        try:
            os.write(orders_write, f"the recorder got {signal.Signals(sig).name}\n".encode())
        except OSError:
            pass

    try:
        for sig in _STOPPING:
            if previous[sig] != signal.SIG_IGN:
                signal.signal(sig, pass_on)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _STOPPING)
        return _follow(pid, reports_read, put_right)
    finally:
        for sig, handler in previous.items():
            signal.signal(sig, handler)
        os.close(orders_write)
        os.close(reports_read)


def _be_recorder(record: Callable[[Channel], int], channel: Channel) -> NoReturn:
    """The recorder's process, from beginning to end."""
    try:
        os.setpgid(0, 0)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _STOPPING)
        for sig in _NOT_FOR_THE_RECORDER:
            signal.signal(sig, signal.SIG_IGN)
        channel.tell({"status": record(channel)})
    except SysRiftError as error:
        channel.tell({"error": str(error), "code": error.exit_code})
    except BaseException as bug:
        if os.environ.get("SYSRIFT_DEBUG"):
            import traceback

            traceback.print_exc()
        channel.tell({"error": f"internal error: {type(bug).__name__}: {bug}", "code": 125})
    finally:
        os._exit(0)


def _follow(pid: int, reports: int, put_right: Callable[[dict[str, Any]], bool]) -> int:
    """Listen to the recorder until it ends."""
    known: dict[int, dict[str, Any]] = {}
    result: dict[str, Any] = {}
    with open(reports, "rb", closefd=False) as lines:
        for line in lines:
            try:
                report = json.loads(line)
            except ValueError:
                continue  # the recorder was killed while it wrote
            if "gone" in report:
                known.pop(report["gone"], None)
            elif "pid" in report:
                known[report["pid"]] = report
            else:
                result = report
    os.waitpid(pid, 0)
    if "status" in result:
        return int(result["status"])
    if "error" in result:
        error = RecordError(result["error"])
        error.exit_code = result["code"]
        raise error
    well = [process for process, report in known.items() if put_right(report)]
    left = ", ".join(map(str, well)) or "nothing"
    raise RecordError(
        f"the recorder was killed; the trace is cut off, and what was recorded goes on: {left}"
    )
