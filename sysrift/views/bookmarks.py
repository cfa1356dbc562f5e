# SPDX-License-Identifier: GPL-2.0-or-later
"""Places of a trace with names, kept beside it: `crash.srl` has them in `crash.srl.bookmarks`.

A JSON object: the trace's uuid, and for each process, by its id, the place of each name.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
from pathlib import Path
from typing import Any

from sysrift.errors import SysRiftError, UsageError
from sysrift.trace.reader import Trace
from sysrift.views.positions import WORDS

_NAME = re.compile(r"[A-Za-z_][\w.-]{0,63}")
_LARGEST = 16 << 20  # bytes of such a file


def bookmarks_path(trace: Trace) -> Path:
    """The file that the bookmarks of a trace are in, if there are any."""
    return trace.path.with_name(trace.path.name + ".bookmarks")


class Bookmarks:
    """The bookmarks of one process of a trace; always as the file has them now.

    A bookmark is what `Place.to_json` gives: an object whose "event" is the next event's number.
    """

    def __init__(self, trace: Trace) -> None:
        self._path = bookmarks_path(trace)
        self._uuid = str(trace.file.uuid)
        self._process = str(trace.process.id)

    def all(self) -> dict[str, dict[str, Any]]:
        """Every bookmark by its name, in the order of their events.

        Raises SysRiftError when the file is another trace's or damaged.
        """
        marks = self._read().get(self._process, {})
        return dict(sorted(marks.items(), key=lambda item: item[1]["event"]))

    def put(self, name: str, place: dict[str, Any]) -> None:
        """Set a bookmark. Raises UsageError for a name that cannot be one, SysRiftError."""
        if not _NAME.fullmatch(name) or name in WORDS:
            raise UsageError(
                f"{name!r} cannot be a bookmark's name: letters, digits, '_', '.' and '-', "
                "a letter first"
            )
        marks = self._read()
        marks.setdefault(self._process, {})[name] = place
        self._write(marks)

    def delete(self, name: str) -> None:
        """Forget a bookmark. Raises UsageError when there is none of that name, SysRiftError."""
        marks = self._read()
        if marks.get(self._process, {}).pop(name, None) is None:
            raise UsageError(f"there is no bookmark {name!r}")
        self._write(marks)

    def _read(self) -> dict[str, dict[str, dict[str, Any]]]:
        try:
            with open(self._path, "rb") as file:
                content = json.loads(file.read(_LARGEST))
            if content["uuid"] != self._uuid:
                raise SysRiftError(f"{self._path} has the bookmarks of another trace: remove it")
            marks: dict[str, dict[str, dict[str, Any]]] = content["bookmarks"]
            events = [mark["event"] for own in marks.values() for mark in own.values()]
            if not all(isinstance(event, int) for event in events):
                raise ValueError
        except FileNotFoundError:
            return {}
        except OSError as error:
            raise SysRiftError(f"cannot read {self._path}: {error.strerror}") from None
        except (ValueError, KeyError, TypeError, AttributeError):
            raise SysRiftError(f"{self._path} is damaged: remove it") from None
        return marks

    def _write(self, marks: dict[str, dict[str, dict[str, Any]]]) -> None:
        """All at once, so that nobody ever finds half of it."""
        text = json.dumps({"uuid": self._uuid, "bookmarks": marks}, indent=1) + "\n"
        fresh = self._path.with_name(f"{self._path.name}-{os.getpid()}")
        try:
            try:
                fresh.write_text(text)
                os.replace(fresh, self._path)
            except BaseException:
                with contextlib.suppress(OSError):
                    fresh.unlink()
                raise
        except OSError as error:
            raise SysRiftError(
                f"cannot keep a bookmark beside the trace, in {self._path}: {error.strerror}"
            ) from None
