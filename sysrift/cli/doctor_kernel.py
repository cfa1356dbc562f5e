# SPDX-License-Identifier: GPL-2.0-or-later
"""What the kernel lets a recorder and a replayer do, found out by doing it in a child process."""

from __future__ import annotations

import ctypes
import mmap
import os
import signal
from pathlib import Path

from sysrift.cli.doctor_children import (
    ProbeFailed,
    child,
    exit_code,
    libc,
    sleep_until_killed,
    wait,
)
from sysrift.cli.doctor_findings import Check, Finding, ok, problem, warning
from sysrift.errors import ReplayError
from sysrift.native import stub_path
from sysrift.tracee import Tracee
from sysrift.tracee import ptrace as pt
from sysrift.tracee.registers import signed

_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER = 22, 2
_PR_SET_TSC, _PR_TSC_SIGSEGV = 26, 2
_PR_SET_MM, _PR_SET_MM_MAP_SIZE = 35, 15
_PR_SET_NO_NEW_PRIVS = 38
_EVERYWHERE = 1 << 46
_ADDR_NO_RANDOMIZE = 0x0040000
_SECCOMP_RET_ALLOW = 0x7FFF0000
_BPF_RET = 0x06

_CONTAINER = (
    "in a container: docker run --cap-add=SYS_PTRACE --security-opt seccomp=unconfined (podman: "
    "the same)"
)
_YAMA = Path("/proc/sys/kernel/yama/ptrace_scope")
_YAMA_SCOPES = {
    0: "0: any process of yours can be traced",
    1: "1: a program can be recorded when SysRift starts it, not attached to",
    2: "2: only root may trace",
    3: "3: nobody may trace until the next reboot",
}


def check_ptrace() -> Finding:
    """Seize a child, interrupt it, and look at its system call: all that recording stands on."""
    name = "ptrace"
    with child(sleep_until_killed) as pid:
        try:
            pt.ptrace(pt.PTRACE_SEIZE, pid, None, pt.PTRACE_O_TRACESYSGOOD)
            pt.ptrace(pt.PTRACE_INTERRUPT, pid)
        except OSError as error:
            return problem(name, f"is not permitted ({error.strerror})", _ptrace_remedy())
        if not os.WIFSTOPPED(wait(pid)):
            return problem(name, "a seized process does not stop", _CONTAINER)
    return ok(name, "works (seized and stopped a child process)")


def _ptrace_remedy() -> str:
    scope = _yama_scope()
    if scope == 3:
        return "kernel.yama.ptrace_scope is 3, which only a reboot can undo: set it to 1 at boot"
    if scope == 2 and os.geteuid():
        return "sudo sysctl kernel.yama.ptrace_scope=1, or run as root"
    return _CONTAINER


def check_syscall_info() -> Finding:
    """PTRACE_GET_SYSCALL_INFO tells an entry from an exit; nothing else does reliably."""
    name = "PTRACE_GET_SYSCALL_INFO"
    buffer = ctypes.create_string_buffer(88)
    with child(sleep_until_killed) as pid:
        try:
            pt.ptrace(pt.PTRACE_SEIZE, pid, None, pt.PTRACE_O_TRACESYSGOOD)
            pt.ptrace(pt.PTRACE_INTERRUPT, pid)
        except OSError:
            return problem(name, "cannot be tried without ptrace", "see ptrace")
        wait(pid)
        try:
            pt.ptrace(pt.PTRACE_GET_SYSCALL_INFO, pid, 88, ctypes.addressof(buffer))
        except OSError as error:
            remedy = "use a kernel of version 5.3 or later (gVisor and the like cannot do it)"
            return problem(name, f"does not work ({error.strerror})", remedy)
    return ok(name, "works")


def _seize(pid: int) -> bool:
    """Seize a child, and stop it; returns whether that can be done."""
    try:
        pt.ptrace(pt.PTRACE_SEIZE, pid)
        pt.ptrace(pt.PTRACE_INTERRUPT, pid)
    except OSError:
        return False
    wait(pid)
    return True


def check_process_memory() -> Finding:
    """/proc/PID/mem must be writable, whatever the protection of the memory is."""
    name = "/proc/PID/mem"
    word = mmap.mmap(-1, mmap.PAGESIZE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    address = ctypes.addressof(ctypes.c_char.from_buffer(word))
    with child(sleep_until_killed) as pid:
        if not _seize(pid):
            return problem(name, "cannot be tried without ptrace", "see ptrace")
        try:
            file = os.open(f"/proc/{pid}/mem", os.O_RDWR)
            try:
                os.pwrite(file, b"SysRift", address)
                written = os.pread(file, 7, address)
            finally:
                os.close(file)
        except OSError as error:
            remedy = "boot without proc_mem.force_override=never; " + _CONTAINER
            return problem(name, f"cannot be written ({error.strerror})", remedy)
    if written != b"SysRift":
        return problem(name, "does not keep what is written", _CONTAINER)
    return ok(name, "can be read and written")


def check_yama() -> Finding:
    """The Yama security module's restriction of ptrace."""
    name = "yama ptrace_scope"
    scope = _yama_scope()
    if scope is None:
        return ok(name, "no such restriction on this system")
    text = _YAMA_SCOPES.get(scope, str(scope))
    if scope == 3 or (scope == 2 and os.geteuid()):
        return problem(name, text, _ptrace_remedy())
    return ok(name, text)


def _yama_scope() -> int | None:
    try:
        return int(_YAMA.read_text())
    except (OSError, ValueError):
        return None


def check_container() -> Finding:
    """A seccomp filter over this very process, as container runtimes install."""
    name = "container seccomp"
    mode = "0"
    try:
        for line in Path("/proc/self/status").read_text(errors="replace").splitlines():
            if line.startswith("Seccomp:"):
                mode = line.split()[1]
    except OSError as error:
        return warning(name, f"cannot be told: /proc/self/status: {error.strerror}")
    if mode == "0":
        return ok(name, "this process is not filtered")
    text = "this process runs under a seccomp filter: some system calls may be refused"
    return warning(name, text, f"if a check here or a recording fails, {_CONTAINER}")


class _Filter(ctypes.Structure):
    _fields_ = [
        ("code", ctypes.c_ushort),
        ("jt", ctypes.c_ubyte),
        ("jf", ctypes.c_ubyte),
        ("k", ctypes.c_uint32),
    ]


class _Program(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("filter", ctypes.POINTER(_Filter))]


def check_seccomp() -> Finding:
    """A replay guards itself by a seccomp filter."""
    name = "seccomp filters"

    def body() -> int:
        instruction = _Filter(_BPF_RET, 0, 0, _SECCOMP_RET_ALLOW)
        program = _Program(1, ctypes.pointer(instruction))
        if libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0):
            return 1
        filtered = libc.prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, ctypes.byref(program), 0, 0)
        return 1 if filtered else 0

    if exit_code(body):
        remedy = "use a kernel with CONFIG_SECCOMP_FILTER; " + _CONTAINER
        return problem(name, "cannot be installed: there is no replaying", remedy)
    return ok(name, "can be installed")


def check_stub() -> Finding:
    """Start the process that a replay happens in, as far as its guard."""
    name = "replay stub"
    try:
        path = str(stub_path())
    except ReplayError as error:
        return problem(name, "is not built", str(error))

    def body() -> int:
        libc.ptrace(pt.PTRACE_TRACEME, 0, None, None)
        os.execve(path, [path], {})

    with child(body) as pid:
        if not os.WIFSTOPPED(wait(pid)):
            return problem(name, f"{path} cannot be started under ptrace", "reinstall SysRift")
        pt.ptrace(pt.PTRACE_CONT, pid)
        status = wait(pid)
        if not os.WIFSTOPPED(status) or os.WSTOPSIG(status) != signal.SIGTRAP:
            return problem(name, f"{path} does not run", "reinstall SysRift")
        tracee = Tracee(pid)
        result = signed(tracee.registers().rax)
        tracee.close()
    if result:
        return problem(name, f"cannot guard itself ({os.strerror(-result)})", _CONTAINER)
    return ok(name, "starts and guards itself")


def check_time_stamps() -> Finding:
    """PR_SET_TSC makes rdtsc trap; tried by executing one."""
    name = "rdtsc trap (PR_SET_TSC)"

    def body() -> int:
        code = mmap.mmap(-1, mmap.PAGESIZE, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
        code.write(b"\x0f\x31\xc3")  # rdtsc; ret
        read = ctypes.CFUNCTYPE(None)(ctypes.addressof(ctypes.c_char.from_buffer(code)))
        if libc.prctl(_PR_SET_TSC, _PR_TSC_SIGSEGV, 0, 0, 0):
            return 1
        read()
        return 2

    try:
        code = exit_code(body)
    except ProbeFailed as failure:
        return warning(name, f"cannot be told: {failure}")
    if code == -signal.SIGSEGV:
        return ok(name, "works")
    why = "is refused" if code == 1 else "has no effect here"
    remedy = "programs that read the time stamp counter may diverge in replay; others are fine"
    return warning(name, why, remedy)


def check_memory_layout() -> Finding:
    """PR_SET_MM_MAP tells the kernel what debuggers ask it: auxv, heap and stack."""
    name = "PR_SET_MM_MAP"

    def body() -> int:
        size = ctypes.c_uint()
        return 1 if libc.prctl(_PR_SET_MM, _PR_SET_MM_MAP_SIZE, ctypes.byref(size), 0, 0) else 0

    if exit_code(body):
        remedy = "use a kernel with CONFIG_CHECKPOINT_RESTORE (those of distributions have it)"
        return problem(name, "is not there: GDB would not know a replayed program", remedy)
    return ok(name, "available")


def check_randomisation() -> Finding:
    """Programs are recorded with address space randomisation off."""
    name = "personality"

    def body() -> int:
        old = libc.personality(0xFFFFFFFF)
        return 1 if libc.personality(old | _ADDR_NO_RANDOMIZE) == -1 else 0

    if exit_code(body):
        text = (
            "address space randomisation cannot be switched off: addresses differ from run to run"
        )
        return warning(name, text, _CONTAINER)
    return ok(name, "address space randomisation can be switched off")


def check_user_dispatch() -> Finding:
    """Syscall user dispatch, set up from outside, lets the agent catch calls without a stop."""
    name = "syscall user dispatch"
    remedy = "programs are recorded by stops alone, which is slower; Linux 6.4 has what is needed"
    with child(sleep_until_killed) as pid:
        if not _seize(pid):
            return warning(name, "cannot be tried without ptrace", "see ptrace")
        try:
            pt.set_user_dispatch(pid, 0, _EVERYWHERE)
        except OSError as error:
            return warning(name, f"cannot be set up for the agent ({error.strerror})", remedy)
    return ok(name, "available")


CHECKS: tuple[tuple[str, Check], ...] = (
    ("ptrace", check_ptrace),
    ("PTRACE_GET_SYSCALL_INFO", check_syscall_info),
    ("/proc/PID/mem", check_process_memory),
    ("yama ptrace_scope", check_yama),
    ("container seccomp", check_container),
    ("seccomp filters", check_seccomp),
    ("replay stub", check_stub),
    ("rdtsc trap (PR_SET_TSC)", check_time_stamps),
    ("PR_SET_MM_MAP", check_memory_layout),
    ("personality", check_randomisation),
    ("syscall user dispatch", check_user_dispatch),
)
