# SPDX-License-Identifier: GPL-2.0-or-later
"""`futex` operations (futex(2), kernel/futex/syscalls.c).

The futex word itself is not listed as read: the kernel also changes it behind the program's back
(at the exit of a thread), so its value at an entry is not something the program handed in.
"""

from __future__ import annotations

from .variants import Family

FUTEX_PRIVATE_FLAG = 128
FUTEX_CLOCK_REALTIME = 256

FUTEX = Family(
    """
0  FUTEX_WAIT timeout:timespec<
1  FUTEX_WAKE
2  FUTEX_FD
3  FUTEX_REQUEUE timeout:uint
4  FUTEX_CMP_REQUEUE timeout:uint
5  FUTEX_WAKE_OP timeout:uint uaddr2:ptr>4
6  FUTEX_LOCK_PI uaddr:ptr>*4 timeout:timespec<
7  FUTEX_UNLOCK_PI uaddr:ptr>*4
8  FUTEX_TRYLOCK_PI uaddr:ptr>*4
9  FUTEX_WAIT_BITSET timeout:timespec<
10 FUTEX_WAKE_BITSET
11 FUTEX_WAIT_REQUEUE_PI timeout:timespec< uaddr2:ptr>*4
12 FUTEX_CMP_REQUEUE_PI timeout:uint uaddr2:ptr>*4
13 FUTEX_LOCK_PI2 uaddr:ptr>*4 timeout:timespec<
""",
    mask=0xFFFFFFFF & ~(FUTEX_PRIVATE_FLAG | FUTEX_CLOCK_REALTIME),
)
