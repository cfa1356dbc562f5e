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

    In `argv`, `{here}` is the directory of its material, where it runs, `{fast}` one in memory,
    """

    name: str
    argv: tuple[str, ...]
    make: Callable[[Path], None] = material.nothing
    where: str = "."  # in {here}
    count: int = 0  # what {count} is; less of it for what takes too long by far
    made: tuple[str, ...] = ()  # what it leaves behind: removed before each run
    repeat: int = 1  # one sample is so many runs, one after the other
    kind: str = "single"  # or "tree" (of processes), "loop" (synthetic), "server"
    execs: int = 0  # programs that it starts
    most_a_call: float = 12  # bytes of trace beside payload: the goal

    def missing(self) -> str:
        """The program that this machine lacks, if any."""
        program = self.argv[0]
        return "" if program.startswith("{") or which(program) else program

    def words(self, fraction: float, **places: Path) -> list[str]:
        """The command to run, that does a fraction of the whole."""
        count = max(1, round(self.count * fraction))
        words: list[str] = []
        for word in self.argv:
            if word == "{trees}":
                words += ["tree"] * count
            elif word.startswith("{") or word.endswith("{count}"):
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


_WORDS = (
    "for (split) { $n{$_}++ if /^[a-z]+$/ } $x += $1 if /(\\d+)$/;"
    ' END { print "$_ $n{$_}\\n" for sort keys %n; print "$x\\n" }'
)
_SALT = "0102030405060708"
ROWS = (
    Row("getppid", ("{built}/getppid_loop", "{count}"), count=3_200_000, kind="loop", most_a_call=1),
    Row("clock_gettime", ("{built}/clock_loop", "{count}"), count=22_000_000, kind="loop"),
    Row("grep -r", ("grep", "-rc", "signal", "{trees}"), material.large_tree, count=4),
    Row("find", ("find", "{trees}", "-size", "+100M"), material.large_tree, count=15),
    Row("du", ("du", "-sl", "{trees}"), material.large_tree, count=15),
    Row("cp -r", ("cp", "-r", "tree", "{fast}/copy"), material.large_tree, made=("{fast}/copy",)),
    Row("dd bs=64k", ("dd", "if=/dev/zero", "of=/dev/null", "bs=64k", "count={count}"), count=400_000),
    Row("sqlite3, bulk insert", ("sqlite3", "bulk.db", ".read bulk.sql"), material.statements,
        made=("bulk.db", "bulk.db-journal")),
    Row("sqlite3, 1000 commits", ("sqlite3", "commits.db", ".read commits.sql"),
        material.statements, made=("commits.db", "commits.db-journal")),
    Row("python3, json", (_python(), "-I", "work.py"), material.documents),
    Row("perl, words", ("perl", "-ne", _WORDS, "text"), material.text),
    Row("git log -p", ("git", "--no-pager", "log", "-p"), material.repository, "repository"),
    Row("git status", ("git", "status"), material.repository, "repository", repeat=12),
    Row("gcc -O1 -c", ("gcc", "-O1", "-c", "long.c"), material.long_source, kind="tree", execs=3, repeat=2),
    Row("make, 30 files", ("make",), material.project, "project",
        made=("program", *(f"part{n}.o" for n in range(30))), kind="tree", execs=95),
    Row("bash, 200 /bin/true", ("bash", "-c", "for ((i=0; i<200; i++)); do /bin/true; done"),
        kind="tree", execs=201, repeat=4),
    Row("bzip2, 20 MB", ("bzip2", "-kf", "text"), material.text),
    Row("openssl pbkdf2", ("openssl", "enc", "-aes-256-cbc", "-pbkdf2", "-iter", "1200000", "-S",
        _SALT, "-k", "pw", "-in", "/dev/null", "-out", "/dev/null")),
    Row("nginx, 20,000 requests", ("nginx", "-e", "error.log", "-c", "{here}/nginx.conf"),
        material.site, made=("access.log",), count=20_000, kind="server"),
)  # fmt: skip
