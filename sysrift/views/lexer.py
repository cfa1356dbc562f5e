# SPDX-License-Identifier: GPL-2.0-or-later
"""Colours for the lines that `text` makes: a pygments lexer, and what a terminal shows of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pygments import format as format_tokens
from pygments.formatters import TerminalFormatter
from pygments.lexer import RegexLexer, bygroups
from pygments.token import (
    Comment,
    Generic,
    Keyword,
    Name,
    Number,
    Operator,
    Punctuation,
    String,
    Text,
    Token,
    Whitespace,
)

_groups: Callable[..., Any] = bygroups  # which pygments leaves without types

_STRING = r'"(?:[^"\\\n]|\\.)*"(?:\.\.\.)?'


class EventLexer(RegexLexer):
    """Lines of `sysrift dump` and of GDB's `sysrift-events`."""

    name = "SysRift events"
    aliases = ["sysrift"]  # noqa: RUF012 - as pygments declares it

    tokens = {  # noqa: RUF012
        "root": [
            (r"\n", Whitespace),
            (r"^( *)(\d+)( +)(\d+\.\d+)( )", _groups(
                Whitespace, Text, Whitespace, Comment, Whitespace)),
            (r"--- .*? ---$", Generic.Strong),
            (r"\+\+\+ exited with 0 \+\+\+$", Generic.Inserted),
            (r"\+\+\+ .*? \+\+\+$", Generic.Error),
            (r"[a-z_]\w*(?=\()", Name.Function),
            (_STRING, String),
            (r"/\* .*? \*/", Comment),
            # The blanks before the equals sign of a result tell it from one in the arguments.
            (r"( += )(-1 .*?)(?=$| /\*)", _groups(Operator, Generic.Error)),
            (r"( += )(\? .*?)(?=$| /\*)", _groups(Operator, Generic.Emph)),
            (r"( += )(\?|-?(?:0x)?[0-9a-f]+)(?=$| )", _groups(Operator, Generic.Output)),
            (r"[A-Z_][A-Z0-9_]+\b", Keyword.Constant),
            (r"0x[0-9a-f]+\b|-?\d+\b", Number),
            (r"\w+", Text),
            (r"[^\S\n]+", Whitespace),
            (r".", Punctuation),
        ]
    }  # fmt: skip


# Colour on a light background, colour on a dark one; SysRift always uses the same, of the eight
# that every terminal has. `*` is bold.
_SCHEME = {
    token: (colour, colour)
    for token, colour in {
        Token: "",
        Comment: "brightblack",
        Generic.Strong: "*magenta*",
        Generic.Inserted: "green",
        Generic.Error: "red",
        Generic.Emph: "yellow",
        Name.Function: "blue",
        String: "green",
        Keyword.Constant: "cyan",
    }.items()
}

_LEXER = EventLexer(stripnl=False, ensurenl=False)
_FORMATTER = TerminalFormatter(colorscheme=_SCHEME)


def highlight(text: str, enabled: bool) -> str:
    """`text`, lines of events, with a terminal's colour escapes when `enabled`, else as it is."""
    if not enabled:
        return text
    return str(format_tokens(_LEXER.get_tokens(text), _FORMATTER))
