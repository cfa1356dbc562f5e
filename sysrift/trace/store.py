# SPDX-License-Identifier: GPL-2.0-or-later
"""Where traces are kept: the store directory, fresh names in it, and the `latest` pointer.

The store is `$SYSRIFT_TRACE_DIR`, else `$XDG_DATA_HOME/sysrift`, else `~/.local/share/sysrift`.
`latest` in it is a symbolic link to the newest trace, which may lie elsewhere.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from sysrift.errors import RecordError, SysRiftError, TraceError

SUFFIX = ".srl"
LATEST = "latest"

_LONGEST_STEM = 50  # characters; at 4 bytes each still far from NAME_MAX (255)


def store_directory() -> Path:
    """The directory that traces are kept in, an absolute path; it need not exist.

    Raises SysRiftError when neither the environment nor the user database names one.
    """
    own = os.environ.get("SYSRIFT_TRACE_DIR")
    if own:
        return Path(own).absolute()
    data = Path(os.environ.get("XDG_DATA_HOME", ""))
    # The XDG base directory specification says to ignore a relative path.
    if data.is_absolute():
        return data / "sysrift"
    try:
        return Path.home() / ".local" / "share" / "sysrift"
    except RuntimeError:
        raise SysRiftError(
            "there is no home directory to keep traces in: set SYSRIFT_TRACE_DIR"
        ) from None


def fresh_path(program: str) -> Path:
    """Create an empty file for a trace of `program` (a path or a name) and return its path.

    Its name is `<program's base name>-<n>.srl` with an n greater than any there, and it is created
    exclusively: two recorders never get the same. The store directory is created when missing.
    Raises RecordError when there can be no such file.
    """
    directory = store_directory()
    stem = _stem(program)
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        numbered = re.compile(re.escape(stem) + r"-(\d{1,9})\.srl")
        taken = (numbered.fullmatch(path.name) for path in directory.iterdir())
        number = 1 + max((int(match.group(1)) for match in taken if match), default=0)
        while True:
            path = directory / f"{stem}-{number}{SUFFIX}"
            try:
                os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
                return path
            except FileExistsError:
                number += 1
    except OSError as error:
        raise RecordError(
            f"cannot keep traces in {directory}: {error.strerror}; name a file with -o, or set "
            "SYSRIFT_TRACE_DIR to a directory that can be written"
        ) from None


def set_latest(path: str | os.PathLike[str]) -> None:
    """Let `latest` point to the trace `path`. When that is impossible nothing happens."""
    try:
        directory = store_directory()
        target = Path(path).absolute()
        if target.parent == directory:
            target = Path(target.name)
        # A symbolic link cannot be replaced in place; renaming a new one over it is atomic.
        fresh = directory / f".{LATEST}-{os.getpid()}"
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        fresh.unlink(missing_ok=True)
        fresh.symlink_to(target)
        try:
            fresh.replace(directory / LATEST)
        except OSError:
            fresh.unlink()
    except (OSError, SysRiftError):
        pass


def latest_path() -> Path | None:
    """The trace that `latest` points to, whether or not it still exists; None without a pointer."""
    link = store_directory() / LATEST
    try:
        return link.parent / link.readlink()
    except OSError:
        return None


def resolve(name: str | None) -> Path:
    """The trace file that the user means by `name`.

    None means the latest one. A path that exists comes first, then a name in the store directory,
    with or without `.srl`. Raises TraceError, saying what to do, when there is no such file.
    """
    directory = store_directory()
    if name is None:
        path = latest_path()
        if path is None:
            raise TraceError(
                f"there is no latest trace in {directory}: record one with sysrift-record, or "
                "name a trace file"
            )
        if not path.exists():
            raise TraceError(
                f"the latest trace, {path}, is gone: name another (sysrift ls lists them)"
            )
        return path
    direct = Path(name)
    if name and _exists(direct) and not direct.is_dir():
        return direct
    if name and os.sep not in name:
        for candidate in (directory / name, directory / (name + SUFFIX)):
            if _exists(candidate) and not candidate.is_dir():
                # `latest` is a link; messages should name the trace itself.
                return latest_path() or candidate if candidate.name == LATEST else candidate
    if name and _exists(direct):
        raise TraceError(f"{name} is a directory, not a trace")
    raise TraceError(f"there is no trace {name!r}, here or in {directory}: sysrift ls lists them")


def list_traces() -> list[Path]:
    """The trace files in the store directory, oldest first; empty when there is none."""
    found = []
    try:
        for path in store_directory().iterdir():
            if path.suffix == SUFFIX and path.is_file():
                found.append((path.stat().st_mtime_ns, path))
    except OSError:
        pass
    return [path for _, path in sorted(found)]


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except (OSError, ValueError):  # a name too long, a directory that may not be searched, a NUL
        return False


def _stem(program: str) -> str:
    """The base name of `program` with all that is awkward in a file name taken out."""
    name = re.sub(r"[^\w.+-]", "_", Path(program).name).lstrip(".-")
    return name[:_LONGEST_STEM] or "program"
