# SPDX-License-Identifier: GPL-2.0-or-later
"""Recording by the agent: what the recorder has to do for it at a process's stops.

While it records, a process runs without syscall-stops. It comes to a stop when

* a `syscall` instruction that is not patched is executed (SIGSYS, Syscall User Dispatch): the
  recorder directs the call to the agent, patches the site, or follows the call itself;
* the agent hands a call over, has made one after which it was asked to stop, or cannot say what
  one has written (a SIGSTOP that it sends to itself);
* anything else happens, as to any tracee. A signal that comes in the midst of the agent waits until
  that is out of the way: what the program sees of itself is never in the agent.

A call that the recorder follows itself is one as without the agent: the instruction is put back for
it, dispatch is off, and there are a syscall-entry-stop and a syscall-exit-stop.
"""

from __future__ import annotations

import contextlib
import os
import signal
import struct
from collections.abc import Iterator
from typing import TYPE_CHECKING

from sysrift.agent import code as at
from sysrift.agent.rows import GuardKind
from sysrift.agent.sites import Site
from sysrift.native import AGENT_END, AGENT_START
from sysrift.record.agent import Agent
from sysrift.record.agent_calls import GUARDS, GUARDS_OF_MAPPED_FILES
from sysrift.record.call import Call
from sysrift.record.signals import Action, action_of, is_synchronous
from sysrift.record.special import (
    CLONE_UNTRACED,
    MAP_ANONYMOUS,
    clone_flags,
    known_file,
    whole_pages,
)
from sysrift.syscalls import NAMES, ReplayClass, lookup
from sysrift.trace.codec import SEGMENT
from sysrift.tracee import Registers
from sysrift.tracee import ptrace as pt
from sysrift.tracee.kernel import RESTARTS, SYSCALL_STOP
from sysrift.tracee.registers import MASK, NO_SYSCALL, signed

if TYPE_CHECKING:
    from sysrift.record.recorder import Recorder

_SIGSYS = struct.Struct("<8xi16xI")  # si_code and si_arch of a siginfo_t
_SYS_USER_DISPATCH = 2  # si_code of SIGSYS (include/uapi/asm-generic/siginfo.h)
_PR_SET_SYSCALL_USER_DISPATCH = 59
_NR_PRCTL, _NR_MMAP, _NR_BRK = NAMES["prctl"], NAMES["mmap"], NAMES["brk"]
_NR_CLONE3 = NAMES["clone3"]
_NR_RT_SIGRETURN = NAMES["rt_sigreturn"]
_NR_MPROTECT = (NAMES["mprotect"], NAMES["pkey_mprotect"])
_NR_MUNMAP, _NR_MREMAP = NAMES["munmap"], NAMES["mremap"]
_MAP_FIXED, _PROT_WRITE = 0x10, 2
_REMAPPING = {NAMES["shmdt"], NAMES["shmat"], NAMES["remap_file_pages"]}
_DESCRIPTOR_CALLS = {NAMES["close"], NAMES["dup2"], NAMES["dup3"], NAMES["close_range"]}
_CLONE_FILES = 0x400
_STOPS_INSIDE = 64  # that leaving the agent takes at most


class FastPath:
    """The agent's side of one process's recorder."""

    def __init__(self, recorder: Recorder, agent: Agent) -> None:
        self._recorder = recorder
        self.agent = agent
        self.following = False
        """Whether the process has syscall-stops."""
        self._lifted: Site | None = None
        self._attention = False
        self._lent = False
        self._borrower: FastPath | None = None
        self._borrows = False  # the memory that the agent is in is another process's
        self._gave_back = False
        self._approved = -1  # the last event before a mapping that the agent was let make
        self._files_added = 0  # `MappedFiles.added` when the agent's descriptors were last told
        self._shares_descriptors = False
        """Whether another process may close this one's descriptors (clone(2), CLONE_FILES)."""

    @classmethod
    def begin(cls, recorder: Recorder, start_ns: int) -> FastPath | None:
        """At a syscall-exit-stop: the program gets the agent, if it can have one."""
        agent = Agent.put(
            recorder.tracee, recorder.id, start_ns, recorder.now_us(), recorder.recording.experience
        )
        recorder.adopt_held_signals()
        if agent is None:
            recorder.note("no agent", "stopped at every call: the agent finds no place", quiet=True)
            return None
        try:
            agent.dispatch(True)
        except OSError as error:
            agent.remove()
            why = f"this kernel sets no Syscall User Dispatch from outside ({error.strerror})"
            recorder.note("no agent", f"stopped at every call: {why}", quiet=True)
            return None
        recorder.note(
            "agent",
            "plain calls were recorded by the agent, from a process's "
            f"call {recorder.options.agent} on",
            quiet=True,
        )
        fast = cls(recorder, agent)
        fast.look_at_limits()
        fast._look_at_files()
        return fast

    def born(self, child: Recorder) -> FastPath:
        """What a process that this one has made has, at its first stop.

        One of vfork(2) borrows the agent with the memory: this process sleeps meanwhile.
        """
        fast = FastPath(child, self.agent.copy(child.tracee, child.id))
        fast._attention = True  # perhaps: it has a copy of its parent's control page
        fast._files_added = self._files_added
        fast._shares_descriptors = self._shares_descriptors
        call = self._recorder.call
        if call is not None:
            fast._note_clone(call.nr, call.args)
        fast.ask(False)
        fast.agent.dispatch(True)
        if self._lent:
            self._borrower, fast._borrows = fast, True
        return fast

    def lend(self) -> None:
        """A vfork child is about to use this memory."""
        self._lent = True

    def _take_back(self) -> None:
        """It uses this memory no more."""
        borrower, self._borrower, self._lent = self._borrower, None, False
        if borrower is not None:
            borrower._gave_back = True
            self.agent.take_back(borrower.agent)
            self._attention = True  # perhaps
            self.ask(False)
        self.agent.sites.patch_all()
        self.agent.forget_memory()
        self.agent.forget_descriptors()

    # -- between two stops ----------------------------------------------------------------------

    @property
    def request(self) -> int:
        """The ptrace request that lets the process run."""
        return pt.PTRACE_SYSCALL if self.following else pt.PTRACE_CONT

    def take(self) -> bool:
        """Put what the agent has recorded into the trace. The process may be running."""
        if self._gave_back or self._lent:
            return False  # they are another process's
        before = self.agent.remapped
        try:
            return bool(self.agent.take(self._recorder.writer))
        except ProcessLookupError:
            return False
        finally:
            if self.agent.remapped != before:
                self._recorder.reached.mappings_changed()
                self._recorder.mapped_files.layout_changed()

    def ask(self, wanted: bool) -> None:
        """Have the agent stop at the next boundary, or not."""
        if wanted != self._attention:
            self._attention = wanted
            self.agent.set("attention", int(wanted))

    def look_at_limits(self) -> None:
        """When a checksum is due, the agent shall stop right behind that event."""
        every = self._recorder.options.checksum_every
        if not every:
            return
        due = every - self._recorder.writer.number(self._recorder.id) % every
        trap_at = self.agent.taken + due
        self.agent.set("trap_at", trap_at if trap_at <= at.MAX_RECORDS else 0)

    def _look_at_files(self) -> None:
        """What changes mapped files is the recorder's affair."""
        files = self._recorder.mapped_files
        if files:
            files.prune(self._recorder.tracee)
        if files and self._files_added != files.added:
            self.agent.forget_descriptors()
        self._files_added = files.added
        self.agent.rows.guard(GUARDS_OF_MAPPED_FILES if files else GUARDS)

    # -- stops ----------------------------------------------------------------------------------

    def on_stop(self, status: int) -> bool:
        """A stop; True when it was the agent's affair and the process goes on."""
        recorder = self._recorder
        if self._gave_back:
            return False  # it is about to execute a program, or to end
        if self.take():
            recorder.at_boundary = False
        event, sig = status >> 16, os.WSTOPSIG(status)
        if status == SYSCALL_STOP or event not in (0, pt.PTRACE_EVENT_STOP, pt.PTRACE_EVENT_EXIT):
            return False
        tracee = recorder.tracee
        if event == 0 and sig == signal.SIGSYS and not self.following:
            code, arch = _SIGSYS.unpack_from(tracee.siginfo())
            if code == _SYS_USER_DISPATCH:
                self._dispatched(tracee.registers(), arch)
                return True
        registers = tracee.registers()
        inside = AGENT_START <= registers.rip < AGENT_END
        if not inside and not self.agent.sites.in_trampoline(registers.rip):
            return False
        if event == 0 and sig == signal.SIGSTOP and registers.rip == self.agent.code.stopped:
            self._stopped()
            return True
        if event == pt.PTRACE_EVENT_EXIT:
            self._dies_inside()
            return False
        if event == pt.PTRACE_EVENT_STOP:
            if sig != signal.SIGTRAP:
                return False  # a group-stop
            if recorder.held or recorder.leaving:
                self._ask_now(registers)
            recorder.go_on()
            return True
        self._signal_inside(sig, registers)
        return True

    def _signal_inside(self, sig: int, registers: Registers) -> None:
        """A signal came while the program is in the agent."""
        recorder, tracee = self._recorder, self._recorder.tracee
        siginfo = tracee.siginfo()
        if is_synchronous(sig, siginfo):
            # The agent touched memory that is not there after all.
            before = self.agent.last.phase == 1
            registers.rip = self.agent.code.bail if before else self.agent.code.by_hand
            registers.orig_rax = NO_SYSCALL
            if before:
                self.agent.set("reason", at.REASON_ROW)
            tracee.set_registers(registers)
            recorder.resume()
            return
        original = recorder.held.original_siginfo(sig)
        if action_of(tracee.pid, sig) in (Action.IGNORE, Action.STOP):
            recorder.resume(sig)
            return
        recorder.held.hold(sig, original or siginfo)
        self._ask_now(registers)
        recorder.go_on()

    def _ask_now(self, registers: Registers) -> None:
        """Get the program out of the agent: before the call, or right after it."""
        self.ask(True)
        code = self.agent.code
        if code.precheck <= registers.rip < code.after:
            registers.rip = code.bail
            self.agent.set("reason", at.REASON_ATTENTION)
        elif registers.rip != code.after or signed(registers.rax) not in RESTARTS:
            return
        # The kernel shall not make an interrupted call again: its interruption is an event.
        registers.orig_rax = NO_SYSCALL
        self._recorder.tracee.set_registers(registers)

    def _dies_inside(self) -> None:
        """Killed while the agent made a call: that is the last event."""
        if self.agent.last.phase != 0:
            registers = self._program_registers()
            self._recorder.call = self._call(registers, self._site(registers))

    def _program_registers(self) -> Registers:
        """The program's own registers, while it is in the agent's C code, or behind it."""
        registers = self._recorder.tracee.registers()
        data = self._recorder.tracee.read_own(at.SAVED[0][1], 8 * len(at.SAVED))
        for (name, _), value in zip(at.SAVED, struct.unpack(f"<{len(at.SAVED)}Q", data)):
            setattr(registers, name, value)
        registers.rsp = self.agent.last.saved_rsp
        registers.r11 = registers.eflags
        registers.orig_rax = NO_SYSCALL
        return registers

    def _site(self, registers: Registers) -> Site:
        """The site of the call at hand, by the program's registers while the agent has it."""
        site = self.agent.sites.of_descriptor(registers.rcx)
        if site is None:
            raise RuntimeError(f"the agent names no site: {registers.rcx:#x}")
        return site

    # -- calls that come to the recorder --------------------------------------------------------

    def _dispatched(self, registers: Registers, arch: int) -> None:
        """A `syscall` instruction was executed that is not patched (or int $0x80, by `arch`)."""
        recorder, agent = self._recorder, self.agent
        address = registers.rip = registers.rip - 2
        registers.orig_rax = NO_SYSCALL
        if self._stands_before(registers):
            return
        nr = registers.rax
        if self._makes_untraced(registers):
            # What is not recorded shall not have the agent either.
            recorder.tracee.set_registers(registers)
            self.leave()
            recorder.resume()
            return
        if arch != pt.AUDIT_ARCH_X86_64 or not (
            self._gives(nr, registers.arguments)
            and self._maps_known(nr, registers.arguments) is not False
        ):
            self._follow(registers, address)
            return
        site = agent.call(address)
        if site is None:
            self._follow(registers, address)
            return
        self._direct(registers, site)
        recorder.adopt_held_signals()
        recorder.go_on()

    def _gives(self, nr: int, args: tuple[int, ...]) -> bool:
        """Let the agent have what it needs for a call; False: the recorder has to see it."""
        if not self.agent.rows.give(nr, args):
            return False
        guard = self.agent.rows.guard_of(nr)
        if guard is None or guard.kind is not GuardKind.UNMAPPED:
            return guard is None or guard.allows(args)
        return self._learns(nr, args) or self.agent.knows_descriptor(
            args[guard.argument] & 0xFFFFFFFF
        )

    def _learns(self, nr: int, args: tuple[int, ...]) -> bool:
        """Whether the agent could be told something new, so that it can make a call that writes to
        a descriptor: that it is none of a mapped file."""
        guard = self.agent.rows.guard_of(nr)
        if guard is None or guard.kind is not GuardKind.UNMAPPED or self._shares_descriptors:
            return False
        number = args[guard.argument] & 0xFFFFFFFF
        if number >= at.DESCRIPTOR_COUNT or self.agent.knows_descriptor(number):
            return False
        recorder = self._recorder
        if recorder.mapped_files.changed_by(recorder.tracee, number):
            return False
        self.agent.tell_descriptor(number)
        return True

    def _maps_known(self, nr: int, args: tuple[int, ...]) -> bool | None:
        """Let the agent map a file, if the recorder need not see it afterwards; False: it must.

        None when the call maps none.
        """
        if nr != _NR_MMAP or args[3] & MAP_ANONYMOUS:
            return None
        number = self._recorder.writer.number(self._recorder.id)
        if self._approved == number:
            return False  # it was not the reason why the agent leaves this call to the recorder
        self._approved = number
        if args[3] & _MAP_FIXED:
            start, end = args[0], args[0] + whole_pages(args[1])
            spans = [(AGENT_START, AGENT_END), *self.agent.sites.spans]
            if start % 4096 or any(start < last and first < end for first, last in spans):
                return False
            self.agent.sites.forget(start, end, restore=False)
        segment = known_file(self._recorder, args)
        if segment is None:
            return False
        kind, base, offset, (how, file) = segment
        self.agent.approve(SEGMENT.pack(kind, base, how, offset, file))
        return True

    def _direct(self, registers: Registers, site: Site) -> None:
        """Have the program, which stands at a site, come to the agent."""
        if not site.hole:
            registers.rcx, registers.rip = site.descriptor, self.agent.code.entry
        self._recorder.tracee.set_registers(registers)

    def _makes_untraced(self, registers: Registers) -> bool:
        """Whether a call makes a process that will not be recorded."""
        recorder = self._recorder
        row = lookup(registers.rax)
        if row is None or row.replay_class is not ReplayClass.TASK:
            return False
        if not recorder.options.follow:
            return True
        if registers.rax != _NR_CLONE3:
            return False  # (of clone that flag is taken away)
        flags = clone_flags(recorder.tracee, registers.rax, registers.arguments)
        return bool(flags & CLONE_UNTRACED)

    def _stands_before(self, registers: Registers) -> bool:
        """The program is about to make a call: signals that wait come here, and it may leave."""
        recorder = self._recorder
        if not recorder.held and not recorder.leaving:
            return False
        behind, sp = registers.rip + 2, registers.rsp
        if recorder.held:
            if recorder.was_rewound(behind, sp):
                self._follow(registers, registers.rip)  # the signal comes with the call
                return True
            recorder.note_rewound(behind, sp)
        recorder.tracee.set_registers(registers)
        self._boundary(registers)
        recorder.go_on_from_boundary()
        return True

    def _boundary(self, registers: Registers) -> None:
        self.ask(False)
        self.agent.sites.give_up_wide(registers.rip)
        self._recorder.stands_at(registers.rip, registers.rsp)

    def _follow(self, registers: Registers, address: int) -> None:
        """Let the recorder follow the call at `address` by ptrace."""
        site = self.agent.sites.at(address)
        if site is not None and site.hole:
            self.agent.sites.lift(site)
            self._lifted = site  # (a wide one is not put back)
        registers.rip, registers.orig_rax = address, NO_SYSCALL
        self._recorder.tracee.set_registers(registers)
        self.agent.dispatch(False)
        self.following = True
        self._recorder.resume()

    def entered(self) -> None:
        """The syscall-entry-stop of a call that is followed."""
        if self._lifted is not None:
            self.agent.sites.put_back(self._lifted)
            self._lifted = None

    def returned(self, nr: int, args: tuple[int, ...], result: int) -> None:
        """The syscall-exit-stop of one, after it was logged: the agent goes on, if it can."""
        if not -4096 < result < 0:
            self._memory_call(nr, args, result)
        recorder = self._recorder
        if nr == _NR_RT_SIGRETURN:
            self.agent.sites.give_up_wide(recorder.tracee.registers().rip)
        if nr == _NR_PRCTL and args[0] & 0xFFFFFFFF == _PR_SET_SYSCALL_USER_DISPATCH:
            self.agent.forget_dispatch()
            self.leave()
        elif recorder.shared or recorder.filtered or recorder.reached.memory_opened:
            self.leave()
        else:
            if nr in _DESCRIPTOR_CALLS:
                self.agent.forget_descriptors()
            self._note_clone(nr, args)
            self._look_at_files()
            self.following = False
            if self._lent:
                self._take_back()
            self.agent.set("until_clock", 0)
            self.look_at_limits()
            self.agent.dispatch(True)

    def _note_clone(self, nr: int, args: tuple[int, ...]) -> None:
        row = lookup(nr)
        if row is None or row.replay_class is not ReplayClass.TASK:
            return
        if clone_flags(self._recorder.tracee, nr, args) & _CLONE_FILES:
            self._shares_descriptors = True
            self.agent.forget_descriptors()

    def _memory_call(self, nr: int, args: tuple[int, ...], result: int) -> None:
        """Mappings may have changed: what the agent knows of them must not be wrong."""
        agent = self.agent
        start, length = args[0], whole_pages(args[1])
        if nr == _NR_MMAP:
            if args[3] & _MAP_FIXED:
                self._gone(result, result + length)
        elif nr == _NR_MUNMAP:
            self._gone(start, start + length)
        elif nr in _NR_MPROTECT:
            agent.memory_changed(start, start + length)
            if args[2] & _PROT_WRITE:
                agent.sites.forget(start, start + length, restore=True)
        elif nr == _NR_BRK:
            heap = [mapping.start for mapping in agent.maps if mapping.name == "[heap]"]
            agent.memory_changed(min([result, *heap]), result + (1 << 40))
        elif nr == _NR_MREMAP:
            self._gone(start, start + length)
            self._gone(result, result + whole_pages(args[2]))
        elif nr in _REMAPPING:
            agent.forget_memory()

    def _gone(self, start: int, end: int) -> None:
        self.agent.memory_changed(start, end)
        self.agent.sites.forget(start, end, restore=False)

    # -- the agent's own stops ------------------------------------------------------------------

    def _stopped(self) -> None:
        """The agent has something to say."""
        stop = self.agent.last.stop
        registers = self._program_registers()
        if stop == at.STOP_MADE:
            self._made(registers)
        elif stop == at.STOP_BY_HAND:
            self._finish_by_hand(registers)
        else:
            self._handed_over(registers)

    def _handed_over(self, registers: Registers) -> None:
        agent = self.agent
        site = self._site(registers)
        registers.rip = site.address
        reason = agent.last.reason
        if self._stands_before(registers):
            return
        again = False
        if reason == at.REASON_FULL:
            agent.empty()
            self.look_at_limits()
            again = True
        elif reason == at.REASON_RANGE:
            again = agent.look_at_memory()
        elif reason == at.REASON_ATTENTION:
            self.ask(False)
            again = True
        elif reason == at.REASON_ROW:
            nr, args = registers.rax, registers.arguments
            again = not agent.rows.has(nr, args) and agent.rows.give(nr, args)
            again = self._learns(nr, args) or bool(self._maps_known(nr, args)) or again
        if not again:
            self._follow(registers, site.address)
            return
        self._direct(registers, site)
        self._recorder.resume()

    def _made(self, registers: Registers) -> None:
        """Right behind a call that the agent has made, as it was asked to."""
        recorder = self._recorder
        registers.rip = registers.rcx  # (site + 2, also where the site is wide)
        if signed(registers.rax) in RESTARTS:
            nr = self.agent.last_nr & MASK
            if recorder.held:
                registers.orig_rax = nr  # the kernel decides: EINTR, or again
            else:
                registers.rip, registers.rax = registers.rip - 2, nr
        recorder.tracee.set_registers(registers)
        self._boundary(registers)
        recorder.checksum_if_due()
        self.look_at_limits()
        recorder.go_on_from_boundary()

    def _finish_by_hand(self, registers: Registers) -> None:
        """Behind a call of which the agent cannot say what it wrote."""
        recorder = self._recorder
        site, result = self._site(registers), self.agent.last.result
        call = self._call(registers, site)
        registers.rip = registers.rcx = site.address + 2
        registers.rax = result & MASK
        if result in RESTARTS:
            registers.orig_rax = call.nr & MASK
        recorder.tracee.set_registers(registers)
        self.ask(False)
        self.agent.sites.give_up_wide(registers.rip)
        recorder.finish_call(call, registers.rip, registers.rsp, result)
        self.look_at_limits()
        recorder.go_on_from_boundary()

    def _call(self, registers: Registers, site: Site) -> Call:
        """The call that the agent has, or had, at hand."""
        nr = registers.rax
        recorder = self._recorder
        call = Call(
            nr, registers.arguments, site.address, registers.rsp, recorder.now_us(), lookup(nr)
        )
        recorder.note_inputs(call)
        call.input_crc = self.agent.last.crc
        return call

    # -- the end --------------------------------------------------------------------------------

    @contextlib.contextmanager
    def absent(self) -> Iterator[None]:
        """Within it, the program's code is what it was."""
        self.agent.sites.restore_all()
        try:
            yield
        finally:
            self.agent.sites.patch_all()

    def is_inside(self) -> bool:
        """Whether the program is in the agent just now."""
        rip = self._recorder.tracee.registers().rip
        return AGENT_START <= rip < AGENT_END or self.agent.sites.in_trampoline(rip)

    def leave(self) -> None:
        """Take the agent out of the process, which goes on with syscall-stops."""
        recorder = self._recorder
        if self.is_inside():
            self._get_out()
        if self._lent:
            self._take_back()
        self.take()
        if self._borrows:
            # The agent remains, for the process that it belongs to.
            self.agent.sites.restore_all()
            self.agent.dispatch(False)
        else:
            self.agent.remove(able=not recorder.filtered)
        recorder.adopt_held_signals()
        recorder.fast = None

    def _get_out(self) -> None:
        """Let the agent bring what it does to an end, or give it up."""
        tracee = self._recorder.tracee
        with tracee.steps_allowed():
            for _ in range(_STOPS_INSIDE):
                # On the way to the agent, or behind it in displaced instructions.
                registers = tracee.registers()
                if not self.agent.sites.in_trampoline(registers.rip):
                    break
                tracee.resume(pt.PTRACE_SINGLESTEP)
                self._keep_signal(tracee.wait())
        if not AGENT_START <= registers.rip < AGENT_END:
            return
        self._ask_now(registers)
        for _ in range(_STOPS_INSIDE):
            tracee.resume(pt.PTRACE_CONT)
            status = tracee.wait()
            own = status >> 16 == 0 and os.WSTOPSIG(status) == signal.SIGSTOP
            if own and tracee.registers().rip == self.agent.code.stopped:
                break
            self._keep_signal(status)
        stop = self.agent.read().stop
        registers = self._program_registers()
        if stop == at.STOP_MADE:
            registers.rip = registers.rcx
            if signed(registers.rax) in RESTARTS:
                self.take()
                registers.rip, registers.rax = registers.rip - 2, self.agent.last_nr & MASK
        else:
            registers.rip = self._site(registers).address
            if stop == at.STOP_BY_HAND:
                registers.rip, registers.rax = registers.rip + 2, self.agent.last.result & MASK
        tracee.set_registers(registers)

    def _keep_signal(self, status: int) -> None:
        """A signal that came meanwhile waits."""
        sig = os.WSTOPSIG(status)
        if status >> 16 == 0 and sig != signal.SIGTRAP:
            tracee = self._recorder.tracee
            tracee.held_signals.append((sig, tracee.siginfo()))


__all__ = ["FastPath"]
