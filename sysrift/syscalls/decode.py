# SPDX-License-Identifier: GPL-2.0-or-later
"""A system call as one line of text, as strace prints it.

    openat(AT_FDCWD, "/etc/passwd", O_RDONLY|O_CLOEXEC) = 3

`fragments` maps an argument's index to the leading bytes of the memory behind it, as far as they
are known. An argument without one, or with too few bytes, is printed as a pointer. No function
here raises, whatever the registers and fragments hold.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping

from .effects import Direction, Effect, Source
from .plan import Args, length_of
from .row import Argument, Row
from .structures import (
    ARRAY_TYPES,
    STRUCTURES,
    array,
    fd_set,
    signal_set,
    sockaddr,
    wait_status,
)
from .values import errno_name, error_text, pointer, quoted, scalar, symbol

__all__ = ["errno_name", "format_arguments", "format_call", "format_result"]

_O_CREAT, _O_TMPFILE = 0x40, 0x410000
_SOL_SOCKET = 1
#: Where the flags are that say whether a mode follows.
_OPENING = {"open": 1, "openat": 2, "mq_open": 1}

_ADDRESS_RESULTS = frozenset(["mmap", "brk", "mremap", "shmat", "map_shadow_stack"])
_OCTAL_RESULTS = frozenset(["umask"])
_NO_RESULT = frozenset(["exit", "exit_group", "rt_sigreturn"])
_INTERRUPTIONS = range(512, 517)


def _failed(result: int) -> bool:
    return -4096 < result < 0


def _shown_length(effect: Effect | None, args: Args, result: int, available: int) -> int:
    """How long the memory is that a rule speaks of; `available` if it does not say."""
    if effect is None or effect.source not in (Source.FIXED, Source.RESULT, Source.ARGUMENT):
        return available
    return length_of(effect)(args, result)


def _string(content: bytes, limit: int | None) -> str:
    end = content.find(b"\0")
    shown = content if end < 0 else content[:end]
    if limit is not None and len(shown) > limit:
        return quoted(shown[:limit]) + "..."
    return quoted(shown) + ("..." if end < 0 else "")


def _structure(
    word: str, content: bytes, length: int, args: Args, limit: int, fragment: bytes
) -> str | None:
    """Return the text for memory of a type, or None if the type says nothing about it."""
    if word == "path":
        return _string(fragment, None)
    if word == "string":
        return _string(fragment, limit)
    if word == "buf":
        return quoted(content[:limit]) + ("..." if length > min(len(content), limit) else "")
    if word == "wstatus":
        return wait_status(content)
    if word == "sockaddr":
        return sockaddr(content)
    if word == "sigset":
        return signal_set(content) if len(content) >= 8 else None
    if word == "fdset":
        nfds = args[0] & 0xFFFFFFFF
        return fd_set(content, nfds) if len(content) * 8 >= min(nfds, 1024) else None
    if word in ARRAY_TYPES:
        element = array(word, content, _count(word, length))
        return element if element != "[...]" else None
    decoder = STRUCTURES.get(word)
    return decoder(content) if decoder else None


_ELEMENT_SIZES = {"epoll_event": 12, "iovec": 16, "off_ptr": 8, "pollfd": 8}


def _count(word: str, length: int) -> int:
    return length // _ELEMENT_SIZES.get(word, 4)


def _effect_on(effects: tuple[Effect, ...], index: int, result: int) -> Effect | None:
    """The effect that says how long the memory of an argument is: what is written, if it was."""
    read = written = None
    for effect in effects:
        if effect.argument == index:
            if effect.direction is Direction.READ:
                read = read or effect
            else:
                written = written or effect
    return read if written is None or (read and _failed(result)) else written


def _format_argument(
    index: int,
    argument: Argument,
    effects: tuple[Effect, ...],
    args: Args,
    result: int,
    fragment: bytes | None,
    limit: int,
) -> str:
    value, word = args[index], argument.type
    if fragment is None or not value:
        return scalar(word, value)
    effect = _effect_on(effects, index, result)
    only_written = effect is not None and effect.direction is Direction.WRITE
    if only_written and _failed(result) and effect is not None and effect.when.value == "":
        return scalar(word, value)
    length = _shown_length(effect, args, result, len(fragment))
    if word == "iovec":
        length = len(fragment)
    try:
        text = _structure(word, fragment[: max(length, 0)], length, args, limit, fragment)
    except (struct.error, ValueError):
        text = None
    return scalar(word, value) if text is None else text


def format_arguments(
    row: Row | None,
    nr: int,
    args: Args,
    result: int,
    fragments: Mapping[int, bytes],
    limit: int = 32,
) -> list[str]:
    """Return the text of each argument; of a call without a row, its six registers.

    Strings and buffers are cut off behind `limit` bytes, paths never.
    """
    if row is None:
        return [hex(value) for value in args]
    effects = row.effects(args)
    texts = [
        _format_argument(index, argument, effects, args, result, fragments.get(index), limit)
        for index, argument in enumerate(row.arguments_of(args))
    ]
    if row.name in ("getsockopt", "setsockopt") and args[1] & 0xFFFFFFFF == _SOL_SOCKET:
        texts[2] = symbol("enum.optsocket", args[2])
    flags_at = _OPENING.get(row.name)
    if flags_at is not None and not _makes_file(args[flags_at]):
        # The registers behind the flags hold what was left in them.
        del texts[flags_at + 1 :]
    return texts


def _makes_file(flags: int) -> bool:
    return bool(flags & _O_CREAT) or flags & _O_TMPFILE == _O_TMPFILE


def format_result(row: Row | None, result: int) -> str:
    """Return the text behind the equals sign."""
    name = row.name if row else ""
    if -result in _INTERRUPTIONS:
        return f"? {error_text(-result)}"
    if name in _NO_RESULT:
        return "?"
    if _failed(result):
        return f"-1 {error_text(-result)}"
    if name in _ADDRESS_RESULTS:
        return pointer(result & (1 << 64) - 1)
    if name in _OCTAL_RESULTS:
        return f"0{result:o}"
    return str(result)


def format_call(
    row: Row | None,
    nr: int,
    args: Args,
    result: int,
    fragments: Mapping[int, bytes],
    limit: int = 32,
) -> str:
    """Return name and arguments, without the result."""
    name = row.name if row else f"syscall_{nr & (1 << 64) - 1:#x}"
    return f"{name}({', '.join(format_arguments(row, nr, args, result, fragments, limit))})"
