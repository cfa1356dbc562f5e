# SPDX-License-Identifier: GPL-2.0-or-later
"""Replaying by a count of instructions: the program is the same as when it runs by itself."""

from __future__ import annotations

import ctypes
import itertools
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import harness
import pytest
from iced_x86 import Code, Decoder, FlowControl

from sysrift import image as images
from sysrift import native
from sysrift.replay.checkpoints import Checkpoints
from sysrift.replay.counter import Counted, Counter
from sysrift.replay.engine import Engine, Reason
from sysrift.replay.place import Place, is_at_event, play_one
from sysrift.replay.steps import Interrupted, TooFar, Watched, advance, walk
from sysrift.replay.stretch import Stretch, contents
from sysrift.replay.stub import headless_stub
from sysrift.syscalls import NAMES
from sysrift.trace.model import EventKind
from sysrift.trace.reader import Trace

PYTHON = """
import json, re, zlib
data = [{"a": i, "b": str(i) * 3, "c": i / 7} for i in range(3000)]
text = json.dumps(data)
print(len(text), sum(x["c"] for x in json.loads(text)), len(re.findall("9+", text)))
print(zlib.crc32(zlib.compress(text.encode(), 9)))
"""


@contextmanager
def _replaying(path: Path) -> Iterator[Engine]:
    trace = Trace(path)
    with headless_stub(trace) as tracee:
        engine = Engine(trace, tracee)
        engine.player_at = None
        engine.check_checksums = True
        engine.load(0)
        yield engine
        engine.close()
    trace.close()


def _count_to_the_end(engine: Engine) -> tuple[int, int]:
    """Replay all by the counter, but for the events themselves: instructions, and stretches."""
    trace = engine.trace
    instructions = stretches = 0
    while engine.next <= trace.event_count and not engine.at_end:
        with Counter.put(engine.tracee) as counter:
            why = counter.run(None, lambda: False)
            instructions += counter.position
        stretches += 1
        if why is Counted.SIGNAL:
            return instructions, stretches
        assert why is Counted.SPECIAL
        if not is_at_event(engine):
            assert engine.advance(stop_at=engine.next).reason is Reason.REACHED
        play_one(engine)
    assert engine.advance().reason is Reason.END
    return instructions, stretches


@pytest.mark.parametrize(
    "argv",
    [
        ["/usr/bin/python3", "-c", PYTHON],
        ["/usr/bin/perl", "-e", "my %h; $h{$_ % 97} .= $_ for 1..20000; print length($h{5})"],
        ["/bin/sh", "-c", "i=0; while [ $i -lt 2000 ]; do i=$((i+1)); done; echo $i"],
        ["sort", "-n", "/usr/include/stdlib.h"],
        ["gzip", "-c", "/bin/sh"],
    ],
    ids=["python", "perl", "sh", "sort", "gzip"],
)  # fmt: skip
def test_real_programs_are_the_same(argv: list[str]) -> None:
    recording = harness.record(argv, options=["-q", "--checksum=50"])
    with _replaying(recording.trace) as engine:
        instructions, stretches = _count_to_the_end(engine)
        assert instructions > 100 * stretches > 1000
        assert engine.checksums_checked >= 1


ARGUMENTS = {"many_calls-static": ["200"], "dlopen_user": ["dlopen_lib.so"]}


@pytest.mark.parametrize(
    "fixture",
    ["computes", "deep-static", "deep-O2", "many_calls-static", "nolibc", "nopie",
     "time_all_ways", "dlopen_user"],
)  # fmt: skip
def test_fixtures_are_the_same(built_fixtures: None, fixture: str) -> None:
    arguments = ARGUMENTS.get(fixture, [])
    if arguments == ["dlopen_lib.so"]:
        arguments = [str(harness.built("dlopen_lib.so"))]
    recording = harness.record([harness.built(fixture), *arguments])
    with _replaying(recording.trace) as engine:
        instructions, _ = _count_to_the_end(engine)
        assert instructions > 0


# -- the decoder ----------------------------------------------------------------------------------

WRAPPER = """
typedef unsigned char u8; typedef unsigned short u16; typedef unsigned int u32;
typedef unsigned long u64; typedef long s64;
#include "instruction.h"
int length_of(const u8 *code, u64 limit, int *flow, s64 *target, int *relative) {
    struct instruction i;
    if (!decode(code, limit, &i)) return 0;
    *flow = i.flow, *target = i.target, *relative = i.relative_at;
    return i.length;
}
"""

NEXT, JCC, LOOP, JMP, CALL, JMP_RM, CALL_RM, RET, SPECIAL, UNKNOWN = range(10)

FLOWS = {
    FlowControl.NEXT: {NEXT, SPECIAL},
    FlowControl.CONDITIONAL_BRANCH: {JCC, LOOP},
    FlowControl.UNCONDITIONAL_BRANCH: {JMP},
    FlowControl.CALL: {CALL, SPECIAL},  # syscall is a call, too
    FlowControl.INDIRECT_BRANCH: {JMP_RM, SPECIAL},
    FlowControl.INDIRECT_CALL: {CALL_RM, SPECIAL},
    FlowControl.RETURN: {RET, SPECIAL},
    FlowControl.INTERRUPT: {SPECIAL},
    FlowControl.XBEGIN_XABORT_XEND: {SPECIAL, NEXT},
    FlowControl.EXCEPTION: {SPECIAL},
}


@pytest.fixture(scope="module")
def decode(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Any]:
    folder = tmp_path_factory.mktemp("decoder")
    (folder / "wrapper.c").write_text(WRAPPER)
    include = Path(native.__file__).parent
    subprocess.run(
        ["cc", "-O1", "-shared", "-fPIC", "-I", include, "-o", folder / "wrapper.so",
         folder / "wrapper.c"], check=True
    )  # fmt: skip
    return ctypes.CDLL(str(folder / "wrapper.so")).length_of


def _disagreements(decode: Callable[..., Any], code: bytes) -> Iterator[str]:
    """Where the decoder and iced, whose instructions are walked through, do not agree."""
    buffer = ctypes.create_string_buffer(code + bytes(16))
    base = ctypes.addressof(buffer)
    flow, target, relative = ctypes.c_int(), ctypes.c_int64(), ctypes.c_int()
    decoder = Decoder(64, code, ip=0)
    for instruction in decoder:
        if instruction.code == Code.INVALID or instruction.is_privileged:
            continue
        at = instruction.ip
        length = decode(
            ctypes.c_void_p(base + at), ctypes.c_uint64(15),
            ctypes.byref(flow), ctypes.byref(target), ctypes.byref(relative),
        )  # fmt: skip
        shown = f"{instruction} {code[at : at + instruction.len].hex()} at {at:#x}"
        if flow.value == UNKNOWN:
            # Data, in code; and what no two processors, or no translation, agree on.
            prefixes = code[at : at + instruction.len].rstrip()[:4]
            strange = re.search(rb"[\x40-\x4f][\x40-\x4f\x26\x2e\x36\x3e\x64-\x67\xf0\xf2\xf3]",
                                prefixes)  # fmt: skip
            if not strange and b"\x66" not in prefixes and b"\x67" not in prefixes:
                yield f"unknown: {shown}"
            continue
        if length != instruction.len:
            yield f"length {length}: {shown}"
        elif flow.value not in FLOWS[instruction.flow_control]:
            yield f"flow {flow.value}: {shown}"
        elif flow.value in (JCC, LOOP, JMP, CALL):
            if instruction.near_branch_target != (at + length + target.value) & (1 << 64) - 1:
                yield f"target {target.value:#x}: {shown}"
        elif bool(relative.value) != instruction.is_ip_rel_memory_operand:
            yield f"relative {relative.value}: {shown}"


@pytest.mark.parametrize("name", ["libc.so.6", "libcrypto.so.3", "libm.so.6"])
def test_the_decoder_agrees_on_libraries(decode: Callable[..., Any], name: str) -> None:
    path = next(iter(sorted(Path("/lib").glob(f"x86_64-linux-gnu/{name}"))), None)
    path = path or next(iter(sorted(Path("/usr/lib").rglob(name))), None)
    if path is None:
        pytest.skip(f"there is no {name} here")
    objcopy = shutil.which("objcopy")
    assert objcopy
    text = harness.fresh_trace().with_suffix(".text")
    subprocess.run([objcopy, "-O", "binary", "-j", ".text", path, text], check=True)
    code = text.read_bytes()[: 2 << 20]
    text.unlink()
    found = [line for line, _ in zip(_disagreements(decode, code), range(10))]
    assert not found, "\n".join(found)


# -- places in long computations ------------------------------------------------------------------


@pytest.fixture(scope="module")
def computes(built_fixtures: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("counter") / "computes.srl"
    return harness.record([harness.built("computes"), "30000"], trace=target).trace


@contextmanager
def _stretch(path: Path, with_checkpoints: bool = False) -> Iterator[tuple[Engine, Stretch]]:
    """The one between the two getppid's."""
    with _replaying(path) as engine:
        trace = engine.trace
        number = next(n for n in range(1, trace.event_count + 1)
                      if trace.event(n).nr == NAMES["getppid"])  # fmt: skip

        def behind() -> None:
            engine.load(0)
            engine.advance(stop_at=number)
            play_one(engine)

        checkpoints = Checkpoints(engine) if with_checkpoints else None
        yield engine, Stretch(engine, number + 1, behind, lambda: False, checkpoints)
        if checkpoints is not None:
            checkpoints.close()


def _state(engine: Engine) -> tuple[object, ...]:
    registers = engine.tracee.registers()
    return bytes(registers), images.checksum(engine.tracee, registers.rsp), engine.tracee.xsave()


def test_a_position_is_the_same_moment_each_time(computes: Path) -> None:
    with _stretch(computes) as (engine, stretch):
        end = stretch.end()
        assert end > 1_000_000
        for position in (0, 1, 63, 1000, end // 3, end - 1, end):
            stretch.go_to(position)
            state = _state(engine)
            if position:
                # By another way, whose last part is single steps.
                left = stretch.approach(max(position - 777, 0))
                advance(engine, left + position - max(position - 777, 0))
                assert _state(engine) == state
        assert is_at_event(engine)


def test_places_are_found_among_those_with_the_same_registers(computes: Path) -> None:
    with _stretch(computes) as (engine, stretch):
        end = stretch.end()
        for position in (end // 2, end // 2 + 1, end - 20):
            stretch.go_to(position)
            place, known = Place.exactly(engine), contents(engine)
            if walk(engine, None, lambda: False, count=1)[0].ip == 0:
                raise AssertionError
            assert stretch.find(place, known) == position
            assert place.is_here(engine)


def test_a_place_that_is_not_there(computes: Path) -> None:
    with _stretch(computes) as (engine, stretch):
        stretch.go_to(5000)
        registers = engine.tracee.registers()
        registers.rbx ^= 1
        engine.tracee.set_registers(registers)
        place = Place.exactly(engine)
        with pytest.raises(Exception, match="does not come to that place"):
            stretch.find(place)


def test_the_last_change_and_the_last_call(computes: Path) -> None:
    with _stretch(computes) as (engine, stretch):
        end = stretch.end()
        pointer = engine.tracee.registers().rsp
        # The call of compute() is some instructions behind getppid, from which main goes on.
        above = stretch.last_above(pointer + 8, end - 100)
        assert above is not None and above < 10
        base, passed = stretch.walk(end - 4000, end, Watched())
        assert base <= end - 4000 and passed[-1].done == end - base
        used = sorted({each.sp & -8 for each in passed if each.sp < pointer})
        for width in (1, 2, 4, 8, 24):
            changes = 0
            for address in used:
                watched = Watched(address, width)
                base, passed = stretch.walk(end - 2000, end - 50, watched)
                last = max(
                    (new.done for old, new in itertools.pairwise(passed)
                     if old.watched != new.watched), default=None,
                )  # fmt: skip
                if last is not None:
                    changes += 1
                    changed = stretch.last_change(watched, end - 50)
                    assert changed is not None and base + last <= changed <= base + last + 64
            assert changes


def test_checkpoints_in_the_midst(computes: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sysrift.replay.stretch._FAR", 100_000)
    monkeypatch.setattr("sysrift.replay.stretch._NEAR", 20_000)
    with _stretch(computes) as (engine, plain):
        end = plain.end()
        plain.go_to(end - 5000)
        expected = _state(engine)
        site = engine.tracee.registers().rip
        last = plain.last_pass([site], end - 1000)
    with _stretch(computes, with_checkpoints=True) as (engine, stretch):
        for _ in range(3):
            stretch.go_to(end - 5000)
            assert _state(engine) == expected
        place = Place.exactly(engine)
        assert stretch.last_pass([site], end - 1000) == last
        assert stretch.find(place, contents(engine)) == end - 5000
        stretch.go_to(end // 2)
        assert stretch.end() == end
        assert engine.advance().reason is Reason.END


def test_one_can_have_enough(computes: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sysrift.replay.counter._SLICE", 10_000)
    began = time.monotonic()
    with _replaying(computes) as engine:
        trace = engine.trace
        number = next(n for n in range(1, trace.event_count + 1)
                      if trace.event(n).nr == NAMES["getppid"])  # fmt: skip
        engine.advance(stop_at=number)
        play_one(engine)
        stretch = Stretch(engine, number + 1, lambda: None, lambda: True)
        with pytest.raises(Interrupted):
            stretch.end()
        assert "rwx" not in Path(f"/proc/{engine.tracee.pid}/maps").read_text()
    assert time.monotonic() - began < 60


def test_code_that_can_change_is_not_counted(tmp_path: Path) -> None:
    source = tmp_path / "jit.c"
    source.write_text(
        "#include <string.h>\n#include <sys/mman.h>\n#include <unistd.h>\nint main(void)\n{\n"
        "    char *code = mmap(0, 4096, 7, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);\n"
        '    memcpy(code, "\\x48\\xff\\xcf\\x75\\xfb\\xc3", 6);\n    getppid();\n'
        "    ((void (*)(long))code)(1000);\n    getppid();\n    return 0;\n}\n"
    )
    program = tmp_path / "jit"
    subprocess.run(["cc", "-o", program, source], check=True)
    trace = harness.record([program]).trace
    with _stretch(trace) as (_, stretch), pytest.raises(TooFar, match="code that can change"):
        stretch.end()


def test_a_fault_ends_it(built_fixtures: None) -> None:
    recording = harness.record([harness.built("ends_segv")])
    with _replaying(recording.trace) as engine:
        trace = engine.trace
        number = trace.event_count
        assert trace.event(number).kind == EventKind.SIGNAL
        assert trace.event(number).nr == signal.SIGSEGV

        def behind() -> None:
            engine.load(0)
            engine.advance(stop_at=number - 1)
            play_one(engine)

        behind()
        steps = walk(engine, None, lambda: False)
        assert Stretch(engine, number, behind, lambda: False).end() == steps[-1].done
        assert engine.tracee.registers().rip == steps[-1].ip
