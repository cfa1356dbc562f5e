# SPDX-License-Identifier: GPL-2.0-or-later
"""Making `syscall` instructions jump to the agent.

A site is two bytes, which is a short jump: to five bytes of padding nearby that nothing executes,
and from there to the site's trampoline. So nothing but the `syscall` itself is displaced: a jump to
the instruction behind it, and a return there from a signal handler, find what they always found.
(462 of the 526 sites of Debian 12's C library have such padding within reach.)

Where there is none, a *wide* site takes five bytes, when the instructions behind the `syscall` work
on registers only and nothing jumps to them; they are executed behind the trampoline. Whatever else
might bring the program there (a signal at the end of a call) makes it what it was, for good.
"""

from __future__ import annotations

import copy
import struct
from collections.abc import Callable
from typing import NamedTuple

from sysrift.agent.code import DESCRIPTOR, SITE_COUNT, SITES
from sysrift.agent.known_sites import KnownSites, Patch, Read
from sysrift.syscalls import NAMES, BadAddress
from sysrift.tracee import Mapping, RemoteSyscallError, Tracee
from sysrift.tracee.maps import PROT_EXEC, PROT_WRITE

SYSCALL = b"\x0f\x05"
_JUMP = 5
_REACH = 128  # of a short jump, from behind it
_BEFORE = 96  # bytes decoded ahead of what is looked at, to be in step with the instructions
_STARTS = (0, 1, 2)
_LONGEST = 15
_FUNCTION = 1024  # bytes before and behind a site that may jump to it
_NEAR = 0x7000_0000  # of a jump with 32 bits, with something to spare
_PAGE = 4096
_TRAMPOLINE = 64
_TRAMPOLINE_CODE = struct.Struct("<2sQ2sQ3s")
_NR_MMAP, _NR_MUNMAP = NAMES["mmap"], NAMES["munmap"]
_READ_EXECUTE = 5
_MAP_FLAGS = 0x100000 | 0x02 | 0x20  # MAP_FIXED_NOREPLACE, MAP_PRIVATE, MAP_ANONYMOUS
_DISTANCES = (0x4000_0000, 0x3000_0000, 0x5000_0000, 0x2000_0000, 0x6000_0000)

PATCH_AT = 3
"""A site is patched at its so many-th call: most are used once or twice, and go by a stop."""


class Site(NamedTuple):
    """A `syscall` instruction, and what leads from it to the agent."""

    address: int
    id: int
    hole: int = 0
    """The address of the padding that was used, 0 while the instruction is as it was; of a wide
    site, the site itself."""
    displaced: bytes = b""
    """What was there."""
    trampoline: int = 0
    wide: bool = False

    @property
    def long_jump(self) -> bytes:
        """What the padding becomes."""
        return b"\xe9" + struct.pack("<i", self.trampoline - (self.hole + _JUMP))

    @property
    def descriptor(self) -> int:
        """The address of the site's `struct descriptor`."""
        return SITES + self.id * DESCRIPTOR.size

    @property
    def short_jump(self) -> bytes:
        """What the two bytes become."""
        return b"\xeb" + struct.pack("<b", self.hole - (self.address + 2))


class _Zone:
    """A page of trampolines, near enough to the sites that jump there."""

    def __init__(self, address: int) -> None:
        self.address = address
        self.used = 0


class Sites:
    """The sites of one process that the agent knows."""

    def __init__(
        self,
        tracee: Tracee,
        entry: int,
        patch_at: int = PATCH_AT,
        wide: bool = True,
        known: KnownSites | None = None,
    ) -> None:
        """`entry` is where patched sites come to, at their `patch_at`th call; `wide` ones, too?

        `known` is shared by the processes of a tree.
        """
        self._tracee = tracee
        self._entry = entry
        self._patch_at = patch_at
        self._wide = wide
        self._known = KnownSites() if known is None else known
        self.remote_syscall: Callable[..., int] = tracee.remote_syscall
        self._sites: dict[int, Site] = {}
        self._calls: dict[int, int] = {}
        self._zones: list[_Zone] = []
        self._never: set[int] = set()
        self._asleep: set[int] = set()
        self._in_holes: set[int] | None = None  # all addresses in holes; None: to be found out
        self.spans: set[tuple[int, int]] = set()
        """(start, end) of the mappings in which code was ever changed, and of the trampolines."""
        self.addresses: list[int] = []
        """Of all sites there ever were, by their ids."""

    def copy(self, tracee: Tracee) -> Sites:
        """What a forked process has."""
        other = Sites(tracee, self._entry, self._patch_at, self._wide, self._known)
        other._sites = dict(self._sites)
        other._calls = dict(self._calls)
        other._zones = [copy.copy(zone) for zone in self._zones]
        other._never = set(self._never)
        other._asleep = set(self._asleep)
        other.spans = set(self.spans)
        other.addresses = list(self.addresses)
        return other

    def at(self, address: int) -> Site | None:
        """The site at an address, if the agent knows it."""
        return self._sites.get(address)

    def of_descriptor(self, address: int) -> Site | None:
        """The site whose descriptor that is."""
        index, rest = divmod(address - SITES, DESCRIPTOR.size)
        if rest or not 0 <= index < len(self.addresses):
            return None
        return self._sites.get(self.addresses[index])

    def in_trampoline(self, address: int) -> bool:
        """Whether that is on the way from a site to the agent."""
        if any(zone.address <= address < zone.address + _PAGE for zone in self._zones):
            return True
        if self._in_holes is None:
            holes = self._used_holes()
            self._in_holes = {hole + at for hole in holes for at in range(_JUMP)}
        return address in self._in_holes

    # -- patching -------------------------------------------------------------------------------

    def called(self, address: int, mapping: Mapping | None, taken: list[Mapping]) -> Site | None:
        """A call was made from a `syscall` instruction: make it known to the agent.

        `mapping` is what it lies in, `taken` all mappings. At its third call it is patched, if
        that is possible. None when the agent can know no more sites.
        """
        site = self._sites.get(address)
        if site is None:
            if len(self.addresses) == SITE_COUNT:
                return None
            site = self._new_site(address)
            self._describe(site, address + 2)
        calls = self._calls[address] = self._calls.get(address, 0) + 1
        if mapping is not None and _is_code(mapping):
            calls = max(calls, self._known.count(mapping, address))
        if calls >= self._patch_at and not site.hole and address not in self._never:
            site = self._patched(site, mapping, taken)
        return site

    def _new_site(self, address: int) -> Site:
        site = self._sites[address] = Site(address, len(self.addresses))
        self.addresses.append(address)
        return site

    def patch_known(self, mapping: Mapping, taken: list[Mapping]) -> None:
        """Patch what is known of the file that lies in a mapping, before it is called.

        `taken` are all mappings.
        """
        if not _is_code(mapping):
            return
        sites = self._sites
        used = self._used_holes()
        found = [
            (address, patch)
            for address, patch in self._known.all(mapping, self._pristine, used)
            if address not in sites and address not in self._never and (patch.hole or self._wide)
        ]
        writes: list[tuple[int, bytes]] = []
        for address, patch in found[: SITE_COUNT - len(self.addresses)]:
            self._patch(self._new_site(address), patch, mapping, taken, writes)
        for at, data in _joined(writes):
            self._tracee.write_own(at, data)

    def _pristine(self, address: int, length: int) -> bytes:
        return self.without_patches(address, self._tracee.read_some(address, length))

    def _describe(self, site: Site, resume: int) -> None:
        fields = DESCRIPTOR.pack(site.address + 2, resume, site.id, 0)
        self._tracee.write_own(site.descriptor, fields)

    def _patched(self, site: Site, mapping: Mapping | None, taken: list[Mapping]) -> Site:
        if mapping is None or not _is_code(mapping):
            self._never.add(site.address)
            return site
        used = self._used_holes()
        patch = self._known.get(mapping, site.address, self._pristine, used)
        if patch is None:
            patch = find_patch(self._pristine, site.address, mapping, used)
            self._known.add(mapping, site.address, patch)
        writes: list[tuple[int, bytes]] = []
        patched = self._patch(site, patch, mapping, taken, writes)
        for at, data in writes:
            self._tracee.write_own(at, data)
        return patched

    def _patch(
        self,
        site: Site,
        patch: Patch,
        mapping: Mapping,
        taken: list[Mapping],
        writes: list[tuple[int, bytes]],
    ) -> Site:
        """Add to `writes` what makes a site jump to the agent, in the order that it must have."""
        behind = b"" if patch.hole else patch.behind
        trampoline = None
        if patch.hole or (behind and self._wide):
            trampoline = self._trampoline(site, taken, behind, writes)
        if trampoline is None:
            self._never.add(site.address)
            return site
        at = site.address + patch.hole
        start = at - (site.address + patch.first)
        displaced = patch.seen[start : start + _JUMP]
        patched = site._replace(
            hole=at, displaced=displaced, trampoline=trampoline, wide=not patch.hole
        )
        self._sites[site.address] = patched
        self._in_holes = None
        self.spans.add((mapping.start, mapping.end))
        writes.append((patched.hole, patched.long_jump))
        if patch.hole:
            writes.append((patched.address, patched.short_jump))
        return patched

    def _used_holes(self) -> set[int]:
        return {site.hole for site in self._sites.values() if site.hole}

    def _trampoline(
        self, site: Site, taken: list[Mapping], behind: bytes, writes: list[tuple[int, bytes]]
    ) -> int | None:
        zone = next((z for z in self._zones if _fits(z, site.address)), None)
        if zone is None:
            address = self._map_near(site.address, taken)
            if address is None:
                return None
            zone = _Zone(address)
            self._zones.append(zone)
            self.spans.add((address, address + _PAGE))
        at = zone.address + zone.used
        zone.used += _TRAMPOLINE
        # movabs $descriptor,%rcx; movabs $agent_entry,%r11; jmp *%r11
        code = _TRAMPOLINE_CODE.pack(
            b"\x48\xb9", site.descriptor, b"\x49\xbb", self._entry, b"\x41\xff\xe3"
        )
        if behind:
            # What the agent goes on at: the displaced instructions, and the jump back.
            resume = at + len(code)
            back = site.address + 2 + len(behind) - (resume + len(behind) + _JUMP)
            code += behind + b"\xe9" + struct.pack("<i", back)
        else:
            resume = site.address + 2
        fields = DESCRIPTOR.pack(site.address + 2, resume, site.id, 0)
        writes.append((site.descriptor, fields))
        writes.append((at, code.ljust(_TRAMPOLINE, b"\xcc")))
        return at

    def _map_near(self, site: int, taken: list[Mapping]) -> int | None:
        """A page for trampolines: where neither a heap nor the next libraries would come soon."""
        for distance in _DISTANCES:
            for address in (site - distance & -_PAGE, site + distance & -_PAGE):
                if address < 0x10000 or any(
                    m.start < address + _PAGE and address < m.end for m in taken
                ):
                    continue
                try:
                    self.remote_syscall(_NR_MMAP, address, _PAGE, _READ_EXECUTE, _MAP_FLAGS, -1, 0)
                except RemoteSyscallError:
                    continue
                return address
        return None

    # -- taking away ----------------------------------------------------------------------------

    def lift(self, site: Site) -> None:
        """Put the `syscall` instruction back for a moment, for a call that the recorder follows."""
        self.give_up_wide(site.address)
        site = self._sites.get(site.address, site)
        if site.hole:
            self._tracee.write_own(site.address, SYSCALL)

    def give_up_wide(self, address: int) -> None:
        """The program is, or will be, at a site: one that is wide is patched no more."""
        for site in list(self._sites.values()):
            if site.wide and site.address <= address < site.address + _JUMP:
                self._restore(site)
                self._never.add(site.address)
                self._unpatched(site)

    def put_back(self, site: Site) -> None:
        """Undo `lift`, if the memory is still there."""
        site = self._sites.get(site.address, site)
        if site.hole and not site.wide:
            try:
                self._tracee.write(site.address, site.short_jump)
            except BadAddress:
                self._sites.pop(site.address, None)
                self._in_holes = None

    def forget(self, start: int, end: int, restore: bool) -> None:
        """Memory is unmapped, mapped anew, or (`restore`) may be written to by the program."""
        for site in list(self._sites.values()):
            holed = site.hole and start < site.hole + _JUMP and site.hole < end
            if holed or (start < site.address + 2 and site.address < end):
                if restore:
                    self._restore(site)
                    self._never.add(site.address)
                    self._unpatched(site)
                elif holed and not start <= site.address < end:
                    self._restore(site)
                    self._unpatched(site)
                else:
                    del self._sites[site.address]
                    self._in_holes = None
                    self._calls.pop(site.address, None)
                    self._never.discard(site.address)

    def leave(self, start: int, end: int, patched: bool) -> None:
        """What is between these addresses is about to change: nothing there is patched any more,
        or leads there, until it is called again. Not `patched`: after `restore_all`."""
        zones = [
            zone for zone in self._zones if start < zone.address + _PAGE and zone.address < end
        ]
        for site in list(self._sites.values()):
            spans = [(site.address, site.address + 2)]
            if site.hole:
                spans.append((site.hole, site.hole + _JUMP))
            through = any(zone.address <= site.trampoline < zone.address + _PAGE for zone in zones)
            if through or any(start < last and first < end for first, last in spans):
                if patched and site.address not in self._asleep:
                    self._restore(site)
                self._asleep.discard(site.address)
                self._unpatched(site)
                self._calls.pop(site.address, None)
                self._never.discard(site.address)
        self._zones = [zone for zone in self._zones if zone not in zones]

    def _unpatched(self, site: Site) -> None:
        self._describe(site, site.address + 2)
        self._sites[site.address] = Site(site.address, site.id)
        self._in_holes = None

    def _restore(self, site: Site) -> None:
        if site.hole:
            patches = [(site.hole, site.displaced)]
            if not site.wide:
                patches.append((site.address, SYSCALL))
            for address, data in patches:
                try:
                    self._tracee.write(address, data)
                except BadAddress:
                    pass  # unmapped

    def restore_all(self) -> None:
        """Make all code what it was; the trampolines stay."""
        for site in self._sites.values():
            if site.address not in self._asleep:
                self._restore(site)

    def patch_untouched(self) -> None:
        """Undo `restore_all`, but where others have changed code meanwhile, as debuggers do."""
        self._asleep = set()
        for site in self._sites.values():
            if site.hole:
                read = self._tracee.read_some
                there = read(site.hole, _JUMP)
                if there == site.displaced and read(site.address, 2) == SYSCALL:
                    self._tracee.write(site.hole, site.long_jump)
                    if not site.wide:
                        self._tracee.write(site.address, site.short_jump)
                else:
                    self._asleep.add(site.address)

    def without_patches(self, start: int, code: bytes) -> bytes:
        """What `code`, read at `start`, is without this one's patches."""
        clean = bytearray(code)
        for site in self._sites.values():
            if site.hole and site.address not in self._asleep:
                for address, data in ((site.hole, site.displaced), (site.address, SYSCALL)):
                    at = address - start
                    if -len(data) < at < len(clean):
                        part = data[max(-at, 0) : len(clean) - at]
                        clean[max(at, 0) : max(at, 0) + len(part)] = part
        return bytes(clean)

    def detour(self, address: int) -> int | None:
        """Where to go on instead of at `address`, which a wide site has displaced; 0 when that is
        the midst of one; None elsewhere."""
        for site in self._sites.values():
            if site.wide and site.address < address < site.address + _JUMP:
                behind = site.trampoline + _TRAMPOLINE_CODE.size
                return behind if address == site.address + 2 else 0
        return None

    @property
    def any_wide(self) -> bool:
        """Whether there are wide sites."""
        return any(site.wide for site in self._sites.values())

    @property
    def any_patched(self) -> bool:
        """Whether a site is patched, or was before `restore_all`."""
        return any(site.hole for site in self._sites.values())

    def patch_all(self) -> None:
        """Undo `restore_all`."""
        for site in list(self._sites.values()):
            if site.hole:
                try:
                    self._tracee.write(site.hole, site.long_jump)
                    self.put_back(site)
                except BadAddress:
                    del self._sites[site.address]  # unmapped
                    self._in_holes = None

    def unmap(self) -> None:
        """Unmap the trampolines; no site may be patched any more."""
        for zone in self._zones:
            try:
                self.remote_syscall(_NR_MUNMAP, zone.address, _PAGE)
            except RemoteSyscallError:
                pass
        self._zones = []


def _is_code(mapping: Mapping) -> bool:
    """Whether it is a program's code, or the vDSO's, which nobody writes to."""
    fixed = not mapping.shared and mapping.prot & (PROT_WRITE | PROT_EXEC) == PROT_EXEC
    return fixed and (mapping.is_file or mapping.name == "[vdso]")


def _fits(zone: _Zone, site: int) -> bool:
    return zone.used + _TRAMPOLINE <= _PAGE and abs(zone.address - site) < _NEAR


def _joined(writes: list[tuple[int, bytes]]) -> list[tuple[int, bytes]]:
    """The same in fewer writes: neighbours together."""
    joined: list[tuple[int, bytes]] = []
    for address, data in sorted(writes):
        if joined and joined[-1][0] + len(joined[-1][1]) == address:
            joined[-1] = (joined[-1][0], joined[-1][1] + data)
        else:
            joined.append((address, data))
    return joined


def find_patch(read: Read, site: int, mapping: Mapping, used: set[int]) -> Patch:
    """How a site can be patched. `used` are the holes that are taken."""
    first = max(mapping.start, site - _REACH - _BEFORE)
    last = min(mapping.end, site + 2 * _REACH + _LONGEST)
    hole, behind = find_hole(read, site, mapping, used), b""
    if hole is None:
        behind = find_movable(read, site, mapping)
        first = min(first, max(mapping.start, site - _FUNCTION))
        last = max(last, min(mapping.end, site + _FUNCTION))
    return Patch(
        0 if hole is None else hole - site, behind, first - site, read(first, last - first)
    )


def find_hole(read: Read, site: int, mapping: Mapping, used: set[int]) -> int | None:
    """The address of five bytes of padding that a short jump at `site` reaches; None for none.

    Padding is nop or int3 instructions right behind one that never goes on to the next. `used` are
    the holes that are taken.
    """
    first = max(mapping.start, site - _REACH - _BEFORE)
    code = read(first, min(mapping.end, site + 2 * _REACH + _LONGEST) - first)
    found = [set(_padding(code[start:], first + start, site)) for start in _STARTS]
    in_step = [each for each in found if each]
    if len(in_step) < 2:
        return None
    for address in sorted(set.intersection(*in_step)):
        fits = -_REACH <= address - (site + 2) < _REACH and address + _JUMP <= mapping.end
        if fits and all(abs(address - hole) >= _JUMP for hole in used):
            return address
    return None


def _padding(code: bytes, address: int, site: int) -> list[int]:
    """Where five bytes of padding begin in `code`; none when it is not decoded in step with what
    lies at `site`."""
    from iced_x86 import Decoder, FlowControl, Mnemonic

    ends = {FlowControl.RETURN, FlowControl.UNCONDITIONAL_BRANCH, FlowControl.INDIRECT_BRANCH}
    found: list[int] = []
    starts: list[int] = []
    run = (0, 0)
    dead = False
    for instruction in Decoder(64, code, ip=address):
        starts.append(instruction.ip)
        if dead and instruction.mnemonic in (Mnemonic.NOP, Mnemonic.INT3):
            run = (run[0] or instruction.ip, instruction.next_ip)
            continue
        if run[0]:
            found += range(run[0], run[1] - _JUMP + 1, _JUMP)
            run = (0, 0)
        dead = instruction.flow_control in ends
    return found if site in starts else []


def find_movable(read: Read, site: int, mapping: Mapping) -> bytes:
    """The instructions behind the `syscall` at `site` that a jump of five bytes displaces.

    Empty when they cannot be moved: they use memory or the instruction pointer, or something nearby
    jumps to one of them.
    """
    from iced_x86 import Decoder, FlowControl, Mnemonic, OpKind

    # Where these are executed is seen when they trap.
    trapping = {Mnemonic.RDTSC, Mnemonic.RDTSCP, Mnemonic.DIV, Mnemonic.IDIV}
    first = max(mapping.start, site - _FUNCTION)
    code = read(first, min(mapping.end, site + _FUNCTION) - first)
    behind = code[site + 2 - first : site + 2 - first + 2 * _LONGEST]
    length = 0
    for instruction in Decoder(64, behind, ip=site + 2):
        kinds = {instruction.op_kind(n) for n in range(instruction.op_count)}
        if instruction.flow_control != FlowControl.NEXT or OpKind.MEMORY in kinds:
            return b""
        if instruction.mnemonic in trapping:
            return b""
        length += instruction.len
        if length >= _JUMP - 2:
            break
    else:
        return b""
    inside = range(site + 1, site + 2 + length)
    in_step = 0
    for start in _STARTS:
        starts = set()
        for instruction in Decoder(64, code[start:], ip=first + start):
            starts.add(instruction.ip)
            if instruction.near_branch_target in inside:
                return b""
        in_step += site in starts
    return behind[:length] if in_step >= 2 else b""
