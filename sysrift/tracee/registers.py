# SPDX-License-Identifier: GPL-2.0-or-later
"""`struct user_regs_struct` of x86-64 (<sys/user.h>, arch/x86/include/asm/user_64.h)."""

from __future__ import annotations

import ctypes

_ORDER = (
    "r15 r14 r13 r12 rbp rbx r11 r10 r9 r8 rax rcx rdx rsi rdi orig_rax rip cs eflags rsp ss "
    "fs_base gs_base ds es fs gs"
)
NAMES = tuple(_ORDER.split())
"""In the order of `struct user_regs_struct`."""

MASK = 0xFFFFFFFFFFFFFFFF
NO_SYSCALL = MASK
"""orig_rax of a task that is in no system call: -1."""


class Registers(ctypes.Structure):
    """The general registers; fields are unsigned 64-bit integers (assigning wraps around)."""

    _fields_ = [(name, ctypes.c_uint64) for name in NAMES]

    r15: int
    r14: int
    r13: int
    r12: int
    rbp: int
    rbx: int
    r11: int
    r10: int
    r9: int
    r8: int
    rax: int
    rcx: int
    rdx: int
    rsi: int
    rdi: int
    orig_rax: int
    rip: int
    cs: int
    eflags: int
    rsp: int
    ss: int
    fs_base: int
    gs_base: int
    ds: int
    es: int
    fs: int
    gs: int

    @classmethod
    def from_bytes(cls, data: bytes) -> Registers:
        """Registers from the 216 bytes of a `user_regs_struct`."""
        return cls.from_buffer_copy(data)

    def copy(self) -> Registers:
        """An independent copy."""
        return Registers.from_buffer_copy(self)

    @property
    def arguments(self) -> tuple[int, int, int, int, int, int]:
        """The six system call arguments, as syscall(2) orders them."""
        return (self.rdi, self.rsi, self.rdx, self.r10, self.r8, self.r9)

    def set_call(self, nr: int, *args: int) -> None:
        """Set the registers up for a `syscall` instruction to make this call."""
        six = [value & MASK for value in args] + [0] * (6 - len(args))
        self.rax = nr
        self.orig_rax = NO_SYSCALL
        self.rdi, self.rsi, self.rdx, self.r10, self.r8, self.r9 = six


SIZE = ctypes.sizeof(Registers)


def signed(value: int) -> int:
    """A register's value as the signed number it holds."""
    return value - (1 << 64) if value >> 63 else value
