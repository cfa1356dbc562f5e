# SPDX-License-Identifier: GPL-2.0-or-later
"""`keyctl` operations (keyctl(2), security/keys/keyctl.c)."""

from __future__ import annotations

from collections.abc import Iterator

from .memory import Memory, read_u32
from .plan import MAX_RW_COUNT, Args, Irregular, Range, iovec_inputs
from .variants import Family


def _instantiate_iov(args: Args, memory: Memory) -> Iterator[Range]:
    return iovec_inputs(memory, 2, args[2], args[3], with_data=True)


def _pkey_data(args: Args, memory: Memory) -> Iterator[Range]:
    """struct keyctl_pkey_params: key_id, in_len, out_len or in2_len."""
    yield Range(3, args[3], min(read_u32(memory, args[1] + 4), MAX_RW_COUNT), "data")


def _pkey_verify(args: Args, memory: Memory) -> Iterator[Range]:
    yield from _pkey_data(args, memory)
    yield Range(4, args[4], min(read_u32(memory, args[1] + 8), MAX_RW_COUNT), "data")


KEYCTL = Family(
    """
0  KEYCTL_GET_KEYRING_ID
1  KEYCTL_JOIN_SESSION_KEYRING arg2:string
2  KEYCTL_UPDATE arg3:buf<arg4
3  KEYCTL_REVOKE
4  KEYCTL_CHOWN
5  KEYCTL_SETPERM
6  KEYCTL_DESCRIBE arg3:buf>ret^arg4
7  KEYCTL_CLEAR
8  KEYCTL_LINK
9  KEYCTL_UNLINK
10 KEYCTL_SEARCH arg3:string arg4:string
11 KEYCTL_READ arg3:buf>ret^arg4
12 KEYCTL_INSTANTIATE arg3:buf<arg4
13 KEYCTL_NEGATE
14 KEYCTL_SET_REQKEY_KEYRING
15 KEYCTL_SET_TIMEOUT
16 KEYCTL_ASSUME_AUTHORITY
17 KEYCTL_GET_SECURITY arg3:buf>ret^arg4
18 KEYCTL_SESSION_TO_PARENT
19 KEYCTL_REJECT
20 KEYCTL_INSTANTIATE_IOV =instantiate_iov
21 KEYCTL_INVALIDATE
22 KEYCTL_GET_PERSISTENT
23 KEYCTL_DH_COMPUTE arg2:ptr<12 arg3:buf>ret^arg4 arg5:ptr<56
24 KEYCTL_PKEY_QUERY arg4:string arg5:ptr>56
25 KEYCTL_PKEY_ENCRYPT arg2:ptr<40 arg3:string =pkey arg5:buf>ret
26 KEYCTL_PKEY_DECRYPT arg2:ptr<40 arg3:string =pkey arg5:buf>ret
27 KEYCTL_PKEY_SIGN arg2:ptr<40 arg3:string =pkey arg5:buf>ret
28 KEYCTL_PKEY_VERIFY arg2:ptr<40 arg3:string =pkey_verify
29 KEYCTL_RESTRICT_KEYRING arg3:string arg4:string
30 KEYCTL_MOVE
31 KEYCTL_CAPABILITIES arg2:buf>arg3      # the rest of the buffer is cleared
32 KEYCTL_WATCH_KEY
""",
    {
        "instantiate_iov": Irregular(_instantiate_iov),
        "pkey": Irregular(_pkey_data),
        "pkey_verify": Irregular(_pkey_verify),
    },
)
