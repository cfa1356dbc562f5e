# SPDX-License-Identifier: GPL-2.0-or-later
"""Who shows where the replay stands is told when that may have changed: at each stop of GDB and
before each prompt, and when a command has gone elsewhere, which to GDB is no stop."""

from __future__ import annotations

from collections.abc import Callable

import gdb

_listeners: list[Callable[[bool], None]] = []


def connect(listener: Callable[[bool], None]) -> None:
    """Call `listener` from now on: with True when the replay stands elsewhere, or GDB has stopped;
    with False before a prompt. It must be cheap: it is called more often than need be."""
    _listeners.append(listener)


def tell(_event: object = None) -> None:
    """The replay may stand elsewhere now."""
    for listener in _listeners:
        listener(True)


def _before_prompt(_none: object = None) -> None:
    for listener in _listeners:
        listener(False)


def register() -> None:
    """Connect to GDB."""
    gdb.events.stop.connect(tell)
    gdb.events.exited.connect(tell)
    gdb.events.before_prompt.connect(_before_prompt)
