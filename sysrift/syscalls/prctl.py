# SPDX-License-Identifier: GPL-2.0-or-later
"""`prctl` and `arch_prctl` options (prctl(2), kernel/sys.c, arch/x86/kernel/process_64.c)."""

from __future__ import annotations

from collections.abc import Iterator

from .memory import Memory
from .plan import Args, Irregular, Range
from .security import filter_program
from .variants import Family

SECCOMP_MODE_FILTER = 2
PR_SET_MM_AUXV, PR_SET_MM_MAP, PR_SET_MM_MAP_SIZE = 12, 14, 15
PR_SCHED_CORE_GET = 0


def _set_seccomp(args: Args, memory: Memory) -> Iterator[Range]:
    if args[1] == SECCOMP_MODE_FILTER:
        yield from filter_program(memory, 2, args[2])


def _set_mm_inputs(args: Args, memory: Memory) -> Iterator[Range]:
    if args[1] in (PR_SET_MM_AUXV, PR_SET_MM_MAP):
        yield Range(2, args[2], min(args[3], 4096), "struct")


def _set_mm_outputs(args: Args, result: int, memory: Memory, state: object) -> Iterator[Range]:
    if args[1] == PR_SET_MM_MAP_SIZE:
        yield Range(2, args[2], 4, "struct")


def _sched_core(args: Args, result: int, memory: Memory, state: object) -> Iterator[Range]:
    if args[1] == PR_SCHED_CORE_GET:
        yield Range(4, args[4], 8, "struct")


PRCTL = Family(
    """
1  PR_SET_PDEATHSIG arg2:signal
2  PR_GET_PDEATHSIG arg2:ptr>4
3  PR_GET_DUMPABLE
4  PR_SET_DUMPABLE
5  PR_GET_UNALIGN arg2:ptr>4
6  PR_SET_UNALIGN
7  PR_GET_KEEPCAPS
8  PR_SET_KEEPCAPS
9  PR_GET_FPEMU arg2:ptr>4
10 PR_SET_FPEMU
11 PR_GET_FPEXC arg2:ptr>4
12 PR_SET_FPEXC
13 PR_GET_TIMING
14 PR_SET_TIMING
15 PR_SET_NAME arg2:string<z^15
16 PR_GET_NAME arg2:string>16
19 PR_GET_ENDIAN arg2:ptr>4
20 PR_SET_ENDIAN
21 PR_GET_SECCOMP
22 PR_SET_SECCOMP =set_seccomp
23 PR_CAPBSET_READ
24 PR_CAPBSET_DROP
25 PR_GET_TSC arg2:ptr>4
26 PR_SET_TSC
27 PR_GET_SECUREBITS
28 PR_SET_SECUREBITS
29 PR_SET_TIMERSLACK
30 PR_GET_TIMERSLACK
31 PR_TASK_PERF_EVENTS_DISABLE
32 PR_TASK_PERF_EVENTS_ENABLE
33 PR_MCE_KILL
34 PR_MCE_KILL_GET
35 PR_SET_MM =set_mm
36 PR_SET_CHILD_SUBREAPER
37 PR_GET_CHILD_SUBREAPER arg2:ptr>4
38 PR_SET_NO_NEW_PRIVS
39 PR_GET_NO_NEW_PRIVS
40 PR_GET_TID_ADDRESS arg2:ptr>8
41 PR_SET_THP_DISABLE
42 PR_GET_THP_DISABLE
43 PR_MPX_ENABLE_MANAGEMENT
44 PR_MPX_DISABLE_MANAGEMENT
45 PR_SET_FP_MODE
46 PR_GET_FP_MODE
47 PR_CAP_AMBIENT
50 PR_SVE_SET_VL
51 PR_SVE_GET_VL
52 PR_GET_SPECULATION_CTRL
53 PR_SET_SPECULATION_CTRL
54 PR_PAC_RESET_KEYS
55 PR_SET_TAGGED_ADDR_CTRL
56 PR_GET_TAGGED_ADDR_CTRL
57 PR_SET_IO_FLUSHER
58 PR_GET_IO_FLUSHER
59 PR_SET_SYSCALL_USER_DISPATCH
60 PR_PAC_SET_ENABLED_KEYS
61 PR_PAC_GET_ENABLED_KEYS
62 PR_SCHED_CORE =sched_core
63 PR_SME_SET_VL
64 PR_SME_GET_VL
65 PR_SET_MDWE
66 PR_GET_MDWE
67 PR_SET_MEMORY_MERGE
68 PR_GET_MEMORY_MERGE
69 PR_RISCV_V_SET_CONTROL
70 PR_RISCV_V_GET_CONTROL
71 PR_RISCV_SET_ICACHE_FLUSH_CTX
72 PR_PPC_GET_DEXCR
73 PR_PPC_SET_DEXCR
74 PR_GET_SHADOW_STACK_STATUS arg2:ptr>8
75 PR_SET_SHADOW_STACK_STATUS
76 PR_LOCK_SHADOW_STACK_STATUS
77 PR_TIMER_CREATE_RESTORE_IDS
78 PR_FUTEX_HASH
0x53564d41 PR_SET_VMA arg5:string<z^80
0x59616d61 PR_SET_PTRACER
0x41555856 PR_GET_AUXV arg2:ptr>ret^arg3
""",
    {
        "set_seccomp": Irregular(_set_seccomp),
        "set_mm": Irregular(_set_mm_inputs, None, _set_mm_outputs),
        "sched_core": Irregular(None, None, _sched_core),
    },
)

ARCH_PRCTL = Family(
    """
0x1001 ARCH_SET_GS addr:ptr
0x1002 ARCH_SET_FS addr:ptr
0x1003 ARCH_GET_FS addr:ptr>8
0x1004 ARCH_GET_GS addr:ptr>8
0x1011 ARCH_GET_CPUID
0x1012 ARCH_SET_CPUID
0x1021 ARCH_GET_XCOMP_SUPP addr:ptr>8
0x1022 ARCH_GET_XCOMP_PERM addr:ptr>8
0x1023 ARCH_REQ_XCOMP_PERM
0x1024 ARCH_GET_XCOMP_GUEST_PERM addr:ptr>8
0x1025 ARCH_REQ_XCOMP_GUEST_PERM
0x1030 ARCH_XCOMP_TILECFG
0x1031 ARCH_XCOMP_TILEDATA
0x2001 ARCH_MAP_VDSO_X32
0x2002 ARCH_MAP_VDSO_32
0x2003 ARCH_MAP_VDSO_64
0x3001 ARCH_CET_STATUS                      # the number that glibc 2.28 to 2.38 tries: EINVAL
0x4001 ARCH_GET_UNTAG_MASK addr:ptr>8
0x4002 ARCH_ENABLE_TAGGED_ADDR
0x4003 ARCH_GET_MAX_TAG_BITS addr:ptr>8
0x4004 ARCH_FORCE_TAGGED_SVA
0x5001 ARCH_SHSTK_ENABLE
0x5002 ARCH_SHSTK_DISABLE
0x5003 ARCH_SHSTK_LOCK
0x5004 ARCH_SHSTK_UNLOCK
0x5005 ARCH_SHSTK_STATUS addr:ptr>8
"""
)
