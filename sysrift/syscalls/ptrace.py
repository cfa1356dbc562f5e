# SPDX-License-Identifier: GPL-2.0-or-later
"""`ptrace` requests of a recorded debugger (ptrace(2), arch/x86/kernel/ptrace.c)."""

from __future__ import annotations

from collections.abc import Iterator

from .memory import Memory, read_pairs, read_u64
from .plan import Args, Irregular, Range
from .variants import Family


def _regset_inputs(args: Args, memory: Memory) -> Iterator[Range]:
    if args[3]:
        [(address, length)] = read_pairs(memory, args[3], 1)
        yield Range(3, args[3], 16, "struct")
        if length < 1 << 16:
            yield Range(3, address, length, "struct")


def _regset_before(args: Args, memory: Memory) -> tuple[int, int]:
    [(address, length)] = read_pairs(memory, args[3], 1)
    return address, length


def _regset_outputs(args: Args, result: int, memory: Memory, state: object) -> Iterator[Range]:
    """The registers, and in the iovec how many bytes of them there were."""
    assert isinstance(state, tuple)
    address, length = state
    yield Range(3, args[3], 16, "struct")
    yield Range(3, address, min(length, read_u64(memory, args[3] + 8)), "struct")


PTRACE = Family(
    """
0      PTRACE_TRACEME
1      PTRACE_PEEKTEXT data:ptr>8
2      PTRACE_PEEKDATA data:ptr>8
3      PTRACE_PEEKUSER data:ptr>8
4      PTRACE_POKETEXT
5      PTRACE_POKEDATA
6      PTRACE_POKEUSER
7      PTRACE_CONT data:signal
8      PTRACE_KILL
9      PTRACE_SINGLESTEP data:signal
12     PTRACE_GETREGS data:ptr>216
13     PTRACE_SETREGS data:ptr<216
14     PTRACE_GETFPREGS data:ptr>512
15     PTRACE_SETFPREGS data:ptr<512
16     PTRACE_ATTACH
17     PTRACE_DETACH data:signal
24     PTRACE_SYSCALL data:signal
25     PTRACE_GET_THREAD_AREA data:ptr>16
26     PTRACE_SET_THREAD_AREA data:ptr<16
30     PTRACE_ARCH_PRCTL ?
31     PTRACE_SYSEMU data:signal
32     PTRACE_SYSEMU_SINGLESTEP data:signal
33     PTRACE_SINGLEBLOCK data:signal
0x4200 PTRACE_SETOPTIONS
0x4201 PTRACE_GETEVENTMSG data:ptr>8
0x4202 PTRACE_GETSIGINFO data:siginfo>
0x4203 PTRACE_SETSIGINFO data:siginfo<
0x4204 PTRACE_GETREGSET =get_regset
0x4205 PTRACE_SETREGSET =set_regset
0x4206 PTRACE_SEIZE
0x4207 PTRACE_INTERRUPT
0x4208 PTRACE_LISTEN
0x4209 PTRACE_PEEKSIGINFO addr:ptr<16 data:ptr>ret*128
0x420a PTRACE_GETSIGMASK data:sigset>addr
0x420b PTRACE_SETSIGMASK data:sigset<addr
0x420c PTRACE_SECCOMP_GET_FILTER data:ptr>ret*8
0x420d PTRACE_SECCOMP_GET_METADATA data:ptr<addr>addr
0x420e PTRACE_GET_SYSCALL_INFO data:ptr>ret^addr
0x420f PTRACE_GET_RSEQ_CONFIGURATION data:ptr>ret^addr
0x4210 PTRACE_SET_SYSCALL_USER_DISPATCH_CONFIG data:ptr<addr
0x4211 PTRACE_GET_SYSCALL_USER_DISPATCH_CONFIG data:ptr>addr
0x4212 PTRACE_SET_SYSCALL_INFO data:ptr<addr
""",
    {
        "get_regset": Irregular(None, _regset_before, _regset_outputs),
        # PTRACE_SETREGSET also stores the length that it used.
        "set_regset": Irregular(_regset_inputs, _regset_before, _regset_outputs),
    },
)
