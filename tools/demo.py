# SPDX-License-Identifier: GPL-2.0-or-later
"""`make demo`: catch a crash that comes only sometimes, and debug that one run.

Records fixtures/flaky.c until it crashes, replays the crash in three GDBs, checks that all three
see the same values, and goes back to the system call whose failure began it all.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NoReturn

ROOT = Path(__file__).resolve().parent.parent
BIN = Path(sys.executable).parent
FIXTURES = ROOT / "fixtures"
PROGRAM = FIXTURES / "build" / "flaky"
CONFIG = "flaky.conf"  # the program's price list, which does not exist

TRIES = 60  # three in four runs end well: all of these do once in 30 million times
REPLAYS = 3
CRASHED = 128 + signal.SIGSEGV

# What GDB says about itself, not about the program.
_NOISE = re.compile(
    r"^(\[Thread debugging using|Using host libthread_db|Program stopped\.$|0x\S+ in _start \(\)$)"
)


def main() -> int:
    """Run the demonstration; 1 when something is not as it should be."""
    subprocess.run(
        ["make", "--silent", "--no-print-directory", "-C", str(FIXTURES), "build/flaky"],
        check=True,
        # This runs below another make, whose job server is not ours.
        env={key: value for key, value in os.environ.items() if key != "MAKEFLAGS"},
    )
    folder = Path(tempfile.mkdtemp(prefix="sysrift-demo-"))
    try:
        trace, customer = record_until_it_crashes(folder)
        replay_the_crash(trace, customer)
        go_back_to_the_cause(trace)
    finally:
        shutil.rmtree(folder)
    heading("That was it")
    say("To do the same at a prompt, repeat the first of these until it crashes:")
    say("  .venv/bin/sysrift-record fixtures/build/flaky")
    say("  .venv/bin/sysrift-replay")
    return 0


def record_until_it_crashes(folder: Path) -> tuple[Path, str]:
    """Record run after run; returns the crashed one's trace and what it printed."""
    heading("1. Record a program that crashes only sometimes")
    say("fixtures/flaky.c depends on the time, its process id, the kernel's random numbers, and a")
    say("file that is not there. It is recorded until one run of it crashes:")
    say("")
    for number in range(1, TRIES + 1):
        trace = folder / f"run-{number}.srl"
        done = run([BIN / "sysrift-record", "-q", "-o", trace, "--", PROGRAM], folder)
        printed = ", ".join(done.stdout.split("\n")).strip(", ")
        if done.returncode not in (0, CRASHED):
            fail(f"sysrift-record ended with status {done.returncode}: {done.stderr.strip()}")
        if done.returncode == CRASHED:
            say(f"  run {number:<3} {printed}, and then a SIGSEGV")
            size = trace.stat().st_size
            say("")
            say(f"That run is kept now, in {size / 1000:.0f} kB, as often as one wants.")
            return trace, printed
        say(f"  run {number:<3} {printed}")
        trace.unlink()
    fail(f"none of {TRIES} runs crashed, which is next to impossible")


def replay_the_crash(trace: Path, customer: str) -> None:
    """Replay the crash in several GDBs and compare all that they print."""
    heading(f"2. Replay that crash in GDB, {REPLAYS} times")
    commands = [
        "continue",
        "backtrace",
        "info locals",
        "print *customer",
        "print config",
        "frame function checkout",
        "info locals",
    ]
    outputs = [gdb(trace, commands) for _ in range(REPLAYS)]
    show(outputs[0])
    for number, output in enumerate(outputs[1:], 2):
        if output != outputs[0]:
            show(output)
            fail(f"replay {number} shows something else than replay 1")
    text = outputs[0]
    for needed in ("signal SIGSEGV", "discount_for (", "price_of (", "checkout (", "main ("):
        if needed not in text:
            fail(f"the replay does not show {needed!r}")
    recorded = re.search(r"customer ([0-9a-f]{16})", customer)
    shown = re.search(r"\{id = (\d+),", text)
    if recorded is None or shown is None or int(recorded[1], 16) != int(shown[1]):
        fail(f"the replay shows another customer than the recorded one ({customer})")
    say("")
    say(f"The other {REPLAYS - 1} replays, each in a GDB of its own, printed the same to the")
    say("letter, and the customer is the recorded one: drawn from a time, a process id and random")
    say("numbers that no other run will ever get again.")


def go_back_to_the_cause(trace: Path) -> None:
    """Go to the failing open of the price list, and look around there."""
    heading("3. Go back to the system call that failed")
    event = failing_open(trace)
    say("config is NULL at the crash. Which system calls had failed until then?")
    say("")
    say("$ sysrift dump --failed")
    dump = run([BIN / "sysrift", "dump", "--failed", trace], trace.parent, NO_COLOR="1")
    say(dump.stdout.rstrip())
    say("")
    say(f"Event {event} is the price list's. So back to there, to the very moment before it:")
    output = gdb(
        trace,
        [
            f"sysrift-goto {event}",
            "sysrift-when",
            "backtrace",
            "frame function load_config",
            "info args",
            "info locals",
            "finish",
        ],
    )
    show(output[max(output.find("(gdb) "), 0) :])  # the introduction is known by now
    for needed in ("load_config (path=", "the cause", CONFIG, f"before event {event} of"):
        if needed not in output:
            fail(f"at event {event} GDB does not show {needed!r}")
    if not re.search(r"Value returned is .* 0x0$", output, re.MULTILINE):
        fail("load_config does not return NULL in the replay")
    say("")
    say("load_config() returns NULL for a file that is missing, and main() does not look.")


def failing_open(trace: Path) -> int:
    """The number of the event in which the price list could not be opened."""
    done = run([BIN / "sysrift", "dump", "--json", "--failed", trace], trace.parent)
    if done.returncode != 0:
        fail(f"sysrift dump ended with status {done.returncode}: {done.stderr.strip()}")
    for line in done.stdout.splitlines():
        event = json.loads(line)
        if CONFIG in event.get("call", "") and event.get("errno") == "ENOENT":
            return int(event["number"])
    fail(f"no event of the trace is a failing open of {CONFIG}")


# -- running and printing -------------------------------------------------------------------------


def run(argv: list[str | Path], folder: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run a command in `folder` with nothing on its stdin."""
    return subprocess.run(
        [str(part) for part in argv],
        cwd=folder,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        timeout=120,
        check=False,
        # No debuginfod: GDB would go to the network for it.
        env={**os.environ, "DEBUGINFOD_URLS": "", **variables},
    )


def gdb(trace: Path, commands: list[str]) -> str:
    """Replay the trace in a GDB under these commands; each shows in the output as if typed."""
    words: list[str | Path] = [BIN / "sysrift-replay", trace, "--", "-nx", "-batch"]
    words += ["-ex", "set width 0"]
    for command in commands:
        words += ["-ex", f"echo (gdb) {command}\\n", "-ex", command]
    try:
        done = run(words, trace.parent)
    except subprocess.TimeoutExpired:
        fail("GDB did not end by itself within two minutes")
    lines = done.stdout.splitlines()
    # A message that GDB gave up with, but none of its warnings about missing sources.
    problems = [
        line for line in done.stderr.splitlines() if "No such file or directory" not in line
    ]
    kept = [line for line in [*lines, *problems] if not _NOISE.match(line)]
    return re.sub(r"\n{2,}", "\n", "\n".join(kept)).strip()


def show(text: str) -> None:
    """GDB's text, set apart by a margin."""
    say("")
    for line in text.splitlines():
        say(f"  {bold(line) if line.startswith('(gdb) ') else line}")


def bold(text: str) -> str:
    """Bold on a terminal that can and may."""
    plain = not sys.stdout.isatty() or os.environ.get("NO_COLOR")
    return text if plain or os.environ.get("TERM", "dumb") == "dumb" else f"\x1b[1m{text}\x1b[0m"


def heading(text: str) -> None:
    """A heading."""
    say(f"\n{bold(text)}\n{'-' * len(text)}")


def say(text: str) -> None:
    """A line, at once: the steps take a while."""
    print(text, flush=True)


def fail(text: str) -> NoReturn:
    """End the demonstration: it does not work."""
    sys.stdout.flush()
    print(f"demo: {text}", file=sys.stderr)
    raise SystemExit(1)


if __name__ == "__main__":
    sys.exit(main())
