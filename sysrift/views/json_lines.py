# SPDX-License-Identifier: GPL-2.0-or-later
"""Events as JSON: `sysrift dump --json` prints one object a line, the end as the last one.

An event is

    number   from 1
    kind     "syscall", "signal", "tsc" or "shared" (others changed shared memory)
    name     "openat", "SIGSEGV", "rdtsc", "shared_memory"
    nr       the system call's or signal's number
    process  the recorded process: its number in the trace
    pid      its process id
    time_us  microseconds since the recording began
    site     address of the instruction, and `rsp` there
    args     of a system call: six unsigned 64-bit numbers
    call     of a system call: its text, without the result
    result   of a system call: signed, null when the program ended in it; of a tsc: the counter
    errno    the error's name, when it failed ("ENOENT"; "ERESTARTSYS" when it was interrupted)
    delivery of a signal: "handler", "fatal" or "stopped"
    siginfo  of a signal: the fields of its siginfo_t
    flags    of "guessed", "image", "unfinished", "incomplete", "in_code"; left out when empty
    input_crc  CRC-32 of what a system call was handed; left out when 0
    memory   pieces of memory; left out when empty. Each has

        kind      "out" (the kernel wrote it), "in" (leading bytes that the program handed in),
                  "file" (mapped; `file` is its path), "registers" or "xsave" (without bytes)
        argument  index of the argument that it hangs on; left out when it hangs on none
        address, length
        text      the bytes, when they are UTF-8 (with JSON's escapes) ...
        base64    ... or else so
        truncated true when only the leading bytes are given

and the end is {"kind": "end", "how": "exited" | "killed" | "stopped" | "cut off", "status",
"signal", "message", "duration_us", "events", "process", "pid"}, with what applies; there is one for
each process.
"""

from __future__ import annotations

import base64
import errno
import json
from typing import Any

from sysrift.syscalls import lookup
from sysrift.syscalls.decode import format_call
from sysrift.trace.model import (
    ABSOLUTE,
    Delivery,
    Event,
    EventFlag,
    EventKind,
    Segment,
    SegmentKind,
)
from sysrift.trace.reader import Trace
from sysrift.views.signals import siginfo_fields, signal_name
from sysrift.views.text import argument_bytes, event_name, signal_info

SHOWN_BYTES = 4096
"""How many bytes of each piece of memory are given by default."""

_KINDS: dict[int, str] = {
    EventKind.SYSCALL: "syscall",
    EventKind.SIGNAL: "signal",
    EventKind.TSC: "tsc",
    EventKind.SHARED: "shared",
}
_DELIVERIES: dict[int, str] = {
    Delivery.HANDLER: "handler", Delivery.FATAL: "fatal", Delivery.STOPPED: "stopped"
}  # fmt: skip
_SEGMENT_KINDS = {kind.value: kind.name.lower() for kind in SegmentKind}
_SILENT = (SegmentKind.REGISTERS, SegmentKind.XSAVE, SegmentKind.POINT)
# The kernel's own, which errno.h does not have (include/linux/errno.h).
_RESTARTS = {
    512: "ERESTARTSYS",
    513: "ERESTARTNOINTR",
    514: "ERESTARTNOHAND",
    516: "ERESTART_RESTARTBLOCK",
}


def event_json(event: Event, trace: Trace, limit: int = SHOWN_BYTES) -> str:
    """One event as a JSON object on one line. Raises TraceError when its bytes are unreadable."""
    return json.dumps(event_object(event, trace, limit))


def event_object(event: Event, trace: Trace, limit: int = SHOWN_BYTES) -> dict[str, Any]:
    """One event as the object that the module's description shows."""
    value: dict[str, Any] = {
        "number": event.number,
        "kind": _KINDS.get(event.kind, "unknown"),
        "name": event_name(event),
        "nr": event.nr,
        "process": event.task,
        "pid": trace.processes[event.task].pid,
        "time_us": event.time_us,
        "site": event.site,
        "rsp": event.rsp,
    }
    if event.kind == EventKind.SYSCALL:
        fragments = argument_bytes(event, trace)
        row = lookup(event.nr)
        value["args"] = list(event.args)
        value["call"] = format_call(row, event.nr, event.args, event.result, fragments)
        unfinished = event.flags & EventFlag.UNFINISHED
        value["result"] = None if unfinished else event.result
        if -4096 < event.result < 0 and not unfinished:
            value["errno"] = error_name(-event.result)
    elif event.kind == EventKind.SIGNAL:
        value["delivery"] = _DELIVERIES.get(event.result, "unknown")
        siginfo = signal_info(event, trace)
        if siginfo:
            value["siginfo"] = siginfo_fields(event.nr, siginfo)
    else:
        value["result"] = event.result & 0xFFFFFFFFFFFFFFFF
    flags = [flag.name.lower() for flag in EventFlag if event.flags & flag and flag.name]
    if flags:
        value["flags"] = flags
    if event.input_crc:
        value["input_crc"] = event.input_crc
    memory = [
        _piece(segment, trace, limit)
        for segment in event.segments
        if segment.kind != SegmentKind.SIGINFO
    ]
    if memory:
        value["memory"] = memory
    return value


def _piece(segment: Segment, trace: Trace, limit: int) -> dict[str, Any]:
    piece: dict[str, Any] = {"kind": _SEGMENT_KINDS.get(segment.kind, "unknown")}
    if segment.base != ABSOLUTE:
        piece["argument"] = segment.base
    piece["address"] = segment.address
    piece["length"] = segment.length
    if segment.kind in (SegmentKind.FILE, SegmentKind.FILE_SIZE):
        file = trace.files.get(segment.block)
        if file is not None:
            piece["file"] = file.path
    elif segment.kind not in _SILENT:
        data = trace.segment_data(segment)
        shown = data[:limit]
        if len(data) > limit:
            piece["truncated"] = True
            shown = _whole_characters(shown)
        piece.update(bytes_object(shown))
    return piece


def _whole_characters(data: bytes) -> bytes:
    """`data` without a UTF-8 character at its end that was cut through."""
    for cut in range(1, min(4, len(data)) + 1):
        if data[-cut] & 0xC0 != 0x80:  # the first byte of the last character
            return data[:-cut] if data[-cut] >= 0xC0 and cut < _width(data[-cut]) else data
    return data


def _width(first: int) -> int:
    """How many bytes the UTF-8 character has that begins with this byte."""
    return 2 if first < 0xE0 else 3 if first < 0xF0 else 4


def bytes_object(data: bytes) -> dict[str, str]:
    """`{"text": ...}` for UTF-8, else `{"base64": ...}`: either gives the bytes back exactly."""
    try:
        return {"text": data.decode()}
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(data).decode()}


def error_name(number: int) -> str:
    """`ENOENT`; the number itself as text when it has no name."""
    return errno.errorcode.get(number) or _RESTARTS.get(number) or str(number)


def end_object(trace: Trace) -> dict[str, Any]:
    """How the trace ends, as the object that the module's description shows."""
    value: dict[str, Any] = {
        "kind": "end",
        "process": trace.process.id,
        "pid": trace.process.pid,
        "events": trace.event_count,
    }
    end = trace.end
    if end is None:
        return {**value, "how": "cut off"}
    value.update(how=end.how, duration_us=end.duration_us)
    if end.how == "exited":
        value["status"] = end.status
    elif end.how == "killed":
        value["signal"] = signal_name(end.signal)
    else:
        value["message"] = end.message
    return value
