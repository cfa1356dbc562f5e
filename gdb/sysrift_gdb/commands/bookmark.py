# SPDX-License-Identifier: GPL-2.0-or-later
"""`sysrift-bookmark`."""

from __future__ import annotations

from sysrift.errors import SysRiftError
from sysrift.views.bookmarks import Bookmarks
from sysrift_gdb import arguments, console, session
from sysrift_gdb.commands import ReplayCommand, completed


class Bookmark(ReplayCommand):
    """Give this place of the recording a name: sysrift-bookmark NAME | --delete NAME

    `sysrift-goto NAME` comes back here. Without a name, lists the bookmarks. They are kept in a
    file beside the trace."""

    name = "sysrift-bookmark"

    def run(self, words: list[str], from_tty: bool) -> None:
        """Set, delete or list bookmarks."""
        replay = session.active()
        parser = arguments.parser(self.name)
        parser.add_argument("--delete", action="store_true")
        parser.add_argument("name", nargs="?")
        options = parser.parse_args(words)
        bookmarks = Bookmarks(replay.trace)
        if options.name is None:
            if options.delete:
                parser.error("--delete takes the name of a bookmark")
            marks = bookmarks.all()
            for name, place in marks.items():
                midst = "" if "state" not in place else ", in the midst before it"
                console.emit(f"{place['event']:>8} {name}{midst}")
            if not marks:
                console.say("there are no bookmarks: sysrift-bookmark NAME makes one of this place")
        elif options.delete:
            bookmarks.delete(options.name)
        elif replay.user_call or replay.is_changed:
            raise SysRiftError(
                "the program is not as recorded here, and would not come to this place again: "
                "sysrift-restore first"
            )
        else:
            bookmarks.put(options.name, replay.place().to_json())

    def complete(self, text: str, word: str) -> list[str]:
        """Called by GDB."""
        return completed(text.split(" ")[-1], word, bookmark_names())


def bookmark_names() -> list[str]:
    """The names of all bookmarks of the replay, for completion."""
    if session.current is None:
        return []
    try:
        return list(Bookmarks(session.current.trace).all())
    except SysRiftError:
        return []


def register() -> None:
    """Make the command known to GDB."""
    Bookmark(completion=None)
