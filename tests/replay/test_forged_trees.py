# SPDX-License-Identifier: GPL-2.0-or-later
"""A forged event of a child is found when its tree is verified, and the child is named."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from harness import Finished, assert_faithful, assert_no_traceback, built, record, verify
from rewriting import events_of_all, flipped, forge, with_output

from sysrift.syscalls import NAMES
from sysrift.trace import AFTER, Event, EventKind, SegmentKind
from sysrift.trace.model import Process
from sysrift.trace.reader import Trace

Change = Callable[[Event], "Event | None"]


def recorded(name: str, *options: str) -> Path:
    done = record([built(f"programs/{name}")], options=["-q", *options])
    assert done.returncode == 0, done
    assert_faithful(done.trace)
    return done.trace


def child_of(trace: Path) -> Process:
    return list(Trace(trace).processes.values())[1]


def first_of(trace: Path, task: int, name: str) -> Event:
    return next(
        event
        for event in events_of_all(trace)
        if event.task == task and event.kind == EventKind.SYSCALL and event.nr == NAMES[name]
    )


def forged(trace: Path, target: Path, event: Event, change: Change) -> Path:
    """A copy in which this one event is another."""
    return forge(
        trace,
        target,
        lambda each: (
            change(each) if (each.task, each.number) == (event.task, event.number) else each
        ),
    )


def diverges(trace: Path, process: Process, at_or_after: int) -> Finished:
    """Verify must say 3, name the process, and an event no earlier than the forged one."""
    done = verify(trace)
    assert done.returncode == 3, done
    assert_no_traceback(done)
    said = re.search(r"process (\d+): divergence at event ([\d,]+)", done.stderr)
    assert said, done
    assert int(said[1]) == process.pid, done
    assert int(said[2].replace(",", "")) >= at_or_after, done
    return done


@pytest.mark.parametrize(
    "name",
    [
        "processes/fork_twins",
        "processes/vfork_maps",
        "processes/memory_advice",
        "processes/grandchildren",
        "processes/clone3_vfork",
        "exec/in_memory",
        "exec/children_of_both",
    ],
)
def test_copy_of_a_tree_is_faithful(name: str, built_fixtures: None, tmp_path: Path) -> None:
    # The control of the controls.
    trace = record([built(f"programs/{name}")], options=["-q", "--checksum=5"]).trace
    copy = forge(trace, tmp_path / "copy.srl")
    told = assert_faithful(copy).stdout
    assert told.partition(":")[2] == assert_faithful(trace).stdout.partition(":")[2]
    assert "processes" in told


def test_swapped_result_in_a_child(built_fixtures: None, tmp_path: Path) -> None:
    trace = recorded("processes/fork_twins")
    child = child_of(trace)
    asked = first_of(trace, child.id, "getppid")
    other = forged(
        trace, tmp_path / "forged.srl", asked, lambda e: e._replace(result=e.result + 1)
    )  # fmt: skip
    diverges(other, child, asked.number)


def test_changed_byte_in_a_childs_read(built_fixtures: None, tmp_path: Path) -> None:
    trace = recorded("processes/socketpair_dialogue")
    child = child_of(trace)
    read = first_of(trace, child.id, "read")
    other = forged(trace, tmp_path / "forged.srl", read, lambda e: with_output(e, flipped))
    diverges(other, child, read.number + 1)


def test_changed_registers_of_a_childs_birth(built_fixtures: None, tmp_path: Path) -> None:
    trace = recorded("processes/fork_twins")
    child = child_of(trace)
    birth = next(event for event in events_of_all(trace) if event.task == child.id)
    assert birth.number == child.parent_event

    def bent(event: Event) -> Event:
        segments = list(event.segments)
        at = next(i for i, part in enumerate(segments) if part.kind == SegmentKind.REGISTERS)
        assert segments[at].address == AFTER
        data = bytearray(segments[at].data or b"")
        data[19 * 8] ^= 0x10  # rsp (struct user_regs_struct)
        segments[at] = segments[at]._replace(data=bytes(data))
        return event._replace(segments=tuple(segments))

    diverges(forged(trace, tmp_path / "forged.srl", birth, bent), child, birth.number)


def test_missing_event_of_a_child(built_fixtures: None, tmp_path: Path) -> None:
    trace = recorded("processes/fork_twins")
    child = child_of(trace)
    asked = first_of(trace, child.id, "getppid")
    other = forged(trace, tmp_path / "forged.srl", asked, lambda _: None)
    diverges(other, child, asked.number)


def test_changed_memory_of_a_childs_program(built_fixtures: None, tmp_path: Path) -> None:
    trace = recorded("exec/time_after", "--checksum=10")
    child = child_of(trace)
    changed: list[int] = []
    images = 0

    def image(data: bytes, address: int) -> bytes:
        nonlocal images
        # The stack of the second image is the child's new program's: its first page that holds
        # arguments and environment.
        if address > 0x7FFFFFFF0000 - (1 << 20) and address >> 40 == 0x7F:
            images += 1
            if images == 2:
                changed.append(address)
                return data[:-100] + bytes([data[-100] ^ 1]) + data[-99:]
        return data

    other = forge(trace, tmp_path / "forged.srl", image=image)
    assert changed
    diverges(other, child, 1)


def test_forged_memory_that_a_vfork_child_wrote(built_fixtures: None, tmp_path: Path) -> None:
    trace = recorded("processes/vfork_writes", "--checksum=1")
    first = Trace(trace).processes[1]
    call = next(
        event
        for event in events_of_all(trace)
        if event.task == first.id
        and event.kind == EventKind.SYSCALL
        and event.nr in (NAMES["vfork"], NAMES["clone"])
    )
    assert any(part.kind == SegmentKind.OUT for part in call.segments)
    other = forged(trace, tmp_path / "forged.srl", call, lambda e: with_output(e, flipped))
    done = verify(other)
    assert done.returncode == 3, done
