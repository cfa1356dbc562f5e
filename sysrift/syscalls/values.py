# SPDX-License-Identifier: GPL-2.0-or-later
"""Single values as text, in strace's manner: numbers, symbols, quoted strings."""

from __future__ import annotations

import errno
import os
import signal as signals
from collections.abc import Callable, Mapping
from functools import cache

from .constants import FIELDS, names
from .table import FAMILIES

FUTEX_PRIVATE_FLAG, FUTEX_CLOCK_REALTIME = 128, 256
_AT_FDCWD = -100
_EXIT_SIGNAL = 0xFF  # CSIGNAL, include/uapi/linux/sched.h

#: Results that the kernel keeps to itself (include/linux/errno.h); only a tracer sees them.
_INTERNAL_ERRORS: Mapping[int, tuple[str, str]] = {
    512: ("ERESTARTSYS", "To be restarted if SA_RESTART is set"),
    513: ("ERESTARTNOINTR", "To be restarted"),
    514: ("ERESTARTNOHAND", "To be restarted if no handler"),
    515: ("ENOIOCTLCMD", "No ioctl command"),
    516: ("ERESTART_RESTARTBLOCK", "Interrupted by signal"),
}

_ESCAPES = {
    ord("\n"): "\\n",
    ord("\t"): "\\t",
    ord("\r"): "\\r",
    ord("\v"): "\\v",
    ord("\f"): "\\f",
    ord('"'): '\\"',
    ord("\\"): "\\\\",
}
_DIGITS = frozenset(b"01234567")


def signed(value: int, bits: int) -> int:
    """Return the low `bits` of `value` as a two's complement number."""
    value &= (1 << bits) - 1
    return value - (1 << bits) if value >> bits - 1 else value


def pointer(value: int) -> str:
    """Return an address as text."""
    return hex(value) if value else "NULL"


def quoted(content: bytes) -> str:
    """Return bytes as a C string literal, other than printable ASCII in octal."""
    text = []
    for index, byte in enumerate(content):
        if byte in _ESCAPES:
            text.append(_ESCAPES[byte])
        elif 0x20 <= byte < 0x7F:
            text.append(chr(byte))
        elif index + 1 < len(content) and content[index + 1] in _DIGITS:
            # A digit behind a short escape would be read as part of it.
            text.append(f"\\{byte:03o}")
        else:
            text.append(f"\\{byte:o}")
    return '"' + "".join(text) + '"'


def errno_name(number: int) -> str:
    """Return the name of a (positive) error number, also of those the kernel keeps to itself."""
    if number in _INTERNAL_ERRORS:
        return _INTERNAL_ERRORS[number][0]
    return errno.errorcode.get(number, f"E{number}")


def error_text(number: int) -> str:
    """Return name and meaning of an error number, as `ENOENT (No such file or directory)`."""
    if number in _INTERNAL_ERRORS:
        return "{} ({})".format(*_INTERNAL_ERRORS[number])
    if number not in errno.errorcode:
        return errno_name(number)
    return f"{errno_name(number)} ({os.strerror(number)})"


def signal_name(number: int) -> str:
    """Return the name of a signal; real-time ones are counted from the kernel's first, 32."""
    try:
        name = signals.Signals(number).name
    except ValueError:
        name = ""
    if name and not name.startswith("SIGRT"):
        return name
    return f"SIGRT_{number - 32}" if 32 <= number <= 64 else str(number)


@cache
def _family_names(family: str) -> dict[int, str]:
    return FAMILIES[family].names() if family in FAMILIES else {}


def _command(family: str, value: int) -> str:
    if family == "futex":
        return _futex_operation(value)
    return _family_names(family).get(value) or (hex(value) if value > 0xFFFF else str(value))


def _futex_operation(value: int) -> str:
    base = value & ~(FUTEX_PRIVATE_FLAG | FUTEX_CLOCK_REALTIME)
    name = _family_names("futex").get(base)
    if name is None:
        return hex(value)
    if value & FUTEX_PRIVATE_FLAG:
        name += "_PRIVATE"
    return name + ("|FUTEX_CLOCK_REALTIME" if value & FUTEX_CLOCK_REALTIME else "")


def bits(symbol_set: str, value: int) -> str:
    """Return the names of the bits of `value`, and what is left over as a number.

    That is the exit signal for `clone`, and permissions for System V IPC.
    """
    known = names(symbol_set)
    found = []
    left = value
    field = FIELDS.get(symbol_set, 0)
    if field and (value & field) in known:
        found.append(known[value & field])
        left &= ~field
    for bit, name in known.items():
        if bit & ~field and left & bit == bit:
            found.append(name)
            left &= ~bit
    if symbol_set == "flags.clone" and left & _EXIT_SIGNAL:
        found.append(signal_name(left & _EXIT_SIGNAL))
        left &= ~_EXIT_SIGNAL
    if left:
        found.append(_octal(left) if symbol_set == "flags.ipc" else hex(left))
    return "|".join(found) or known.get(0, "0")


def symbol(word: str, value: int) -> str:
    """Return the text for a value of a type `flags.NAME` or `enum.NAME`."""
    value &= 0xFFFFFFFF
    kind, _, family = word.partition(".")
    if family in FAMILIES and kind == "enum":
        return _command(family, value)
    if kind == "flags" or word in FIELDS:
        return bits(word, value)
    return names(word).get(value) or str(signed(value, 32))


def _directory(value: int) -> str:
    number = signed(value, 32)
    return "AT_FDCWD" if number == _AT_FDCWD else str(number)


def _device(value: int) -> str:
    major = value >> 8 & 0xFFF | value >> 32 & 0xFFFFF000
    minor = value & 0xFF | value >> 12 & 0xFFFFFF00
    return f"makedev({major:#x}, {minor:#x})"


def _identity(value: int) -> str:
    number = value & 0xFFFFFFFF
    return "-1" if number == 0xFFFFFFFF else str(number)


def _octal(value: int) -> str:
    return f"0{value & 0xFFFFFFFF:03o}" if value & 0xFFFFFFFF else "000"


_SCALARS: Mapping[str, Callable[[int], str]] = {
    "dev": _device,
    "dirfd": _directory,
    "fd": lambda value: str(signed(value, 32)),
    "gid": _identity,
    "int": lambda value: str(signed(value, 32)),
    "long": lambda value: str(signed(value, 64)),
    "mode": _octal,
    "off": lambda value: str(signed(value, 64)),
    "pid": lambda value: str(signed(value, 32)),
    "signal": lambda value: signal_name(value & 0xFFFFFFFF),
    "size": str,
    "socklen": lambda value: str(signed(value, 32)),
    "time": lambda value: str(signed(value, 64)),
    "uid": _identity,
    "uint": lambda value: str(value & 0xFFFFFFFF),
    "ulong": lambda value: hex(value) if value > 9 else str(value),
}


def scalar(word: str, value: int) -> str:
    """Return the text for an argument that is not followed: by type, else as a pointer."""
    if "." in word:
        return symbol(word, value)
    function = _SCALARS.get(word)
    return function(value) if function else pointer(value)
