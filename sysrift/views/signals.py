# SPDX-License-Identifier: GPL-2.0-or-later
"""Signals as text: their names, and the fields of a siginfo_t (sigaction(2))."""

from __future__ import annotations

import signal
import struct
from collections.abc import Mapping

_SIGRTMIN = 32  # the kernel's; the C library keeps the first two for itself

# Codes that any signal may have, and those of each (include/uapi/asm-generic/siginfo.h).
_ANY_CODE = {
    0: "SI_USER",
    0x80: "SI_KERNEL",
    -1: "SI_QUEUE",
    -2: "SI_TIMER",
    -3: "SI_MESGQ",
    -4: "SI_ASYNCIO",
    -5: "SI_SIGIO",
    -6: "SI_TKILL",
    -7: "SI_DETHREAD",
    -60: "SI_ASYNCNL",
}
_CODES = {
    "SIGILL": "ILL_ILLOPC ILL_ILLOPN ILL_ILLADR ILL_ILLTRP ILL_PRVOPC ILL_PRVREG ILL_COPROC "
    "ILL_BADSTK ILL_BADIADDR",
    "SIGFPE": "FPE_INTDIV FPE_INTOVF FPE_FLTDIV FPE_FLTOVF FPE_FLTUND FPE_FLTRES FPE_FLTINV "
    "FPE_FLTSUB",
    "SIGSEGV": "SEGV_MAPERR SEGV_ACCERR SEGV_BNDERR SEGV_PKUERR SEGV_ACCADI SEGV_ADIDERR "
    "SEGV_ADIPERR SEGV_MTEAERR SEGV_MTESERR SEGV_CPERR",
    "SIGBUS": "BUS_ADRALN BUS_ADRERR BUS_OBJERR BUS_MCEERR_AR BUS_MCEERR_AO",
    "SIGTRAP": "TRAP_BRKPT TRAP_TRACE TRAP_BRANCH TRAP_HWBKPT TRAP_UNK TRAP_PERF",
    "SIGCHLD": "CLD_EXITED CLD_KILLED CLD_DUMPED CLD_TRAPPED CLD_STOPPED CLD_CONTINUED",
    "SIGIO": "POLL_IN POLL_OUT POLL_MSG POLL_ERR POLL_PRI POLL_HUP",
    "SIGSYS": "SYS_SECCOMP SYS_USER_DISPATCH",
}
_CODE_NAMES: Mapping[str, Mapping[int, str]] = {
    name: dict(enumerate(codes.split(), start=1)) for name, codes in _CODES.items()
}
_FAULTS = frozenset({"SIGILL", "SIGFPE", "SIGSEGV", "SIGBUS", "SIGTRAP"})

_HEAD = struct.Struct("<iii4x")  # si_signo, si_errno, si_code; the union is 8-aligned
_SENDER = struct.Struct("<iI")
_CHILD = struct.Struct("<iIi4xqq")
_TIMER = struct.Struct("<iiQ")
_VALUE = struct.Struct("<iIQ")
_POLL = struct.Struct("<qi")
_SYSTEM_CALL = struct.Struct("<QiI")


def signal_name(number: int) -> str:
    """`SIGSEGV`; real-time signals as strace counts them, `SIGRT_0` being the kernel's SIGRTMIN."""
    if _SIGRTMIN <= number <= 64:
        return f"SIGRT_{number - _SIGRTMIN}"
    if number == 16:  # Python knows it since 3.11
        return "SIGSTKFLT"
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def siginfo_fields(number: int, siginfo: bytes) -> dict[str, int | str]:
    """The fields of the siginfo_t of signal `number`, by name and in order.

    Constants are names (`SEGV_MAPERR`), all else is numbers. Bytes that are too few give `si_signo`
    alone; this raises nothing.
    """
    name = signal_name(number)
    fields: dict[str, int | str] = {"si_signo": name}
    try:
        _, error, code = _HEAD.unpack_from(siginfo)
        own = _CODE_NAMES.get(name, {}) if code > 0 else {}
        fields["si_code"] = own.get(code) or _ANY_CODE.get(code) or code
        if error:
            fields["si_errno"] = error
        fields.update(_union(name, code, siginfo[_HEAD.size :]))
    except struct.error:
        pass
    return fields


def _union(name: str, code: int, data: bytes) -> dict[str, int]:
    """The part of a siginfo_t that depends on the signal and on where it came from."""
    if code in (0, -6):  # kill(2), tgkill(2)
        pid, uid = _SENDER.unpack_from(data)
        return {"si_pid": pid, "si_uid": uid}
    if code == -2:
        timer, overrun, value = _TIMER.unpack_from(data)
        return {"si_timerid": timer, "si_overrun": overrun, "si_int": value & 0xFFFFFFFF}
    if code < 0:
        pid, uid, value = _VALUE.unpack_from(data)
        return {"si_pid": pid, "si_uid": uid, "si_int": value & 0xFFFFFFFF}
    if code == 0x80:
        return {}
    if name in _FAULTS:
        return {"si_addr": struct.unpack_from("<Q", data)[0]}
    if name == "SIGCHLD":
        pid, uid, status, user, system = _CHILD.unpack_from(data)
        return {
            "si_pid": pid, "si_uid": uid, "si_status": status, "si_utime": user, "si_stime": system,
        }  # fmt: skip
    if name == "SIGIO":
        band, fd = _POLL.unpack_from(data)
        return {"si_band": band, "si_fd": fd}
    if name == "SIGSYS":
        address, number, arch = _SYSTEM_CALL.unpack_from(data)
        return {"si_call_addr": address, "si_syscall": number, "si_arch": arch}
    return {}


_HEXADECIMAL = frozenset({"si_addr", "si_call_addr", "si_arch"})


def siginfo_text(number: int, siginfo: bytes | None) -> str:
    """`SIGSEGV {si_signo=SIGSEGV, si_code=SEGV_MAPERR, si_addr=0x0}`, as strace has it."""
    name = signal_name(number)
    if not siginfo:
        return name
    shown = (
        f"{key}={value:#x}" if key in _HEXADECIMAL else f"{key}={value}"
        for key, value in siginfo_fields(number, siginfo).items()
    )
    return f"{name} {{{', '.join(shown)}}}"
