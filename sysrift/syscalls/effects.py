# SPDX-License-Identifier: GPL-2.0-or-later
"""The notation in which a system call's use of memory is written down.

An argument is written `name:type` followed by its effects, without blanks:

    buf:buf>ret^count          the kernel writes min(result, count) bytes
    buf:buf<count              the kernel reads count bytes
    timeout:timeval<>*         it reads a timeval, and writes it whatever the outcome

`<` is memory that the kernel reads (the program hands it in), `>` memory that it writes, by
default only if the call succeeds. `>!` writes also when a signal interrupts the call, `>~` only
then, `>*` whatever the result. The rule for the length follows:

    (nothing)                  the size of the type, from `SIZES`
    144                        so many bytes
    ret                        the call's result
    count                      the value of the argument of that name
    z                          up to and with the NUL; z^16 at most 16
    @addrlen                   the 32-bit word behind that argument, as it was at the entry or at
                               the exit, whichever is less (a *value-result* argument)
    iov(vlen)                  the buffers of an iovec array of vlen elements, filled in order up
                               to the result when written; the array itself is always read
    SOURCE^LIMIT/D*M+A         with any numeric source: min(SOURCE, LIMIT) divided by D rounding
                               up, times M, plus A; each part may be missing

Arguments of the types `path` and `string` are read (`<z`) unless they say otherwise.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Mapping
from typing import NamedTuple

#: Sizes of the kernel's structures on x86-64 (include/uapi), by type word.
SIZES: Mapping[str, int] = {
    "epoll_event": 12,  # packed on x86-64
    "flock": 32,
    "fsxattr": 28,
    "ifreq": 40,
    "itimerspec": 32,
    "itimerval": 32,
    "mq_attr": 64,
    "rlimit": 16,
    "rusage": 144,
    "sigaction": 32,  # the kernel's: handler, flags, restorer, mask
    "sigevent": 64,
    "siginfo": 128,
    "stack": 24,
    "stat": 144,
    "statfs": 120,
    "statx": 256,
    "sysinfo": 112,
    "termios": 36,  # the kernel's, not the C library's of 60
    "timespec": 16,
    "timeval": 16,
    "timex": 208,
    "timezone": 8,
    "tms": 32,
    "utsname": 390,
    "winsize": 8,
}

#: Types that the kernel takes as a 32-bit int: the upper half of the register is ignored.
SIGNED_32 = frozenset({"int", "socklen", "pid", "fd", "dirfd"})
UNSIGNED_32 = frozenset({"uint", "mode", "uid", "gid", "signal"})


class Direction(enum.Enum):
    """Who hands the memory over."""

    READ = "<"
    WRITE = ">"


class When(enum.Enum):
    """With which outcomes of the call the kernel writes."""

    SUCCESS = ""
    SUCCESS_OR_INTERRUPTED = "!"
    INTERRUPTED = "~"
    ALWAYS = "*"


class Source(enum.Enum):
    """Where the length of a range comes from."""

    FIXED = "fixed"
    RESULT = "result"
    ARGUMENT = "argument"
    STRING = "string"
    VALUE_RESULT = "value-result"
    IOVEC = "iovec"


class Width(enum.Enum):
    """How the kernel looks at an argument register."""

    SIGNED_32 = "int"
    UNSIGNED_32 = "unsigned int"
    UNSIGNED_64 = "unsigned long"


class Operand(NamedTuple):
    """A number of the rule: a constant, or an argument (`argument` is not -1) of some width."""

    constant: int = 0
    argument: int = -1
    width: Width = Width.UNSIGNED_64


class Effect(NamedTuple):
    """One range of memory that the kernel reads or writes: pure data."""

    argument: int
    kind: str
    direction: Direction
    when: When
    source: Source
    operand: Operand  # the constant, the length argument, the pointer to it, or the iovec count
    limit: Operand  # constant 0: no limit
    divide: int
    multiply: int
    add: int


class NotationError(ValueError):
    """A row of the table is not written as this module's docstring says."""


_TOKEN = re.compile(r"(\w+)(?::([\w.]+))?((?:[<>][^<>]*)*)$")
_EFFECT = re.compile(
    r"(?P<direction>[<>])(?P<when>[!~*]?)"
    r"(?:(?P<iovec>iov\((?P<count>\w+)\))|(?P<value>@)?(?P<source>\w+))?"
    r"(?:\^(?P<limit>\w+))?(?:/(?P<divide>\d+))?(?:\*(?P<multiply>\d+))?(?:\+(?P<add>\d+))?"
)


class Signature:
    """The argument names and types of a call, against which effects are resolved."""

    def __init__(self, arguments: list[tuple[str, str]]) -> None:
        self.types = [type_word for _name, type_word in arguments]
        self.indices: dict[str, int] = {
            name: index for index, (name, _type) in enumerate(arguments)
        }

    def operand(self, word: str) -> Operand:
        """Return the constant or the argument that `word` names."""
        if word.isdigit():
            return Operand(constant=int(word))
        try:
            index = self.indices[word]
        except KeyError:
            raise NotationError(f"no argument is called {word!r}") from None
        type_word = self.types[index]
        if type_word in SIGNED_32:
            return Operand(0, index, Width.SIGNED_32)
        if type_word in UNSIGNED_32:
            return Operand(0, index, Width.UNSIGNED_32)
        return Operand(0, index, Width.UNSIGNED_64)

    def effects(self, index: int, type_word: str, text: str) -> list[Effect]:
        """Return the effects written as `text` behind the argument `index`."""
        if not text and type_word in ("path", "string"):
            text = "<z"
        found = []
        position = 0
        while position < len(text):
            match = _EFFECT.match(text, position)
            if match is None:
                raise NotationError(f"not an effect: {text[position:]!r}")
            found.append(self._effect(index, type_word, match))
            position = match.end()
        return found

    def _effect(self, index: int, type_word: str, match: re.Match[str]) -> Effect:
        word = match["source"]
        operand = Operand()
        if match["iovec"]:
            source = Source.IOVEC
            operand = self.operand(match["count"])
        elif match["value"]:
            source = Source.VALUE_RESULT
            operand = self.operand(word)
        elif word is None:
            source = Source.FIXED
            if type_word not in SIZES:
                raise NotationError(f"the type {type_word!r} has no size of its own")
            operand = Operand(SIZES[type_word])
        elif word == "ret":
            source = Source.RESULT
        elif word == "z":
            source = Source.STRING
        else:
            operand = self.operand(word)
            source = Source.FIXED if operand.argument < 0 else Source.ARGUMENT
        return Effect(
            argument=index,
            kind=_kind(type_word, source),
            direction=Direction(match["direction"]),
            when=When(match["when"]),
            source=source,
            operand=operand,
            limit=self.operand(match["limit"]) if match["limit"] else Operand(),
            divide=int(match["divide"] or 1),
            multiply=int(match["multiply"] or 1),
            add=int(match["add"] or 0),
        )


def _kind(type_word: str, source: Source) -> str:
    if source is Source.STRING:
        return "string"
    if source is Source.IOVEC or type_word == "buf":
        return "data"
    return "struct"


def split_token(token: str) -> tuple[str, str, str]:
    """Return (name, type or "", effects) of one written argument."""
    match = _TOKEN.match(token)
    if match is None:
        raise NotationError(f"not an argument: {token!r}")
    return match[1], match[2] or "", match[3]
