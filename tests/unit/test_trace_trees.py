# SPDX-License-Identifier: GPL-2.0-or-later
"""A trace of a tree of processes: timelines, what a cut leaves of them, and forged ones."""

from __future__ import annotations

import functools
import json
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from traces import PID, Builder

from sysrift.errors import TraceError, UsageError
from sysrift.syscalls import NAMES
from sysrift.trace.model import End, Event
from sysrift.trace.reader import Trace
from sysrift.trace.schema import BlockType
from sysrift.views.processes import (
    all_events,
    command_text,
    find_process,
    most_interesting,
    process_facts,
)

SEGV = End("killed", signal=11)


def grown(path: Path, closed: bool = True) -> Path:
    """Process 1 makes 2 and 3; 2 makes 4 and executes `ls`; 4 crashes; 3 executes `cat`."""
    builder = Builder(path)
    builder.writer.add_program(1, _program(0, "/bin/sh", "sh", "-c", "x"))
    builder.call("getpid", result=PID)  # 1
    second = builder.fork()  # 2
    builder.call("getppid", result=1)  # 3
    builder.process = second
    builder.call("getpid", result=PID + 1)  # 3
    fourth = builder.fork("vfork")  # 4
    builder.execute("/bin/ls", "ls", "-l")  # 5
    builder.process = fourth
    builder.call("getpid", result=PID + 3)  # 5
    builder.writer.add_checksum(fourth, b"4" * 16)
    builder.process = 1
    third = builder.fork("clone")  # 4
    assert (second, fourth, third) == (2, 3, 4)
    builder.writer.flush()
    builder.process = third
    builder.execute("/bin/cat", "cat")  # 5
    builder.execute("/bin/cat", "cat")  # 6
    builder.process = second
    builder.call("getppid", result=PID)  # 6
    builder.end(fourth, SEGV)
    builder.end(third)
    builder.end(second, End("exited", status=3))
    builder.process = 1
    builder.call("wait4", result=PID + 1)  # 5
    builder.end(1)
    return builder.close() if closed else builder.cut_off()


def _program(event: int, exe: str, *argv: str) -> Any:
    from sysrift.trace.model import Program

    return Program(event, exe, argv)


@pytest.fixture
def tree(tmp_path: Path) -> Trace:
    return Trace(grown(tmp_path / "tree.srl"))


def names(events: list[Event]) -> list[str]:
    by_number = {number: name for name, number in NAMES.items()}
    return [by_number[event.nr] for event in events]


# -- timelines ------------------------------------------------------------------------------------


def test_a_childs_timeline_begins_with_its_parents(tree: Trace) -> None:
    first = list(tree.events())
    assert names(first) == ["getpid", "clone", "getppid", "clone", "wait4"]
    second = list(tree.of(2).events())
    assert names(second) == ["getpid", "clone", "getpid", "clone", "execve", "getppid"]
    assert second[0] == first[0]
    assert (first[1].result, second[1].result) == (PID + 1, 0)
    vfork_child = list(tree.of(3).events())
    assert names(vfork_child) == ["getpid", "clone", "getpid", "clone", "getpid"]
    assert vfork_child[:3] == second[:3] and vfork_child[3].result == 0
    for trace in (tree, tree.of(2), tree.of(3), tree.of(4)):
        numbers = [event.number for event in trace.events()]
        assert numbers == list(range(1, trace.event_count + 1))
        assert [trace.event(number) for number in reversed(numbers)] == list(trace.events())[::-1]
        assert list(trace.events(3, 4)) == list(trace.events())[2:4]


def test_images_and_checksums_of_a_timeline(tree: Trace) -> None:
    assert [tree.of(process).beginning for process in (1, 2, 3, 4)] == [0, 5, 4, 5]
    assert tree.of(2).has_image(5) and not tree.of(3).has_image(5)
    assert tree.of(3).image_before(99) == 0
    assert tree.of(4).image_before(6) == 5 and tree.of(4).image_before(99) == 6
    assert tree.of(3).checksums == {5: b"4" * 16}
    assert not tree.of(2).checksums and not tree.checksums


def test_an_image_that_is_no_program_is_not_the_beginning(tmp_path: Path) -> None:
    from dataclasses import replace

    from traces import image

    from sysrift.trace.model import EventFlag

    builder = Builder(tmp_path / "t.srl")
    child = builder.fork()
    builder.process = child
    event = builder.call("vfork", result=9, flags=EventFlag.IMAGE)
    builder.writer.add_image(replace(image(builder.writer, event), task=child))
    trace = Trace(builder.close()).of(child)
    assert trace.beginning == 1 and trace.has_image(2)


def test_all_events_are_in_the_order_of_their_happening(tree: Trace) -> None:
    times = [event.time_us for event in all_events(tree)]
    assert times == sorted(times) and len(times) == tree.file.event_count == 15


def test_ends_of_processes(tree: Trace) -> None:
    ends = {process: tree.of(process).end for process in tree.processes}
    assert ends[3] is not None and ends[3].signal == 11
    assert ends[2] is not None and ends[2].status == 3


# -- which process is meant -----------------------------------------------------------------------


def test_a_process_is_found_by_pid_and_name(tree: Trace) -> None:
    assert find_process(tree, str(PID + 1)).id == 2
    assert find_process(tree, "ls").id == 2
    assert find_process(tree, "sh").id == 1
    for text, message in (("nobody", "no process named 'nobody'"), ("7", "no process 7")):
        with pytest.raises(UsageError, match=message):
            find_process(tree, text)


def test_of_several_with_one_name_only_a_crashed_one_is_meant(tmp_path: Path) -> None:
    builder = Builder(tmp_path / "t.srl")
    children = [builder.fork() for _ in range(3)]
    for child in children:
        builder.process = child
        builder.execute("/bin/cat", "cat")
    builder.end(children[1], SEGV)
    trace = Trace(builder.close())
    assert find_process(trace, "cat").id == children[1]
    assert most_interesting(trace).id == children[1]

    builder = Builder(tmp_path / "u.srl")
    for _ in range(2):
        builder.process = 1
        builder.process = builder.fork()
        builder.execute("/bin/cat", "cat")
    with pytest.raises(UsageError, match=f"2 processes are named 'cat': say which, {PID + 1}, "):
        find_process(Trace(builder.close()), "cat")


def test_facts_of_a_tree(tree: Trace) -> None:
    facts = process_facts(tree)
    assert [(fact.process.id, fact.depth, fact.began) for fact in facts] == [
        (1, 0, "started"), (2, 1, "fork+exec"), (3, 2, "vfork"), (4, 1, "clone+exec"),
    ]  # fmt: skip
    assert [fact.events for fact in facts] == [5, 5, 2, 3]
    assert [fact.command for fact in facts] == ["sh -c x", "ls -l", "(ls -l)", "cat"]
    assert [fact.crashed for fact in facts] == [False, False, True, False]


# -- cut off and damaged --------------------------------------------------------------------------


@functools.cache
def sample(closed: bool) -> tuple[bytes, dict[int, list[Event]]]:
    """A tree's bytes, and each process's events."""
    with tempfile.TemporaryDirectory() as folder:
        path = grown(Path(folder, "t.srl"), closed)
        with Trace(path) as trace:
            return path.read_bytes(), {p: list(trace.of(p).events()) for p in trace.processes}


def looked_at(raw: bytes) -> dict[int, list[Event]]:
    """Everything that is in a tree's trace; TraceError where it is damaged."""
    with tempfile.NamedTemporaryFile(suffix=".srl") as file:
        file.write(raw)
        file.flush()
        with Trace(Path(file.name)) as trace:
            process_facts(trace)
            most_interesting(trace)
            list(all_events(trace))
            found = {}
            for process in trace.processes.values():
                own = trace.of(process.id)
                assert own.end is None or isinstance(own.end, End)
                assert 0 <= own.beginning <= max(own.event_count, process.parent_event)
                command_text(trace.file, process)
                own.image_before(own.event_count + 1)
                if own.has_image(own.beginning):
                    own.image(own.beginning)
                found[process.id] = list(own.events())
            return found


def survives(raw: bytes, closed: bool) -> None:
    """Damaged bytes give what is true, as far as they go, or TraceError."""
    try:
        found = looked_at(raw)
    except TraceError as error:
        assert "\n" not in str(error)
        return
    whole = sample(closed)[1]
    for process, events in found.items():
        assert events == whole[process][: len(events)]


@pytest.mark.parametrize("closed", [False, True])
def test_no_truncation_gives_wrong_data(closed: bool) -> None:
    raw = sample(closed)[0]
    # Every fifth byte: coprime to the structures' sizes, so that each is cut everywhere.
    for length in [*range(0, len(raw), 5), *range(len(raw) - 40, len(raw))]:
        survives(raw[:length], closed)


@settings(deadline=None, max_examples=300)
@given(st.booleans(), st.integers(0, 10**9), st.integers(0, 7))
def test_no_flipped_bit_gives_wrong_data(closed: bool, place: int, bit: int) -> None:
    raw = bytearray(sample(closed)[0])
    raw[place % len(raw)] ^= 1 << bit
    survives(bytes(raw), closed)


def test_a_child_whose_birth_was_not_written_any_more(tmp_path: Path) -> None:
    builder = Builder(tmp_path / "t.srl")
    builder.call("getpid")
    builder.writer.flush()
    builder.writer.add_process(PID + 1, "fork", 1, 2)
    with Trace(builder.cut_off()) as trace:
        child = trace.of(2)
        assert child.event_count == 1 and child.end is None
        assert process_facts(trace)[1].events == 0


def test_an_end_that_came_before_its_events_is_not_believed(tmp_path: Path) -> None:
    builder = Builder(tmp_path / "t.srl")
    child = builder.fork()
    builder.process = child
    builder.writer.flush()
    builder.call("getpid")
    builder.end(child)  # its block is in the file, the last event is not
    builder.writer.abandon()
    with Trace(tmp_path / "t.srl") as trace:
        assert trace.of(child).end is None


NUMBER = st.one_of(st.integers(-2, 9), st.integers(), st.floats(), st.none(), st.text(max_size=3))
PROCESS = st.fixed_dictionaries(
    {},
    optional={
        "id": NUMBER, "pid": NUMBER, "parent": NUMBER, "parent_event": NUMBER, "time_us": NUMBER,
        "cpu": NUMBER, "how": st.one_of(st.text(max_size=9), st.integers()),
    },
)  # fmt: skip
PROGRAM = st.fixed_dictionaries(
    {},
    optional={
        "event": NUMBER,
        "exe": st.one_of(st.text(max_size=9), st.none()),
        "argv": st.one_of(st.lists(st.text(max_size=5), max_size=3), NUMBER),
    },
)
ENDING = st.fixed_dictionaries(
    {},
    optional={"how": st.text(max_size=9), "status": NUMBER, "signal": NUMBER, "events": NUMBER},
)


@settings(deadline=None, max_examples=500)
@given(
    st.lists(
        st.one_of(
            st.tuples(st.just(BlockType.PROCESS), PROCESS),
            st.tuples(st.just(BlockType.PROGRAM), PROGRAM),
            st.tuples(st.just(BlockType.PROCESS_END), ENDING),
        ),
        min_size=1,
        max_size=4,
    ),
    st.booleans(),
)
def test_forged_processes_never_break_the_reader(
    blocks: list[tuple[BlockType, dict[str, Any]]], plausible: bool
) -> None:
    raw = sample(False)[0]
    for number, (kind, value) in enumerate(blocks, 5):
        if plausible and kind == BlockType.PROCESS:
            defaults = {"pid": 1, "how": "fork", "parent": 1, "parent_event": 2, "time_us": 0}
            value = {**defaults, "cpu": 0, **value, "id": number}
        raw += _block(kind, json.dumps(value).encode(), number)
    whole = sample(False)[1]
    try:
        found = looked_at(raw)
    except TraceError as error:
        assert "\n" not in str(error)
        return
    assert {process: found[process] for process in whole} == whole


def _block(kind: int, raw: bytes, process: int) -> bytes:
    """A block that is about a process."""
    import zlib

    from sysrift.trace import codec

    head = (kind, 0, 1, len(raw), len(raw))
    crc = zlib.crc32(raw, zlib.crc32(codec.BLOCK_HEADER.pack(*head, 0, process, 0)))
    return codec.BLOCK_HEADER.pack(*head, crc, process, 0) + raw


@pytest.mark.parametrize(
    "value",
    [
        {"id": 5, "parent": 5, "parent_event": 1},  # its own parent
        {"id": 5, "parent": 6, "parent_event": 1},  # a parent that comes later
        {"id": 2, "parent": 1, "parent_event": 1},  # another one's id
        {"id": 5, "parent": 1, "parent_event": 0},  # born before everything
        {"id": 5, "parent": 0, "parent_event": 3},  # born of nobody
        {"id": 5, "parent": -1, "parent_event": 3},
    ],
)
def test_a_process_that_cannot_be_is_refused(value: dict[str, int], tmp_path: Path) -> None:
    forged = {"pid": 1, "how": "fork", "time_us": 0, "cpu": 0, **value}
    raw = sample(False)[0] + _block(BlockType.PROCESS, json.dumps(forged).encode(), value["id"])
    with pytest.raises(TraceError, match="process table makes no sense"):
        looked_at(raw)


def test_the_reader_says_which_process_is_not_there(tree: Trace) -> None:
    with pytest.raises(TraceError, match="has no process 9"):
        tree.of(9)


def test_an_image_whose_events_were_cut_off_is_not_there(tmp_path: Path) -> None:
    """Programs and images are in the file at once, events only when a block of them is full."""
    builder = Builder(tmp_path / "t.srl")
    builder.call("brk", 0)
    child = builder.fork()
    builder.writer.flush()
    builder.process = child
    builder.call("brk", 0)
    executed = builder.execute("/bin/other")
    builder.writer.abandon()
    trace = Trace(builder.path)
    own = trace.of(child)
    assert executed > own.event_count == own.process.parent_event
    assert not own.has_image(executed)
    assert own.beginning == own.process.parent_event
    assert own.image_before(executed + 1) == 0
    with pytest.raises(TraceError):
        own.image(executed)
    trace.close()


def test_an_image_comes_with_its_events_wherever_they_are_in_the_file(tmp_path: Path) -> None:
    builder = Builder(tmp_path / "t.srl")
    builder.call("brk", 0)
    executed = builder.execute("/bin/other")
    builder.call("brk", 0)
    trace = Trace(builder.close())
    assert len(trace.file.event_blocks()) == 1
    assert trace.has_image(executed) and trace.image(executed).exe == "/bin/other"
    assert [event.number for event in trace.events(1, 3)] == [1, 2, 3]
    trace.close()
