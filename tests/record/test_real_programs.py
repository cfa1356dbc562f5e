# SPDX-License-Identifier: GPL-2.0-or-later
"""Programs that people use are recorded, do what they do anyway, and replay event for event.

Each is run once by itself and once under the recorder with `--checksum`. Where the outcome is
decided by the arguments and files alone, both must print the same and end the same; where the
outside decides (the time, random bytes), the tests say what must hold instead.
"""

from __future__ import annotations

import bz2
import gzip
import hashlib
import lzma
import os
import random
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from harness import Recording, assert_faithful, record, record_and_verify, run

WORDS = [
    "the",
    "quick",
    "brown",
    "fox",
    "jumps",
    "over",
    "a",
    "lazy",
    "dog",
    "and",
    "returns",
    "by",
    "night",
    "to",
    "its",
    "den",
]


def program(name: str) -> str:
    """The path of a program that `make test` installs; never a reason to skip."""
    path = shutil.which(name)
    assert path, f"{name} is missing: run make test, which installs it"
    return path


def same_outcome(
    argv: Sequence[str | Path], *, stdin: str | None = None, cwd: Path | None = None
) -> Recording:
    """Run and record a program whose outcome its input decides; verify; compare the two."""
    plain = run(argv, stdin=stdin, cwd=cwd)
    recording = record_and_verify(argv, stdin=stdin, cwd=cwd)
    assert recording.returncode == plain.returncode, recording
    assert recording.stdout == plain.stdout
    assert recording.stderr == plain.stderr
    return recording


def text_file(path: Path, size: int, seed: int) -> Path:
    """A file of about `size` bytes of lines of words, the same for the same seed."""
    generator = random.Random(seed)
    lines = []
    length = 0
    while length < size:
        line = f"{generator.randrange(10**9):09d} {' '.join(generator.choices(WORDS, k=9))}\n"
        lines.append(line)
        length += len(line)
    path.write_text("".join(lines))
    return path


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Some directories of text files."""
    root = tmp_path / "tree"
    for number in range(40):
        directory = root / f"part{number % 5}" / f"chapter{number % 7}"
        directory.mkdir(parents=True, exist_ok=True)
        text_file(directory / f"page{number}.txt", 3000, number)
    (root / "part0" / "link").symlink_to("chapter0")
    return root


# -- files and text -------------------------------------------------------------------------------


def test_ls_of_all_headers() -> None:
    recording = same_outcome(["ls", "-lR", "/usr/include"])
    assert recording.stdout.count("\n") > 500
    assert "stdio.h" in recording.stdout
    # Directories are stored as far as the kernel wrote them, not as far as a buffer could reach.
    assert recording.trace.stat().st_size < 100 * recording.stdout.count("\n") + 500_000


def test_grep_recursive(tree: Path) -> None:
    recording = same_outcome(["grep", "-rn", "lazy night", tree])
    assert recording.returncode == 0
    assert "page" in recording.stdout


def test_grep_that_finds_nothing(tree: Path) -> None:
    assert same_outcome(["grep", "-r", "zebra", tree]).returncode == 1


def test_find(tree: Path) -> None:
    recording = same_outcome(
        ["find", tree, "-name", "*.txt", "-size", "+2", "-printf", "%p %s %y %m\n"]
    )
    assert recording.stdout.count("\n") == 40


def test_sort_5_megabytes(tmp_path: Path) -> None:
    source = text_file(tmp_path / "unsorted", 5 << 20, 1)
    target = tmp_path / "sorted"
    recording = record_and_verify(
        ["sort", "--parallel=1", "-S", "2M", "-T", tmp_path, "-o", target, source]
    )
    assert recording.returncode == 0, recording
    # LC_ALL=C.UTF-8 collates by code point, as Python does.
    assert target.read_text().splitlines() == sorted(source.read_text().splitlines())


def test_tar_round_trip(tree: Path, tmp_path: Path) -> None:
    archive, back = tmp_path / "tree.tar", tmp_path / "back"
    back.mkdir()
    created = record_and_verify(["tar", "-cf", archive, "-C", tree, "."])
    assert created.returncode == 0, created
    extracted = record_and_verify(["tar", "-xf", archive, "-C", back])
    assert extracted.returncode == 0, extracted
    assert (back / "part0" / "link").is_symlink()
    for page in tree.rglob("*.txt"):
        assert (back / page.relative_to(tree)).read_bytes() == page.read_bytes()


@pytest.mark.parametrize(
    ("name", "suffix", "decompress"),
    [
        ("bzip2", ".bz2", bz2.decompress),
        ("gzip", ".gz", gzip.decompress),
        ("xz", ".xz", lzma.decompress),
    ],
)
def test_compressor_round_trip(
    name: str, suffix: str, decompress: Callable[[bytes], bytes], tmp_path: Path
) -> None:
    content = text_file(tmp_path / "text", 300_000, 2).read_bytes()
    options = ["-T1"] if name == "xz" else []
    packed = record_and_verify([name, *options, tmp_path / "text"])
    assert packed.returncode == 0, packed
    archive = tmp_path / f"text{suffix}"
    assert decompress(archive.read_bytes()) == content
    unpacked = record_and_verify([name, *options, "-d", archive])
    assert unpacked.returncode == 0, unpacked
    assert (tmp_path / "text").read_bytes() == content
    assert not archive.exists()


def test_gawk_sums_columns(tmp_path: Path) -> None:
    source = text_file(tmp_path / "numbers", 200_000, 3)
    recording = same_outcome(
        [
            "gawk",
            "{ sum += $1; words[$2]++ } END { print sum; for (w in words) print w, words[w] }",
            str(source),
        ]
    )
    expected = sum(int(line.split()[0]) for line in source.read_text().splitlines())
    assert int(recording.stdout.split()[0]) == expected


def test_awk_of_the_system(tmp_path: Path) -> None:
    source = text_file(tmp_path / "numbers", 20_000, 4)
    same_outcome([program("awk"), "length($0) > 60 { n++ } END { print n, NR }", source])


def test_sed_in_place(tmp_path: Path) -> None:
    source = text_file(tmp_path / "text", 50_000, 5)
    before = source.read_text()
    recording = record_and_verify(["sed", "-i", r"s/\(quick\) \(brown\)/\2 \1/g", source])
    assert recording.returncode == 0, recording
    assert source.read_text() == before.replace("quick brown", "brown quick")
    assert list(tmp_path.glob("sed*")) == []


# -- interpreters ---------------------------------------------------------------------------------

JSON_SCRIPT = """
import json, collections, re
def item(i):
    return {"n": i, "squares": [j * j for j in range(i % 7)], "text": "é" * (i % 5)}
data = [item(i) for i in range(500)]
text = json.dumps(data, sort_keys=True)
back = json.loads(text)
assert back == data
print(len(text), collections.Counter(len(item["squares"]) for item in back).most_common(3))
print(re.sub(r"[0-9]+", "#", text)[:80])
"""

SQLITE_SCRIPT = """
import sqlite3, sys
database = sqlite3.connect(sys.argv[1])
database.execute("create table t (n integer primary key, text)")
with database:
    database.executemany("insert into t values (?, ?)", ((i, "x" * (i % 50)) for i in range(2000)))
print(database.execute("select count(*), sum(length(text)) from t").fetchone())
database.close()
"""

OUTSIDE_SCRIPT = """
import os, random, time, uuid
print(os.urandom(8).hex(), random.random(), uuid.uuid4())
print(time.time(), time.monotonic(), time.perf_counter_ns(), os.getpid(), hash("hash seed"))
time.sleep(0.01)
"""

EXCEPTION_SCRIPT = """
import traceback
def fails(depth):
    values = list(range(depth))
    if depth == 3:
        return values[7]
    return fails(depth + 1)
try:
    fails(0)
except IndexError:
    traceback.print_exc()
print({}["missing"])
"""


def script(tmp_path: Path, text: str) -> list[str | Path]:
    """The command that runs a Python script by the Python of these tests, without site."""
    path = tmp_path / "script.py"
    path.write_text(text)
    return [sys.executable, "-I", "-S", path]


def test_python_json(tmp_path: Path) -> None:
    recording = same_outcome(script(tmp_path, JSON_SCRIPT))
    assert recording.returncode == 0, recording


def test_python_sqlite3_on_a_file(tmp_path: Path) -> None:
    database = tmp_path / "data.db"
    recording = record_and_verify([*script(tmp_path, SQLITE_SCRIPT), database])
    assert recording.stdout == "(2000, 49000)\n", recording
    count = subprocess.run(
        ["sqlite3", database, "select count(*) from t"], capture_output=True, text=True
    )
    assert count.stdout == "2000\n"


def test_python_random_and_time(tmp_path: Path) -> None:
    argv = script(tmp_path, OUTSIDE_SCRIPT)
    recording = record_and_verify(argv)
    assert recording.returncode == 0, recording
    assert re.match(r"[0-9a-f]{16} 0\.\d+ [-0-9a-f]{36}\n", recording.stdout)
    # Two recordings differ, so that a faithful replay of each is worth something.
    assert record_and_verify(argv).stdout != recording.stdout


def test_python_exception(tmp_path: Path) -> None:
    # The traceback on stderr is the program's own, so `record_and_verify` would not like it.
    recording = record(script(tmp_path, EXCEPTION_SCRIPT))
    assert_faithful(recording.trace)
    assert recording.returncode == 1
    assert "IndexError: list index out of range" in recording.stderr
    assert "KeyError: 'missing'" in recording.stderr


def test_perl(tmp_path: Path) -> None:
    source = text_file(tmp_path / "text", 100_000, 6)
    code = (
        "while (<>) { $count{$_}++ for split } "
        'print map { "$_ $count{$_}\\n" } grep { /^[a-z]/ } sort keys %count'
    )
    recording = same_outcome(["perl", "-e", code, source])
    assert recording.stdout.startswith("a ")
    assert len(recording.stdout.splitlines()) == len(set(WORDS))


def test_perl_random_and_time() -> None:
    recording = record_and_verify(["perl", "-e", "print rand(), ' ', time, ' ', $$, \"\\n\""])
    assert re.match(r"0\.\d+ \d{10} \d+\n", recording.stdout), recording


def test_bash_without_forks(tmp_path: Path) -> None:
    code = """
        declare -A seen
        while read -r number first rest; do (( seen[$first]++, total += 10#$number )); done < "$1"
        printf '%s\\n' "$total" "${#seen[@]}" "${BASH_VERSION:0:1}"
        for f in "${1%/*}"/*; do [[ -f $f ]] && echo "${f##*/}"; done
        trap 'echo trapped' USR1; kill -USR1 $$
        echo done > "${1%/*}/written"
        exit 17
    """
    source = text_file(tmp_path / "text", 20_000, 7)
    recording = record_and_verify(
        ["bash", "--norc", "--noprofile", "-c", code, "bash", source], cwd=tmp_path
    )
    assert recording.returncode == 17, recording
    assert recording.stdout.splitlines()[-1] == "trapped"
    assert (tmp_path / "written").read_text() == "done\n"


def test_busybox_is_static_and_recorded(tree: Path, tmp_path: Path) -> None:
    busybox = program("busybox")
    assert b"INTERP" not in subprocess.run(["readelf", "-lW", busybox], capture_output=True).stdout
    recording = same_outcome([busybox, "ls", "-lR", tree])
    assert "page39.txt" in recording.stdout
    digest = same_outcome([busybox, "sha256sum", tree / "part0" / "chapter0" / "page0.txt"])
    expected = hashlib.sha256((tree / "part0" / "chapter0" / "page0.txt").read_bytes()).hexdigest()
    assert digest.stdout.split()[0] == expected


# -- databases, version control, cryptography, a compiler -----------------------------------------


def test_sqlite3_20000_inserts(tmp_path: Path) -> None:
    database = tmp_path / "data.db"
    statements = ["create table t (n integer primary key, word text);", "begin;"]
    statements += [f"insert into t values ({i}, '{WORDS[i % 15]}');" for i in range(20_000)]
    statements += ["commit;", "create index i on t (word);"]
    statements += ["select word, count(*), sum(n) from t group by word order by word limit 2;"]
    recording = record_and_verify(
        ["sqlite3", "-batch", "-init", "/dev/null", database], stdin="\n".join(statements)
    )
    assert recording.returncode == 0, recording
    expected = sorted(
        (word, sum(1 for i in range(20_000) if i % 15 == at), sum(range(at, 20_000, 15)))
        for at, word in enumerate(WORDS[:15])
    )
    assert recording.stdout == "".join("|".join(map(str, row)) + "\n" for row in expected[:2])
    assert database.stat().st_size > 100_000


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository with three commits, a staged change and one that is not staged."""
    monkeypatch.setenv("GIT_CONFIG_NOSYSTEM", "1")
    monkeypatch.setenv("GIT_PAGER", "")
    for variable in ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE"):
        monkeypatch.delenv(variable, raising=False)
    for role in ("AUTHOR", "COMMITTER"):
        monkeypatch.setenv(f"GIT_{role}_NAME", "A Developer")
        monkeypatch.setenv(f"GIT_{role}_EMAIL", "developer@example.org")
        monkeypatch.setenv(f"GIT_{role}_DATE", "2024-05-06T07:08:09 +0000")
    # The index is read and refreshed by threads otherwise; nor may it be written by a status.
    Path(os.environ["HOME"], ".gitconfig").write_text(
        "[init]\ndefaultBranch = main\n[index]\nthreads = 1\n[core]\npreloadIndex = false\n"
        "[gc]\nauto = 0\n[advice]\nstatusHints = false\n"
    )
    root = tmp_path / "repository"
    root.mkdir()

    def git(*arguments: str) -> None:
        subprocess.run(["git", *arguments], cwd=root, check=True, capture_output=True)

    git("init")
    for number in range(3):
        for name in ("one", "two", "three"):
            text_file(root / name, 2000, number * 10 + len(name))
        git("add", ".")
        git("commit", "-m", f"Write version {number}")
    (root / "one").write_text("staged\n")
    git("add", "one")
    (root / "two").write_text("not staged\n")
    (root / "untracked").write_text("new\n")
    return root


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["log", "--stat", "-p"], "Write version 2"),
        (["status"], "untracked"),
        (["diff"], "+not staged"),
        (["diff", "--cached", "HEAD~1"], "+staged"),
    ],
    ids=lambda value: "-".join(value).replace("--", "") if isinstance(value, list) else "",
)
def test_git(repository: Path, arguments: list[str], expected: str) -> None:
    recording = same_outcome(["git", "--no-pager", "-C", repository, *arguments])
    assert recording.returncode == 0, recording
    assert expected in recording.stdout


def test_openssl_hashing(tmp_path: Path) -> None:
    source = text_file(tmp_path / "text", 200_000, 8)
    recording = same_outcome(["openssl", "dgst", "-sha256", source])
    assert recording.stdout.split()[-1] == hashlib.sha256(source.read_bytes()).hexdigest()


def test_openssl_random() -> None:
    first = record_and_verify(["openssl", "rand", "-hex", "24"])
    assert re.fullmatch(r"[0-9a-f]{48}\n", first.stdout), first
    assert record_and_verify(["openssl", "rand", "-hex", "24"]).stdout != first.stdout


def test_compiler_proper(tmp_path: Path) -> None:
    found = subprocess.run(["gcc", "-print-prog-name=cc1"], capture_output=True, text=True)
    cc1 = found.stdout.strip()
    assert Path(cc1).is_file(), f"gcc has no cc1: {cc1}"
    source = tmp_path / "program.c"
    source.write_text(
        "#include <stdio.h>\n#include <string.h>\n"
        "int main(int argc, char **argv)\n"
        '{ for (int i = 0; i < argc; i++) printf("%zu\\n", strlen(argv[i])); return 0; }\n'
    )
    target = tmp_path / "program.s"
    argv = [cc1, "-quiet", "-imultiarch", "x86_64-linux-gnu", "-O1", source, "-o", target]
    plain = run(argv)
    assert plain.returncode == 0, plain
    expected = target.read_bytes()
    target.unlink()
    recording = record_and_verify(argv)
    assert recording.returncode == 0, recording
    assert target.read_bytes() == expected
    assert b"main:" in expected


# -- the shapes of C programs ---------------------------------------------------------------------

DETERMINISTIC = [
    "deep", "deep-static", "deep-O2", "deep-nopie", "dlopen_user", "efault", "execs", "handlers",
    "handlers-static", "mmap_coherent", "mmap_file", "mmap_file-static", "nopie", "sockets",
    "sync_signals", "sync_signals-O2", "sync_signals-static", "watch_me",
    "xattr_misc",
]  # fmt: skip


@pytest.mark.parametrize("name", DETERMINISTIC)
def test_fixture_with_a_fixed_outcome(name: str, fixture_program: Callable[[str], Path]) -> None:
    recording = same_outcome([fixture_program(name)])
    assert recording.returncode == 0, recording


OUTSIDE_DECIDES = [
    "getrandom_user", "spin_tsc", "static_hello", "time_all_ways", "time_all_ways-O2",
    "time_all_ways-nopie", "time_all_ways-static",
]  # fmt: skip


@pytest.mark.parametrize("name", OUTSIDE_DECIDES)
def test_fixture_that_the_outside_decides(
    name: str, fixture_program: Callable[[str], Path]
) -> None:
    first = record_and_verify([fixture_program(name)])
    second = record_and_verify([fixture_program(name)])
    assert first.returncode == second.returncode == 0, first
    assert first.stdout != second.stdout


@pytest.mark.parametrize("name", ["nolibc", "nolibc-O2"])
def test_program_without_libc(name: str, fixture_program: Callable[[str], Path]) -> None:
    recording = record_and_verify([fixture_program(name), "x", "y"])
    assert recording.returncode == 7, recording
    assert re.fullmatch(r"argc 3 random [0-9a-f]{16}\n", recording.stdout)


def test_standard_input_is_recorded(fixture_program: Callable[[str], Path]) -> None:
    text = "".join(f"line {number} of many\n" for number in range(5000))
    recording = same_outcome([fixture_program("reads_stdin")], stdin=text)
    assert "5000 lines" in recording.stdout


@pytest.mark.parametrize("source", ["/dev/zero", "/dev/urandom"])
def test_read_of_64_megabytes(source: str, fixture_program: Callable[[str], Path]) -> None:
    recording = record_and_verify([fixture_program("big_read"), source])
    assert recording.returncode == 0, recording
    assert recording.stdout.startswith("67108864 bytes, sum ")
    assert (recording.stdout.split()[-1] == "0") == (source == "/dev/zero")


def test_100000_system_calls(fixture_program: Callable[[str], Path]) -> None:
    recording = record_and_verify([fixture_program("many_calls"), "100000"])
    assert recording.returncode == 0, recording
    assert recording.stdout.startswith("100000 calls, checksum ")


def test_arguments_and_environment_arrive(fixture_program: Callable[[str], Path]) -> None:
    arguments = ["", "two words", "--checksum", "-o", "nötig"]
    recording = record_and_verify([fixture_program("env_args"), *arguments])
    plain = run([fixture_program("env_args"), *arguments])
    environment = [line for line in plain.stdout.splitlines() if line.startswith(("argv", "env"))]
    assert [
        line for line in recording.stdout.splitlines() if line.startswith(("argv", "env"))
    ] == environment
