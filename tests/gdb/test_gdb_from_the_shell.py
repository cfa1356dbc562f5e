# SPDX-License-Identifier: GPL-2.0-or-later
"""`sysrift-replay` from the shell: GDB with all of that done."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import harness
import pytest

Replay = Callable[..., Any]

GDB = harness.GDB
BATCH = ("-nx", "-batch")


def _script(path: Path, text: str) -> Path:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


@pytest.mark.parametrize("command", [["sysrift-replay"], ["sysrift", "replay"]])
def test_replay_from_the_shell(recorded: Replay, command: list[str]) -> None:
    recording = recorded("ends_segv")
    done = harness.run(
        [harness.command(command[0]), *command[1:], "--gdb", GDB, recording.trace, "--", *BATCH,
         "-ex", "continue", "-ex", "backtrace"]
    )  # fmt: skip
    text = done.stdout + done.stderr
    assert "Program received signal SIGSEGV" in text, done
    assert re.search(r"^#\d+ .*\bstore \(depth=3, value=42\)", text, re.MULTILINE), done
    harness.assert_no_traceback(done)


def test_the_latest_trace_from_the_shell(recorded: Replay) -> None:
    recorded("ends_return42")
    done = harness.run(
        [harness.command("sysrift-replay"), "--gdb", GDB, "--", *BATCH, "-ex", "continue"]
    )
    assert "exited with status 42" in done.stdout, done


def test_a_path_with_blanks_and_quotes(tmp_path: Path, recorded: Replay) -> None:
    folder = tmp_path / "a 'b' \"c\""
    folder.mkdir()
    recording = recorded("ends_return42", trace=folder / "my trace.srl")
    done = harness.run(
        [harness.command("sysrift-replay"), "--gdb", GDB, recording.trace, "--", *BATCH,
         "-ex", "continue"]
    )  # fmt: skip
    assert "end of the recording: exited with status 42" in done.stdout, done


def test_missing_trace() -> None:
    done = harness.run([harness.command("sysrift-replay"), "--gdb", GDB, "/nonexistent.srl"])
    assert done.returncode != 0
    harness.assert_one_line_error(done, "/nonexistent.srl")


def test_trace_that_is_none(tmp_path: Path) -> None:
    path = tmp_path / "foreign.srl"
    path.write_text("nothing of the kind")
    done = harness.run([harness.command("sysrift-replay"), "--gdb", GDB, path])
    assert done.returncode != 0
    harness.assert_one_line_error(done, "foreign.srl")


def test_missing_gdb(recorded: Replay) -> None:
    recording = recorded("ends_return42")
    done = harness.run(
        [harness.command("sysrift-replay"), "--gdb", "/nonexistent/gdb", recording.trace]
    )
    assert done.returncode != 0
    harness.assert_one_line_error(done, "/nonexistent/gdb", "install")


def test_gdb_that_is_too_old(tmp_path: Path, recorded: Replay) -> None:
    recording = recorded("ends_return42")
    # A real GDB that takes itself for an older one.
    old = _script(tmp_path / "gdb", f'exec {GDB} -ex \'python gdb.VERSION = "11.2"\' "$@"')
    done = harness.run([harness.command("sysrift-replay"), "--gdb", old, recording.trace])
    assert done.returncode != 0
    harness.assert_one_line_error(done, "11.2", "needs GDB 12")


def test_gdb_without_python(tmp_path: Path, recorded: Replay) -> None:
    recording = recorded("ends_return42")
    bare = _script(
        tmp_path / "gdb",
        'case "$*" in\n'
        '*--version*) echo "GNU gdb (GDB) 13.1" ;;\n'
        "*) echo 'Python scripting is not supported in this copy of GDB.' >&2; exit 1 ;;\n"
        "esac",
    )
    done = harness.run([harness.command("sysrift-replay"), "--gdb", bare, recording.trace])
    assert done.returncode != 0
    harness.assert_one_line_error(done, "no Python", str(bare))


def test_gdb_that_does_not_run(tmp_path: Path, recorded: Replay) -> None:
    recording = recorded("ends_return42")
    broken = tmp_path / "gdb"
    broken.write_bytes(b"\x7fELF is all that this is")
    broken.chmod(0o755)
    done = harness.run([harness.command("sysrift-replay"), "--gdb", broken, recording.trace])
    assert done.returncode != 0
    harness.assert_one_line_error(done, str(broken))


def test_gdb_from_the_environment(recorded: Replay) -> None:
    recording = recorded("ends_return42")
    done = harness.run(
        [harness.command("sysrift-replay"), recording.trace], env={"SYSRIFT_GDB": "/no/such/gdb"}
    )
    harness.assert_one_line_error(done, "/no/such/gdb")
