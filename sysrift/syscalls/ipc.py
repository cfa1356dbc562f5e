# SPDX-License-Identifier: GPL-2.0-or-later
"""System V IPC control commands (semctl(2), shmctl(2), msgctl(2)).

On x86-64 the kernel knows one version of each structure (ipc_parse_version is not built), so
the command is the bare number.
"""

from __future__ import annotations

from .variants import Family

SEMCTL = Family(
    """
0  IPC_RMID
1  IPC_SET arg:ptr<104
2  IPC_STAT arg:ptr>104
3  IPC_INFO arg:ptr>40
11 GETPID
12 GETVAL
13 GETALL arg:ptr ?            # an unsigned short for each semaphore of the set: not in the call
14 GETNCNT
15 GETZCNT
16 SETVAL arg:int
17 SETALL arg:ptr
18 SEM_STAT arg:ptr>104
19 SEM_INFO arg:ptr>40
20 SEM_STAT_ANY arg:ptr>104
"""
)

SHMCTL = Family(
    """
0  IPC_RMID
1  IPC_SET buf:ptr<112
2  IPC_STAT buf:ptr>112
3  IPC_INFO buf:ptr>72
11 SHM_LOCK
12 SHM_UNLOCK
13 SHM_STAT buf:ptr>112
14 SHM_INFO buf:ptr>48
15 SHM_STAT_ANY buf:ptr>112
"""
)

MSGCTL = Family(
    """
0  IPC_RMID
1  IPC_SET buf:ptr<120
2  IPC_STAT buf:ptr>120
3  IPC_INFO buf:ptr>32
11 MSG_STAT buf:ptr>120
12 MSG_INFO buf:ptr>32
13 MSG_STAT_ANY buf:ptr>120
"""
)
