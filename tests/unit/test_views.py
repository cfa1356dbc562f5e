# SPDX-License-Identifier: GPL-2.0-or-later
"""Events as text, JSON and colours, choosing them, and a trace in a few facts."""

from __future__ import annotations

import base64
import json
import re
import struct
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from traces import BUFFER, ENOENT, Builder, crashed, cut_off, path_argument

from sysrift.errors import UsageError
from sysrift.syscalls import NAMES
from sysrift.trace.model import Delivery, End, EventFlag, EventKind, SegmentKind
from sysrift.trace.reader import Trace
from sysrift.trace.writer import absolute
from sysrift.views.filters import EventFilter, is_failure, parse_names, parse_range
from sysrift.views.json_lines import bytes_object, end_object, event_json, event_object
from sysrift.views.lexer import highlight
from sysrift.views.signals import siginfo_fields, siginfo_text, signal_name
from sysrift.views.summary import (
    count_events,
    duration_text,
    how_it_ended,
    last_failures,
    program_text,
    size_text,
    storage,
    summarize,
)
from sysrift.views.text import argument_bytes, end_line, end_text, event_line, printable

ROOT = Path(__file__).parent.parent.parent


@pytest.fixture
def trace(tmp_path):
    with Trace(crashed(tmp_path / "t.srl")) as opened:
        yield opened


def only_line(builder: Builder) -> str:
    """The line of a trace's first event, without number and time."""
    with Trace(builder.close()) as opened:
        return event_line(opened.event(1), opened).split(maxsplit=2)[2]


# -- text -----------------------------------------------------------------------------------------


def test_a_trace_reads_like_strace(trace):
    assert [event_line(event, trace) for event in trace.events()] == [
        "       1     0.001100 brk(NULL)                               = 0x555555576000",
        '       2     0.001200 openat(AT_FDCWD, "/etc/motd", O_RDONLY) = 3',
        '       3     0.001300 read(3, "hi \\377\\n", 64)                = 5',
        "       4     0.001400 rdtsc()                                 = 123456789",
        '       5     0.001500 openat(AT_FDCWD, "/no/such", O_RDONLY)  '
        "= -1 ENOENT (No such file or directory)",
        "       6     0.001600 syscall_0x3e7(0x1, 0x2, 0x0, 0x0, 0x0, 0x0) "
        "= -1 ENOSYS (Function not implemented) /* guessed */",
        '       7     0.001700 write(1, "abc", 3)                      = 3',
        "       8     0.001800 --- SIGSEGV "
        "{si_signo=SIGSEGV, si_code=SEGV_MAPERR, si_addr=0x0} ---",
    ]
    assert end_line(trace).strip() == end_text(trace) == "+++ killed by SIGSEGV +++"
    assert end_line(trace).index("+++") == event_line(trace.event(8), trace).index("---")


@pytest.mark.parametrize(
    ("end", "text", "words"),
    [
        (End("exited", status=3), "+++ exited with 3 +++", "exited with status 3"),
        (End("killed", signal=6), "+++ killed by SIGABRT +++", "killed by SIGABRT"),
        (
            End("stopped", message="No space\x1b[2J left"),
            "+++ recording stopped: No space\\x1b[2J left +++",
            "recording stopped: No space\\x1b[2J left",
        ),
        (None, "+++ recording was cut off +++", "recording was cut off (recorder killed?)"),
    ],
)
def test_every_end_has_words(tmp_path, end, text, words):
    builder = Builder(tmp_path / "t.srl")
    with Trace(builder.close(end) if end else builder.cut_off()) as opened:
        assert end_text(opened) == text
        assert how_it_ended(opened.end) == words


def test_a_call_that_the_program_ended_in_has_no_result(tmp_path):
    builder = Builder(tmp_path / "t.srl")
    builder.call("exit_group", 3, flags=EventFlag.UNFINISHED)
    assert only_line(builder).split() == ["exit_group(3)", "=", "?"]


def test_an_interrupted_call_says_so(tmp_path):
    builder = Builder(tmp_path / "t.srl")
    builder.call("pause", result=-514)
    assert "= ? ERESTARTNOHAND" in only_line(builder)


def test_an_incomplete_buffer_is_remarked(tmp_path):
    builder = Builder(tmp_path / "t.srl")
    builder.call("read", 3, BUFFER, 9, result=9, flags=EventFlag.INCOMPLETE)
    assert only_line(builder).endswith("= 9 /* incomplete */")


def test_the_buffer_at_the_argument_is_shown_before_one_elsewhere(tmp_path):
    builder = Builder(tmp_path / "t.srl")
    parts = (
        (SegmentKind.OUT, 1, (1 << 64) - 64, b"below"),
        (SegmentKind.IN, 1, 0, b"handed in"),
        (SegmentKind.OUT, 1, 0, b"written"),
        (SegmentKind.OUT, 2, 8, b"later"),
        (SegmentKind.OUT, 2, 4, b"lowest"),
        absolute(SegmentKind.OUT, BUFFER, b"on no argument"),
    )
    builder.call("read", 3, BUFFER, 0x1000, result=9, segments=parts)
    with Trace(builder.close()) as opened:
        assert argument_bytes(opened.event(1), opened) == {1: b"written", 2: b"lowest"}


def test_an_unknown_kind_of_event_is_shown_somehow(tmp_path):
    builder = Builder(tmp_path / "t.srl")
    builder._event(99, 7, (), 5, ())
    assert only_line(builder).split() == ["event_kind_99()", "=", "5"]
    builder = Builder(tmp_path / "u.srl")
    builder._event(99, 7, (), 5, ())
    with Trace(builder.close()) as opened:
        assert event_object(opened.event(1), opened)["kind"] == "unknown"


@settings(deadline=None, max_examples=400)
@given(
    st.integers(-(1 << 31), (1 << 31) - 1) | st.sampled_from(sorted(NAMES.values())),
    st.tuples(*[st.integers(0, (1 << 64) - 1) | st.integers(0, 70)] * 6),
    st.integers(-(1 << 63), (1 << 63) - 1) | st.integers(-4096, 70),
    st.lists(
        st.tuples(st.sampled_from([0, 1]), st.integers(0, 5), st.binary(max_size=300)), max_size=3
    ),
    st.integers(0, 31),
)
def test_whatever_a_call_holds_it_is_one_printable_line(
    tmp_path_factory, nr, args, result, parts, flags
):
    builder = Builder(tmp_path_factory.getbasetemp() / "any.srl")
    pieces = tuple((kind, base, 0, data) for kind, base, data in parts)
    builder.call(nr, *args, result=result, segments=pieces, flags=flags)
    with Trace(builder.close()) as opened:
        line = event_line(opened.event(1), opened)
        value = event_json(opened.event(1), opened)
    assert line.isprintable(), line
    assert without_color(highlight(line, True)) == line
    assert "\n" not in value
    json.loads(value)


def test_printable_leaves_text_and_escapes_controls():
    assert printable("grün 語") == "grün 語"
    assert printable("a\x1b[31m\n\x7f\udcff") == "a\\x1b[31m\\n\\x7f\\udcff"


# -- signals --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("number", "name"),
    [(11, "SIGSEGV"), (16, "SIGSTKFLT"), (29, "SIGIO"), (32, "SIGRT_0"), (34, "SIGRT_2"),
     (64, "SIGRT_32"), (0, "signal 0"), (65, "signal 65"), (-1, "signal -1")],
)  # fmt: skip
def test_signals_have_names(number, name):
    assert signal_name(number) == name


@pytest.mark.parametrize(
    ("number", "code", "union", "text"),
    [
        (11, 2, struct.pack("<Q", 0x1234), "si_code=SEGV_ACCERR, si_addr=0x1234"),
        (8, 1, struct.pack("<Q", 16), "si_code=FPE_INTDIV, si_addr=0x10"),
        (10, 0, struct.pack("<iI", 77, 1000), "si_code=SI_USER, si_pid=77, si_uid=1000"),
        (6, -6, struct.pack("<iI", 77, 0), "si_code=SI_TKILL, si_pid=77, si_uid=0"),
        (14, 0x80, b"", "si_code=SI_KERNEL"),
        (34, -1, struct.pack("<iIQ", 5, 0, 9), "si_code=SI_QUEUE, si_pid=5, si_uid=0, si_int=9"),
        (14, -2, struct.pack("<iiQ", 1, 0, 3),
         "si_code=SI_TIMER, si_timerid=1, si_overrun=0, si_int=3"),
        (17, 1, struct.pack("<iIi4xqq", 9, 0, 3, 1, 2),
         "si_code=CLD_EXITED, si_pid=9, si_uid=0, si_status=3, si_utime=1, si_stime=2"),
        (31, 1, struct.pack("<QiI", 0x400000, 39, 0xC000003E),
         "si_code=SYS_SECCOMP, si_call_addr=0x400000, si_syscall=39, si_arch=0xc000003e"),
        (29, 1, struct.pack("<qi", 1, 4), "si_code=POLL_IN, si_band=1, si_fd=4"),
        (11, 77, struct.pack("<Q", 0), "si_code=77, si_addr=0x0"),
    ],
)  # fmt: skip
def test_a_siginfo_is_shown_by_what_its_signal_carries(number, code, union, text):
    siginfo = (struct.pack("<iii4x", number, 0, code) + union).ljust(128, b"\0")
    name = signal_name(number)
    assert siginfo_text(number, siginfo) == f"{name} {{si_signo={name}, {text}}}"


@given(st.integers(-10, 70), st.binary(max_size=140))
def test_no_siginfo_breaks_anything(number, siginfo):
    siginfo_fields(number, siginfo)
    assert siginfo_text(number, siginfo).startswith(signal_name(number))


def test_a_signal_without_siginfo_and_one_that_stops(tmp_path):
    builder = Builder(tmp_path / "t.srl")
    builder.signal(15)
    assert only_line(builder) == "--- SIGTERM ---"
    builder = Builder(tmp_path / "u.srl")
    builder.signal(20, delivery=Delivery.STOPPED)
    assert only_line(builder) == "--- stopped by SIGTSTP ---"


# -- JSON -----------------------------------------------------------------------------------------


def test_a_call_as_json(trace):
    value = json.loads(event_json(trace.event(5), trace))
    assert value.items() >= {
        "number": 5, "kind": "syscall", "name": "openat", "nr": 257, "time_us": 1500,
        "args": [0xFFFFFF9C, BUFFER, 0, 0, 0, 0], "result": -2, "errno": "ENOENT",
        "call": 'openat(AT_FDCWD, "/no/such", O_RDONLY)',
        "memory": [{"kind": "in", "argument": 1, "address": BUFFER, "length": 9,
                    "text": "/no/such\0"}],
    }.items()  # fmt: skip


def test_bytes_that_are_no_text_are_base64(trace):
    (piece,) = event_object(trace.event(3), trace)["memory"]
    assert base64.b64decode(piece["base64"]) == b"hi \xff\n"


@given(st.binary(max_size=60))
def test_bytes_come_back_from_json_exactly(data):
    value = json.loads(json.dumps(bytes_object(data)))
    back = value["text"].encode() if "text" in value else base64.b64decode(value["base64"])
    assert back == data


@pytest.mark.parametrize(
    ("limit", "text"), [(0, ""), (1, "a"), (2, "a"), (3, "a"), (4, "a語"), (5, "a語"), (9, "a語𝄞b")]
)
def test_a_truncated_text_ends_with_a_whole_character(tmp_path, limit, text):
    builder = Builder(tmp_path / "t.srl")
    data = "a語𝄞bc".encode()
    builder.call("write", 1, BUFFER, 9, result=9, segments=((SegmentKind.IN, 1, 0, data),))
    with Trace(builder.close()) as opened:
        (piece,) = event_object(opened.event(1), opened, limit)["memory"]
    assert piece["text"] == text
    assert piece["truncated"] is True
    assert piece["length"] == len(data)


def test_signals_time_stamps_and_flags_as_json(trace):
    assert event_object(trace.event(4), trace)["result"] == 123456789
    assert event_object(trace.event(6), trace)["flags"] == ["guessed"]
    signal = event_object(trace.event(8), trace)
    assert signal["kind"] == "signal"
    assert signal["delivery"] == "fatal"
    assert signal["siginfo"] == {"si_signo": "SIGSEGV", "si_code": "SEGV_MAPERR", "si_addr": 0}
    assert "memory" not in signal


def test_segments_without_shown_bytes_as_json(tmp_path):
    builder = Builder(tmp_path / "t.srl")
    parts = (
        (SegmentKind.FILE, 0, 0x7F0000000000, (0, 1)),
        absolute(SegmentKind.REGISTERS, 0, bytes(216)),
    )
    builder.call("mmap", 0, 4096, 1, 2, 3, 0, result=0x7F0000000000, segments=parts)
    with Trace(builder.close()) as opened:
        file, registers = event_object(opened.event(1), opened)["memory"]
    assert file["file"] == "/opt/work/crasher"
    assert registers == {"kind": "registers", "address": 0, "length": 216}


def test_the_end_as_json(trace, tmp_path):
    assert end_object(trace) == {
        "kind": "end", "process": 1, "pid": 4242, "events": 8, "how": "killed",
        "duration_us": 2500, "signal": "SIGSEGV",
    }  # fmt: skip
    with Trace(cut_off(tmp_path / "u.srl")) as opened:
        assert end_object(opened) == {
            "kind": "end", "process": 1, "pid": 4242, "events": 8, "how": "cut off",
        }  # fmt: skip


# -- colours --------------------------------------------------------------------------------------


def without_color(text: str) -> str:
    return re.sub("\x1b\\[[0-9;]*m", "", text)


def test_colours_add_nothing_but_colours(trace):
    text = "\n".join([*(event_line(event, trace) for event in trace.events()), end_line(trace)])
    assert highlight(text, False) == text
    assert without_color(highlight(text, True)) == text


def test_a_failure_is_red_and_a_success_is_not(trace):
    red = "\x1b[31m"
    assert f"{red}-1 ENOENT" in highlight(event_line(trace.event(5), trace), True)
    assert red not in highlight(event_line(trace.event(2), trace), True)
    assert red in highlight("+++ killed by SIGSEGV +++", True)
    assert red not in highlight("+++ exited with 0 +++", True)


@given(st.text(max_size=80))
def test_any_text_can_be_coloured(text):
    assert without_color(highlight(text, True)).split() == without_color(text).split()


# -- filters --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [("5-9", (5, 9)), ("5-", (5, None)), ("5-end", (5, None)), ("-9", (1, 9)), ("7", (7, 7)),
     (" 1-1 ", (1, 1)), ("-end", (1, None))],
)  # fmt: skip
def test_ranges(text, expected):
    assert parse_range(text) == expected


@pytest.mark.parametrize(
    "text", ["", "-", "x", "9-5", "1-2-3", "1..2", "--", "end", "9" * 5000, "-1-2"]
)
def test_a_range_that_is_none_is_refused(text):
    with pytest.raises(UsageError):
        parse_range(text)


def test_names():
    names = parse_names("openat, sigsegv,rdtsc,,")
    assert names == {(EventKind.SYSCALL, 257), (EventKind.SIGNAL, 11), (EventKind.TSC, 0)}


@pytest.mark.parametrize("text", ["nosuchcall", "", ",", "open at"])
def test_a_name_that_is_none_is_refused(text):
    with pytest.raises(UsageError):
        parse_names(text)


def numbers(wanted: EventFilter, trace: Trace) -> list[int]:
    return [event.number for event in wanted.select(trace)]


def test_events_are_chosen(trace):
    assert numbers(EventFilter(), trace) == list(range(1, 9))
    assert numbers(EventFilter(3, 5), trace) == [3, 4, 5]
    assert numbers(EventFilter(failed=True), trace) == [5, 6]
    assert numbers(EventFilter(names=parse_names("openat,SIGSEGV")), trace) == [2, 5, 8]
    assert numbers(EventFilter(3, None, True, parse_names("openat")), trace) == [5]
    assert EventFilter(1, 8).reaches_end(trace)
    assert not EventFilter(1, 7).reaches_end(trace)


@pytest.mark.parametrize(
    ("result", "flags", "failed"),
    [(-1, 0, True), (-4095, 0, True), (-4096, 0, False), (0, 0, False), (-512, 0, False),
     (-516, 0, False), (-517, 0, True), (-511, 0, True), (-2, EventFlag.UNFINISHED, False)],
)  # fmt: skip
def test_what_a_failure_is(tmp_path, result, flags, failed):
    builder = Builder(tmp_path / "t.srl")
    builder.call("read", 0, 0, 0, result=result, flags=flags)
    builder.tsc(result)
    with Trace(builder.close()) as opened:
        assert is_failure(opened.event(1)) is failed
        assert not is_failure(opened.event(2))


# -- summary --------------------------------------------------------------------------------------


def test_a_summary(trace):
    facts = summarize(trace)
    assert facts.program == "/opt/work/crasher '--in file' 'it'\"'\"'s'"
    assert (facts.events, facts.closed, facts.duration_us) == (8, True, 2500)
    assert facts.ended == "killed by SIGSEGV"
    assert [event.number for event in facts.last_failures] == [5, 6]
    assert facts.started.isoformat() == "2026-02-03T10:20:30.456000+01:00"
    assert facts.notes == ("a remark of the recorder",)


def test_a_summary_of_a_cut_off_trace_takes_the_last_event_as_the_end(tmp_path):
    with Trace(cut_off(tmp_path / "t.srl")) as opened:
        facts = summarize(opened)
    assert (facts.closed, facts.duration_us) == (False, 1800)


def test_a_summary_survives_metadata_of_any_type(tmp_path):
    odd = {"argv": 5, "exe": ["x"], "started": "yesterday", "host": None, "cwd": "a\x1bb"}
    builder = Builder(tmp_path / "t.srl", **odd)
    with Trace(builder.close()) as opened:
        facts = summarize(opened)
    assert (facts.program, facts.exe, facts.started, facts.host) == ("?", "", None, "")
    assert facts.cwd == "a\\x1bb"


def test_a_program_name_cannot_reach_the_terminal(tmp_path):
    builder = Builder(tmp_path / "t.srl", argv=["x\x1b[2J", "\n"])
    with Trace(builder.close()) as opened:
        assert program_text(opened).isprintable()


def test_the_last_failures_are_found_across_blocks(tmp_path):
    builder = Builder(tmp_path / "t.srl")
    failing = {3, 5000, 9000, 9001}
    for number in range(1, 10_000):
        builder.call("access", BUFFER, result=ENOENT if number in failing else 0)
    with Trace(builder.close()) as opened:
        for count, expected in [
            (0, []),
            (1, [9001]),
            (3, [5000, 9000, 9001]),
            (9, sorted(failing)),
        ]:
            assert [event.number for event in last_failures(opened, count)] == expected
        assert [event.number for event in last_failures(opened, 9, searched=1000)] == [9000, 9001]


def test_counts(trace):
    counts = count_events(trace)
    assert counts.by_name["openat"] == 2
    assert counts.by_name["SIGSEGV"] == counts.by_name["rdtsc"] == 1
    assert counts.by_name["syscall_0x3e7"] == 1
    assert counts.failures == {"openat ENOENT": 1, "syscall_0x3e7 ENOSYS": 1}
    assert (counts.system_calls, counts.signals, counts.time_stamps) == (6, 1, 1)
    assert (counts.failed, counts.guessed, counts.incomplete) == (2, 1, 0)


def test_storage_accounts_for_every_byte(tmp_path):
    builder = Builder(tmp_path / "t.srl")
    for number in range(9000):
        builder.call(
            "read",
            3,
            BUFFER,
            4,
            result=4,
            segments=((SegmentKind.OUT, 1, 0, number.to_bytes(4, "big")),),
        )
    overhead = None
    with Trace(builder.close()) as opened:
        used = storage(opened)
        headers = 32 + 16 + used.by_type.get("end", 0)
        end_size = opened.file.size - 32 - 16 - sum(used.by_type.values())
        overhead = builder.writer.overhead_bytes
        assert 0 <= end_size < 400, headers  # the END block is not in the index
        assert used.event_bytes - used.payload_bytes == overhead
        assert used.bytes_per_event == overhead / 9000 < 20
        assert (used.files, used.files_stored) == (1, 1)


@pytest.mark.parametrize(
    ("microseconds", "text"),
    [
        (0, "0.000 s"),
        (218_000, "0.218 s"),
        (133_400_000, "2 min 13.4 s"),
        (7_260_000_000, "2 h 1 min"),
        (-5, "0.000 s"),
    ],
)
def test_durations(microseconds, text):
    assert duration_text(microseconds) == text


@pytest.mark.parametrize(
    ("size", "text"), [(0, "0 B"), (812, "812 B"), (14_200, "14.2 kB"), (3_100_000_000, "3.1 GB")]
)
def test_sizes(size, text):
    assert size_text(size) == text


def test_views_need_only_the_standard_library_pygments_and_construct():
    """They run in GDB's Python, which has nothing else."""
    script = (
        "import sys\n"
        "import sysrift.views.text, sysrift.views.json_lines, sysrift.views.lexer\n"
        "import sysrift.views.filters, sysrift.views.summary, sysrift.trace.store\n"
        "tops = {name.partition('.')[0] for name in sys.modules}\n"
        "print(sorted(tops & {'rich', 'ptrace', 'elftools', 'argcomplete', 'gdb'}))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd="/", env={"PYTHONPATH": str(ROOT)},
        capture_output=True, text=True, check=True, timeout=60,
    )  # fmt: skip
    assert done.stdout == "[]\n"


def test_paths_are_shown_whole(tmp_path):
    long = b"/" + b"x" * 200
    builder = Builder(tmp_path / "t.srl")
    builder.call("openat", 3, BUFFER, 0, result=4, segments=path_argument(long))
    assert long.decode() in only_line(builder)
