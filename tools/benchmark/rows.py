# SPDX-License-Identifier: GPL-2.0-or-later
"""The programs of the benchmark: one row of the table each."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tools.benchmark import material


@dataclass(frozen=True)
class Row:
    """A program to be measured.

    In `argv`, `{here}` is the directory of its material, `{built}` that of the fixtures and
    `{fast}` one in memory; `{count}` is how much it does, and `{trees}` so many names of one tree.
    """

    name: str
    argv: tuple[str, ...]
    make: Callable[[Path], None] = material.nothing
    where: str = "."  # where it runs, in {here}
    count: int = 0  # what {count} is; columns that take too long by far do a part of it
    made: tuple[str, ...] = ()  # what it leaves behind: removed before each run
    repeat: int = 1  # one sample is so many runs, one after the other
    kind: str = "single"  # process; or "tree" of processes, "loop" (synthetic)
    server: bool = False  # it answers {count} requests of a client, which says what that took
    execs: int = 0  # programs that it executes, itself included, for rows of kind "tree"
    most: float = 1.5  # program ratio: the goal
    most_a_call: float = 12  # bytes of the trace beside payload, a call: the goal
    stops_share: float = 1.0  # of {count}, by --no-agent, where every call is a stop
    strace_share: float = 1.0  # the same by strace
    note: str = ""  # what a reader of the table should know

    def missing(self) -> str:
        """The program that this machine lacks, or nothing."""
        program = self.argv[0]
        return "" if program.startswith("{") or which(program) else program

    def words(self, share: float, **places: Path) -> list[str]:
        """The command to run, which does a share of the whole."""
        count = max(1, round(self.count * share))
        words: list[str] = []
        for word in self.argv:
            if word == "{trees}":
                words += ["tree"] * count
            elif "{" in word and word.startswith(
                ("{built}", "{here}", "{fast}", "{count}", "count=")
            ):
                words.append(word.format(count=count, **places))
            else:
                words.append(word)
        words[0] = which(words[0]) or words[0]
        return words


def which(program: str) -> str | None:
    """Where a program is; Debian keeps servers where an ordinary user's PATH does not look."""
    return shutil.which(program, path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin")


def _python() -> str:
    """The system's Python, else this one (without a .venv or a wrapper script around it)."""
    system = Path("/usr/bin/python3")
    return str(system) if system.exists() else os.path.realpath(sys.executable)


_COUNTED = (
    "for (split) { $n{$_}++ if /^[a-z]+$/ } $x += $1 if /(\\d+)$/;"
    ' END { print "$_ $n{$_}\\n" for sort keys %n; print "$x\\n" }'
)
_BASH = "for ((i=0; i<200; i++)); do /bin/true; done"
_OPENSSL = (
    *("openssl", "enc", "-aes-256-cbc", "-pbkdf2", "-iter", "1200000", "-S", "0102030405060708"),
    *("-k", "pw", "-in", "/dev/null", "-out", "/dev/null"),
)

ROWS = (
    Row(
        "getppid, 2M",
        ("{built}/getppid_loop", "{count}"),
        count=2_000_000,
        kind="loop",
        most=1.6,
        most_a_call=1,
        stops_share=0.01,
        strace_share=0.02,
    ),
    Row(
        "clock_gettime, 4M",
        ("{here}/clock_loop", "{count}"),
        material.clock_loop,
        count=4_000_000,
        kind="loop",
        most=8,
        stops_share=0.005,
        note="native takes 0.1 s: recording 20M calls takes too long. strace sees no vDSO call",
    ),
    Row("grep -r", ("grep", "-rc", "signal", "{trees}"), material.large_tree, count=2),
    Row("find", ("find", "{trees}", "-size", "+100M"), material.large_tree, count=8),
    Row("du", ("du", "-sl", "{trees}"), material.large_tree, count=8),
    Row("cp -r", ("cp", "-r", "tree", "{fast}/copy"), material.large_tree, made=("{fast}/copy",)),
    Row(
        "dd bs=64k",
        ("dd", "if=/dev/zero", "of=/dev/null", "bs=64k", "count={count}"),
        count=16_384,
        note="1 GiB, as asked for, takes 0.1 s natively",
    ),
    Row(
        "sqlite3, bulk insert",
        ("sqlite3", "bulk.db", ".read bulk.sql"),
        material.statements,
        made=("bulk.db", "bulk.db-journal"),
    ),
    Row(
        "sqlite3, 1000 commits",
        ("sqlite3", "commits.db", ".read commits.sql"),
        material.statements,
        made=("commits.db", "commits.db-journal"),
    ),
    Row("python3, json", (_python(), "-I", "work.py"), material.documents),
    Row("perl, words", ("perl", "-ne", _COUNTED, "text"), material.text),
    Row("git log -p", ("git", "--no-pager", "log", "-p"), material.repository, "repository"),
    Row(
        "git status, 4 times",
        ("git", "status"),
        material.repository,
        "repository",
        repeat=4,
        note="each takes 0.01 s natively: what is seen is what recording costs at the least",
    ),
    Row(
        "gcc -O1 -c",
        ("gcc", "-O1", "-c", "long.c"),
        material.long_source,
        made=("long.o",),
        kind="tree",
        execs=3,
        most=2.5,
    ),
    Row(
        "make, 30 files",
        ("make",),
        material.project,
        "project",
        made=("program", *(f"part{number}.o" for number in range(30))),
        kind="tree",
        execs=95,
        most=2.5,
    ),
    Row(
        "bash, 200 /bin/true, twice",
        ("bash", "-c", _BASH),
        repeat=2,
        kind="tree",
        execs=201,
        most=2.5,
    ),
    Row("bzip2, 20 MB", ("bzip2", "-kf", "text"), material.text, made=("text.bz2",)),
    Row("openssl, pbkdf2", _OPENSSL),
    Row(
        "nginx, 20,000 requests",
        ("nginx", "-e", "error.log", "-c", "{here}/nginx.conf"),
        material.site,
        made=("access.log", "pid"),
        count=20_000,
        server=True,
    ),
)
