# SPDX-License-Identifier: GPL-2.0-or-later
"""Where traces are kept: names that nobody shares, the latest one, and finding one again."""

from __future__ import annotations

import multiprocessing
import os
from pathlib import Path

import pytest

from sysrift.errors import RecordError, SysRiftError, TraceError
from sysrift.trace import store


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("SYSRIFT_TRACE_DIR", str(tmp_path / "store"))
    monkeypatch.chdir(tmp_path)
    return tmp_path / "store"


def test_the_directory_is_the_first_one_that_the_environment_names(monkeypatch, folder):
    assert store.store_directory() == folder
    monkeypatch.delenv("SYSRIFT_TRACE_DIR")
    monkeypatch.setenv("XDG_DATA_HOME", "/data")
    assert store.store_directory() == Path("/data/sysrift")
    monkeypatch.setenv("XDG_DATA_HOME", "relative/is/ignored")
    monkeypatch.setenv("HOME", "/home/ann")
    assert store.store_directory() == Path("/home/ann/.local/share/sysrift")


def test_an_empty_variable_is_none(monkeypatch):
    monkeypatch.setenv("SYSRIFT_TRACE_DIR", "")
    monkeypatch.setenv("XDG_DATA_HOME", "")
    monkeypatch.setenv("HOME", "/home/ann")
    assert store.store_directory() == Path("/home/ann/.local/share/sysrift")


def test_a_relative_directory_is_made_absolute(monkeypatch, tmp_path):
    monkeypatch.setenv("SYSRIFT_TRACE_DIR", "here")
    assert store.store_directory() == tmp_path / "here"


def test_without_a_home_the_user_is_told_what_to_set(monkeypatch):
    def homeless():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("SYSRIFT_TRACE_DIR")
    monkeypatch.delenv("XDG_DATA_HOME", raising=False)
    monkeypatch.setattr(Path, "home", homeless)
    with pytest.raises(SysRiftError, match="set SYSRIFT_TRACE_DIR"):
        store.store_directory()
    store.set_latest("x.srl")  # silent


def test_fresh_names_count_up_from_the_highest(folder):
    assert store.fresh_path("/usr/bin/ls") == folder / "ls-1.srl"
    assert store.fresh_path("ls") == folder / "ls-2.srl"
    (folder / "ls-1.srl").unlink()
    (folder / "ls-x-9.srl").touch()
    (folder / "lsof-50.srl").touch()
    assert store.fresh_path("ls") == folder / "ls-3.srl"


@pytest.mark.parametrize(
    ("program", "name"),
    [
        ("/opt/my prog", "my_prog-1.srl"),
        ("a\nb\x1b[31m", "a_b__31m-1.srl"),
        ("..", "program-1.srl"),
        ("/", "program-1.srl"),
        ("-rf", "rf-1.srl"),
        ("grün", "grün-1.srl"),
        ("[*?]", "____-1.srl"),
        ("\udcff", "_-1.srl"),
    ],
)
def test_a_fresh_name_holds_nothing_awkward(folder, program, name):
    assert store.fresh_path(program) == folder / name


def test_a_long_program_name_is_cut(folder):
    assert store.fresh_path("語" * 300).exists()


def test_a_fresh_file_is_private(folder):
    path = store.fresh_path("ls")
    assert path.stat().st_mode & 0o777 == 0o600
    assert folder.stat().st_mode & 0o777 == 0o700


def _take(count: int) -> list[str]:
    return [str(store.fresh_path("ls")) for _ in range(count)]


def test_recorders_at_the_same_time_never_share_a_name():
    with multiprocessing.get_context("fork").Pool(8) as pool:
        lists = pool.map_async(_take, [25] * 8).get(60)
    names = [name for part in lists for name in part]
    assert len(set(names)) == len(names) == 200


def test_a_store_that_cannot_be_is_a_clear_error(folder):
    folder.write_text("a file is in the way")
    with pytest.raises(RecordError) as caught:
        store.fresh_path("ls")
    assert str(folder) in str(caught.value)
    assert "name a file with -o" in str(caught.value)
    assert caught.value.exit_code == 125


def test_latest_follows_the_newest_trace(folder):
    first, second = store.fresh_path("ls"), store.fresh_path("ls")
    store.set_latest(first)
    assert store.resolve(None) == first
    store.set_latest(second)
    assert store.resolve(None) == second == store.latest_path()
    assert os.readlink(folder / "latest") == "ls-2.srl"
    assert sorted(path.name for path in folder.iterdir()) == ["latest", "ls-1.srl", "ls-2.srl"]


def test_latest_may_lie_elsewhere(tmp_path, folder):
    Path("mine.srl").touch()
    store.set_latest("mine.srl")
    assert store.resolve(None) == tmp_path / "mine.srl"
    assert store.resolve("latest") == tmp_path / "mine.srl"


def test_a_latest_that_cannot_be_set_is_passed_over(folder):
    folder.write_text("a file is in the way")
    store.set_latest("mine.srl")
    folder.unlink()
    (folder / "latest").mkdir(parents=True)
    store.set_latest("mine.srl")
    assert [path.name for path in folder.iterdir()] == ["latest"]


def test_no_latest_says_what_to_do():
    with pytest.raises(TraceError, match="record one with sysrift-record"):
        store.resolve(None)


def test_a_latest_that_is_gone_is_named():
    path = store.fresh_path("ls")
    store.set_latest(path)
    path.unlink()
    with pytest.raises(TraceError, match=r"ls-1\.srl, is gone.*sysrift ls"):
        store.resolve(None)
    assert store.latest_path() == path


def test_a_name_is_found_here_and_in_the_store(tmp_path):
    path = store.fresh_path("ls")
    assert store.resolve("ls-1") == store.resolve("ls-1.srl") == store.resolve(str(path)) == path
    Path("ls-1").mkdir()  # a directory of that name is not in the way
    assert store.resolve("ls-1") == path
    Path("ls-1.srl").touch()
    assert store.resolve("ls-1.srl") == Path("ls-1.srl")


@pytest.mark.parametrize(
    "name", ["none", "./ls-1", "../store", "", "a\0b", "x" * 5000, ".", "latest"]
)
def test_what_is_not_there_is_a_clear_error(name):
    store.fresh_path("ls")
    with pytest.raises(TraceError) as caught:
        store.resolve(name)
    assert len(str(caught.value).splitlines()) == 1


def test_traces_are_listed_oldest_first(folder):
    assert store.list_traces() == []
    paths = [store.fresh_path(name) for name in ("b", "a", "c")]
    for age, path in enumerate(paths):
        os.utime(path, (1000 + age, 1000 + age))
    (folder / "notes.txt").touch()
    (folder / "dir.srl").mkdir()
    (folder / "gone.srl").symlink_to("nowhere")
    store.set_latest(paths[0])
    assert store.list_traces() == paths
