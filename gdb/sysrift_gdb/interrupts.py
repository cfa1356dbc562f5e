# SPDX-License-Identifier: GPL-2.0-or-later
"""Ctrl-C while the engine drives: held until a moment at which the replay's state is whole."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator


@contextlib.contextmanager
def interrupts_held() -> Iterator[None]:
    """Block SIGINT in GDB's main thread; what came meanwhile arrives afterwards."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def is_interrupted() -> bool:
    """Whether Ctrl-C was pressed since `interrupts_held` began; takes it if so."""
    if signal.SIGINT not in signal.sigpending():
        return False
    signal.sigtimedwait({signal.SIGINT}, 0)
    return True
