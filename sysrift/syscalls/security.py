# SPDX-License-Identifier: GPL-2.0-or-later
"""Capabilities, seccomp, Landlock and the security module calls."""

from __future__ import annotations

from collections.abc import Iterator

from .memory import Memory, read_u16, read_u32, read_u64
from .plan import Args, Irregular, Range
from .variants import Family

_CAPABILITY_VERSION_1 = 0x19980330
_LATER_CAPABILITY_VERSIONS = (0x20071026, 0x20080522)
_LSM_CTX_HEADER = 32
_LSM_FLAG_SINGLE = 1
_SET_MODE_FILTER_MAX = 4096  # BPF_MAXINSNS


def filter_program(memory: Memory, argument: int, address: int) -> Iterator[Range]:
    """Yield a `struct sock_fprog` (a length and a pointer) and its instructions, 8 bytes each."""
    if address:
        length = read_u16(memory, address)
        instructions = read_u64(memory, address + 8)
        yield Range(argument, address, 16, "struct")
        if length <= _SET_MODE_FILTER_MAX:
            yield Range(argument, instructions, length * 8, "struct")


def _seccomp_filter(args: Args, memory: Memory) -> Iterator[Range]:
    return filter_program(memory, 2, args[2])


def _capability_data(args: Args, memory: Memory) -> Iterator[Range]:
    """Three words a set; one set in the first version, two later (kernel/capability.c)."""
    if args[0] and args[1]:
        version = read_u32(memory, args[0])
        if version == _CAPABILITY_VERSION_1:
            yield Range(1, args[1], 12, "struct")
        elif version in _LATER_CAPABILITY_VERSIONS:
            yield Range(1, args[1], 24, "struct")


def _capget(args: Args, result: int, memory: Memory, state: object) -> Iterator[Range]:
    return _capability_data(args, memory)


def _lsm_single(args: Args, memory: Memory) -> Iterator[Range]:
    """With LSM_FLAG_SINGLE the first context names the module that is asked for."""
    if args[3] & _LSM_FLAG_SINGLE:
        yield Range(1, args[1], _LSM_CTX_HEADER, "struct")


RULES = {
    "capget": Irregular(outputs=_capget),
    "capset": Irregular(inputs=_capability_data),
    "lsm_get_self_attr": Irregular(inputs=_lsm_single),
}

SECCOMP = Family(
    """
0 SECCOMP_SET_MODE_STRICT
1 SECCOMP_SET_MODE_FILTER =filter
2 SECCOMP_GET_ACTION_AVAIL args:ptr<4
3 SECCOMP_GET_NOTIF_SIZES args:ptr>6
""",
    {"filter": Irregular(_seccomp_filter)},
)

LANDLOCK = Family(
    """
1 LANDLOCK_RULE_PATH_BENEATH rule_attr:ptr<12
2 LANDLOCK_RULE_NET_PORT rule_attr:ptr<16
"""
)
