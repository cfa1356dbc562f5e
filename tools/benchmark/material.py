# SPDX-License-Identifier: GPL-2.0-or-later
"""What the benchmark's programs work on: made once in a directory, the same on every machine.

Each function takes a directory that it may fill, which is empty, and returns when all is there.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import socket
import subprocess
import zlib
from collections.abc import Callable
from pathlib import Path

_TEXT = (
    "record replay event signal memory image trace process kernel register page byte stack "
    "thread file socket pipe clock timer fault value result argument buffer length offset"
)
_WORDS = tuple(_TEXT.split(" "))
_GIT_FILES, _GIT_COMMITS = 2000, 250
PLAIN_GIT = {
    "GIT_CONFIG_GLOBAL": "/dev/null",
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_AUTHOR_NAME": "A. Author",
    "GIT_AUTHOR_EMAIL": "author@example.invalid",
    "GIT_COMMITTER_NAME": "A. Author",
    "GIT_COMMITTER_EMAIL": "author@example.invalid",
}


def nothing(folder: Path) -> None:
    """Nothing: the program needs no files."""


def clock_loop(folder: Path) -> None:
    """`clock_loop`, the program."""
    _compile("clock_loop", folder)


def _compile(name: str, folder: Path) -> None:
    source = Path(__file__).with_name(f"{name}.c")
    subprocess.run(["cc", "-O1", "-Wall", "-o", folder / name, source], check=True)


def text(folder: Path, size: int = 20 << 20) -> None:
    """`text`: 20 MiB of lines, some of which compress and some of which hardly do."""
    numbers = random.Random(1)
    with (folder / "text").open("w") as file:
        while file.tell() < size:
            words = " ".join(numbers.choices(_WORDS, k=6))
            file.write(f"{numbers.getrandbits(120):x} {words} {numbers.randrange(10**6)}\n")


def large_tree(folder: Path) -> None:
    """`tree`: 20,000 files of 2 to 6 kB in 500 directories."""
    numbers = random.Random(2)
    lines = [" ".join(numbers.choices(_WORDS, k=8)) + "\n" for _ in range(5000)]
    for directory in range(500):
        place = folder / "tree" / f"d{directory // 20}" / f"d{directory}"
        place.mkdir(parents=True)
        for number in range(40):
            chosen = numbers.choices(lines, k=numbers.randrange(40, 120))
            (place / f"f{number}.h").write_text("".join(chosen))


def documents(folder: Path) -> None:
    """`json`: 1,500 JSON files of about 4 kB, and `work.py`, which reads them all."""
    numbers = random.Random(3)
    place = folder / "json"
    place.mkdir()
    for number in range(1500):
        rows = [
            {"id": numbers.randrange(10**9), "tags": numbers.choices(_WORDS, k=3), "x": i / 7}
            for i in range(50)
        ]
        (place / f"{number}.json").write_text(json.dumps({"number": number, "rows": rows}))
    (folder / "work.py").write_text(
        "import argparse, collections, decimal, email, json, pathlib, re, tempfile\n"
        "import xml.dom.minidom\n"
        "totals = collections.Counter()\n"
        "kept = []\n"
        "for path in sorted(pathlib.Path('json').glob('*.json')):\n"
        "    document = json.loads(path.read_text())\n"
        "    for row in document['rows']:\n"
        "        totals.update(row['tags'])\n"
        "    kept.append(document)\n"
        "pathlib.Path('out.json').write_text(json.dumps(kept, indent=1))\n"
        "print(totals.most_common(3))\n"
    )


def statements(folder: Path) -> None:
    """`bulk.sql`: 140,000 rows in one transaction; `commits.sql`: 1,000 small transactions."""
    numbers = random.Random(4)
    head = "PRAGMA cache_size=200;\nCREATE TABLE t(id INTEGER PRIMARY KEY, name TEXT, n INTEGER);\n"
    with (folder / "bulk.sql").open("w") as file:
        file.write(head + "CREATE INDEX by_n ON t(n);\nBEGIN;\n")
        for _ in range(140_000):
            word, n = numbers.choice(_WORDS), numbers.randrange(10**9)
            file.write(f"INSERT INTO t(name, n) VALUES('{word} {n:x}', {n});\n")
        file.write("COMMIT;\nSELECT count(*), sum(n) FROM t;\n")
    with (folder / "commits.sql").open("w") as file:
        file.write(head)
        for _ in range(1000):
            word, n = numbers.choice(_WORDS), numbers.randrange(10**9)
            file.write(f"INSERT INTO t(name, n) VALUES('{word}', {n});\n")


def repository(folder: Path) -> None:
    """`repository`: a git repository of 2,000 files, 250 commits, and a change not committed."""
    place = folder / "repository"
    place.mkdir()
    numbers = random.Random(5)
    stream: list[str] = []
    for commit in range(_GIT_COMMITS):
        message = f"change {commit}\n"
        stream.append("commit refs/heads/main")
        stream.append(f"committer A. Author <author@example.invalid> {1700000000 + commit} +0000")
        stream.append(f"data {len(message)}\n{message}")
        for number in range(_GIT_FILES) if not commit else numbers.sample(range(_GIT_FILES), 60):
            lines = (" ".join(numbers.choices(_WORDS, k=6)) for _ in range(30))
            content = "\n".join(lines) + "\n"
            stream.append(f"M 100644 inline d{number % 50}/f{number}.txt")
            stream.append(f"data {len(content)}\n{content}")
    environment = {**os.environ, **PLAIN_GIT}

    def git(*words: str, given: str | None = None) -> None:
        subprocess.run(
            ["git", "-C", place, *words],
            input=given,
            text=True,
            check=True,
            capture_output=True,
            env=environment,
        )

    git("init", "-q", "-b", "main")
    # It would start threads, which are not recorded.
    git("config", "core.preloadIndex", "false")
    git("config", "gc.auto", "0")
    git("fast-import", "--quiet", given="\n".join(stream) + "\n")
    git("reset", "-q", "--hard")
    (place / "d1" / "f1.txt").write_text("changed\n")
    (place / "new.txt").write_text("not added\n")


def _function(numbers: random.Random, name: str) -> str:
    a, b, c = (numbers.randrange(3, 99) for _ in range(3))
    return (
        f"int {name}(int *values, int count)\n{{\n"
        f"    int total = {a};\n\n"
        "    for (int i = 0; i < count; i++) {\n"
        f"        if (values[i] % {b} == {c} % {b})\n"
        f"            total += values[i] * {a} - (total >> 3);\n"
        "        else\n"
        f"            total ^= values[i] + {c};\n"
        "    }\n"
        "    return total;\n}\n\n"
    )


def long_source(folder: Path) -> None:
    """`long.c`: 2,000 lines of C."""
    numbers = random.Random(6)
    parts = [
        "#include <stdio.h>\n#include <stdlib.h>\n#include <string.h>\n#include <unistd.h>\n\n"
    ]
    while sum(part.count("\n") for part in parts) < 2000:
        parts.append(_function(numbers, f"function_{len(parts)}"))
    (folder / "long.c").write_text("".join(parts))


def project(folder: Path) -> None:
    """`project`: 30 C files, a header and a Makefile."""
    numbers = random.Random(7)
    place = folder / "project"
    place.mkdir()
    names = [f"part{number}" for number in range(30)]
    declared = "".join(f"int {name}_work(int *values, int count);\n" for name in names)
    (place / "all.h").write_text(f"#include <stdio.h>\n#include <stdlib.h>\n{declared}")
    for name in names[1:]:
        body = "".join(_function(numbers, f"{name}_{part}") for part in ("a", "b", "work"))
        (place / f"{name}.c").write_text(f'#include "all.h"\n\n{body}')
    body = _function(numbers, f"{names[0]}_work")
    calls = "".join(f"    total += {name}_work(values, 4);\n" for name in names)
    (place / "part0.c").write_text(
        f'#include "all.h"\n\n{body}int main(void)\n{{\n'
        f'    int values[4] = {{1, 2, 3, 4}}, total = 0;\n\n{calls}    printf("%d\\n", total);\n'
        "    return 0;\n}\n"
    )
    objects = " ".join(f"{name}.o" for name in names)
    (place / "Makefile").write_text(
        f"CFLAGS = -O1\nprogram: {objects}\n\t$(CC) -o $@ $^\n"
        f"{objects}: all.h\nclean:\n\trm -f program *.o\n"
    )


def site(folder: Path) -> None:
    """`www`: a page of 4 kB; and `http_client`, the program. See `serve`."""
    _compile("http_client", folder)
    (folder / "www").mkdir()
    (folder / "www" / "index.html").write_text("<p>" + "hello " * 680 + "</p>\n")


_NGINX = """\
daemon off;
master_process off;
pid {here}/pid;
events {{ worker_connections 64; }}
http {{
    access_log {here}/access.log;
    keepalive_requests 10000000;
    client_body_temp_path {here}/body;
    proxy_temp_path {here}/proxy;
    fastcgi_temp_path {here}/fastcgi;
    uwsgi_temp_path {here}/uwsgi;
    scgi_temp_path {here}/scgi;
    server {{
        listen 127.0.0.1:{port};
        root {here}/www;
    }}
}}
"""


def serve(folder: Path) -> int:
    """Write the `nginx.conf` that serves a `site` on a port of the loopback; returns the port."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    (folder / "nginx.conf").write_text(_NGINX.format(here=folder, port=port))
    return port


def _crc() -> int:
    crc = 0
    for path in [*sorted(Path(__file__).parent.glob("*.c")), Path(__file__)]:
        crc = zlib.crc32(path.read_bytes(), crc)
    return crc


def prepared(make: Callable[[Path], None], parent: Path) -> Path:
    """The directory in `parent` with what `make` makes; made anew when this file has changed."""
    place = parent / make.__name__
    stamp = parent / f"{make.__name__}.made"
    version = f"{_crc():08x}\n"
    if not stamp.exists() or stamp.read_text() != version:
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir(parents=True)
        make(place)
        stamp.write_text(version)
    return place
