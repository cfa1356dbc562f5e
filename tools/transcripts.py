# SPDX-License-Identifier: GPL-2.0-or-later
"""The transcripts in the documentation, made by really running the commands.

    python tools/transcripts.py           rewrite them, and the picture docs/crash.svg
    python tools/transcripts.py --check   say which of them are not true any more

A transcript is a marked block of a page: the line `<!-- transcript: NAME -->`, then a block fenced
with ```console. Process ids, times, addresses, random numbers and sizes in it are those of the run
that wrote it; directories, the machine's name and its processor are replaced, and GDB finds no
debugging information of the C library, as on most machines.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BIN = Path(sys.executable).parent
BUILT = ROOT / "fixtures" / "build"
PICTURE = ROOT / "docs" / "crash.svg"

BLOCK = re.compile(
    r"(<!-- transcript: (?P<name>[\w-]+) -->\n```console\n)(?P<text>.*?)(^```$)", re.S | re.M
)
"""A transcript in a page."""

_HOME = "/home/you"
_TIMEOUT = 120
_TRIES = 200
_CRASHED = 139
"""128 + SIGSEGV: the exit status of a recording of flaky that is worth showing."""

_PROCESSOR = re.compile(r"(processor:?[ ]+)\S.*? \(\S* family [^)]*\)")
"""A processor's model, as /proc/cpuinfo names it, in a table."""

_GDBINIT = """\
set debug-file-directory /nonexistent
set style enabled off
set confirm off
set width 0
"""


class Workshop:
    """A home directory in which commands are run as a user would, and their output."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.place = home / "till"
        self.place.mkdir(parents=True)
        config = home / ".config" / "gdb"
        config.mkdir(parents=True)
        (home / ".gdbinit").write_text(_GDBINIT)
        for name in ("flaky", "ends_return42", "threads", "forks"):
            shutil.copy2(BUILT / name, self.place / name)
        self._environment = {
            "HOME": str(home),
            "PATH": f"{BIN}{os.pathsep}{os.environ.get('PATH', os.defpath)}",
            "LC_ALL": "C.UTF-8",
            "TZ": "UTC",
            "NO_COLOR": "1",
            "TERM": "dumb",
            "TMPDIR": str(home),
        }

    def _run(self, argv: list[str]) -> tuple[int, str]:
        done = subprocess.run(
            argv,
            cwd=self.place,
            env=self._environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=_TIMEOUT,
        )
        return done.returncode, self._anonymous(done.stdout.decode(errors="replace"))

    def _anonymous(self, text: str) -> str:
        """What a command printed, without what only this machine has."""
        text = text.replace(str(self.home), _HOME).replace(str(ROOT), f"{_HOME}/sysrift")
        text = re.sub(rf"\b{re.escape(os.uname().release)}\b", "6.1.0", text)
        text = re.sub(rf"\b{re.escape(os.uname().nodename)}\b", "laptop", text)
        return _PROCESSOR.sub(r"\1Example CPU (GenuineIntel family 6 model 1 stepping 1)", text)

    def shell(self, line: str) -> str:
        """A command line and what it printed."""
        return f"$ {line}\n{self._run(['bash', '-c', line])[1]}"

    def crash(self) -> str:
        """Record flaky until it crashes; the last recording alone, as the first one of its store.

        The store directory holds that trace only, and it is the latest one.
        """
        for _ in range(_TRIES):
            shutil.rmtree(self.home / ".local", ignore_errors=True)
            status, text = self._run(["sysrift-record", "./flaky"])
            if status == _CRASHED:
                return f"$ sysrift-record ./flaky\n{text}"
            if status:
                raise SystemExit(f"sysrift-record ./flaky ended with status {status}:\n{text}")
        raise SystemExit(f"flaky did not crash once in {_TRIES} recordings")

    def cause(self) -> int:
        """The number of the event that everything follows from: flaky.conf cannot be opened."""
        _, text = self._run(["sysrift", "dump", "--json", "--failed", "--name", "openat"])
        for line in text.splitlines():
            event = json.loads(line)
            if "flaky.conf" in event.get("call", ""):
                number: int = event["number"]
                return number
        raise SystemExit(f"no failed open of flaky.conf in the trace:\n{text}")

    def gdb(self, *commands: str) -> str:
        """`sysrift-replay` on the latest trace, and these commands in its GDB."""
        words = ["sysrift-replay", "--", "-batch"]
        for command in commands:
            # In batch mode there is no prompt, and the command is not shown.
            words += ["-ex", f"echo (gdb) {command}\\n", "-ex", command]
        status, text = self._run(words)
        if not text:
            raise SystemExit(f"{shlex.join(words)} printed nothing (status {status})")
        # The kill at GDB's end is batch mode's own.
        return f"$ sysrift-replay\n{text.rstrip()}\n(gdb) quit\n"


@dataclass(frozen=True)
class Transcript:
    """How a transcript is made, and whether another machine gives the same one."""

    make: Callable[[Workshop], str]
    compared: bool = True


def _crash(shop: Workshop) -> str:
    recorded = shop.crash()
    cause = shop.cause()
    return recorded + shop.gdb(
        "continue",
        "bt",
        "sysrift-events --failed",
        f"sysrift-goto {cause}",
        "bt",
        "finish",
        "next",
        "info locals",
    )


def _after_crash(*lines: str) -> Callable[[Workshop], str]:
    def make(shop: Workshop) -> str:
        shop.crash()
        return "".join(shop.shell(line) for line in lines)

    return make


def _inside(shop: Workshop) -> str:
    shop.crash()
    cause = shop.cause()
    return shop.gdb(
        f"sysrift-goto {cause}",
        "sysrift-when",
        f"sysrift-events {cause}-{cause + 2}",
        "catch syscall getpid",
        "continue",
        "sysrift-when",
        "sysrift-goto end",
        "sysrift-when",
    )


def _shell(*lines: str) -> Callable[[Workshop], str]:
    return lambda shop: "".join(shop.shell(line) for line in lines)


TRANSCRIPTS = {
    "crash": Transcript(_crash),
    "inside-gdb": Transcript(_inside),
    "record": Transcript(_shell("sysrift-record ./ends_return42; echo status $?")),
    "record-threads": Transcript(_shell("sysrift-record -q ./threads")),
    "verify": Transcript(
        _shell("sysrift-record -q --checksum=10 ./ends_return42", "sysrift verify; echo status $?")
    ),
    "replay": Transcript(
        _after_crash("sysrift-replay -- -batch -ex continue -ex bt -ex 'print *customer'")
    ),
    "dump": Transcript(_after_crash("sysrift dump --failed", "sysrift dump --name getpid,SIGSEGV")),
    "dump-json": Transcript(_after_crash("sysrift dump --json --name getpid | head -1")),
    "info": Transcript(_after_crash("sysrift info"), compared=False),
    "ps": Transcript(_shell("sysrift-record -q ./forks; sysrift ps")),
    "ls": Transcript(_after_crash("sysrift-record -q ./ends_return42; sysrift ls")),
    "doctor": Transcript(_shell("sysrift doctor"), compared=False),
    "gdb-script": Transcript(_shell("sysrift gdb-script")),
}


@contextmanager
def workshop() -> Iterator[Workshop]:
    """A fresh workshop; gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="sysrift-docs-") as directory:
        yield Workshop(Path(directory).resolve() / "you")


def made(name: str) -> str:
    """Run what a transcript shows and return it."""
    with workshop() as shop:
        text = TRANSCRIPTS[name].make(shop)
    return "".join(line.rstrip() + "\n" for line in text.strip().splitlines())


# -- comparing ------------------------------------------------------------------------------------

_ELSEWHERE = re.compile(
    r"libthread_db|ld-linux|ld\.so|libc\.so|sysdeps|rseq\(|access\("
    r"|^\s*$|^Program stopped|_start \("
)
"""Lines that depend on the C library and on GDB's version."""

_MASKS = (
    (re.compile(r'"(?:[^"\\]|\\.)*\\(?:[^"\\]|\\.)*"'), '"BYTES"'),
    (re.compile(r"\b(Ada|Blaise|Charles|Dorothy)\b"), "NAME"),
    (re.compile(r"<shelf(\+\d+)?>"), "<shelf>"),
    (re.compile(r"\b0x[0-9a-f]+\b|\b[0-9a-f]{16}\b"), "HEX"),
    (re.compile(r"\d+(\.\d+)? (B|kB|MB)\b"), "SIZE"),
    (re.compile(r"\d+"), "N"),
    (re.compile(r'name = "NAME.*'), "name"),
    (re.compile(r"\s+"), " "),
)


def masked(text: str) -> list[str]:
    """The lines of a transcript with all that differs from run to run taken out."""
    lines = []
    for line in text.splitlines():
        if _ELSEWHERE.search(line):
            continue
        for pattern, replacement in _MASKS:
            line = pattern.sub(replacement, line)
        lines.append(line.strip())
    return lines


def pages() -> list[Path]:
    """The documentation's pages."""
    return [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def written() -> dict[str, tuple[Path, str]]:
    """Every transcript in the pages: its page and text, by its name."""
    found = {}
    for page in pages():
        for match in BLOCK.finditer(page.read_text()):
            found[match["name"]] = (page, match["text"])
    return found


# -- the picture ----------------------------------------------------------------------------------

_WIDTH = 118
_STYLES = (
    (re.compile(r"^(\$ )(.*)$"), ("bold green", "bold white")),
    (re.compile(r"^(\(gdb\) )(.*)$"), ("bold cyan", "bold white")),
    (re.compile(r"^(SysRift:)(.*)$"), ("bold magenta", "white")),
    (re.compile(r"^(sysrift:)(.*)$"), ("bold magenta", "white")),
    (re.compile(r"^(Program received signal )(.*)$"), ("bold red", "bold red")),
    (re.compile(r"^(=?>?\s+\d+\s+\d+\.\d+ )(.*)$"), ("dim", "yellow")),
    (re.compile(r"^(\d+\t)(.*)$"), ("blue", "bright_white")),
)


def picture(transcript: str) -> str:
    """The transcript as an SVG of a terminal."""
    from rich.console import Console
    from rich.text import Text

    console = Console(
        record=True, width=_WIDTH, file=io.StringIO(), force_terminal=True, color_system="truecolor"
    )
    for line in transcript.splitlines():
        if "libthread_db" in line or not line:
            continue
        styled = Text(line.expandtabs(8), no_wrap=True, overflow="ellipsis")
        for pattern, (first, second) in _STYLES:
            match = pattern.match(line)
            if match:
                styled = Text.assemble(
                    (match.group(1), first), (match.group(2), second),
                    no_wrap=True, overflow="ellipsis",
                )  # fmt: skip
                styled.expand_tabs(8)
                break
        console.print(styled)
    svg = console.export_svg(title="one crash, kept", unique_id="sysrift")
    # No fonts from the network: the reader's own will do.
    return re.sub(r"\s*@font-face \{.*?\}\n", "\n", svg, flags=re.S)


def main() -> int:
    """Rewrite the transcripts, or check them."""
    parser = argparse.ArgumentParser(description="the transcripts in the documentation")
    parser.add_argument("--check", action="store_true", help="compare, change nothing")
    parser.add_argument("names", nargs="*", help="only these transcripts")
    args = parser.parse_args()
    status = 0
    for page in pages():
        text = page.read_text()

        def renew(match: re.Match[str], page: Path = page) -> str:
            nonlocal status
            name = match["name"]
            if args.names and name not in args.names:
                return match[0]
            new = made(name)
            if args.check:
                if TRANSCRIPTS[name].compared and masked(new) != masked(match["text"]):
                    print(f"{page.relative_to(ROOT)}: {name} is not true any more")
                    status = 1
                return match[0]
            if name == "crash":
                PICTURE.write_text(picture(new))
            return f"{match[1]}{new}{match[4]}"

        renewed = BLOCK.sub(renew, text)
        if renewed != text:
            page.write_text(renewed)
            print(f"wrote {page.relative_to(ROOT)}")
    return status


if __name__ == "__main__":
    sys.exit(main())
