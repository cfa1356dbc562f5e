# SPDX-License-Identifier: GPL-2.0-or-later
"""`fcntl` commands (fcntl(2), include/uapi/linux/fcntl.h)."""

from __future__ import annotations

from .variants import Family

FCNTL = Family(
    """
0    F_DUPFD
1    F_GETFD
2    F_SETFD arg:flags.fd
3    F_GETFL
4    F_SETFL arg:flags.open
5    F_GETLK arg:flock<>
6    F_SETLK arg:flock<
7    F_SETLKW arg:flock<
8    F_SETOWN arg:int
9    F_GETOWN
10   F_SETSIG arg:signal
11   F_GETSIG
15   F_SETOWN_EX arg:ptr<8
16   F_GETOWN_EX arg:ptr>8
17   F_GETOWNER_UIDS arg:ptr>8
36   F_OFD_GETLK arg:flock<>
37   F_OFD_SETLK arg:flock<
38   F_OFD_SETLKW arg:flock<
1024 F_SETLEASE arg:int
1025 F_GETLEASE
1026 F_NOTIFY
1027 F_DUPFD_QUERY arg:fd
1028 F_CREATED_QUERY
1029 F_CANCELLK
1030 F_DUPFD_CLOEXEC arg:int
1031 F_SETPIPE_SZ arg:uint
1032 F_GETPIPE_SZ
1033 F_ADD_SEALS arg:flags.seal
1034 F_GET_SEALS
1035 F_GET_RW_HINT arg:ptr>8
1036 F_SET_RW_HINT arg:ptr<8
1037 F_GET_FILE_RW_HINT arg:ptr>8
1038 F_SET_FILE_RW_HINT arg:ptr<8
1039 F_GETDELEG arg:ptr<8>8
1040 F_SETDELEG arg:ptr<8
"""
)
