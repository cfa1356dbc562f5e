# SPDX-License-Identifier: GPL-2.0-or-later
"""Signals while recording: what one will do, what its frame is, and rdtsc, which comes as SIGSEGV.

An asynchronous signal is delivered only where replay can find the place again: right after a
system call, or right before one. One that arrives elsewhere is held until then.
"""

from __future__ import annotations

import enum
import os
import signal
import struct
import time
from typing import NamedTuple

from sysrift.trace.model import ABSOLUTE, SegmentKind
from sysrift.trace.writer import OutSegment
from sysrift.tracee import BadAddress, Registers, Tracee
from sysrift.tracee.kernel import SYNCHRONOUS
from sysrift.tracee.ptrace import tgkill

_DEFAULT_IGNORED = frozenset({signal.SIGCHLD, signal.SIGURG, signal.SIGWINCH, signal.SIGCONT})
_DEFAULT_STOPS = frozenset({signal.SIGSTOP, signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU})

_SI_TIMER, _SI_KERNEL = -2, 0x80

_RDTSC = b"\x0f\x31"
_RDTSCP = b"\x0f\x01\xf9"

# struct rt_sigframe (arch/x86/include/asm/sigframe.h): return address, ucontext, siginfo; the
# xsave area lies above, at ucontext.uc_mcontext.fpstate, its size in its software-reserved bytes.
_FRAME_SIZE = 8 + 304 + 128
_FPSTATE_AT = 8 + 40 + 184
_SW_RESERVED_AT = 464
_XSTATE_MAGIC1 = 0x46505853
_FXSAVE_SIZE = 512
_FRAME_ROOM = 16 << 10  # more than any frame takes
_PAGE = 4096


_ARRIVAL = 0.5
"""Seconds within which a signal that was queued again must arrive; far more than it takes."""


class Action(enum.Enum):
    """What delivering a signal will do."""

    IGNORE = "ignore"
    HANDLER = "handler"
    STOP = "stop"
    FATAL = "fatal"


def signal_code(siginfo: bytes) -> int:
    """si_code: above zero when the kernel raised the signal."""
    code: int = struct.unpack_from("<i", siginfo, 8)[0]
    return code


def comes_again(siginfo: bytes) -> bool:
    """Whether a timer sent it (sigaction(2): SI_TIMER, or SI_KERNEL of setitimer and alarm).

    A recorded program is slower. If each of its timer's signals were delivered at the very return
    from the handler of the one before, it might do nothing else.
    """
    return signal_code(siginfo) in (_SI_TIMER, _SI_KERNEL)


def is_synchronous(sig: int, siginfo: bytes) -> bool:
    """Whether an instruction raised it, so that replay raises it again."""
    return sig in SYNCHRONOUS and signal_code(siginfo) > 0


def action_of(pid: int, sig: int) -> Action:
    """What signal `sig` does to process `pid` now (/proc/PID/status: SigIgn, SigCgt)."""
    status = _status(pid)
    ignored, caught = _mask(status, b"SigIgn:"), _mask(status, b"SigCgt:")
    bit = 1 << (sig - 1)
    if caught & bit:
        return Action.HANDLER
    if ignored & bit:
        return Action.IGNORE
    if sig in _DEFAULT_IGNORED:
        return Action.IGNORE
    return Action.STOP if sig in _DEFAULT_STOPS else Action.FATAL


def is_signal_pending(pid: int) -> bool:
    """Whether process `pid` gets a signal as soon as it runs (/proc/PID/status: SigPnd, ShdPnd)."""
    status = _status(pid)
    pending = _mask(status, b"SigPnd:") | _mask(status, b"ShdPnd:")
    return bool(pending & ~_mask(status, b"SigBlk:"))


def _status(pid: int) -> bytes:
    """/proc/PID/status, its parts about signals (proc_pid_status(5))."""
    descriptor = os.open(f"/proc/{pid}/status", os.O_RDONLY | os.O_CLOEXEC)
    try:
        data = os.read(descriptor, 1 << 16)
    finally:
        os.close(descriptor)
    return data[max(data.find(b"\nSigQ:"), 0) :]  # behind the name, which may be anything


def _mask(status: bytes, name: bytes) -> int:
    at = status.find(name)
    return int(status[at + len(name) :].split(None, 1)[0], 16) if at >= 0 else 0


def frame_bytes(tracee: Tracee, registers: Registers) -> bytes:
    """The signal frame at the first instruction of a handler, from rsp up. May be cut short."""
    end = registers.rsp + _FRAME_SIZE
    try:
        fpstate = struct.unpack("<Q", tracee.read(registers.rsp + _FPSTATE_AT, 8))[0]
        if registers.rsp < fpstate < registers.rsp + (1 << 20):
            magic, size = struct.unpack("<II", tracee.read(fpstate + _SW_RESERVED_AT, 8))
            end = max(end, fpstate + (size if magic == _XSTATE_MAGIC1 else _FXSAVE_SIZE))
    except BadAddress:
        pass
    return tracee.read_some(registers.rsp, end - registers.rsp)


def stack_below(tracee: Tracee, rsp: int) -> list[OutSegment]:
    """What lies below the stack pointer, where the kernel wrote a part of a frame in vain."""
    segments: list[OutSegment] = []
    for page in range(rsp - 1 & -_PAGE, rsp - _FRAME_ROOM, -_PAGE):
        data = tracee.read_some(page, min(_PAGE, rsp - page))
        if not data:
            break
        segments.append((SegmentKind.OUT, ABSOLUTE, page, data))
    return segments


class TscRead(NamedTuple):
    """An rdtsc (number 0) or rdtscp (number 1) that was trapped."""

    number: int
    length: int


def tsc_instruction(tracee: Tracee, rip: int) -> TscRead | None:
    """The time-stamp counter instruction at `rip`, if there is one."""
    code = tracee.read_some(rip, 3)
    if code.startswith(_RDTSC):
        return TscRead(0, 2)
    if code == _RDTSCP:
        return TscRead(1, 3)
    return None


class Held(NamedTuple):
    """A signal that waits for the next system call boundary."""

    sig: int
    siginfo: bytes


class HeldSignals:
    """Signals on their way: held back by the recorder, or queued in the kernel again.

    A signal is queued again by tgkill, which loses its siginfo; that is put back when it arrives.
    """

    def __init__(self) -> None:
        self._held: list[Held] = []
        self._requeued: dict[int, list[bytes]] = {}
        self._requeued_at = 0.0

    @property
    def on_their_way(self) -> bool:
        """Whether signals are held, or were queued again a moment ago and have not arrived yet.

        One that merged with another of its kind never does.
        """
        if self._held:
            return True
        return any(self._requeued.values()) and time.monotonic() < self._requeued_at + _ARRIVAL

    def __bool__(self) -> bool:
        return bool(self._held)

    def hold(self, sig: int, siginfo: bytes) -> None:
        """Keep a signal. A standard signal that is kept already merges, as in the kernel."""
        if self.has(sig):
            return
        self._held.append(Held(sig, siginfo))

    def has(self, sig: int) -> bool:
        """Whether a standard signal is held already, with which another of its kind merges."""
        return sig < signal.SIGRTMIN and any(held.sig == sig for held in self._held)

    def requeue(self, pid: int) -> None:
        """Send every held signal again: the kernel delivers them as it would have."""
        for held in self._held:
            self._requeued.setdefault(held.sig, []).append(held.siginfo)
            tgkill(pid, held.sig)
            self._requeued_at = time.monotonic()
        self._held = []

    def original_siginfo(self, sig: int) -> bytes | None:
        """The siginfo that an arriving signal had when it was held; None if it was not."""
        waiting = self._requeued.get(sig)
        return waiting.pop(0) if waiting else None
