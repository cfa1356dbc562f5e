# SPDX-License-Identifier: GPL-2.0-or-later
"""The agent in one recorded process: putting it there, telling it things, taking its events out."""

from __future__ import annotations

import ctypes
import struct

from sysrift.agent import code as at
from sysrift.agent.code import Code, Control, agent_code
from sysrift.agent.known_sites import KnownSites
from sysrift.agent.rows import Rows, RowTable
from sysrift.agent.sites import Site, Sites
from sysrift.native import AGENT_END, AGENT_START
from sysrift.record.agent_calls import GUARDS, recorded_row
from sysrift.syscalls import NAMES, BadAddress
from sysrift.trace.codec import RECORD, SEGMENT
from sysrift.trace.writer import TraceWriter
from sysrift.tracee import Mapping, RemoteSyscallError, Tracee, read_maps
from sysrift.tracee import ptrace as pt

_NR_MMAP, _NR_MPROTECT, _NR_MUNMAP = NAMES["mmap"], NAMES["mprotect"], NAMES["munmap"]
_READ_WRITE, _READ_EXECUTE = 3, 5
_MAP_FLAGS = 0x100000 | 0x02 | 0x20 | 0x4000  # FIXED_NOREPLACE, PRIVATE, ANONYMOUS, NORESERVE
_SEQUENCE_TRIES = 100


class Experience:
    """What the agents of a recording's processes have in common: what was found out before."""

    def __init__(self) -> None:
        self.sites = KnownSites()
        self.rows = RowTable(recorded_row)
        self.agents = 0
        """How many programs have had the agent so far."""


class Agent:
    """The agent of one process, which must be in a ptrace-stop for all but `take`."""

    def __init__(
        self, tracee: Tracee, code: Code, sites: Sites, task: int, experience: Experience
    ) -> None:
        self.tracee = tracee
        self.code = code
        self.sites = sites
        self.task = task
        self.last = Control()
        """The control page as it was last read."""
        self.last_nr = -1
        """The system call of the last event that was taken out."""
        self._taken = (0, 0, 0)
        self._time = 0  # of that event, microseconds
        self._maps: list[Mapping] = []
        self._ranges = b""
        self._maps_are_old = False
        self.remapped = 0
        """How often the agent has mapped or unmapped memory."""
        self._experience = experience
        self.rows = Rows(tracee.write_own, recorded_row, experience.rows)
        self.rows.guard(GUARDS)
        self._dispatching = False
        self._kept = 0  # how many spans the agent was told of
        sites.remote_syscall = self.remote_syscall

    @classmethod
    def put(
        cls, tracee: Tracee, task: int, start_ns: int, now_us: int, experience: Experience
    ) -> Agent | None:
        """Put the agent into a process that can make remote system calls.

        None when it was not built, or the process already has something there.
        """
        code = agent_code()
        if code is None or not tracee.remote_site:
            return None
        length = AGENT_END - AGENT_START
        try:
            tracee.remote_syscall(_NR_MMAP, AGENT_START, length, _READ_WRITE, _MAP_FLAGS, -1, 0)
            tracee.write(at.CODE, code.image)
            tracee.remote_syscall(_NR_MPROTECT, at.CODE, at.CODE_SIZE, _READ_EXECUTE)
        except (RemoteSyscallError, BadAddress):
            return None
        sites = Sites(tracee, code.entry, known=experience.sites)
        agent = cls(tracee, code, sites, task, experience)
        experience.agents += 1
        control = Control()
        control.task, control.start_ns = task, start_ns
        control.last_us = control.previous_us = agent._time = now_us
        tracee.write_own(at.CONTROL, bytes(control))
        agent.rows.give_known()
        agent.look_at_memory()
        for mapping in agent.maps:
            sites.patch_known(mapping, agent.maps)
        agent._tell_kept()
        return agent

    def copy(self, tracee: Tracee, task: int) -> Agent:
        """The agent of a forked process, in whose memory it is already."""
        other = Agent(tracee, self.code, self.sites.copy(tracee), task, self._experience)
        other._taken, other._time, other.last_nr = self._taken, self._time, self.last_nr
        other._maps_are_old, other.remapped = self._maps_are_old, self.remapped
        other._maps, other._ranges = list(self._maps), self._ranges
        other.rows = self.rows.copy(tracee.write_own)
        other._kept = self._kept
        other.set("task", task)
        return other

    def take_back(self, other: Agent) -> None:
        """A process that borrowed this one's memory is done with it: `other` was its agent.

        What memory there is, and what descriptors are, is to be told anew.
        """
        control = self.read()
        self.sites = other.sites.copy(self.tracee)
        self.sites.remote_syscall = self.remote_syscall
        self.rows = other.rows.copy(self.tracee.write_own)
        self._kept, self._time = other._kept, control.previous_us
        self.empty()
        for field, value in (
            ("task", self.task),
            ("phase", 0),
            ("approved", 0),
            ("sequence", control.sequence + control.sequence % 2),
        ):
            self.set(field, value)

    # -- the control page -----------------------------------------------------------------------

    def set(self, field: str, value: int) -> None:
        """Write one field of the control page."""
        size = getattr(Control, field).size
        self.tracee.write_own(Control.address(field), value.to_bytes(size, "little"))

    def read(self) -> Control:
        """Read the control page."""
        page = self.tracee.read_own(at.CONTROL, ctypes.sizeof(Control))
        self.last = Control.from_buffer_copy(page)
        return self.last

    def dispatch(self, on: bool) -> None:
        """Have system calls from outside of the agent's code raise SIGSYS (Syscall User Dispatch).

        Raises OSError where the kernel cannot do so from outside (before Linux 6.4).
        """
        pt.set_user_dispatch(self.tracee.pid, at.CODE, at.CODE_SIZE if on else 0)
        self._dispatching = on

    def forget_dispatch(self) -> None:
        """The program has set up dispatch for itself."""
        self._dispatching = False

    def remote_syscall(self, nr: int, *args: int) -> int:
        """`Tracee.remote_syscall`, which dispatch must not see."""
        dispatching = self._dispatching
        if dispatching:
            self.dispatch(False)
        try:
            return self.tracee.remote_syscall(nr, *args)
        finally:
            if dispatching:
                self.dispatch(True)

    # -- descriptors ----------------------------------------------------------------------------

    def knows_descriptor(self, number: int) -> bool:
        """Whether the agent knows that what a descriptor writes to is not mapped."""
        if number >= at.DESCRIPTOR_COUNT:
            return False
        return self.tracee.read_own(at.DESCRIPTORS + number, 1) != b"\0"

    def tell_descriptor(self, number: int) -> None:
        """What this one writes to is not mapped. The agent forgets it when it is closed."""
        self.tracee.write_own(at.DESCRIPTORS + number, b"\1")

    def forget_descriptors(self) -> None:
        """Any file may be mapped, or any descriptor another one."""
        self.tracee.write_own(at.DESCRIPTORS, bytes(at.DESCRIPTOR_COUNT))

    def approve(self, file: bytes) -> None:
        """Let the agent make the next call, which maps a file that is known.

        `file` is a segment for its event. No call but the next one can be meant.
        """
        self.tracee.write_own(Control.address("file"), file)
        self.set("approved", 1)

    # -- events ---------------------------------------------------------------------------------

    def take(self, writer: TraceWriter) -> int:
        """Put the events that the agent has made since the last time into the trace; how many.

        The process may be running.
        """
        for _ in range(_SEQUENCE_TRIES):
            control = self.read()
            if control.sequence % 2 == 0:
                break
        else:
            return 0
        if control.remapped != self.remapped:
            self._maps_are_old, self.remapped = True, control.remapped
            self._maps = []
        records, segments, payload = self._taken
        count = control.records - records
        if count <= 0:
            return 0
        read = self.tracee.read_own
        raw = read(at.RECORDS + records * RECORD.size, count * RECORD.size)
        width = SEGMENT.size
        parts = read(at.SEGMENTS + segments * width, (control.segments - segments) * width)
        data = read(at.PAYLOAD + payload, control.payload - payload)
        self._taken = (control.records, control.segments, control.payload)
        times = (self._time, control.previous_us)
        self._time = control.previous_us
        writer.add_records(self.task, raw, parts, data, self.sites.addresses, times)
        self.last_nr = struct.unpack_from("<i", raw, len(raw) - RECORD.size + 4)[0]
        return count

    def empty(self) -> None:
        """All events have been taken: let the agent begin anew."""
        self._taken = (0, 0, 0)
        first = Control.address("records")
        self.tracee.write_own(first, bytes(12))

    @property
    def taken(self) -> int:
        """How many of the events that the agent has now have been taken out."""
        return self._taken[0]

    # -- memory ---------------------------------------------------------------------------------

    def mapping(self, address: int) -> Mapping | None:
        """What lies at an address."""
        for _ in range(2):
            for mapping in self._maps:
                if mapping.start <= address < mapping.end:
                    return mapping
            self._maps = read_maps(self.tracee.pid)
        return None

    @property
    def maps(self) -> list[Mapping]:
        """All mappings, as they were known last."""
        return self._maps

    def look_at_memory(self) -> bool:
        """Tell the agent which memory there is; False when it knew that already."""
        self._maps = read_maps(self.tracee.pid)
        if self._maps_are_old:
            self._maps_are_old, self._ranges = False, b""
        return self._tell_ranges()

    def memory_changed(self, start: int, end: int) -> None:
        """Something was unmapped, or mapped anew, or protected."""
        if self._maps_are_old:
            # The agent has mapped memory by itself: what is known here is old.
            self.look_at_memory()
            return
        kept = [m for m in self._maps if m.end <= start or end <= m.start]
        if len(kept) < len(self._maps):
            self._maps = kept
            self._tell_ranges()

    def forget_memory(self) -> None:
        """Anything may have changed."""
        self._maps = []
        self._tell_ranges()

    def _tell_ranges(self) -> bool:
        ranges: list[tuple[int, int]] = []
        for mapping in self._maps:
            if mapping.shared or not mapping.prot & 1 or mapping.is_kernel:
                continue
            if mapping.name.startswith("/dev/"):
                continue
            writable = mapping.prot >> 1 & 1
            if ranges and ranges[-1][1] == mapping.start | writable:
                ranges[-1] = (ranges[-1][0], mapping.end | writable)
            else:
                ranges.append((mapping.start, mapping.end | writable))
        del ranges[at.RANGE_COUNT :]
        packed = b"".join(at.RANGE.pack(*each) for each in ranges)
        if packed == self._ranges:
            return False
        self._ranges = packed
        self.tracee.write_own(at.RANGES, packed)
        self.set("ranges", len(ranges))
        return True

    # -- the end --------------------------------------------------------------------------------

    def call(self, address: int) -> Site | None:
        """A call came from a site: known to the agent now, patched perhaps; None if it cannot."""
        mapping = self.mapping(address)
        if mapping is not None and (mapping.start, mapping.end) not in self.sites.spans:
            self.sites.patch_known(mapping, self._maps)
        site = self.sites.called(address, mapping, self._maps)
        self._tell_kept()
        return site

    def _tell_kept(self) -> None:
        """What the program does to where its code was changed is not the agent's to do."""
        spans = self.sites.spans
        if len(spans) != self._kept:
            self._kept = len(spans)
            packed = b"".join(at.KEEP.pack(*span) for span in sorted(spans)[: at.MAX_KEPT])
            self.tracee.write_own(at.CONTROL + ctypes.sizeof(Control), packed)
            self.set("kept", self._kept)

    def remove(self, able: bool = True) -> None:
        """Take everything out of the process.

        Not `able`: no system call may be made for it. Its code is what it was, and dispatch is off.
        """
        self.sites.restore_all()
        if self._dispatching:
            self.dispatch(False)
        if self.tracee.remote_site and able:
            self.sites.unmap()
            try:
                length = AGENT_END - AGENT_START
                self.tracee.remote_syscall(_NR_MUNMAP, AGENT_START, length)
            except RemoteSyscallError:
                pass
