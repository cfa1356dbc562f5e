# PYTHON_ARGCOMPLETE_OK
# SPDX-License-Identifier: GPL-2.0-or-later
"""The entry points: find the command, run it, turn what it raises into a message and an exit code.

Exit codes: 0 done; 1 something is missing (`doctor`); 2 bad command line, unusable trace or
another failure; 3 a replay diverged (`verify`); 130 interrupted; 141 the reader of the output went
away. `record` ends with the recorded program's own status, or with 125 (SysRift failed), 126 or
127 (the program cannot be executed).
"""

from __future__ import annotations

import argparse
import importlib
import inspect
import io
import os
import sys
from collections.abc import Callable, Sequence
from typing import NamedTuple, NoReturn

import sysrift
from sysrift.cli.command import Command
from sysrift.errors import SysRiftError

INTERRUPTED = 130
BROKEN_PIPE = 141  # 128 + SIGPIPE, what a shell shows for a program that dies of it


class Entry(NamedTuple):
    """Where a command is, and what it ends with when SysRift itself is to blame."""

    module: str
    name: str
    failure: int = 2


COMMANDS = {
    "record": Entry("sysrift.cli.record", "RecordCommand", failure=125),
    "replay": Entry("sysrift.cli.replay", "ReplayCommand"),
    "verify": Entry("sysrift.cli.verify", "VerifyCommand"),
    "dump": Entry("sysrift.cli.dump", "DumpCommand"),
    "info": Entry("sysrift.cli.info", "InfoCommand"),
    "ps": Entry("sysrift.cli.ps", "PsCommand"),
    "ls": Entry("sysrift.cli.ls", "LsCommand"),
    "doctor": Entry("sysrift.cli.doctor", "DoctorCommand"),
    "gdb-script": Entry("sysrift.cli.gdb_script", "GdbScriptCommand"),
}

_DESCRIPTION = """\
Record a program once, debug that very run in GDB as often as you like.

The shortest way: `sysrift-record PROGRAM`, then `sysrift-replay`."""


class _Parser(argparse.ArgumentParser):
    """A parser whose exit code for a bad command line is the command's own."""

    failure = 2

    def parse_rest(self, words: list[str]) -> argparse.Namespace:
        """Parse; what follows `--` is `rest`, for a command that has a default for that."""
        rest = None
        if self.get_default("rest") is not None and "--" in words:
            at = words.index("--")
            words, rest = words[:at], words[at + 1 :]
        args = self.parse_args(words)
        if rest is not None:
            args.rest = rest
        return args

    def error(self, message: str) -> NoReturn:
        self.print_usage(sys.stderr)
        self.exit(self.failure, f"sysrift: {message}\n")


def main(argv: Sequence[str] | None = None) -> int:
    """`sysrift COMMAND ...`. Returns the exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    if words and words[0] in COMMANDS and "_ARGCOMPLETE" not in os.environ:
        return _run_command(words[0], f"sysrift {words[0]}", words[1:])
    return _guarded(2, lambda: _run_any(words))


def record_main(argv: Sequence[str] | None = None) -> int:
    """`sysrift-record ...`, the same as `sysrift record ...`."""
    return _run_command("record", "sysrift-record", argv)


def replay_main(argv: Sequence[str] | None = None) -> int:
    """`sysrift-replay ...`, the same as `sysrift replay ...`."""
    return _run_command("replay", "sysrift-replay", argv)


def _load(name: str) -> Command:
    entry = COMMANDS[name]
    command: Command = getattr(importlib.import_module(entry.module), entry.name)()
    return command


def _run_command(name: str, prog: str, argv: Sequence[str] | None) -> int:
    """Run one command, importing no other."""
    words = list(sys.argv[1:] if argv is None else argv)
    return _guarded(COMMANDS[name].failure, lambda: _run_one(name, prog, words))


def _run_one(name: str, prog: str, words: list[str]) -> int:
    command = _load(name)
    parser = _Parser(prog=prog, formatter_class=argparse.RawDescriptionHelpFormatter)
    _prepare(parser, name, command)
    _add_version(parser)
    return command.run(_parse(parser, words))


def _run_any(words: list[str]) -> int:
    """Show the help, complain about an unknown command, or complete one: this needs them all."""
    parser = _Parser(
        prog="sysrift",
        description=_DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    _add_version(parser)
    choices = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    commands = {}
    for name in COMMANDS:
        commands[name] = command = _load(name)
        short = _help_text(command).partition("\n")[0].rstrip(".")
        sub = choices.add_parser(
            name, help=short, formatter_class=argparse.RawDescriptionHelpFormatter
        )
        _prepare(sub, name, command)
    args = _parse(parser, words)
    return commands[args.command].run(args)


def _prepare(parser: argparse.ArgumentParser, name: str, command: Command) -> None:
    parser.description = _help_text(command)
    if isinstance(parser, _Parser):
        parser.failure = COMMANDS[name].failure
    command.prepare_parser(parser)


def _help_text(command: Command) -> str:
    return inspect.getdoc(type(command)) or ""


def _add_version(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--version", action="version", version=f"SysRift {sysrift.__version__}")


def _parse(parser: _Parser, words: list[str]) -> argparse.Namespace:
    if "_ARGCOMPLETE" in os.environ:
        import argcomplete

        argcomplete.autocomplete(parser)
    return parser.parse_rest(words)


def _guarded(failure: int, action: Callable[[], int]) -> int:
    """What `action` returns, or the exit code of what it raises, once that is told on stderr."""
    debug = bool(os.environ.get("SYSRIFT_DEBUG"))
    if isinstance(sys.stdout, io.TextIOWrapper):
        # A file name in a trace need not fit the terminal's encoding.
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        code = action()
        if sys.stdout is not None:  # a program may be recorded with it closed
            sys.stdout.flush()
        return code
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        _give_up_stdout()
        return BROKEN_PIPE
    except SysRiftError as error:
        if debug:
            raise
        _complain(str(error))
        return error.exit_code
    except OSError as error:
        if debug:
            raise
        if not _stdout_takes_more():
            _give_up_stdout()
        where = f"{error.filename}: " if error.filename else ""
        _complain(f"{where}{error.strerror or error}")
        return failure
    except Exception as error:
        if debug:
            raise
        _complain(
            f"internal error: {type(error).__name__}: {error} (SYSRIFT_DEBUG=1 shows where; "
            "please report it)"
        )
        return failure


def _stdout_takes_more() -> bool:
    """Whether what is left in stdout's buffer can be written (a disk may be full)."""
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except OSError:
        return False
    return True


def _give_up_stdout() -> None:
    """Python flushes stdout again at its end, and would complain and change the exit status."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _complain(message: str) -> None:
    """Print a message on stderr, after what has gone to stdout."""
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
        print(f"sysrift: {message}", file=sys.stderr)
    except OSError:
        pass
