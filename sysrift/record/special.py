# SPDX-License-Identifier: GPL-2.0-or-later
"""What some system calls need while recording, beyond their row in the table.

`ENTRY` hooks run at the syscall-entry-stop, `EXIT` hooks at the syscall-exit-stop before the event
is logged.
"""

from __future__ import annotations

import ctypes
import errno
import functools
import mmap as mmap_module
import os
import struct
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from sysrift.record.call import Call
from sysrift.record.files import Opened
from sysrift.record.lent import LentMemory
from sysrift.record.refusals import (
    change_arguments,
    filter_installed,
    ioctl,
    prctl,
    prevent,
    refuse,
)
from sysrift.record.signals import is_signal_pending
from sysrift.syscalls import NAMES, BadAddress
from sysrift.trace.model import ABSOLUTE, AFTER, Mapped, SegmentKind
from sysrift.trace.writer import CHUNK
from sysrift.tracee import Tracee, TraceeGone, read_maps
from sysrift.tracee import ptrace as pt

if TYPE_CHECKING:
    from sysrift.record.recorder import Recorder

CLONE_VM, CLONE_VFORK, CLONE_THREAD, CLONE_UNTRACED = 0x100, 0x4000, 0x10000, 0x800000
MAP_SHARED_MASK, MAP_FIXED, MAP_ANONYMOUS, MAP_DENYWRITE = 0x03, 0x10, 0x20, 0x800
_MAP_SHARED = (1, 3)
PR_GET_TSC = 25
MADV_NORMAL, MADV_FREE, MADV_COLD, _NO_ADVICE = 0, 8, 20, 0x7FFFFFFF
MADV_DONTFORK, MADV_WIPEONFORK = 10, 18


FileSegment = tuple[int, int, int, tuple[int, int]]
"""Kind, base, offset, (`model.Mapped`, `FileReference.id`); see `writer.OutSegment`."""


def stop_recording(message: str) -> None:
    """Raise RecordingStops."""
    from sysrift.record.recorder import RecordingStops

    raise RecordingStops(message)


# -- calls that do not reach the kernel -----------------------------------------------------------


def sched_setaffinity(recorder: Recorder, call: Call) -> None:
    """The program shares one CPU with the recorder; what it asks for is only remembered."""
    if call.args[0] not in (0, recorder.tracee.pid):
        return
    try:
        mask = recorder.tracee.read(call.args[2], min(call.args[1] & 0xFFFFFFFF, 1024))
    except BadAddress:
        return  # EFAULT
    bits = int.from_bytes(mask, "little")
    usable = {cpu for cpu in recorder.options.affinity if bits >> cpu & 1}
    if usable:
        recorder.affinity = frozenset(usable)
        prevent(recorder, call, 0)
    else:
        prevent(recorder, call, -errno.EINVAL)


def sched_getaffinity(recorder: Recorder, call: Call) -> None:
    """Answer what the program would have seen without a recorder."""

    def effect(result: int) -> None:
        if result > 0 and call.args[0] in (0, recorder.tracee.pid) and recorder.affinity:
            bits = sum(1 << cpu for cpu in recorder.affinity)
            try:
                recorder.tracee.write(call.args[2], bits.to_bytes(result, "little"))
            except (BadAddress, OverflowError):
                pass

    call.effect = effect


def madvise(recorder: Recorder, call: Call) -> None:
    """MADV_FREE lets the kernel take pages at any time: here they stay, which is allowed."""
    first, length, advice = call.args[:3]
    if advice & 0xFFFFFFFF != MADV_FREE or first % 4096:
        return
    end = first + whole_pages(length)
    for mapping in read_maps(recorder.tracee.pid):
        meant = first < mapping.end and mapping.start < end
        if meant and (mapping.shared or mapping.is_file):
            # The kernel refuses it (mm/madvise.c: anonymous memory only), but not for what lies
            # before. Advice that it does not know is refused for all.
            if mapping.start > first:
                change_arguments(recorder, call, {2: _NO_ADVICE})
            return
    change_arguments(recorder, call, {2: MADV_NORMAL})


def process_madvise(recorder: Recorder, call: Call) -> None:
    """The same: MADV_COLD is as lawful, and changes nothing."""
    if call.args[3] & 0xFFFFFFFF == MADV_FREE:
        change_arguments(recorder, call, {3: MADV_COLD})


def advised_for_fork(recorder: Recorder, call: Call, result: int) -> None:
    """Children will begin with other memory than this process has: see `Recorder.begin_born`."""
    if result == 0 and call.args[2] & 0xFFFFFFFF in (MADV_DONTFORK, MADV_WIPEONFORK):
        recorder.children_differ = True


def ptrace_call(recorder: Recorder, _: Call) -> None:
    """The program's own use of ptrace fails, since it is traced already."""
    recorder.note("ptrace", "the program uses ptrace itself: calls that need to be its tracer fail")


# -- processes and threads ------------------------------------------------------------------------


def clone_flags(tracee: Tracee, nr: int, args: tuple[int, ...]) -> int:
    """The flags of a call that makes a process or a thread (clone(2))."""
    if nr == NAMES["vfork"]:
        return CLONE_VM | CLONE_VFORK
    if nr == NAMES["clone"]:
        return args[0]
    if nr == NAMES["clone3"]:
        try:
            flags: int = struct.unpack("<Q", tracee.read(args[0], 8))[0]
            return flags
        except BadAddress:
            return 0
    return 0


def new_task(recorder: Recorder, call: Call) -> None:
    """fork and its kin: threads end the recording of their process."""
    flags = clone_flags(recorder.tracee, call.nr, call.args)
    if not recorder.shared.expose(recorder.tracee):
        recorder.shared_too_large()
    if flags & CLONE_THREAD or (flags & CLONE_VM and not flags & CLONE_VFORK):
        what = "starts a thread" if flags & CLONE_THREAD else "shares its memory with a new process"
        stop_recording(f"the program {what}, which is not recorded yet")
    if not recorder.options.follow:
        recorder.note(
            "fork",
            "the program starts child processes, which are not recorded: only the first process is",
        )
    if flags & CLONE_UNTRACED and call.nr == NAMES["clone"]:
        _trace_all_the_same(recorder, call)
    if flags & CLONE_VM:
        # The child borrows the memory: what it writes there is found by comparing.
        call.lent = LentMemory(recorder.tracee)


def _trace_all_the_same(recorder: Recorder, call: Call) -> None:
    """CLONE_UNTRACED would let a child run off with the leaks closed: the kernel shall not see it.

    Both processes get their register back, the child in `Recorder.begin_born`.
    """
    registers = recorder.tracee.registers()
    registers.rdi &= ~CLONE_UNTRACED
    recorder.tracee.set_registers(registers)

    def effect(_: int) -> None:
        registers = recorder.tracee.registers()
        registers.rdi = call.args[0]
        recorder.tracee.set_registers(registers)

    call.effect = effect


def compare_after_vfork(recorder: Recorder, call: Call, _: int) -> None:
    """What a vfork child wrote into the memory it borrowed; all memory when it mapped some."""
    if call.lent is None:
        return
    if call.lent.is_mapped_otherwise(recorder.tracee):
        call.snapshot = True
    else:
        call.segments += call.lent.changes(recorder.tracee)


def let_child_go(recorder: Recorder, pid: int) -> None:
    """Detach a child of `recorder`'s that stands at its first stop, its leaks open again."""
    try:
        child = Tracee(pid, recorder.tracee.remote_site)
    except OSError:
        return
    try:
        call = recorder.call
        flags = clone_flags(recorder.tracee, call.nr, call.args) if call else 0
        if recorder.fast is not None:
            # It has a copy of code that leads to the agent, which would stop it for nobody.
            recorder.fast.agent.sites.copy(child).restore_all()
        recorder.leaks.reopen(child, shared_memory=bool(flags & CLONE_VM))
        if recorder.affinity:
            os.sched_setaffinity(pid, recorder.affinity)
        for sig, _ in child.held_signals:
            pt.tgkill(pid, sig)
        pt.ptrace(pt.PTRACE_DETACH, pid, None, 0)
    except (OSError, TraceeGone, BadAddress):
        pass
    finally:
        child.close()


# -- memory ---------------------------------------------------------------------------------------


def mmap(recorder: Recorder, call: Call, result: int) -> None:
    """Name the file that was mapped; store what a device gave."""
    _, length, _, flags, fd, offset = call.args
    if -4096 < result < 0:
        return
    if flags & MAP_FIXED:
        mappings_changed(recorder, call, result)
    if flags & MAP_ANONYMOUS:
        if flags & MAP_SHARED_MASK in _MAP_SHARED:
            recorder.watch_shared(result, length, anonymous=True)
        return
    shared = flags & MAP_SHARED_MASK in _MAP_SHARED
    fd = _descriptor(fd)
    opened = recorder.files.opened(recorder.tracee.pid, fd, offset, length, shared)
    if opened is not None:
        call.segments.append(_file_segment(recorder, opened, offset))
        if _may_change(recorder, opened, flags):
            recorder.mapped_files.add(opened, result, recorder.tracee)
            if shared:
                recorder.watch_shared(result, whole_pages(length))
        return
    name = _name(recorder.tracee.pid, fd)
    if name == "/dev/zero":
        return
    recorder.note(f"map {name}", f"the program maps {name}: its memory is stored as it was")
    _store_memory(recorder, call, result, length)


def _descriptor(argument: int) -> int:
    number: int = struct.unpack("<i", struct.pack("<I", argument & 0xFFFFFFFF))[0]
    return number


def _file_segment(recorder: Recorder, opened: Opened, offset: int) -> FileSegment:
    how = 0 if opened.writable else Mapped.READ_ONLY
    if recorder.mapped_files.has(opened.identity, recorder.tracee):
        how |= Mapped.IN_STEP
    return SegmentKind.FILE, ABSOLUTE, offset, (int(how), opened.file)


def _may_change(recorder: Recorder, opened: Opened, flags: int) -> bool:
    """Whether what the program writes to a file may show where it is mapped."""
    # What the dynamic linker maps (MAP_DENYWRITE) is not written to while it is in use.
    shared = flags & MAP_SHARED_MASK in _MAP_SHARED
    code = flags & MAP_DENYWRITE and not shared and not opened.writable
    return opened.writable or not (code or recorder.files.is_system(opened.file))


def known_file(recorder: Recorder, args: tuple[int, ...]) -> FileSegment | None:
    """The segment of a call of mmap(2) that is about to be made, when there will be nothing else to
    do after it: it maps, privately, a file that stays as it is."""
    _, length, _, flags, fd, offset = args
    if flags & MAP_ANONYMOUS or flags & MAP_SHARED_MASK in _MAP_SHARED:
        return None
    pid = recorder.tracee.pid
    opened = recorder.files.opened(pid, _descriptor(fd), offset, length, shared=False)
    if opened is None or _may_change(recorder, opened, flags):
        return None
    return _file_segment(recorder, opened, offset)


def shmat(recorder: Recorder, call: Call, result: int) -> None:
    """Store what a System V segment holds; it is replayed as private memory."""
    if -4096 < result < 0:
        return
    mapping = next((m for m in read_maps(recorder.tracee.pid) if m.start == result), None)
    if mapping is not None:
        _store_memory(recorder, call, result, mapping.end - mapping.start)
        recorder.watch_shared(result, mapping.end - mapping.start)


def mappings_changed(recorder: Recorder, _: Call, _result: int) -> None:
    """Shared mappings may be gone."""
    recorder.mapped_files.layout_changed()
    if recorder.shared:
        recorder.shared.remap(recorder.tracee)
        recorder.recording.turns.changed()


def _name(pid: int, descriptor: int) -> str:
    try:
        return os.readlink(f"/proc/{pid}/fd/{descriptor}")
    except OSError:
        return "a special file"


def whole_pages(length: int) -> int:
    """A length, rounded up to whole pages."""
    return (length + 4095) & ~4095


def _store_memory(recorder: Recorder, call: Call, address: int, length: int) -> None:
    for at in range(address, address + length, CHUNK):
        want = min(CHUNK, address + length - at)
        data = recorder.tracee.read_some(at, want)
        block = recorder.writer.add_data(data.ljust(want, b"\0"))
        call.segments.append((SegmentKind.OUT, ABSOLUTE, at, (want, block)))


# -- registers and the end ------------------------------------------------------------------------


def returns_nothing(_: Recorder, call: Call) -> None:
    """rt_sigreturn: what its exit shows as a result is a register of the interrupted program."""
    call.effect = lambda _result: 0


def rt_sigreturn(recorder: Recorder, call: Call, _: int) -> None:
    """The whole register state comes from a frame that the program could change."""
    tracee = recorder.tracee
    call.segments.append((SegmentKind.REGISTERS, ABSOLUTE, AFTER, bytes(tracee.registers())))
    call.segments.append((SegmentKind.XSAVE, ABSOLUTE, 0, tracee.xsave()))
    # It goes on in the middle of a loop, perhaps: a signal that comes when the program is here
    # again, passes later, looks as if it had come now.
    recorder.at_boundary = is_signal_pending(tracee.pid)


def exit_call(recorder: Recorder, call: Call) -> None:
    """exit and exit_group have no exit stop."""
    recorder.log_last_call(call)
    recorder.call = None


# rdtscp; mov %eax,(%rdi); mov %edx,4(%rdi); mov %ecx,8(%rdi); ret
_RDTSCP_FUNCTION = bytes.fromhex("0f01f9 8907 895704 894f08 c3")


_code_pages: list[mmap_module.mmap] = []
"""Keeps the function's page mapped."""


@functools.cache
def _tsc_function() -> Callable[[object], object] | None:
    """A native function that stores rdtscp's three words, None where that cannot be run."""
    if "rdtscp" not in Path("/proc/cpuinfo").read_text(errors="replace"):
        return None
    try:
        code = mmap_module.mmap(-1, 4096, prot=mmap_module.PROT_READ | mmap_module.PROT_WRITE | 4)
    except OSError:
        return None
    code.write(_RDTSCP_FUNCTION)
    _code_pages.append(code)
    address = ctypes.addressof(ctypes.c_char.from_buffer(code))
    return ctypes.CFUNCTYPE(None, ctypes.c_void_p)(address)


def read_tsc() -> tuple[int, int]:
    """The time-stamp counter and processor id that a trapped rdtsc(p) gets.

    Nanoseconds of CLOCK_MONOTONIC_RAW, a counter at 1 GHz, where the real one cannot be read.
    """
    function = _tsc_function()
    if function is None:
        return time.clock_gettime_ns(time.CLOCK_MONOTONIC_RAW), 0
    words = (ctypes.c_uint32 * 3)()
    function(ctypes.addressof(words))
    return words[0] | words[1] << 32, words[2]


Entry = Callable[["Recorder", Call], None]
Exit = Callable[["Recorder", Call, int], None]

ENTRY: dict[int, Entry] = {
    NAMES[name]: hook
    for names, hook in (
        ("rseq io_uring_setup io_setup userfaultfd memfd_secret", refuse),
        ("ioctl", ioctl),
        ("prctl", prctl),
        ("sched_setaffinity", sched_setaffinity),
        ("sched_getaffinity", sched_getaffinity),
        ("madvise", madvise),
        ("process_madvise", process_madvise),
        ("ptrace", ptrace_call),
        ("rt_sigreturn", returns_nothing),
        ("fork vfork clone clone3", new_task),
        ("exit exit_group", exit_call),
    )
    for name in names.split()
}

EXIT: dict[int, Exit] = {
    NAMES[name]: hook
    for names, hook in (
        ("mmap", mmap),
        ("shmat", shmat),
        ("munmap mremap shmdt remap_file_pages", mappings_changed),
        ("madvise", advised_for_fork),
        ("vfork clone clone3", compare_after_vfork),
        ("rt_sigreturn", rt_sigreturn),
        ("seccomp prctl", filter_installed),
    )
    for name in names.split()
}
