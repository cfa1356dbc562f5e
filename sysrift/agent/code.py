# SPDX-License-Identifier: GPL-2.0-or-later
"""The agent's code and the layout of its memory in a recorded process (`native/agent.c`)."""

from __future__ import annotations

import ctypes
import functools
import struct
from pathlib import Path
from typing import Any, NamedTuple

from sysrift import native
from sysrift.native import AGENT_END, AGENT_START

CODE = AGENT_START
CODE_SIZE = 0x4000
SITES, SITE_COUNT = AGENT_START + 0x8000, 0x400
CONTROL = AGENT_START + 0x10000
STACK_TOP = AGENT_START + 0x18000
RANGES, RANGE_COUNT = AGENT_START + 0x1A000, 1024
DESCRIPTORS, DESCRIPTOR_COUNT = AGENT_START + 0x1E000, 4096
ROWS, ROW_SIZE, ROW_COUNT = AGENT_START + 0x20000, 256, 512
SITE_TABLE = AGENT_START + 0x80000  # a replay's, up to RECORDS
RECORDS, MAX_RECORDS = AGENT_START + 0x100000, 16384
SEGMENTS = AGENT_START + 0x300000
PAYLOAD = AGENT_START + 0x500000

_SAVED = ("r15", "r14", "r13", "r12", "rbp", "rbx", "r9", "r8", "r10", "rdi", "rsi", "rdx", "rcx",
          "rax", "eflags")  # fmt: skip
SAVED = tuple((name, STACK_TOP - 8 * (len(_SAVED) - at)) for at, name in enumerate(_SAVED))
"""(register, address) of what the agent keeps of the program while it deals with a call."""

DESCRIPTOR = struct.Struct("<4Q")
SEGMENT_SIZE = 22  # struct segment
RANGE = struct.Struct("<QQ")
KEEP, MAX_KEPT = struct.Struct("<QQ"), 64
"""(start, end) of memory that the agent must leave to the recorder; behind the control page's
fields."""


class _ControlPage(ctypes.LittleEndianStructure):
    """A structure at the beginning of the control page."""

    @classmethod
    def address(cls, field: str) -> int:
        """Where a field lies in the process."""
        offset: int = getattr(cls, field).offset
        return CONTROL + offset


class PlayerControl(_ControlPage):
    """`struct control` of the player (`native/player.c`)."""

    _fields_ = [
        ("saved_rsp", ctypes.c_uint64),
        ("stop", ctypes.c_uint32),
        ("unused", ctypes.c_uint32),
        ("resume", ctypes.c_uint64),
        ("task", ctypes.c_uint32),
        ("target", ctypes.c_uint32),
        ("limit", ctypes.c_uint32),
        ("last", ctypes.c_uint32),
        ("at", ctypes.c_uint32),
        ("segment", ctypes.c_uint32),
        ("payload", ctypes.c_uint32),
        ("played", ctypes.c_uint32),
        ("outputs", ctypes.c_uint64),
        ("watched", ctypes.c_uint64 * (ROW_COUNT // 64)),
    ]

    saved_rsp: int
    stop: int
    resume: int
    task: int
    target: int
    limit: int
    last: int
    at: int
    played: int
    outputs: int


class Control(_ControlPage):
    """`struct control`."""

    _fields_ = [
        ("saved_rsp", ctypes.c_uint64),
        ("stop", ctypes.c_uint32),
        ("unused", ctypes.c_uint32),
        ("resume", ctypes.c_uint64),
        ("attention", ctypes.c_uint32),
        ("trap_at", ctypes.c_uint32),
        ("reason", ctypes.c_uint32),
        ("phase", ctypes.c_uint32),
        ("sequence", ctypes.c_uint64),
        ("records", ctypes.c_uint32),
        ("segments", ctypes.c_uint32),
        ("payload", ctypes.c_uint32),
        ("task", ctypes.c_uint32),
        ("last_us", ctypes.c_uint64),
        ("start_ns", ctypes.c_uint64),
        ("result", ctypes.c_int64),
        ("crc", ctypes.c_uint32),
        ("ranges", ctypes.c_uint32),
        ("until_clock", ctypes.c_uint32),
        ("unused_too", ctypes.c_uint32),
        ("previous_us", ctypes.c_uint64),
        ("approved", ctypes.c_uint32),
        ("unused_here", ctypes.c_uint32),
        ("file", ctypes.c_uint8 * SEGMENT_SIZE),
        ("padding", ctypes.c_uint8 * 2),
        ("remapped", ctypes.c_uint32),
        ("kept", ctypes.c_uint32),
    ]

    saved_rsp: int
    stop: int
    attention: int
    trap_at: int
    reason: int
    phase: int
    sequence: int
    records: int
    segments: int
    payload: int
    task: int
    last_us: int
    start_ns: int
    result: int
    crc: int
    ranges: int
    until_clock: int
    previous_us: int
    approved: int
    remapped: int
    kept: int


STOP_HANDOVER, STOP_MADE, STOP_BY_HAND, STOP_LIMIT = range(1, 5)
REASON_ROW, REASON_FULL, REASON_RANGE, REASON_ATTENTION, REASON_LARGE = range(1, 6)


class Code(NamedTuple):
    """The agent's code, and the places in it that the recorder must know."""

    image: bytes
    entry: int
    precheck: int
    """From here to `after`, a call is about to be made."""
    after: int
    bail: int
    by_hand: int
    stopped: int
    """Where it stands when it has stopped for the recorder."""


class PlayerCode(NamedTuple):
    """The player's code, and the places in it that the engine must know."""

    image: bytes
    entry: int
    leaving: int
    """From here to `stop` the call is played, and the program's registers are put back."""
    stop: int
    stopped: int
    """Where it stands when it leaves a call to the engine."""


@functools.cache
def agent_code() -> Code | None:
    """The code as it was built when SysRift was installed; None when it was not."""
    found = _built("agent", b"SRTAGENT", 6)
    return Code(*found) if found else None


@functools.cache
def player_code() -> PlayerCode | None:
    """The same of the player."""
    found = _built("player", b"SRTTPLYR", 4)
    return PlayerCode(*found) if found else None


def _built(name: str, magic: bytes, count: int) -> tuple[Any, ...] | None:
    """Code, and the `count` places that its vector names."""
    path = Path(native.__file__).with_name(name)
    try:
        image = path.read_bytes()
        found, *places, end, saved = struct.unpack_from(f"<8s{count + 2}Q", image)
    except (OSError, struct.error):
        return None
    if found != magic or end != AGENT_END or saved != SAVED[0][1] or len(image) > CODE_SIZE:
        return None
    return (image, *places)
