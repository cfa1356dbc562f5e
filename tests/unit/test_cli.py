# SPDX-License-Identifier: GPL-2.0-or-later
"""The shell's commands that read traces, each run as a user runs it."""

from __future__ import annotations

import json
import os
import pty
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from traces import Builder, crashed, cut_off

from sysrift.trace import store
from sysrift.trace.reader import Trace
from sysrift.trace.schema import BlockType

ROOT = Path(__file__).parent.parent.parent
START = "import sys; from sysrift.cli.main import {entry}; sys.exit({entry}())"
TIME_LIMIT = 120


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch) -> Path:
    """A store with one trace of a crash, the latest; an environment without a user's settings."""
    folder = tmp_path / "store"
    monkeypatch.setenv("SYSRIFT_TRACE_DIR", str(folder))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    for name in (
        "SYSRIFT_GDB",
        "NO_COLOR",
        "FORCE_COLOR",
        "SYSRIFT_DEBUG",
        "_ARGCOMPLETE",
        "COLUMNS",
    ):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    store.set_latest(crashed(store.fresh_path("/opt/work/crasher")))
    return folder


def command(*words: str | Path, entry: str = "main") -> list[str]:
    return [sys.executable, "-c", START.format(entry=entry), *map(str, words)]


def sysrift(*words: str | Path, code: int = 0, entry: str = "main", **env: str) -> str:
    """Run a command that must end with `code` and complain only when it fails; its stdout."""
    done = subprocess.run(
        command(*words, entry=entry), env={**os.environ, **env}, capture_output=True, text=True,
        timeout=TIME_LIMIT,
    )  # fmt: skip
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    if code == 0:
        assert done.stderr == ""
    return done.stdout


def complaint(*words: str | Path, code: int = 2, entry: str = "main", **env: str) -> str:
    """Run a command that must fail with one line on stderr; that line without its prefix."""
    done = subprocess.run(
        command(*words, entry=entry), env={**os.environ, **env}, capture_output=True, text=True,
        timeout=TIME_LIMIT,
    )  # fmt: skip
    assert done.returncode == code, done.stderr
    *usage, line = done.stderr.splitlines()
    assert all(text.startswith(("usage:", " ")) for text in usage), done.stderr
    assert line.startswith("sysrift: ")
    return line.removeprefix("sysrift: ")


def on_terminal(*words: str | Path, **env: str) -> str:
    """What a command shows on a terminal of 100 columns."""
    main, side = pty.openpty()
    environment = {**os.environ, "TERM": "xterm-256color", "COLUMNS": "100", **env}
    try:
        process = subprocess.Popen(
            command(*words), env=environment, stdin=side, stdout=side, stderr=side
        )
    finally:
        os.close(side)
    shown = b""
    try:
        while True:
            try:
                part = os.read(main, 65536)
            except OSError:  # EIO: the other side is closed
                break
            if not part:
                break
            shown += part
        assert process.wait(TIME_LIMIT) == 0, shown
    finally:
        process.kill()
        process.wait()
        os.close(main)
    return shown.decode().replace("\r\n", "\n")


# -- dump -----------------------------------------------------------------------------------------


def test_dump_prints_the_latest_trace():
    lines = sysrift("dump").splitlines()
    assert len(lines) == 9
    assert 'openat(AT_FDCWD, "/no/such", O_RDONLY)' in lines[4]
    assert lines[-1].strip() == "+++ killed by SIGSEGV +++"


def test_dump_takes_a_path_and_a_name(folder):
    expected = sysrift("dump")
    assert sysrift("dump", "crasher-1") == sysrift("dump", "crasher-1.srl") == expected
    assert sysrift("dump", folder / "crasher-1.srl") == sysrift("dump", "latest") == expected


@pytest.mark.parametrize(
    ("words", "numbers", "end"),
    [
        (["--failed"], [5, 6], True),
        (["--name", "openat,SIGSEGV"], [2, 5, 8], True),
        (["-e", "2-4"], [2, 3, 4], False),
        (["--range", "7-"], [7, 8], True),
        (["-e=-2"], [1, 2], False),
        (["-e", "2-6", "--failed", "--name=openat"], [5], False),
        (["-e", "100-200"], [], True),
    ],
)
def test_dump_shows_only_what_is_asked_for(words, numbers, end):
    lines = sysrift("dump", *words).splitlines()
    shown = [int(line.split()[0]) for line in lines if "+++" not in line]
    assert (shown, "+++" in "".join(lines[-1:])) == (numbers, end)


def test_dump_shows_as_many_bytes_as_asked_for():
    assert 'write(1, "ab"..., 3)' in sysrift("dump", "-s", "2")
    (piece,) = json.loads(sysrift("dump", "--json", "-e7", "-s1"))["memory"]
    assert (piece["text"], piece["truncated"]) == ("a", True)


def test_dump_json_is_one_object_a_line():
    *events, end = map(json.loads, sysrift("dump", "--json").splitlines())
    assert [event["number"] for event in events] == list(range(1, 9))
    assert end == {
        "kind": "end", "process": 1, "pid": 4242, "events": 8, "how": "killed",
        "signal": "SIGSEGV", "duration_us": 2500,
    }  # fmt: skip


def test_dump_of_a_cut_off_trace_says_so():
    path = cut_off(Path("cut.srl"))
    assert sysrift("dump", path).splitlines()[-1].strip() == "+++ recording was cut off +++"


def test_dump_is_coloured_on_a_terminal_only():
    plain = sysrift("dump")
    assert "\x1b" not in plain
    shown = on_terminal("dump")
    assert "\x1b[31m-1 ENOENT" in shown
    assert re.sub("\x1b\\[[0-9;]*m", "", shown) == plain
    assert on_terminal("dump", NO_COLOR="1") == plain
    assert on_terminal("dump", "--color=never") == plain
    assert "\x1b[31m" in on_terminal("dump", "--color=always", NO_COLOR="1")
    assert sysrift("dump", "--color=always") == shown


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["-e", "9-5"], "is empty"),
        (["-e", "x"], "is not a range of events"),
        (["--name", "opennat"], "no system call or signal named 'opennat'"),
        (["--bytes", "-1"], "must not be negative"),
        (["--bytes", "x"], "invalid int value"),
        (["--color", "pink"], "invalid choice"),
        (["--what"], "unrecognized arguments"),
        (["none"], "there is no trace 'none'"),
        (["a", "b"], "unrecognized arguments"),
    ],
)
def test_a_bad_dump_command_line_is_one_clear_line(words, text):
    assert text in complaint("dump", *words)


def test_dump_into_a_closed_pipe_is_quiet():
    builder = Builder(Path("long.srl"))
    for number in range(20_000):
        builder.call("getppid", result=number)
    builder.close()
    process = subprocess.Popen(
        command("dump", "long.srl"), stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    process.stdout.readline()
    process.stdout.close()
    assert process.stderr.read() == b""
    process.stderr.close()
    assert process.wait(TIME_LIMIT) == 141


def test_dump_onto_a_full_disk_is_a_clear_error():
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            command("dump"), stdout=full, stderr=subprocess.PIPE, text=True, timeout=TIME_LIMIT
        )
    assert done.returncode == 2
    assert done.stderr.splitlines()[0] == "sysrift: No space left on device"
    assert "Traceback" not in done.stderr


def test_an_interrupted_command_ends_with_130():
    builder = Builder(Path("long.srl"))
    for number in range(50_000):
        builder.call("getppid", result=number)
    builder.close()
    process = subprocess.Popen(
        command("dump", "long.srl"), stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    process.stdout.readline()  # it runs, and soon blocks on the full pipe
    process.send_signal(signal.SIGINT)
    _out, err = process.communicate(timeout=TIME_LIMIT)
    assert (process.returncode, err) == (130, b"")


# -- info -----------------------------------------------------------------------------------------


def test_info_tells_what_was_recorded():
    text = sysrift("info")
    facts = dict(
        re.split(r"\s{2,}", line, maxsplit=1) for line in text.splitlines()[:19] if "  " in line
    )
    assert facts["program"] == "/opt/work/crasher '--in file' 'it'\"'\"'s'"
    assert facts["directory"] == "/opt/work"
    assert facts["ended"] == "killed by SIGSEGV"
    assert facts["closed properly"] == "yes"
    assert facts["events"].startswith("8 (system calls 6, signals 1")
    assert "2 openat" in facts["by name"]
    assert "1 openat ENOENT" in facts["failed calls"]
    assert facts["mapped files"] == "1, 1 of them stored in the trace"
    assert facts["processor"] == "Test CPU"
    assert "bytes beside the memory" in facts["a recorded event"]
    assert '"/no/such"' in text
    assert "a remark of the recorder" in text


def test_info_json():
    value = json.loads(sysrift("info", "--json"))
    assert value["metadata"]["argv"] == ["/opt/work/crasher", "--in file", "it's"]
    assert value["events"]["by_name"]["openat"] == 2
    assert value["end"]["signal"] == "SIGSEGV"
    assert [event["number"] for event in value["last_failures"]] == [5, 6]
    assert value["closed"] is True
    assert value["size"] > value["stored_bytes"]["events"] > 0


def test_info_of_a_cut_off_trace_says_so():
    text = sysrift("info", cut_off(Path("cut.srl")))
    assert "recording was cut off (recorder killed?)" in text
    assert "no: up to the last whole block" in text


def test_info_of_an_empty_recording():
    assert "0 (system calls 0" in sysrift("info", Builder(Path("none.srl")).close())


def test_info_fits_a_terminal():
    shown = re.sub("\x1b\\[[0-9;]*m", "", on_terminal("info"))
    table = shown.partition("last failed")[0]
    assert max(map(len, table.splitlines())) <= 100


# -- ls -------------------------------------------------------------------------------------------


def test_ls_lists_traces_and_marks_the_latest(folder):
    second = store.fresh_path("ls")
    Builder(second, argv=["ls", "-l"]).close()
    store.fresh_path("broken")
    cut_off(store.fresh_path("cut"))
    lines = sysrift("ls").splitlines()
    assert lines[0].split() == ["name", "program", "when", "events", "size", "how", "it", "ended"]
    by_name = {line[3:].split()[0]: line for line in lines[1:]}
    assert set(by_name) == {"crasher-1", "ls-1", "broken-1", "cut-1"}
    assert by_name["crasher-1"].startswith("* ")
    assert by_name["crasher-1"].endswith("killed by SIGSEGV")
    assert by_name["ls-1"].startswith("   ")
    assert "ls -l" in by_name["ls-1"]
    assert by_name["ls-1"].endswith("exited with status 0")
    assert "unreadable: " in by_name["broken-1"]
    assert by_name["broken-1"].endswith("nothing was recorded into it")
    assert by_name["cut-1"].endswith("recording was cut off (recorder killed?)")


def test_ls_lists_a_latest_trace_that_lies_elsewhere(tmp_path):
    store.set_latest(crashed(Path("mine.srl")))
    (line,) = [line for line in sysrift("ls").splitlines() if line.startswith("*")]
    assert str(tmp_path / "mine.srl") in line


def test_ls_without_traces_says_what_to_do(folder):
    shutil.rmtree(folder)
    assert "record one with sysrift-record" in sysrift("ls")


# -- doctor ---------------------------------------------------------------------------------------


def test_doctor_tries_everything_and_leaves_no_process_behind():
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    done = subprocess.run(
        command("doctor", "--json"), env=environment, capture_output=True, text=True,
        timeout=TIME_LIMIT, start_new_session=True,
    )  # fmt: skip
    assert done.stderr == ""
    findings = {finding["name"]: finding for finding in json.loads(done.stdout)}
    assert set(findings) >= {
        "architecture", "processor", "kernel", "store directory", "ptrace",
        "PTRACE_GET_SYSCALL_INFO", "/proc/PID/mem", "yama ptrace_scope", "container seccomp",
        "seccomp filters", "replay stub", "rdtsc trap (PR_SET_TSC)", "PR_SET_MM_MAP",
        "personality", "syscall user dispatch", "gdb",
    }  # fmt: skip
    problems = [finding for finding in findings.values() if finding["level"] == "problem"]
    assert done.returncode == (1 if problems else 0)
    assert all(finding["remedy"] for finding in problems)
    # Every other test here needs ptrace, so a machine that runs them has it.
    assert findings["ptrace"]["level"] == findings["seccomp filters"]["level"] == "ok"


def test_doctor_says_what_to_do_without_gdb():
    text = sysrift("doctor", "--gdb", "/none/gdb", code=1)
    assert re.search(r"problem +gdb +/none/gdb is not found\n +-> install GDB", text)
    assert "must be solved before SysRift can work here" in text


@pytest.mark.parametrize(
    ("script", "text"),
    [
        ("echo 'GNU gdb (GDB) 11.2'", "is version 11.2"),
        ("echo hello", "does not say a version"),
        ("[ $1 = --version ] && echo 'GNU gdb (GDB) 14.1'", "has none"),
        ("exit 1", "does not say a version"),
    ],
)
def test_doctor_sees_a_gdb_that_will_not_do(script, text):
    gdb = Path("gdb")
    gdb.write_text(f"#!/bin/sh\n{script}\n")
    gdb.chmod(0o755)
    shown = sysrift("doctor", "--gdb", "./gdb", code=1)
    (line,) = [line for line in shown.splitlines() if line.startswith("problem")]
    assert text in line


def test_doctor_warns_of_a_store_that_cannot_be_written(folder):
    file = Path("file")
    file.touch()
    done = subprocess.run(
        command("doctor", "--json"), env={**os.environ, "SYSRIFT_TRACE_DIR": f"{file}/store"},
        capture_output=True, text=True, timeout=TIME_LIMIT,
    )  # fmt: skip
    (finding,) = [f for f in json.loads(done.stdout) if f["name"] == "store directory"]
    assert finding["level"] == "warning"
    assert "set SYSRIFT_TRACE_DIR" in finding["remedy"]


def test_probes_are_limited_in_time_and_reaped(monkeypatch):
    from sysrift.cli import doctor_children

    monkeypatch.setattr(doctor_children, "TIME_LIMIT", 0.2)
    seen = []

    def hang() -> int:
        time.sleep(60)
        return 0

    begin = time.monotonic()
    with pytest.raises(doctor_children.ProbeFailed), doctor_children.child(hang) as pid:
        seen.append(pid)
        doctor_children.wait(pid)
    assert time.monotonic() - begin < 5
    with pytest.raises(ChildProcessError):
        os.waitpid(seen[0], 0)
    with pytest.raises(doctor_children.ProbeFailed):
        doctor_children.exit_code(lambda: int("x"))
    assert doctor_children.exit_code(lambda: 7) == 7


# -- all of them ----------------------------------------------------------------------------------


def test_gdb_script_prints_a_path_that_is_there():
    path = Path(sysrift("gdb-script").rstrip("\n"))
    assert path.name == "sysrift.gdb"
    assert path.is_file()


READERS = ["dump", "info", "verify", "replay"]


@pytest.mark.parametrize("name", READERS)
@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b"", "is empty"),
        (b"\x7fELF" + bytes(60), "is not a SysRift trace"),
        (b"\x89SRL\r\n\x1a\n" + bytes(4), "is cut off within its header"),
        (b"\x89SRL\r\n\x1a\n\xff\0" + bytes(22), "use a newer SysRift"),
    ],
)
def test_every_reader_refuses_a_bad_trace_in_one_line(name, content, text):
    Path("bad.srl").write_bytes(content)
    line = complaint(name, "bad.srl")
    assert text in line
    assert "bad.srl" in line


@pytest.mark.parametrize("name", READERS)
def test_every_reader_says_when_there_is_no_latest_trace(name, folder):
    shutil.rmtree(folder)
    assert "record one with sysrift-record" in complaint(name)


@pytest.mark.parametrize("name", ["dump", "info"])
def test_damage_in_the_middle_is_a_clear_error(name, folder):
    path = folder / "crasher-1.srl"
    with Trace(path) as trace:
        (at,) = [e.offset for e, _, _ in trace.file.blocks() if e.type == BlockType.EVENTS]
    raw = bytearray(path.read_bytes())
    raw[at + 100] ^= 0xFF
    path.write_bytes(raw)
    assert f"damaged trace: the block at byte {at} of {path} is corrupt" == complaint(name)


def test_help_lists_every_command():
    text = sysrift("--help")
    for name in ("record", "replay", "verify", "dump", "info", "ls", "doctor", "gdb-script"):
        assert re.search(rf"^ +{name}\s+[A-Z]", text, re.MULTILINE), name


@pytest.mark.parametrize("name", ["dump", "info", "ls", "doctor", "gdb-script"])
def test_a_command_explains_itself(name):
    text = sysrift(name, "--help")
    assert text.startswith(f"usage: sysrift {name}")


def test_versions():
    import sysrift as package

    assert sysrift("--version") == f"SysRift {package.__version__}\n"
    for entry in ("record_main", "replay_main"):
        assert sysrift("--version", entry=entry) == f"SysRift {package.__version__}\n"


def test_no_command_and_an_unknown_one_are_clear_errors():
    assert "COMMAND" in complaint()
    assert "invalid choice: 'dmup'" in complaint("dmup")


def test_debugging_shows_the_traceback():
    done = subprocess.run(
        command("dump", "none"), env={**os.environ, "SYSRIFT_DEBUG": "1"}, capture_output=True,
        text=True, timeout=TIME_LIMIT,
    )  # fmt: skip
    assert done.returncode == 1
    assert "Traceback" in done.stderr
    assert "TraceError: there is no trace 'none'" in done.stderr


def test_starting_imports_only_what_the_command_needs():
    script = (
        "import sys; from sysrift.cli.main import main\n"
        "try: main(['ls', '--help'])\nexcept SystemExit: pass\n"
        "heavy = {'rich', 'pygments', 'argcomplete', 'construct', 'ptrace', 'elftools',"
        " 'sysrift.syscalls', 'sysrift.cli.doctor', 'sysrift.cli.dump'}\n"
        "print(sorted(heavy & set(sys.modules)), file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=TIME_LIMIT
    )
    assert done.stderr == "[]\n"


def test_completion_offers_commands_and_traces(tmp_path):
    def complete(line: str) -> list[str]:
        out = tmp_path / "out"
        environment = {
            **os.environ, "_ARGCOMPLETE": "1", "_ARGCOMPLETE_IFS": "\n", "COMP_LINE": line,
            "COMP_POINT": str(len(line)), "_ARGCOMPLETE_STDOUT_FILENAME": str(out),
        }  # fmt: skip
        subprocess.run(command(), env=environment, timeout=TIME_LIMIT, check=True)
        return [word.strip() for word in out.read_text().split("\n")]

    assert "dump" in complete("sysrift du")
    assert "crasher-1" in complete("sysrift dump cra")
