# SPDX-License-Identifier: GPL-2.0-or-later
"""`sysrift-record -p`: a running process is recorded for a while, and does not notice."""

from __future__ import annotations

import contextlib
import os
import random
import re
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from harness import (
    Finished,
    Recording,
    assert_faithful,
    assert_one_line_error,
    command,
    fresh_trace,
    run,
    sysrift,
    wait_until,
)

Fixture = Callable[[str], Path]
Endless = Callable[..., subprocess.Popen[str]]

# Seconds of a call, from when on it is attached to, and for how long. Beginning anew then it would
# take ATTACHED_AT longer; a busy machine may wake it up late by LATE.
WAIT, ATTACHED_AT, RECORDED, LATE = 4.0, 2.0, 0.7, 1.8


@pytest.fixture
def endless(fixture_program: Fixture) -> Iterator[Endless]:
    """A function that starts the fixture `endless` and waits until it is ready."""
    with contextlib.ExitStack() as stack:

        def start(*arguments: str) -> subprocess.Popen[str]:
            process = subprocess.Popen(
                [fixture_program("endless"), *arguments], stdout=subprocess.PIPE, text=True
            )
            stack.callback(_end, process)
            assert process.stdout is not None
            for line in process.stdout:
                if line == "ready\n":
                    break
                name, value = line.split()
                setattr(process, name, int(value, 0))  # `port`, `rseq`
            return process

        yield start


def _end(process: subprocess.Popen[str]) -> None:
    if process.poll() is None:
        process.kill()
    process.communicate(timeout=10)


def _attach(pid: int, *options: str) -> Recording:
    trace = fresh_trace()
    done = run([command("sysrift-record"), "-o", trace, "--checksum=100", *options, "-p", str(pid)])
    return Recording(done.argv, done.returncode, done.stdout, done.stderr, trace)


def _start_recorder(pid: int, *options: str) -> tuple[subprocess.Popen[str], Path]:
    trace = fresh_trace()
    recorder = subprocess.Popen(
        [command("sysrift-record"), "-o", trace, "--checksum=100", *options, "-p", str(pid)],
        stderr=subprocess.PIPE,
        text=True,
    )
    return recorder, trace


def _first_line(recorder: subprocess.Popen[str]) -> str:
    assert recorder.stderr is not None
    return recorder.stderr.readline()


def _status(pid: int) -> dict[str, str]:
    text = Path(f"/proc/{pid}/status").read_text()
    return {key: value.strip() for key, value in (s.split(":", 1) for s in text.splitlines())}


def _state_that_stays(pid: int) -> dict[str, object]:
    """What a process has that being recorded must not change for good."""
    status = _status(pid)
    names = ("TracerPid", "SigPnd", "ShdPnd", "SigBlk", "SigIgn", "SigCgt", "Threads")
    state: dict[str, object] = {name: status[name] for name in names}
    state["affinity"] = os.sched_getaffinity(pid)
    state["vdso"] = _memory(pid, "[vdso]")
    return state


def _memory(pid: int, name: str) -> bytes:
    for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
        if line.endswith(name):
            start, end = (int(word, 16) for word in line.split()[0].split("-"))
            with open(f"/proc/{pid}/mem", "rb", buffering=0) as memory:
                return os.pread(memory.fileno(), end - start, start)
    raise AssertionError(f"no mapping {name}")


def _end_of(process: subprocess.Popen[str], sig: int = signal.SIGTERM) -> str:
    """End the program in its own way; its last words. Fails when it was hurt."""
    process.send_signal(sig)
    out, _ = process.communicate(timeout=20)
    assert process.returncode == 0, (process.returncode, out)
    return out


def _stopped_ms(recording: Finished) -> int:
    match = re.search(r"was stopped for (\d+) ms", recording.stderr)
    assert match, recording
    return int(match[1])


def _events(trace: Path) -> str:
    return sysrift("dump", trace).stdout


# -- calls that wait ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "result", "error"),
    [
        ("nanosleep", 0, 0),
        ("clock_nanosleep", 0, 0),
        ("poll", 0, 0),
        ("ppoll", 0, 0),
        ("select", 0, 0),
        ("epoll_wait", 0, 0),
        ("epoll_pwait2", 0, 0),
        ("sigtimedwait", -1, 11),
    ],
)
def test_waiting_goes_on_and_takes_its_time(
    endless: Endless, call: str, result: int, error: int
) -> None:
    process = endless("wait", call, str(WAIT))
    time.sleep(ATTACHED_AT)
    recording = _attach(process.pid, "--for", str(RECORDED))
    assert recording.returncode == 0, recording
    out, _ = process.communicate(timeout=20)
    name, got, number, seconds, signals = out.splitlines()[0].split()
    assert (name, int(got), int(number), int(signals)) == (call, result, error, 0)
    assert WAIT - 0.002 <= float(seconds) < WAIT + LATE, out
    assert_faithful(recording.trace)


@pytest.mark.parametrize("call", ["pause", "read", "sigsuspend", "epoll_wait", "nanosleep"])
def test_signal_during_the_recording_ends_the_wait_as_always(endless: Endless, call: str) -> None:
    process = endless("wait", call, "30")
    recorder, trace = _start_recorder(process.pid)
    assert "attached" in _first_line(recorder)
    process.send_signal(signal.SIGUSR1)
    out, _ = process.communicate(timeout=20)
    name, result, number, _, signals = out.splitlines()[0].split()
    assert (name, result, number, signals) == (call, "-1", "4", "1")  # EINTR
    _, err = recorder.communicate(timeout=20)
    assert recorder.returncode == 0, err
    assert "exited with status 0" in err
    assert "SIGUSR1" in _events(trace)
    assert_faithful(trace)


def test_call_still_waits_for_its_signal_after_the_recording(endless: Endless) -> None:
    process = endless("wait", "pause", "0")
    for _ in range(3):
        assert_faithful(_attach(process.pid, "--for", "0.1").trace)
    process.send_signal(signal.SIGUSR1)
    out, _ = process.communicate(timeout=20)
    assert out.startswith("pause -1 4 "), out


# -- servers --------------------------------------------------------------------------------------


class _Client:
    """A connection to the server; every answer is checked."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.socket = socket.create_connection(("127.0.0.1", process.port), timeout=20)  # type: ignore[attr-defined]
        self.answered = 0

    def ask(self, text: str) -> int:
        self.socket.sendall(text.encode())
        answer = b""
        while not answer.endswith(text.encode()):
            part = self.socket.recv(4096)
            assert part, f"the server went away after {answer!r}"
            answer += part
        number, _, back = answer.decode().split(" ", 2)
        assert back == text
        self.answered += 1
        return int(number)


def test_server_answers_before_during_and_after(endless: Endless) -> None:
    process = endless("serve")
    client = _Client(process)
    assert client.ask("before") == 1
    before = _state_that_stays(process.pid)
    recorder, trace = _start_recorder(process.pid)
    assert "attached" in _first_line(recorder)
    assert [client.ask(f"during {number}") for number in range(200)] == list(range(2, 202))
    other = _Client(process)
    assert other.ask("another connection") == 202
    other.socket.close()
    recorder.send_signal(signal.SIGINT)
    _, err = recorder.communicate(timeout=20)
    assert recorder.returncode == 0, err
    assert f"detached, process {process.pid} goes on" in err
    assert client.ask("after") == 203
    assert _state_that_stays(process.pid) == before
    client.socket.close()
    events = _events(trace)
    assert events.count("during") >= 400  # each read and written
    assert "before" not in events and "after" not in events
    assert_faithful(trace)
    assert "signals 1" in _end_of(process)


def test_fifty_times_attached_and_no_request_is_lost(endless: Endless) -> None:
    process = endless("serve")
    before = _state_that_stays(process.pid)
    chance = random.Random(5)
    client = _Client(process)
    asked = 0
    traces = []
    for _ in range(50):
        recorder, trace = _start_recorder(process.pid)
        traces.append(trace)
        until = None
        while until is None or time.monotonic() < until:
            asked += 1
            assert client.ask(f"request {asked}") == asked
            if until is None and trace.exists():
                # From before it is attached to the midst of recording.
                until = time.monotonic() + chance.uniform(0, 0.3)
        recorder.send_signal(chance.choice([signal.SIGINT, signal.SIGTERM]))
        while recorder.poll() is None:
            asked += 1
            assert client.ask(f"request {asked}") == asked
            assert time.monotonic() < until + 20
        _, err = recorder.communicate(timeout=5)
        assert recorder.returncode == 0, err
    assert _state_that_stays(process.pid) == before
    for trace in traces:
        assert_faithful(trace)
    client.socket.close()
    assert "signals 1" in _end_of(process)


def test_events_and_seconds_end_the_recording(endless: Endless) -> None:
    process = endless("hold", "1")
    recording = _attach(process.pid, "--events", "25")
    assert recording.returncode == 0, recording
    assert f": 25 events, {recording.trace.stat().st_size} bytes; detached" in recording.stderr
    assert_faithful(recording.trace)
    begun = time.monotonic()
    recording = _attach(process.pid, "--for", "0.5", "-q")
    assert 0.5 <= time.monotonic() - begun < 10
    assert (recording.returncode, recording.stderr) == (0, "")
    assert_faithful(recording.trace)
    _end_of(process)


# -- programs that compute ------------------------------------------------------------------------


def test_busy_loop(endless: Endless) -> None:
    process = endless("spin")
    before = _state_that_stays(process.pid)
    recording = _attach(process.pid, "--for", "0.3")
    assert recording.returncode == 0, recording
    assert _state_that_stays(process.pid) == before
    assert_faithful(recording.trace)
    assert "signals 1" in _end_of(process)


def test_signal_in_a_busy_loop_arrives(endless: Endless) -> None:
    """(Replay finds its place only slowly in so tight a loop, so that is not tried here.)"""
    process = endless("spin")
    recorder, trace = _start_recorder(process.pid)
    assert "attached" in _first_line(recorder)
    process.send_signal(signal.SIGUSR1)
    time.sleep(0.3)
    recorder.send_signal(signal.SIGTERM)
    _, err = recorder.communicate(timeout=20)
    assert ": 2 events" in err, err
    assert "rt_sigreturn" in _events(trace)
    assert "signals 2" in _end_of(process)


def test_handlers_run_while_recorded(endless: Endless) -> None:
    process = endless("hold", "1")
    recorder, trace = _start_recorder(process.pid)
    assert "attached" in _first_line(recorder)
    for _ in range(5):
        process.send_signal(signal.SIGUSR1)
        time.sleep(0.02)
    process.terminate()
    out, _ = process.communicate(timeout=20)
    assert "signals 6" in out
    _, err = recorder.communicate(timeout=20)
    assert recorder.returncode == 0 and "exited with status 0" in err
    assert sum("SIGUSR1" in line for line in _events(trace).splitlines()) == 5
    assert_faithful(trace)


def test_clocks_and_rdtsc_are_recorded_and_free_again_afterwards(endless: Endless) -> None:
    process = endless("clocks")
    before = _state_that_stays(process.pid)
    for _ in range(10):
        recording = _attach(process.pid, "--events", "300")
        assert recording.returncode == 0, recording
        assert _state_that_stays(process.pid) == before
        assert_faithful(recording.trace)
    events = _events(recording.trace)
    for name in ("clock_gettime", "rdtsc(", "rdtscp(", "getcpu", "getppid"):
        assert name in events, name
    assert "signals 1" in _end_of(process)  # a rdtsc that still trapped would have killed it


def _cpu_ids(process: subprocess.Popen[str]) -> tuple[int, int]:
    """cpu_id_start and cpu_id of glibc's struct rseq."""
    with open(f"/proc/{process.pid}/mem", "rb", buffering=0) as memory:
        pair = os.pread(memory.fileno(), 8, process.rseq)  # type: ignore[attr-defined]
    start, cpu = struct.unpack("<Ii", pair)
    return start, cpu


def test_rseq_is_registered_again_afterwards(endless: Endless) -> None:
    process = endless("hold", "1")
    if _cpu_ids(process)[1] < 0:
        pytest.skip("glibc has not registered rseq here")
    recorder, trace = _start_recorder(process.pid)
    assert "attached" in _first_line(recorder)
    assert _cpu_ids(process) == (0, -2)  # RSEQ_CPU_ID_REGISTRATION_FAILED
    recorder.send_signal(signal.SIGINT)
    recorder.communicate(timeout=20)
    assert recorder.returncode == 0
    # The kernel fills it in again, and follows where the process goes.
    for cpu in sorted(os.sched_getaffinity(process.pid)):
        os.sched_setaffinity(process.pid, {cpu})
        wait_until(lambda cpu=cpu: _cpu_ids(process) == (cpu, cpu))
    assert_faithful(trace)
    _end_of(process)


def test_seccomp_filter_does_not_kill_the_process(endless: Endless) -> None:
    process = endless("filtered")
    wait_until(lambda: _status(process.pid)["Seccomp"] == "2")
    before = _state_that_stays(process.pid)
    recording = _attach(process.pid, "--for", "0.3")
    assert recording.returncode == 0, recording
    # Root can suspend filters for a moment; others close what can be closed, and say so.
    told = "seccomp filter" in recording.stderr and "rdtsc is not trapped" in recording.stderr
    assert told == (os.geteuid() != 0), recording
    assert _state_that_stays(process.pid) == before
    assert_faithful(recording.trace)
    assert "signals 1" in _end_of(process)


def test_much_memory_is_copied_quickly_and_right(endless: Endless) -> None:
    process = endless("hold", "100")
    recording = _attach(process.pid, "--for", "0.5", "--checksum=20")
    assert recording.returncode == 0, recording
    # 100 ms on an idle machine; compressing it would take several seconds.
    assert _stopped_ms(recording) < 1500, recording
    assert 50 << 20 < recording.trace.stat().st_size < 110 << 20
    done = assert_faithful(recording.trace)
    assert "0 memory checksums" not in done.stdout
    _end_of(process)


# -- job control ----------------------------------------------------------------------------------


def _is_stopped(pid: int) -> bool:
    return _status(pid)["State"].startswith(("T", "t"))


def test_stopped_process_is_recorded_when_it_is_continued(endless: Endless) -> None:
    process = endless("hold", "1")
    process.send_signal(signal.SIGSTOP)
    wait_until(lambda: _is_stopped(process.pid))
    recorder, trace = _start_recorder(process.pid)
    assert "recording begins when it is continued" in _first_line(recorder)
    time.sleep(0.2)
    assert _is_stopped(process.pid) and recorder.poll() is None
    process.send_signal(signal.SIGCONT)
    assert "attached" in _first_line(recorder)
    time.sleep(0.2)
    recorder.send_signal(signal.SIGTERM)
    _, err = recorder.communicate(timeout=20)
    assert recorder.returncode == 0, err
    assert_faithful(trace)
    assert "signals 1" in _end_of(process)


def test_stopped_process_that_is_let_go_stays_stopped(endless: Endless) -> None:
    process = endless("hold", "1")
    before = _state_that_stays(process.pid)
    process.send_signal(signal.SIGSTOP)
    wait_until(lambda: _is_stopped(process.pid))
    recording = _attach(process.pid, "--for", "0.3")
    assert recording.returncode == 125, recording
    assert "nothing was recorded" in recording.stderr
    assert not recording.trace.exists()
    assert _status(process.pid)["State"].startswith("T (stopped")
    assert _state_that_stays(process.pid) == before
    process.send_signal(signal.SIGCONT)
    assert "signals 1" in _end_of(process)


def test_process_that_is_stopped_while_recorded_is_let_go_stopped(endless: Endless) -> None:
    process = endless("hold", "1")
    before = _state_that_stays(process.pid)
    recorder, trace = _start_recorder(process.pid)
    assert "attached" in _first_line(recorder)
    process.send_signal(signal.SIGSTOP)
    wait_until(lambda: _is_stopped(process.pid))
    time.sleep(0.1)
    recorder.send_signal(signal.SIGINT)
    _, err = recorder.communicate(timeout=20)
    assert recorder.returncode == 0, err
    assert _status(process.pid)["State"].startswith("T (stopped")
    assert _state_that_stays(process.pid) == before
    assert_faithful(trace)
    process.send_signal(signal.SIGCONT)
    assert "signals 1" in _end_of(process)


# -- recorders that are killed --------------------------------------------------------------------


def _recorder_proper(recorder: subprocess.Popen[str]) -> int:
    children = Path(f"/proc/{recorder.pid}/task/{recorder.pid}/children").read_text().split()
    assert len(children) == 1
    return int(children[0])


def test_killing_the_command_lets_the_process_go_properly(endless: Endless) -> None:
    process = endless("clocks")
    before = _state_that_stays(process.pid)
    recorder, trace = _start_recorder(process.pid)
    assert "attached" in _first_line(recorder)
    time.sleep(0.2)
    recorder.kill()
    recorder.wait(timeout=10)
    wait_until(lambda: _status(process.pid)["TracerPid"] == "0")
    wait_until(lambda: _state_that_stays(process.pid) == before)
    wait_until(lambda: sysrift("info", trace).stdout.count("the command was killed"))
    assert_faithful(trace)
    assert "signals 1" in _end_of(process)
    recorder.communicate()


def test_killing_the_recorder_itself_leaves_the_process_as_it_was(endless: Endless) -> None:
    process = endless("serve")
    client = _Client(process)
    before = _state_that_stays(process.pid)
    recorder, trace = _start_recorder(process.pid)
    assert "attached" in _first_line(recorder)
    assert client.ask("recorded") == 1
    os.kill(_recorder_proper(recorder), signal.SIGKILL)
    _, err = recorder.communicate(timeout=20)
    assert recorder.returncode == 125, err
    assert f"killed; the trace is cut off, and what was recorded goes on: {process.pid}" in err
    assert _state_that_stays(process.pid) == before
    assert client.ask("unrecorded") == 2
    client.socket.close()
    assert "signals 1" in _end_of(process)
    assert_faithful(trace)


# -- refusals -------------------------------------------------------------------------------------


def _refusal(pid: int, *words: str) -> None:
    done = _attach(pid)
    assert done.returncode == 125, done
    assert_one_line_error(done, *words)
    assert not done.trace.exists()


def test_no_such_process() -> None:
    _refusal(2**22 + 5, "no such process")


def test_zombie() -> None:
    process = subprocess.Popen(["true"])
    wait_until(lambda: _status(process.pid)["State"].startswith("Z"))
    _refusal(process.pid, str(process.pid), "zombie")
    process.wait()


def test_kernel_thread() -> None:
    if not Path("/proc/2/status").exists() or "kthreadd" not in _status(2)["Name"]:
        pytest.skip("no threads of the kernel to be seen in this container")
    _refusal(2, "kthreadd", "kernel")


def test_process_of_several_threads() -> None:
    code = "import threading, time; threading.Thread(target=time.sleep, args=(30,)).start()"
    process = subprocess.Popen(["python3", "-c", code])
    wait_until(lambda: _status(process.pid)["Threads"] == "2")
    before = _state_that_stays(process.pid)
    _refusal(process.pid, "2 threads", "not recorded yet")
    assert _state_that_stays(process.pid) == before
    process.kill()
    process.wait()


def test_process_that_is_traced_already(endless: Endless) -> None:
    process = endless("hold", "1")
    recorder, _ = _start_recorder(process.pid)
    assert "attached" in _first_line(recorder)
    tracer = _status(process.pid)["TracerPid"]
    _refusal(process.pid, "traces it already", tracer)
    recorder.send_signal(signal.SIGINT)
    recorder.communicate(timeout=20)
    assert recorder.returncode == 0
    _end_of(process)


def test_another_users_process(endless: Endless) -> None:
    if os.geteuid() != 0:
        done = _attach(1)
        assert done.returncode == 125
        assert_one_line_error(done, "not permitted")
        return
    process = endless("hold", "1")
    # As somebody else, once all modules are there (the checkout may not be theirs to read).
    code = (
        "import os, sys\n"
        "from sysrift.cli.main import record_main\n"
        "import sysrift.cli.record, sysrift.record.attach_session\n"
        "os.setgroups([]); os.setgid(65534); os.setuid(65534)\n"
        "sys.exit(record_main(['-o', '/dev/null', '-p', sys.argv[1]]))"
    )
    done = run([sys.executable, "-c", code, str(process.pid)])
    assert done.returncode == 125, done
    assert_one_line_error(done, "not permitted", "another user")
    _end_of(process)


# A program for i386 that pauses for ever: mov $29,%eax; int $0x80; jmp back.
_CODE_32 = bytes.fromhex("b81d000000 cd80 ebf7")


def test_32_bit_process(tmp_path: Path) -> None:
    base = 0x08048000
    header = b"\x7fELF\x01\x01\x01".ljust(16, b"\0")
    header += struct.pack("<HHIIIIIHHHHHH", 2, 3, 1, base + 84, 52, 0, 0, 52, 32, 1, 0, 0, 0)
    size = 84 + len(_CODE_32)
    header += struct.pack("<8I", 1, 0, base, base, size, size, 5, 4096)
    program = tmp_path / "program"
    program.write_bytes(header + _CODE_32)
    program.chmod(0o755)
    try:
        process = subprocess.Popen([program])
    except OSError:
        pytest.skip("this kernel runs no 32-bit programs")
    try:
        _refusal(process.pid, "32-bit")
        assert process.poll() is None
    finally:
        process.kill()
        process.wait()


def test_recording_the_own_parent(tmp_path: Path) -> None:
    """A shell that records itself waits for the recorder, and goes on when that lets it go."""
    trace = fresh_trace()
    done = run(
        ["bash", "-c", f"{command('sysrift-record')} -o {trace} --for 0.3 -p $$; echo went on $?"]
    )
    assert done.stdout == "went on 0\n", done
    assert_faithful(trace)


def test_bad_command_lines() -> None:
    for words in (["-p", "nonsense"], ["-p", "1", "true"], ["--for", "3", "true"], ["-p", "0"]):
        assert run([command("sysrift-record"), *words]).returncode == 125
