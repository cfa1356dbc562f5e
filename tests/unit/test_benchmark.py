# SPDX-License-Identifier: GPL-2.0-or-later
"""The benchmark's tools: ratios, goals, the table, the drawing, and how programs are run."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import xml.etree.ElementTree
from dataclasses import replace
from pathlib import Path

import harness
import pytest

sys.path.insert(0, str(harness.ROOT))

from tools.benchmark import drawing, measuring, report, running
from tools.benchmark.figures import Figure
from tools.benchmark.results import Column, Result, Results, ResultsError, load
from tools.benchmark.rows import ROWS, Row

DOCS = harness.ROOT / "docs"


def _result(name: str = "cp <x> & y", **changes: object) -> Result:
    """Native 1 s; recorded, the program 1.4 s, the command 2 s; half of it by stops in 5 s."""
    columns = {
        "native": Column([0.9, 1.0, 7.0], [0.9, 1.0, 7.0]),
        "record": Column([2.0, 2.0, 9.0], [1.3, 1.4, 8.0]),
        "verify": Column([0.5]),
        "no_agent": Column([6.0], [5.0], share=0.5),
        "strace": Column([11.0]),
    }
    made = Result(
        name, columns=columns, events=1000, trace_bytes=50_000, beside=3.0, peak_kib=51200
    )
    return replace(made, **changes)  # type: ignore[arg-type]


def _results(*rows: Result) -> Results:
    facts = {"kernel": "6.1.2-x", "cpus": 2, "cpu": "A", "memory_gib": 4, "runs": 3}
    return Results({**facts, "time": "2026-01-02T03:04:05Z", "python": "3.11.1"}, list(rows))


def test_ratios_are_of_medians_and_of_the_same_part_of_the_work() -> None:
    row = _result()
    assert row.ratio("record") == pytest.approx(1.4)
    assert row.ratio("record", whole=True) == pytest.approx(2.0)
    assert row.ratio("no_agent") == pytest.approx(10.0)
    assert row.ratio("verify", whole=True) == pytest.approx(0.5)
    assert row.ratio("strace") == pytest.approx(11.0)  # only the command is known
    assert row.bytes_a_call == 50
    assert row.peak_mib == 50


def test_what_adds_up_for_each_exec() -> None:
    row = _result(kind="tree", execs=25, repeat=2)
    assert row.exec_ms == pytest.approx(8.0)
    assert row.missed == []
    assert replace(row, execs=20).missed == ["exec"]


def test_each_goal_of_a_row_can_be_missed() -> None:
    assert _result(most=1.39).missed == ["record"]
    assert _result(beside=12.5).missed == ["bytes"]
    assert _result(beside=1.5, most_a_call=1).missed == ["bytes"]
    assert _result(peak_kib=151 * 1024).missed == ["memory"]
    assert _result().missed == []


def test_figures_with_goals() -> None:
    fast = Figure("fast-forward", 2e6, "events/s", 1e6, at_least=True)
    results = _results(
        _result("a"),
        _result("b", columns={"native": Column([1.0], [1.0]), "record": Column([3.0], [2.8])}),
        _result("loop", kind="loop", most=1.3),
    )
    results.extra.append(fast)
    by_name = {figure.name.strip(): figure for figure in results.figures}
    mean = by_name["record / native, single-process rows"]
    assert mean.value == pytest.approx((1.4 * 2.8) ** 0.5)
    assert mean.verdict == "MISS"
    assert by_name["the worst of them: b"].value == pytest.approx(2.8)
    assert by_name["record / native, loop"].verdict == "MISS"
    assert by_name["verify / native, all rows"].verdict == "pass"
    assert by_name["recorder's memory, at most"].verdict == "pass"
    assert fast.verdict == "pass" and replace(fast, value=9e5).verdict == "MISS"


def test_results_come_back_from_their_file(tmp_path: Path) -> None:
    results = _results(_result(), Result("nginx", absent="nginx"))
    results.extra.append(Figure("start-up", 0.2, "s", 0.25, [0.2]))
    path = tmp_path / "deep" / "results.json"
    results.save(path)
    assert load(path) == results


_NOT_RESULTS = (
    "",
    "\x00",
    "[]",
    '{"version": 0}',
    '{"version": 1}',
    '{"version": 1, "facts": {}, "rows": [{"columns": {}, "nonsense": 1}], "extra": []}',
)


@pytest.mark.parametrize("text", _NOT_RESULTS)
def test_a_file_without_results_is_refused(text: str, tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    path.write_text(text)
    with pytest.raises(ResultsError):
        load(path)


def test_the_table_marks_misses_names_what_is_absent_and_what_failed() -> None:
    failed = _result("broken")
    failed.columns["verify"].failure = "diverged at event 7"
    results = _results(
        _result("good"), _result("slow", most=1.1), failed, Result("n", absent="nginx")
    )
    shown = report.terminal(results)
    lines = {line.split("  ")[0]: line for line in shown.splitlines()[:5]}
    assert "1.40!" in lines["slow"] and lines["slow"].endswith("record")
    assert "!" not in lines["good"]
    assert lines["broken"].endswith("verify FAILED")
    assert "not measured: nginx is not installed" in lines["n"]
    assert "broken: FAILED: verify: diverged at event 7" in shown


def test_the_page_holds_what_the_terminal_shows_with_misses_in_bold() -> None:
    slow = _result("slow", most=1.1, stops={"open": [10, 0.2], "ring": [2, 1.0]}, stops_program=2.0)
    text = report.markdown(_results(slow, Result("n", absent="nginx")))
    rows = [line for line in text.splitlines() if line.startswith("| ")]
    assert len({line.count("|") for line in rows[:3]}) == 1
    assert "| **1.40** |" in text
    assert "nginx is not installed" in text
    assert "| slow | 12 | 1.20 s | 60% | ring: 2 × 500.0 ms; open: 10 × 20.0 ms |" in text
    assert "with 2 CPUs" in text and "Linux 6.1," in text


def test_only_what_is_between_the_markers_of_a_page_is_replaced(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"before\n{report.BEGIN}\nold\n{report.END}\nafter\n")
    report.put_into(page, "new\n")
    assert page.read_text() == f"before\n{report.BEGIN}\nnew\n{report.END}\nafter\n"
    page.write_text("no markers")
    with pytest.raises(ValueError):
        report.put_into(page, "new\n")
    assert page.read_text() == "no markers"


def test_the_drawing_has_a_bar_for_each_ratio() -> None:
    results = _results(_result(), _result("b"), Result("n", absent="nginx"))
    root = xml.etree.ElementTree.fromstring(drawing.svg(results))
    space = "{http://www.w3.org/2000/svg}"
    titles = [title.text or "" for title in root.iter(f"{space}title")]
    assert len(titles) == 8
    assert "cp <x> & y, sysrift-record: 1.40 times native" in titles
    width, height = float(root.get("width", 0)), float(root.get("height", 0))
    for bar in root.iter(f"{space}rect"):
        assert float(bar.get("x", 0)) + float(bar.get("width", 0)) <= width
        assert float(bar.get("y", 0)) + float(bar.get("height", 0)) <= height


def test_a_drawing_of_nothing_is_one_too() -> None:
    xml.etree.ElementTree.fromstring(drawing.svg(_results()))


def test_the_documentation_shows_the_results_that_are_beside_it() -> None:
    results = load(DOCS / "performance.json")
    page = (DOCS / "performance.md").read_text()
    shown = page.partition(report.BEGIN + "\n")[2].partition(report.END)[0]
    assert shown == report.markdown(results)
    assert (DOCS / "performance.svg").read_text() == drawing.svg(results)


# -- running ---------------------------------------------------------------------------------------


def test_a_run_tells_time_and_the_memory_of_the_process_itself(tmp_path: Path) -> None:
    code = "import time; x = bytearray(60 << 20); x[::4096] = x[1::4096]; time.sleep(0.3)"
    one = running.run([sys.executable, "-c", code], tmp_path, tmp_path, 20)
    assert 0.3 < one.seconds < 20
    assert 60 << 10 < one.peak_kib < 120 << 10


def test_a_failure_says_what_ran_and_what_it_said(tmp_path: Path) -> None:
    with pytest.raises(running.RunFailed, match="exit 3.*status 3: too bad"):
        running.run(["sh", "-c", "echo too bad >&2; exit 3"], tmp_path, tmp_path, 20)


def test_what_takes_too_long_is_ended_with_all_it_started(tmp_path: Path) -> None:
    started = time.monotonic()
    script = "sleep 77 & echo $! >child; sleep 77"
    with pytest.raises(running.RunFailed, match="still running after 0 s"):
        running.run(["sh", "-c", script], tmp_path, tmp_path, 0.4)
    assert time.monotonic() - started < 10
    child = int((tmp_path / "child").read_text())
    harness.wait_until(lambda: harness.is_gone(child), what="the child to be gone")


def test_an_interrupted_run_leaves_nothing_running(tmp_path: Path) -> None:
    sleeping = running.Started(["sleep", "77"], tmp_path, tmp_path)
    with pytest.raises(KeyboardInterrupt), sleeping:
        raise KeyboardInterrupt
    assert not Path(f"/proc/{sleeping.pid}").exists()


def test_settings_of_the_user_do_not_change_what_is_measured(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("SYSRIFT_AGENT", "MAKEFLAGS", "GIT_DIR", "PYTHONPATH"):
        monkeypatch.setenv(name, "1")
    kept = running.environment()
    assert not {"SYSRIFT_AGENT", "MAKEFLAGS", "GIT_DIR", "PYTHONPATH"} & set(kept)
    assert kept["PATH"] == os.environ["PATH"]


# -- rows ------------------------------------------------------------------------------------------


def _places(tmp_path: Path) -> measuring.Places:
    made = [tmp_path / name for name in ("material", "scratch", "fast", "failed")]
    for path in made:
        path.mkdir()
    return measuring.Places(harness.ROOT / "fixtures" / "build", *made)


def _measured(row: Row, tmp_path: Path) -> tuple[Result, list[str]]:
    said: list[str] = []
    effort = measuring.Effort(runs=1, timeout=60)
    return measuring.Measuring(row, _places(tmp_path), effort, said.append).measure(), said


def test_a_row_is_measured_in_all_columns(built_fixtures: None, tmp_path: Path) -> None:
    row = Row("calls", ("{built}/getppid_loop", "{count}"), count=2000, stops_share=0.5, repeat=2)
    result, said = _measured(row, tmp_path)
    assert result.failures == []
    assert all(len(column.command) == 1 for column in result.columns.values())
    assert result.events > 4000
    assert result.trace_bytes > 1000
    assert 0 < result.beside < 100
    assert result.peak_kib > 10 << 10
    assert result.columns["record"].felt < result.columns["record"].whole
    assert result.columns["no_agent"].share == 0.5
    assert said[-2:] == ["run 1 of 1, strace", "where the time goes"]
    (label, count, seconds), *_ = result.top_stops
    assert label and count > 0 and 0 < seconds < result.stops_program
    assert sum(count for count, _ in result.stops.values()) > 100


def test_a_program_that_fails_fails_its_row_and_no_more(tmp_path: Path) -> None:
    result, _ = _measured(Row("bad", ("sh", "-c", "exit 4")), tmp_path)
    assert len(result.failures) == 1 and "status 4" in result.failures[0]


def test_a_recording_that_cannot_be_made_is_a_failure_of_its_column(tmp_path: Path) -> None:
    # Recorded, or under strace, it sees a tracer.
    script = "while read -r key value; do [ $key != TracerPid: ] || exit $((value != 0)); done"
    row = Row("seen", ("sh", "-c", f"{script} </proc/self/status"))
    result, _ = _measured(row, tmp_path)
    assert {failure.split(":")[0] for failure in result.failures} == {
        "record",
        "no_agent",
        "strace",
    }
    assert result.columns["verify"].command == []


def test_a_program_that_is_not_installed_makes_its_row_absent(tmp_path: Path) -> None:
    result, _ = _measured(Row("x", ("no-such-program-at-all",)), tmp_path)
    assert result.absent == "no-such-program-at-all"
    assert result.columns == {}


def test_material_is_made_once(tmp_path: Path) -> None:
    made = []

    def hay(folder: Path) -> None:
        made.append(folder)
        (folder / "hay").write_text("x")

    from tools.benchmark.material import prepared

    assert prepared(hay, tmp_path) == prepared(hay, tmp_path) == tmp_path / "hay"
    assert made == [tmp_path / "hay"]
    (tmp_path / "hay.made").write_text("of an older version")
    prepared(hay, tmp_path)
    assert len(made) == 2


def test_rows_have_names_of_their_own_and_whole_commands() -> None:
    assert len({row.name for row in ROWS}) == len(ROWS)
    for row in ROWS:
        words = row.words(1.0, here=Path("/h"), built=Path("/b"), fast=Path("/f"))
        places = ("{here}", "{built}", "{fast}", "{count}", "{trees}")
        assert not [word for word in words for place in places if place in word]


def _tool(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "tools.benchmark", *words],
        cwd=harness.ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_the_command_shows_results_of_a_file(tmp_path: Path) -> None:
    path = tmp_path / "r.json"
    _results(_result("slow", most=1.1)).save(path)
    assert "1.40!" in _tool("--from", str(path)).stdout
    assert _tool("--from", str(path)).returncode == 0
    assert _tool("--from", str(path), "--check").returncode == 1
    done = _tool("--from", str(tmp_path / "none.json"))
    assert done.returncode == 1 and done.stderr.count("\n") == 1


def test_the_command_refuses_what_it_cannot_do() -> None:
    assert _tool("--only", "no such row").returncode == 2
    assert _tool("--only", "(").returncode == 2
    assert _tool("--runs", "0").returncode == 2
    assert _tool("--list").stdout.splitlines() == [row.name for row in ROWS]


def test_an_interrupted_benchmark_leaves_nothing(built_fixtures: None) -> None:
    words = [sys.executable, "-m", "tools.benchmark", "--only", "openssl", "-o", "/dev/null"]
    before = {path.name for path in _left_over()}
    process = subprocess.Popen(
        words, cwd=harness.ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        harness.wait_until(
            lambda: [one for one in harness.descendants(process.pid) if one.name == "openssl"],
            seconds=60,
            what="the program",
        )
        programs = harness.descendants(process.pid)
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=30)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 130
    assert errors.splitlines()[-1] == "bench-full: interrupted"
    assert all(harness.is_gone(one.pid) for one in programs)
    assert {path.name for path in _left_over()} == before


def _left_over() -> list[Path]:
    places = (harness.ROOT / ".bench", Path("/dev/shm"))
    return [path for place in places for path in place.glob("sysrift-bench-*")]
