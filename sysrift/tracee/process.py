# SPDX-License-Identifier: GPL-2.0-or-later
"""`Tracee`: a process under ptrace, as a recorder or a replayer sees it."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import signal
import struct
from collections.abc import Iterator
from typing import NamedTuple

from sysrift.syscalls import BadAddress
from sysrift.tracee import ptrace as pt
from sysrift.tracee.registers import NAMES, NO_SYSCALL, Registers, signed

_MAX_XSAVE = 16384
_SIGINFO_SIZE = 128
_SYSCALL_INFO = struct.Struct("<BxxxIQQQ6Q")  # op, arch, ip, sp, nr, args
_EXIT_INFO = struct.Struct("<BxxxIQQqB")  # op, arch, ip, sp, rval, is_error
_INFO_SIZE = 88
_USER_REGISTERS = struct.Struct(f"<{len(NAMES)}Q")
_STRAY_STOPS = 64
_SIGTRAP = 1 << signal.SIGTRAP - 1  # in a mask
_DEBUG_ENABLED, _DEBUG_HITS = 0xFF, 0xF  # a pair of bits in DR7, one in DR6, for each address
_DEBUG_EXECUTE_FIRST = 1  # DR7: only the first address is enabled, and is an instruction's


class TraceeGone(Exception):
    """The process ended while it was waited for; `status` is what waitpid gave."""

    def __init__(self, pid: int, status: int) -> None:
        super().__init__(f"process {pid} ended (wait status {status:#x})")
        self.pid = pid
        self.status = status


class RemoteSyscallError(Exception):
    """A system call made on the tracee's behalf failed; `errno` says how."""

    def __init__(self, nr: int, args: tuple[int, ...], errno: int) -> None:
        shown = ", ".join(hex(value) for value in args)
        super().__init__(f"remote system call {nr}({shown}): {os.strerror(errno)}")
        self.errno = errno


class Entry(NamedTuple):
    """What a syscall-entry-stop shows."""

    arch: int
    ip: int
    sp: int
    nr: int
    args: tuple[int, int, int, int, int, int]


class Exit(NamedTuple):
    """What a syscall-exit-stop shows; a negative result is -errno."""

    ip: int
    sp: int
    result: int


class _IoVec(ctypes.Structure):
    _fields_ = [("base", ctypes.c_void_p), ("length", ctypes.c_size_t)]


class Tracee:
    """One traced process (its only thread). It must be in a ptrace-stop for all but `wait`.

    `remote_site` is the address of a `syscall` instruction that `remote_syscall` may use;
    `held_signals` are (signal, siginfo) that arrived while one was being made.
    """

    def __init__(self, pid: int, remote_site: int = 0) -> None:
        self.pid = pid
        self.remote_site = remote_site
        self.held_signals: list[tuple[int, bytes]] = []
        self._info = ctypes.create_string_buffer(_INFO_SIZE)
        self._user_registers = ctypes.create_string_buffer(_USER_REGISTERS.size)
        self._user_registers_at = ctypes.addressof(self._user_registers)
        self._siginfo = ctypes.create_string_buffer(_SIGINFO_SIZE)
        self._memory = -1
        self.reopen_memory()

    # -- memory ---------------------------------------------------------------------------------

    def reopen_memory(self) -> None:
        """Open `/proc/PID/mem` anew: an open one still names the memory from before an exec."""
        self.close()
        self._memory = os.open(f"/proc/{self.pid}/mem", os.O_RDWR | os.O_CLOEXEC)

    def close(self) -> None:
        """Let go of the process's memory."""
        if self._memory >= 0:
            os.close(self._memory)
            self._memory = -1

    def read(self, address: int, length: int) -> bytes:
        """`length` bytes at `address`, whatever the protection; BadAddress if any is missing."""
        try:
            data = os.pread(self._memory, length, address)
            while len(data) < length:
                more = os.pread(self._memory, length - len(data), address + len(data))
                if not more:
                    break
                data += more
        except (OSError, OverflowError, ValueError, MemoryError):
            raise BadAddress(f"no memory at {address:#x}") from None
        if len(data) != length:
            raise BadAddress(f"no memory at {address + len(data):#x}")
        return data

    def read_some(self, address: int, length: int) -> bytes:
        """As many of the bytes as there are before the first unmapped one."""
        data = b""
        while len(data) < length:
            try:
                more = os.pread(self._memory, length - len(data), address + len(data))
            except (OSError, OverflowError, ValueError, MemoryError):
                break
            if not more:
                break
            data += more
        return data

    def read_own(self, address: int, length: int) -> bytes:
        """Memory that tracing itself has put there. ProcessLookupError when the process is gone."""
        data = b""
        while len(data) < length:
            try:
                more = os.pread(self._memory, length - len(data), address + len(data))
            except OSError:
                more = b""
            if not more:
                raise ProcessLookupError(errno.ESRCH, os.strerror(errno.ESRCH))
            data += more
        return data

    def write(self, address: int, data: bytes) -> None:
        """Put `data` at `address`, whatever the protection; BadAddress where there is no memory."""
        view = memoryview(data)
        try:
            while view:
                written = os.pwrite(self._memory, view, address)
                if not written:
                    break
                view = view[written:]
                address += written
        except (OSError, OverflowError):
            pass
        if view:
            raise BadAddress(f"no memory at {address:#x}")

    def write_own(self, address: int, data: bytes) -> None:
        """Write memory that tracing itself has put there. ProcessLookupError as for `read_own`."""
        try:
            self.write(address, data)
        except BadAddress:
            raise ProcessLookupError(errno.ESRCH, os.strerror(errno.ESRCH)) from None

    # -- registers ------------------------------------------------------------------------------

    def registers(self) -> Registers:
        """The general registers."""
        registers = Registers()
        pt.ptrace(pt.PTRACE_GETREGS, self.pid, None, ctypes.byref(registers))
        return registers

    def register_values(self) -> tuple[int, ...]:
        """The same as numbers, in the order of `registers.NAMES`; three times as fast."""
        pt.ptrace(pt.PTRACE_GETREGS, self.pid, None, self._user_registers_at)
        return _USER_REGISTERS.unpack(self._user_registers)

    def set_registers(self, registers: Registers) -> None:
        """Set the general registers."""
        pt.ptrace(pt.PTRACE_SETREGS, self.pid, None, ctypes.byref(registers))

    def xsave(self) -> bytes:
        """The xsave area (x87, SSE, AVX, ...; arch/x86/kernel/fpu/regset.c)."""
        buffer = ctypes.create_string_buffer(_MAX_XSAVE)
        vector = _IoVec(ctypes.addressof(buffer), _MAX_XSAVE)
        pt.ptrace(pt.PTRACE_GETREGSET, self.pid, pt.NT_X86_XSTATE, ctypes.byref(vector))
        return buffer.raw[: vector.length]

    def set_xsave(self, area: bytes) -> None:
        """Set the xsave area; OSError when this CPU has another layout."""
        buffer = ctypes.create_string_buffer(area, len(area))
        vector = _IoVec(ctypes.addressof(buffer), len(area))
        pt.ptrace(pt.PTRACE_SETREGSET, self.pid, pt.NT_X86_XSTATE, ctypes.byref(vector))

    @contextlib.contextmanager
    def watchpoints_off(self) -> Iterator[None]:
        """Without the debug registers that a debugger may have set (<sys/user.h>, u_debugreg)."""
        before = pt.peek_user(self.pid, pt.DEBUG_CONTROL)
        if before:
            pt.ptrace(pt.PTRACE_POKEUSER, self.pid, pt.DEBUG_CONTROL, 0)
        try:
            yield
        finally:
            if before:
                pt.ptrace(pt.PTRACE_POKEUSER, self.pid, pt.DEBUG_CONTROL, before)

    @property
    def has_watchpoints(self) -> bool:
        """Whether a debugger has set debug registers; False also where there are none."""
        try:
            return bool(pt.peek_user(self.pid, pt.DEBUG_CONTROL) & _DEBUG_ENABLED)
        except OSError:
            return False

    @property
    def hardware_breakpoints(self) -> list[int]:
        """Addresses of instructions that a debugger has put into debug registers."""
        control = pt.peek_user(self.pid, pt.DEBUG_CONTROL)
        return [
            pt.peek_user(self.pid, pt.DEBUG_ADDRESS + 8 * n)
            for n in range(4)
            if control >> 2 * n & 3 and not control >> 16 + 4 * n & 3
        ]

    @property
    def watchpoint_hits(self) -> int:
        """Which debug registers matched at the last debug exception, or since this was set, as
        bits 0 to 3 of DR6. The kernel clears them at the next (exc_debug_user), a single step
        among them; `remote_syscall` makes steps."""
        return pt.peek_user(self.pid, pt.DEBUG_STATUS) & _DEBUG_HITS

    @watchpoint_hits.setter
    def watchpoint_hits(self, hits: int) -> None:
        other = pt.peek_user(self.pid, pt.DEBUG_STATUS) & ~_DEBUG_HITS
        pt.ptrace(pt.PTRACE_POKEUSER, self.pid, pt.DEBUG_STATUS, other | hits)

    @contextlib.contextmanager
    def execution_breakpoint(self, address: int) -> Iterator[bool]:
        """A debug register that stops it in front of the instruction at `address`, by SIGTRAP; when
        it goes on the kernel sees that the instruction is executed.

        Gives False when there are no debug registers, or a debugger uses some. Nobody sees later
        that there was one.
        """
        try:
            works = not self.has_watchpoints
            if works:
                pt.ptrace(pt.PTRACE_POKEUSER, self.pid, pt.DEBUG_ADDRESS, address)
                pt.ptrace(pt.PTRACE_POKEUSER, self.pid, pt.DEBUG_CONTROL, _DEBUG_EXECUTE_FIRST)
        except OSError:
            works = False
        try:
            yield works
        finally:
            if works:
                with contextlib.suppress(OSError):  # it may be gone
                    pt.ptrace(pt.PTRACE_POKEUSER, self.pid, pt.DEBUG_CONTROL, 0)
                    self.watchpoint_hits = 0

    # -- system call stops ----------------------------------------------------------------------

    def stop_operation(self) -> int:
        """Which syscall-stop this is: SYSCALL_INFO_ENTRY, _EXIT, or _NONE for another stop."""
        pt.ptrace(pt.PTRACE_GET_SYSCALL_INFO, self.pid, _INFO_SIZE, ctypes.addressof(self._info))
        return self._info.raw[0]

    def syscall_stop(self) -> Entry | Exit | None:
        """The call at a syscall-stop, as it was entered or as it returns; None at another stop.

        Asked in one ptrace call: a process that is killed meanwhile leaves this stop for that of
        its exit, where it seems to be in none.
        """
        info = self._info
        pt.ptrace(pt.PTRACE_GET_SYSCALL_INFO, self.pid, _INFO_SIZE, ctypes.addressof(info))
        operation = info.raw[0]
        if operation == pt.SYSCALL_INFO_EXIT:
            _, _, ip, sp, result, _ = _EXIT_INFO.unpack_from(info)
            return Exit(ip, sp, result)
        if operation == pt.SYSCALL_INFO_ENTRY:
            _, arch, ip, sp, nr, *args = _SYSCALL_INFO.unpack_from(info)
            return Entry(arch, ip, sp, nr, tuple(args))
        return None

    def event_message(self) -> int:
        """What a PTRACE_EVENT stop tells: a new process's id, or the wait status at the exit."""
        message = ctypes.c_ulong()
        pt.ptrace(pt.PTRACE_GETEVENTMSG, self.pid, None, ctypes.addressof(message))
        return message.value

    # -- signals --------------------------------------------------------------------------------

    def siginfo(self) -> bytes:
        """The siginfo_t of a signal-delivery-stop."""
        pt.ptrace(pt.PTRACE_GETSIGINFO, self.pid, None, ctypes.addressof(self._siginfo))
        return self._siginfo.raw

    def set_siginfo(self, siginfo: bytes) -> None:
        """Replace the siginfo_t of a signal-delivery-stop."""
        buffer = ctypes.create_string_buffer(siginfo, _SIGINFO_SIZE)
        pt.ptrace(pt.PTRACE_SETSIGINFO, self.pid, None, ctypes.addressof(buffer))

    @property
    def pending_signals(self) -> int:
        """The set of signals sent to the thread that have not arrived, bit N-1 for signal N."""
        with open(f"/proc/{self.pid}/status", encoding="utf-8", errors="replace") as file:
            fields = dict(line.split(":", 1) for line in file)
        return int(fields["SigPnd"], 16)

    def signal_mask(self) -> int:
        """The set of blocked signals, bit N-1 for signal N."""
        buffer = ctypes.c_uint64()
        pt.ptrace(pt.PTRACE_GETSIGMASK, self.pid, 8, ctypes.addressof(buffer))
        return buffer.value

    def set_signal_mask(self, mask: int) -> None:
        """Set the blocked signals."""
        buffer = ctypes.c_uint64(mask)
        pt.ptrace(pt.PTRACE_SETSIGMASK, self.pid, 8, ctypes.addressof(buffer))

    # -- running --------------------------------------------------------------------------------

    def resume(self, request: int, sig: int = 0) -> None:
        """Let it run by `request` (PTRACE_CONT, _SYSCALL, _SYSEMU, _SINGLESTEP), with a signal."""
        pt.ptrace(request, self.pid, None, sig)

    def wait(self) -> int:
        """Wait for the next stop and return its wait status; TraceeGone when it ended."""
        _, status = os.waitpid(self.pid, pt.WALL)
        if not os.WIFSTOPPED(status):
            raise TraceeGone(self.pid, status)
        return status

    @contextlib.contextmanager
    def steps_allowed(self) -> Iterator[None]:
        """Within it, single steps do not hurt a program that blocks SIGTRAP.

        The kernel resets the handler of a blocked signal that it has to raise (force_sig).
        """
        mask = self.signal_mask()
        if not mask & _SIGTRAP:
            yield
            return
        self.set_signal_mask(mask & ~_SIGTRAP)
        try:
            yield
        finally:
            with contextlib.suppress(OSError):  # it may be gone
                self.set_signal_mask(mask)

    def remote_syscall(self, nr: int, *args: int) -> int:
        """Make the tracee execute a system call and return its result.

        Its registers are as before afterwards, but a syscall-entry-stop it was in is left.
        Signals that arrive meanwhile are kept in `held_signals`. Raises RemoteSyscallError.
        """
        saved = self.registers()
        try:
            call = saved.copy()
            call.set_call(nr, *args)
            call.rip = self.remote_site
            self.set_registers(call)
            with self.steps_allowed():
                result = self._step_over_syscall()
        finally:
            saved.orig_rax = NO_SYSCALL
            self.set_registers(saved)
        if -4096 < result < 0:
            raise RemoteSyscallError(nr, args, -result)
        return result

    def _step_over_syscall(self) -> int:
        """Single-step until the `syscall` at `remote_site` is done; the result in rax.

        The first step may end without executing anything: leaving a syscall-entry-stop under
        PTRACE_SINGLESTEP reports a SIGTRAP at once (kernel/entry/common.c).
        """
        for _ in range(_STRAY_STOPS):
            self.resume(pt.PTRACE_SINGLESTEP)
            status = self.wait()
            stopped_by = os.WSTOPSIG(status)
            if stopped_by != signal.SIGTRAP:
                if status >> 16 == 0:
                    self.held_signals.append((stopped_by, self.siginfo()))
                continue
            registers = self.registers()
            if registers.rip == self.remote_site + 2:
                return signed(registers.rax)
        raise RemoteSyscallError(-1, (), 4)
