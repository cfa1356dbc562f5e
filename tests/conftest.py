# SPDX-License-Identifier: GPL-2.0-or-later
"""What every test gets: a home, a trace directory and a TMPDIR of its own, and a clean-up check.

After each test no process of its may be left (running, stopped or a zombie of a SysRift command),
and nothing but traces may lie in the trace directory. The check sees processes whose parent died
too, because this process is made the reaper of its descendants (prctl(2), PR_SET_CHILD_SUBREAPER).
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

import harness

PR_SET_CHILD_SUBREAPER = 36
GRACE_SECONDS = 3.0


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers", "keeps_files: the test kills something on purpose, so files may be left"
    )
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


@pytest.fixture(scope="session")
def built_fixtures() -> None:
    """The programs of fixtures/, built."""
    harness.build_fixtures()


@pytest.fixture
def fixture_program(built_fixtures: None) -> Callable[[str], Path]:
    """A function that gives the path of a built fixture by its name."""
    return harness.built


@pytest.fixture
def trace_dir() -> Path:
    """The directory that this test's traces go to."""
    return Path(os.environ["SYSRIFT_TRACE_DIR"])


@pytest.fixture(autouse=True)
def own_surroundings(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[None]:
    """Give the test directories of its own; afterwards look for what it left behind."""
    home, traces, temporary = tmp_path / "home", tmp_path / "traces", tmp_path / "tmp"
    for directory in (home, traces, temporary):
        directory.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("SYSRIFT_TRACE_DIR", str(traces))
    monkeypatch.setenv("TMPDIR", str(temporary))
    monkeypatch.setenv("LC_ALL", "C.UTF-8")
    monkeypatch.setenv("TZ", "UTC")
    for name in ("NO_COLOR", "PAGER", "XDG_DATA_HOME", "MAKEFLAGS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("DEBUGINFOD_URLS", "")  # some GDBs have a server of their own otherwise
    before = {process.pid for process in harness.descendants(os.getpid())}
    yield
    left = _left_processes(before)
    assert not left, f"processes left behind: {left}"
    if request.node.get_closest_marker("keeps_files") is None:
        strange = [
            path.name
            for path in traces.iterdir()
            if path.suffix != ".srl" and path.name != "latest"
        ]
        assert not strange, f"files left in the trace directory: {strange}"
        left_files = [path.name for path in temporary.iterdir()]
        assert not left_files, f"temporary files left: {left_files}"


def _left_processes(before: set[int]) -> list[str]:
    """Processes below this one that the test started and that do not end by themselves.

    A zombie that was handed over to us is what init would reap: its parent is gone and so is it.
    """
    deadline = time.monotonic() + GRACE_SECONDS
    while True:
        left = [p for p in harness.descendants(os.getpid()) if p.pid not in before]
        for process in left:
            if process.state == "Z" and process.parent == os.getpid():
                try:
                    os.waitpid(process.pid, os.WNOHANG)
                except ChildProcessError:
                    pass
        left = [p for p in left if not (p.state == "Z" and p.parent == os.getpid())]
        if not left or time.monotonic() > deadline:
            break
        time.sleep(0.05)
    for process in left:
        try:
            os.kill(process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
    return [f"{process.name} ({process.pid}, {process.state})" for process in left]
