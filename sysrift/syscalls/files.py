# SPDX-License-Identifier: GPL-2.0-or-later
"""File handles, extended attributes, quotas, mounting: calls on files that are not regular."""

from __future__ import annotations

from collections.abc import Iterator

from .effects import When
from .memory import Memory, read_pairs, read_u32
from .plan import Args, Irregular, Range
from .variants import Family

_MAX_HANDLE = 128  # MAX_HANDLE_SZ
_EOVERFLOW = 75
AT_HANDLE_MNT_ID_UNIQUE = 0x001
_XATTR_SIZE_MAX = 65536


def _handle_header(args: Args, memory: Memory) -> Iterator[Range]:
    yield Range(2, args[2], 8, "struct")


def _handle_size(args: Args, memory: Memory) -> int:
    return read_u32(memory, args[2])


def _handle(args: Args, result: int, memory: Memory, state: object) -> Iterator[Range]:
    """struct file_handle; with EOVERFLOW only its header, which says how much was needed."""
    assert isinstance(state, int)
    if -_EOVERFLOW != result < 0:
        return
    yield Range(3, args[3], 8 if args[4] & AT_HANDLE_MNT_ID_UNIQUE else 4, "struct")
    size = min(state, read_u32(memory, args[2]), _MAX_HANDLE) if result == 0 else 0
    yield Range(2, args[2], 8 + size, "struct")


def _open_handle(args: Args, memory: Memory) -> Iterator[Range]:
    if args[1]:
        size = read_u32(memory, args[1])
        yield Range(1, args[1], 8 + size if size <= _MAX_HANDLE else 8, "struct")


def _xattr_value(args: Args, memory: Memory) -> tuple[int, int]:
    """struct xattr_args: the value's address, its size, flags."""
    [(address, size)] = read_pairs(memory, args[4], 1)
    return address, size & 0xFFFFFFFF


def _set_value(args: Args, memory: Memory) -> Iterator[Range]:
    address, size = _xattr_value(args, memory)
    if size <= _XATTR_SIZE_MAX:
        yield Range(4, address, size, "data")


def _got_value(args: Args, result: int, memory: Memory, state: object) -> Iterator[Range]:
    assert isinstance(state, tuple)
    address, size = state
    yield Range(4, address, min(result, size), "data")


RULES = {
    "name_to_handle_at": Irregular(_handle_header, _handle_size, _handle, When.ALWAYS),
    "open_by_handle_at": Irregular(_open_handle),
    "setxattrat": Irregular(_set_value),
    "getxattrat": Irregular(None, _xattr_value, _got_value),
}

FSCONFIG = Family(
    """
0 FSCONFIG_SET_FLAG
1 FSCONFIG_SET_STRING value:string
2 FSCONFIG_SET_BINARY value:buf<aux
3 FSCONFIG_SET_PATH value:path
4 FSCONFIG_SET_PATH_EMPTY value:path
5 FSCONFIG_SET_FD
6 FSCONFIG_CMD_CREATE
7 FSCONFIG_CMD_RECONFIGURE
8 FSCONFIG_CMD_CREATE_EXCL
"""
)

SYSFS = Family(
    """
1 NAME_TO_INDEX arg1:string
2 INDEX_TO_NAME arg2:string>z
3 COUNT
"""
)

#: The command is the upper three bytes, the quota type the lowest (QCMD in linux/quota.h).
QUOTACTL = Family(
    """
0x800001 Q_SYNC
0x800002 Q_QUOTAON addr:path
0x800003 Q_QUOTAOFF
0x800004 Q_GETFMT addr:ptr>4
0x800005 Q_GETINFO addr:ptr>24
0x800006 Q_SETINFO addr:ptr<24
0x800007 Q_GETQUOTA addr:ptr>72
0x800008 Q_SETQUOTA addr:ptr<72
0x800009 Q_GETNEXTQUOTA addr:ptr>72
0x5801 Q_XQUOTAON addr:ptr<4
0x5802 Q_XQUOTAOFF addr:ptr<4
0x5803 Q_XGETQUOTA addr:ptr>112
0x5804 Q_XSETQLIM addr:ptr<112
0x5805 Q_XGETQSTAT addr:ptr>80
0x5806 Q_XQUOTARM addr:ptr<4
0x5807 Q_XQUOTASYNC
0x5809 Q_XGETNEXTQUOTA addr:ptr>112
""",
    mask=0xFFFFFF,
    shift=8,
)
