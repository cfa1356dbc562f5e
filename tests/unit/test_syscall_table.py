# SPDX-License-Identifier: GPL-2.0-or-later
"""The table is complete, consistent, and answers whatever registers and memory hold."""

from __future__ import annotations

import os
import re
import struct
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sysrift.syscalls import NAMES, TABLE, BadAddress, Range, ReplayClass, lookup
from sysrift.syscalls.effects import NotationError, Signature, split_token
from sysrift.syscalls.ioctl import encoding
from sysrift.syscalls.memory import terminated_length
from sysrift.syscalls.table import FAMILIES, parse_row
from sysrift.syscalls.variants import Variants, command_lines

PAGE = 4096
HEADERS = [
    Path("/usr/include/x86_64-linux-gnu/asm/unistd_64.h"),
    Path("/usr/include/asm/unistd_64.h"),
]
#: Newer than the headers of some distributions that SysRift runs on.
NEWER = {
    "uretprobe": 335, "uprobe": 336, "cachestat": 451, "fchmodat2": 452, "map_shadow_stack": 453,
    "futex_wake": 454, "futex_wait": 455, "futex_requeue": 456, "statmount": 457,
    "listmount": 458, "lsm_get_self_attr": 459, "lsm_set_self_attr": 460,
    "lsm_list_modules": 461, "mseal": 462, "setxattrat": 463, "getxattrat": 464,
    "listxattrat": 465, "removexattrat": 466, "open_tree_attr": 467, "file_getattr": 468,
    "file_setattr": 469, "listns": 470,
}  # fmt: skip


class Memory:
    """A fake address space of a few pieces, up to their page's end; the rest is unmapped."""

    def __init__(self, **pieces: bytes) -> None:
        self.pieces: dict[int, bytes] = {}
        self.reads: list[tuple[int, int]] = []
        for name, content in pieces.items():
            self.place(int(name[1:], 16), content)

    def place(self, address: int, content: bytes) -> int:
        self.pieces[address] = content + b"\xee" * (-(address + len(content)) % PAGE)
        return address

    def read(self, address: int, length: int) -> bytes:
        self.reads.append((address, length))
        for start, content in self.pieces.items():
            if start <= address and address + length <= start + len(content):
                return content[address - start : address - start + length]
        raise BadAddress(hex(address))


def row(name):
    return TABLE[NAMES[name]]


def arguments(*values):
    return tuple((each & (1 << 64) - 1) for each in (*values, 0, 0, 0, 0, 0, 0)[:6])


def outputs(name, values, result, memory=None, before=None):
    memory = memory or Memory()
    args = arguments(*values)
    the_row = row(name)
    state = the_row.before(args, before or memory)
    return the_row.outputs(args, result, memory, state)


def inputs(name, values, memory=None):
    return row(name).inputs(arguments(*values), memory or Memory())


def vector(*parts):
    return b"".join(struct.pack("<QQ", *part) for part in parts)


# --- completeness --------------------------------------------------------------------------------


def test_every_number_of_the_kernel_header_has_a_row_of_that_name():
    header = next((each for each in HEADERS if each.exists()), None)
    if header is None:
        pytest.skip("the kernel's headers are not installed")
    numbers = dict(re.findall(r"#define __NR_(\w+)\s+(\d+)", header.read_text()))
    assert len(numbers) > 300
    wrong = {name: nr for name, nr in numbers.items() if NAMES.get(name) != int(nr)}
    assert not wrong


def test_calls_newer_than_the_header_have_rows():
    assert {name: NAMES.get(name) for name in NEWER} == NEWER


def test_numbers_never_assigned_have_no_row():
    assert lookup(337) is None and lookup(423) is None
    assert lookup(-1) is None and lookup(0x40000000) is None
    assert lookup(100000) is None


def test_names_and_numbers_are_unique():
    assert len(NAMES) == len(TABLE)
    assert all(NAMES[each.name] == nr == each.nr for nr, each in TABLE.items())


def test_every_row_and_every_command_compiles():
    for each in TABLE.values():
        assert len(each.arguments) <= 6
        assert len({argument.name for argument in each.arguments}) == len(each.arguments)
        if isinstance(each.plan, Variants):
            each.plan.compile_all()


def test_every_family_is_used_and_names_each_command_once():
    used = {id(each.plan._family) for each in TABLE.values() if isinstance(each.plan, Variants)}
    assert {id(family) for family in FAMILIES.values()} == used
    for family in FAMILIES.values():
        numbers = [int(line[0], 0) for line in command_lines(family.commands)]
        assert len(numbers) == len(set(numbers))


def test_replay_classes():
    def members(replay_class):
        return {each.name for each in TABLE.values() if each.replay_class is replay_class}

    assert members(ReplayClass.MAP) == {
        "mmap", "munmap", "mprotect", "mremap", "brk", "madvise", "shmat", "shmdt",
        "remap_file_pages", "pkey_mprotect", "map_shadow_stack", "setrlimit", "prlimit64",
        "pkey_alloc", "pkey_free",
    }  # fmt: skip
    assert members(ReplayClass.TASK) == {
        "clone", "clone3", "fork", "vfork", "execve", "execveat", "exit", "exit_group",
    }  # fmt: skip
    assert members(ReplayClass.REGISTERS) == {
        "arch_prctl", "rt_sigreturn", "uretprobe", "uprobe",
    }  # fmt: skip


def test_what_may_block():
    for name in ("read", "futex", "wait4", "poll", "accept4", "recvmsg", "flock", "vfork"):
        assert row(name).blocks
    for name in ("getpid", "close", "fstat", "mmap", "clock_gettime", "exit_group"):
        assert not row(name).blocks


def test_the_table_is_imported_in_less_than_30_ms(tmp_path):
    command = (
        "import enum, re, struct, typing, functools, time; start = time.perf_counter();"
        "import sysrift.syscalls; print(time.perf_counter() - start)"
    )
    # As installed: with byte code, which the first run writes.
    environment = {
        **os.environ,
        "PYTHONPYCACHEPREFIX": str(tmp_path / "bytecode"),
        "PYTHONDONTWRITEBYTECODE": "",
        "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
    }
    times = []
    for _ in range(5):
        output = subprocess.run(
            [sys.executable, "-c", command], capture_output=True, check=True, env=environment
        )
        times.append(float(output.stdout))
    assert min(times) < 0.030


def test_the_common_rows_cost_microseconds():
    memory = Memory()
    args = arguments(3, 0x1000, 100)
    rule = row("read").outputs
    start = time.perf_counter()
    for _ in range(10000):
        rule(args, 50, memory, None)
    assert (time.perf_counter() - start) / 10000 < 20e-6  # about 1; the rest is a busy machine


# --- rules ---------------------------------------------------------------------------------------


def test_a_call_without_memory_gives_the_same_empty_list_each_time():
    args = arguments(3)
    assert row("close").inputs(args, Memory()) is row("close").inputs(args, Memory())
    assert row("close").outputs(args, 0, Memory(), None) == []
    assert row("close").before(args, Memory()) is None


def test_read_writes_what_it_returned():
    assert outputs("read", (3, 0x1000, 100), 42) == [Range(1, 0x1000, 42, "data")]
    assert outputs("read", (3, 0x1000, 100), 0) == []
    assert outputs("read", (3, 0x1000, 100), -9) == []
    assert outputs("read", (3, 0x1000, 100), -512) == []
    assert outputs("read", (3, 0, 100), 42) == []


def test_write_reads_its_buffer():
    assert inputs("write", (1, 0x1000, 100)) == [Range(1, 0x1000, 100, "data")]
    assert inputs("write", (1, 0x1000, 0)) == []
    assert inputs("write", (1, 0x1000, -1)) == []
    assert inputs("write", (1, 0, 5)) == []


def test_paths_are_read_up_to_their_nul():
    memory = Memory(x1000=b"/etc/passwd\0junk")
    assert inputs("openat", (-100, 0x1000, 0), memory) == [Range(1, 0x1000, 12, "string")]
    assert inputs("openat", (-100, 0x5000, 0), memory) == []
    assert inputs("openat", (-100, 0, 0), memory) == []


@given(length=st.integers(0, 2 * PAGE), room=st.integers(0, 3))
def test_a_string_that_ends_just_before_an_unmapped_page_is_found(length, room):
    memory = Memory()
    end = 0x10000
    start = end - room - length - 1
    memory.place(start, b"a" * length + b"\0" + b"b" * room)
    if length < PAGE:
        assert terminated_length(memory, start) == length + 1
    else:
        assert terminated_length(memory, start) == PAGE
    for address, count in memory.reads:
        assert address // PAGE == (address + count - 1) // PAGE


def test_a_string_without_an_end_is_left_out():
    memory = Memory(xff00=b"a" * 0x100)
    with pytest.raises(BadAddress):
        terminated_length(memory, 0xFF00)
    assert inputs("open", (0xFF00,), memory) == []


def test_lengths_of_type_int_ignore_the_upper_half_of_the_register():
    junk = 0xDEADBEEF << 32
    assert outputs("poll", (0x1000, junk | 3, 0), 1) == [Range(0, 0x1000, 24, "struct")]
    assert inputs("bind", (3, 0x1000, junk | 16)) == [Range(1, 0x1000, 16, "struct")]
    assert inputs("bind", (3, 0x1000, 0xFFFFFFFF)) == []
    assert outputs("getgroups", (junk | 10, 0x1000), 3) == [Range(1, 0x1000, 12, "struct")]


@pytest.mark.parametrize(
    ("nfds", "length"), [(0, 0), (1, 8), (63, 8), (64, 8), (65, 16), (1024, 128), (-1, 0)]
)
def test_fd_sets_are_whole_words(nfds, length):
    expected = [Range(1, 0x1000, length, "struct")] if length else []
    assert outputs("select", (nfds, 0x1000, 0, 0, 0), 0) == expected
    assert inputs("pselect6", (nfds, 0x1000, 0, 0, 0, 0)) == expected


def test_a_failed_select_still_updates_its_timeout():
    memory = Memory(x4000=bytes(16))
    values = (8, 0x1000, 0, 0, 0x4000)
    for result in (-9, -4, -514):
        assert outputs("select", values, result, memory) == [Range(4, 0x4000, 16, "struct")]
    assert outputs("select", (8, 0x1000, 0, 0, 0x9000), -14, memory) == []


def test_sleep_writes_what_remains_only_when_interrupted():
    memory = Memory(x2000=bytes(16))
    remaining = [Range(1, 0x2000, 16, "struct")]
    assert outputs("nanosleep", (0x1000, 0x2000), 0, memory) == []
    assert outputs("nanosleep", (0x1000, 0x2000), -4, memory) == remaining
    assert outputs("nanosleep", (0x1000, 0x2000), -516, memory) == remaining
    assert outputs("nanosleep", (0x1000, 0x2000), -22, memory) == []


@pytest.mark.parametrize(
    ("at_entry", "at_exit", "written"), [(128, 16, 16), (4, 16, 4), (0, 16, 0), (16, 0, 0)]
)
def test_an_address_is_as_long_as_there_is_room_and_need(at_entry, at_exit, written):
    before = Memory(x2000=struct.pack("<I", at_entry))
    after = Memory(x2000=struct.pack("<I", at_exit))
    found = outputs("accept", (3, 0x1000, 0x2000), 5, after, before)
    assert Range(2, 0x2000, 4, "struct") in found
    assert [each.length for each in found if each.argument == 1] == ([written] if written else [])


def test_a_value_result_length_that_is_negative_or_unreadable_gives_nothing():
    negative = Memory(x2000=b"\xff" * 4)
    assert outputs("getsockname", (3, 0x1000, 0x2000), 0, negative) == [
        Range(2, 0x2000, 4, "struct")
    ]
    found = outputs("getsockname", (3, 0x1000, 0x2000), 0, Memory())
    assert [each.argument for each in found] == [2]


def test_recvfrom_truncated_result_is_bounded_by_the_buffer():
    assert outputs("recvfrom", (3, 0x1000, 10, 0x20, 0, 0), 500) == [Range(1, 0x1000, 10, "data")]


sizes = st.lists(st.integers(0, 300), min_size=1, max_size=40)


@given(lengths=sizes, share=st.floats(0, 1), excess=st.integers(0, 100))
def test_iovecs_are_filled_in_order(lengths, share, excess):
    memory = Memory()
    parts = [(0x100000 + index * 0x1000, length) for index, length in enumerate(lengths)]
    memory.place(0x1000, vector(*parts))
    result = int(sum(lengths) * share) if share < 1 else sum(lengths) + excess
    found = outputs("readv", (3, 0x1000, len(parts)), result, memory)
    assert sum(each.length for each in found) == min(result, sum(lengths))
    left = result
    expected = []
    for address, length in parts:
        if min(length, left) > 0:
            expected.append(Range(1, address, min(length, left), "data"))
        left -= min(length, left)
    assert found == expected


def test_1024_parts_are_taken_and_1025_refused():
    memory = Memory()
    parts = [(0x100000 + index * 16, 1) for index in range(1025)]
    memory.place(0x1000, vector(*parts))
    assert len(outputs("readv", (3, 0x1000, 1024), 5000, memory)) == 1024
    assert len(inputs("writev", (3, 0x1000, 1024), memory)) == 1025  # and the array
    assert outputs("readv", (3, 0x1000, 1025), 5000, memory) == []
    assert inputs("writev", (3, 0x1000, 1025), memory) == []


def test_an_iovec_array_overwritten_by_the_data_is_the_one_of_the_entry():
    before = Memory(x1000=vector((0x1000, 16)))
    after = Memory(x1000=b"z" * 16)
    assert outputs("readv", (3, 0x1000, 1), 16, after, before) == [Range(1, 0x1000, 16, "data")]


def test_bad_iovec_pointers_give_what_can_be_known():
    assert outputs("readv", (3, 0x1000, 3), 10) == []
    assert inputs("writev", (3, 0, 3)) == []
    memory = Memory(x1000=vector((0, 5), (0x3000, 5)))
    assert outputs("readv", (3, 0x1000, 2), 10, memory) == [Range(1, 0x3000, 5, "data")]


def msghdr(name, name_length, iov, count, control, control_length):
    return struct.pack("<QI4xQQQQI4x", name, name_length, iov, count, control, control_length, 0)


def test_a_received_message():
    iov = vector((0x5000, 4), (0x6000, 100))
    before = Memory(x1000=msghdr(0x3000, 128, 0x2000, 2, 0x4000, 64), x2000=iov)
    after = Memory(x1000=msghdr(0x3000, 16, 0x2000, 2, 0x4000, 24), x2000=iov)
    assert outputs("recvmsg", (3, 0x1000, 0), 10, after, before) == [
        Range(1, 0x1000, 56, "struct"),
        Range(1, 0x3000, 16, "struct"),
        Range(1, 0x4000, 24, "struct"),
        Range(1, 0x5000, 4, "data"),
        Range(1, 0x6000, 6, "data"),
    ]
    assert outputs("recvmsg", (3, 0x1000, 0), -11, after, before) == []


def test_a_sent_message_hands_in_all_its_parts():
    memory = Memory(
        x1000=msghdr(0x3000, 16, 0x2000, 2, 0x4000, 24), x2000=vector((0x5000, 4), (0x6000, 7))
    )
    assert set(inputs("sendmsg", (3, 0x1000, 0), memory)) == {
        Range(1, 0x1000, 56, "struct"),
        Range(1, 0x2000, 32, "struct"),
        Range(1, 0x3000, 16, "struct"),
        Range(1, 0x4000, 24, "struct"),
        Range(1, 0x5000, 4, "data"),
        Range(1, 0x6000, 7, "data"),
    }


def test_only_the_messages_that_arrived_are_written():
    header = msghdr(0, 0, 0x2000, 1, 0, 0) + struct.pack("<I4x", 3)
    memory = Memory(x1000=header * 4, x2000=vector((0x5000, 100)))
    found = outputs("recvmmsg", (3, 0x1000, 4, 0, 0), 2, memory)
    assert [each for each in found if each.kind == "data"] == [Range(1, 0x5000, 3, "data")] * 2
    assert {each.address for each in found if each.length == 4} == {0x1000 + 56, 0x1040 + 56}


def test_commands_without_a_rule_are_not_known():
    assert not row("ioctl").known(arguments(3, 0x5FFF, 0x1000))
    assert not row("prctl").known(arguments(99999))
    assert not row("fcntl").known(arguments(3, 777))
    assert not row("getsockopt").known(arguments(3, 6, 35, 0, 0))
    assert not row("bpf").known(arguments())
    assert not row("restart_syscall").known(arguments())
    assert row("ioctl").known(arguments(3, 0x5413, 0x1000))
    assert row("read").known(arguments())


def test_commands_are_32_bits_wide():
    assert row("ioctl").known(arguments(3, 0x5413 | 1 << 40, 0x1000))
    assert outputs("ioctl", (3, 0x5413 | 1 << 40, 0x1000), 0) == [Range(2, 0x1000, 8, "struct")]


def test_an_unlisted_request_is_taken_at_its_word():
    request = 2 << 30 | 20 << 16 | ord("Q") << 8 | 77  # _IOR('Q', 77, char[20])
    assert encoding(request) == (2, ord("Q"), 77, 20)
    assert row("ioctl").known(arguments(3, request, 0x1000))
    assert outputs("ioctl", (3, request, 0x1000), 0) == [Range(2, 0x1000, 20, "struct")]
    assert inputs("ioctl", (3, request, 0x1000)) == []
    request = 1 << 30 | 20 << 16 | ord("Q") << 8 | 77
    assert inputs("ioctl", (3, request, 0x1000)) == [Range(2, 0x1000, 20, "struct")]
    assert outputs("ioctl", (3, request, 0x1000), 0) == []


def test_requests_of_drivers_with_nested_pointers_are_guesses():
    request = 3 << 30 | 20 << 16 | ord("d") << 8 | 0x77  # DRM
    assert not row("ioctl").known(arguments(3, request, 0x1000))
    assert outputs("ioctl", (3, request, 0x1000), 0) == [Range(2, 0x1000, 20, "struct")]


def test_a_clone_is_seen_from_the_parent_and_from_the_child():
    flags = 0x01000000 | 0x00100000 | 17
    assert outputs("clone", (flags, 0, 0x2000, 0x3000, 0), 1234) == [Range(2, 0x2000, 4, "struct")]
    assert outputs("clone", (flags, 0, 0x2000, 0x3000, 0), 0) == [Range(3, 0x3000, 4, "struct")]
    assert outputs("clone", (17, 0, 0x2000, 0x3000, 0), 0) == []


def test_execve_hands_in_its_strings():
    memory = Memory(
        x1000=b"/bin/ls\0",
        x2000=struct.pack("<QQQ", 0x1000, 0x3000, 0),
        x3000=b"-l\0",
        x4000=struct.pack("<Q", 0),
    )
    assert set(inputs("execve", (0x1000, 0x2000, 0x4000), memory)) == {
        Range(0, 0x1000, 8, "string"),
        Range(1, 0x2000, 24, "struct"),
        Range(1, 0x1000, 8, "string"),
        Range(1, 0x3000, 3, "string"),
        Range(2, 0x4000, 8, "struct"),
    }


def test_outputs_without_an_entry_use_the_memory_of_the_exit():
    memory = Memory(x1000=vector((0x3000, 5)), x2000=struct.pack("<I", 16))
    args = arguments(3, 0x1000, 1)
    assert row("readv").outputs(args, 5, memory, None) == [Range(1, 0x3000, 5, "data")]
    args = arguments(3, 0x5000, 0x2000)
    assert Range(1, 0x5000, 16, "struct") in row("getpeername").outputs(args, 0, memory, None)


# --- whatever the program does -------------------------------------------------------------------

words = st.one_of(
    st.sampled_from([0, 1, 2, 7, 8, 64, 1024, 0x1000, 0x1008, 0x10FF, 0x2000, 0x7FFFFFFF]),
    st.sampled_from([0xFFFFFFFF, (1 << 64) - 1, (1 << 63) - 1, 1 << 63, (1 << 64) - 100]),
    st.integers(0, (1 << 64) - 1),
)
results = st.one_of(st.integers(-4095, 4096), st.integers(-(1 << 63), (1 << 63) - 1), st.just(-516))
contents = st.lists(words, max_size=64).map(lambda each: struct.pack(f"<{len(each)}Q", *each))


def check(found, args):
    for each in found:
        assert 0 < each.length <= 0x7FFFF000 + 8
        assert each.address > 0 and each.address + each.length <= 1 << 56
        assert 0 <= each.argument < 6 and args[each.argument]
        assert each.kind in ("string", "data", "struct")


@settings(max_examples=400, deadline=None)
@given(
    the_row=st.sampled_from(sorted(TABLE.values(), key=lambda each: each.nr)),
    args=st.tuples(words, words, words, words, words, words),
    result=results,
    content=contents,
    later=contents,
)
def test_no_row_ever_raises_or_gives_nonsense(the_row, args, result, content, later):
    before, after = Memory(x1000=content), Memory(x1000=later)
    first = the_row.inputs(args, before)
    check(first, args)
    assert the_row.inputs(args, before) == first
    assert the_row.known(args) in (True, False)
    state = the_row.before(args, before)
    check(the_row.outputs(args, result, after, state), args)
    check(the_row.outputs(args, result, after, None), args)
    assert len(the_row.arguments_of(args)) == len(the_row.arguments)
    the_row.effects(args)


COMMANDS = [
    (each, command)
    for each in TABLE.values()
    if isinstance(each.plan, Variants)
    for command in each.plan._family.names()
]


@settings(max_examples=400, deadline=None)
@given(
    chosen=st.sampled_from(COMMANDS),
    args=st.tuples(words, words, words, words, words, words),
    result=results,
    content=contents,
)
def test_no_command_ever_raises_or_gives_nonsense(chosen, args, result, content):
    the_row, command = chosen
    plan = the_row.plan
    changed = list(args)
    changed[plan._index] = command << plan._family.shift
    memory = Memory(x1000=content)
    args = tuple(changed)
    check(the_row.inputs(args, memory), args)
    check(the_row.outputs(args, result, memory, the_row.before(args, memory)), args)


# --- the notation --------------------------------------------------------------------------------


@pytest.mark.parametrize("text", [">nowhere", ">@nowhere", "<iov(nowhere)", ">ret^nowhere", ">"])
def test_a_wrong_effect_is_refused(text):
    with pytest.raises(NotationError):
        Signature([("buf", "buf")]).effects(0, "buf", text)


@pytest.mark.parametrize("token", ["", "a:b:c", "<3", "a b"])
def test_a_wrong_argument_is_refused(token):
    with pytest.raises(NotationError):
        split_token(token)


def test_a_row_with_every_kind_of_rule():
    made = parse_row(["999", "thing", "b?", "a:path", "b:buf>!ret^c*2+1", "c:uint", "d:stat>"])
    assert made.blocks and not made.known(arguments())
    memory = Memory(x2000=bytes(64))
    assert made.outputs(arguments(0, 0x2000, 3, 0x9000), 10, memory, None) == [
        Range(1, 0x2000, 7, "data"),
        Range(3, 0x9000, 144, "struct"),
    ]
    assert made.outputs(arguments(0, 0x2000, 3, 0x9000), -9, memory, None) == []
