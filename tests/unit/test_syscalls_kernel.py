# SPDX-License-Identifier: GPL-2.0-or-later
"""The table against the kernel: which bytes does a call really write?

Each case makes a real system call in this process, on buffers that are filled with 0x00 first and
with 0xAA in a second run. A byte that the kernel wrote differs from its filling in one of the two.
What changed must be what the row's outputs claim.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import mmap
import os
import pty
import resource
import signal
import socket
import struct
import sys
import tempfile
import threading
import time
from contextlib import ExitStack
from pathlib import Path

import pytest

from sysrift.syscalls import NAMES, TABLE, BadAddress

pytestmark = pytest.mark.skipif(
    not (sys.platform == "linux" and os.uname().machine == "x86_64"),
    reason="the table is for x86-64 Linux",
)

LIBC = ctypes.CDLL(None, use_errno=True)
LIBC.syscall.restype = ctypes.c_long
ARENA_SIZE = 1 << 16
GAP = 64
AT_FDCWD = -100 & (1 << 64) - 1


class Arena:
    """Memory of a known address to make calls on; outside of it nothing is readable."""

    def __init__(self, filling: int, resources: ExitStack) -> None:
        self._mapping = mmap.mmap(-1, ARENA_SIZE)
        anchor = ctypes.c_char.from_buffer(self._mapping)
        self.base = ctypes.addressof(anchor)
        self._anchor = anchor
        self._filling = filling
        self._next = GAP
        self.resources = resources
        self.rooms: list[tuple[int, int]] = []
        ctypes.memset(self.base, filling, ARENA_SIZE)

    def read(self, address: int, length: int) -> bytes:
        if not self.base <= address <= self.base + ARENA_SIZE - length:
            raise BadAddress(hex(address))
        return ctypes.string_at(address, length)

    def room(self, length: int) -> int:
        """A buffer for the kernel to write to."""
        address = self._take(length)
        self.rooms.append((address, length))
        return address

    def put(self, content: bytes) -> int:
        """A buffer with something for the kernel to read."""
        address = self._take(len(content))
        ctypes.memmove(address, content, len(content))
        return address

    def _take(self, length: int) -> int:
        address = self.base + self._next
        self._next = (self._next + length + GAP + 15) & ~15
        assert self._next <= ARENA_SIZE
        return address

    def text(self, content: str) -> int:
        return self.put(content.encode() + b"\0")

    def u32(self, value: int) -> int:
        return self.put(struct.pack("<I", value))

    def u64(self, value: int) -> int:
        return self.put(struct.pack("<Q", value))

    def iovec(self, *lengths: int) -> int:
        parts = [(self.room(length), length) for length in lengths]
        return self.put(b"".join(struct.pack("<QQ", *part) for part in parts))

    def fd(self, number: int) -> int:
        self.resources.callback(os.close, number)
        return number

    def pipe(self, content: bytes = b"") -> tuple[int, int]:
        reader, writer = os.pipe()
        os.write(writer, content)
        return self.fd(reader), self.fd(writer)

    def sockets(self, kind: int = socket.SOCK_STREAM) -> tuple[socket.socket, socket.socket]:
        first, second = socket.socketpair(socket.AF_UNIX, kind)
        self.resources.enter_context(first)
        self.resources.enter_context(second)
        return first, second

    def udp(self) -> tuple[socket.socket, socket.socket]:
        both = []
        for _ in range(2):
            each = self.resources.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
            each.bind(("127.0.0.1", 0))
            both.append(each)
        both[0].connect(both[1].getsockname())
        return both[0], both[1]

    def file(self, content: bytes = b"") -> int:
        directory = self.directory()
        number = self.fd(os.open(directory, os.O_TMPFILE | os.O_RDWR))
        os.pwrite(number, content, 0)
        return number

    def directory(self) -> str:
        return self.resources.enter_context(tempfile.TemporaryDirectory())

    def terminal(self) -> tuple[int, int]:
        leader, follower = pty.openpty()
        return self.fd(leader), self.fd(follower)

    def child(self) -> int:
        pid = os.fork()
        if pid == 0:
            os._exit(3)
        self.resources.callback(_reap, pid)
        return pid

    def snapshot(self) -> bytes:
        return ctypes.string_at(self.base, ARENA_SIZE)


def _reap(pid: int) -> None:
    try:
        os.waitpid(pid, 0)
    except ChildProcessError:
        pass


def message(
    a: Arena, name: int = 0, name_length: int = 0, control: int = 0, parts: tuple = (16,)
) -> bytes:
    control_address = a.room(control) if control else 0
    iov = a.iovec(*parts) if parts else 0
    return struct.pack(
        "<QI4xQQQQI4x", name, name_length, iov, len(parts), control_address, control, 0x5A5A5A5A
    )


CASES: list = []


def case(name, *, exact=True, fails=(), may_fail=(), label=""):
    """Register a case: a function from an arena to the call's arguments.

    `exact`: all claimed bytes of a buffer are written, not only the other way round. `fails`: the
    errors that are the point of the case. `may_fail`: what some kernels answer; the case is
    skipped then.
    """

    def register(function):
        identity = f"{name}-{label or function.__name__}"
        CASES.append(pytest.param(name, function, exact, fails, may_fail, id=identity))
        return function

    return register


def simple(name, function, **options):
    case(name, **{"label": "plain", **options})(function)


def perform(row, arena: Arena, function):
    arguments = tuple(each & (1 << 64) - 1 for each in function(arena))
    args = (arguments + (0,) * 6)[:6]
    assert row.known(args) is True
    row.inputs(args, arena)
    state = row.before(args, arena)
    previous = arena.snapshot()
    ctypes.set_errno(0)
    result = LIBC.syscall(ctypes.c_long(row.nr), *(ctypes.c_ulong(each) for each in args))
    if result == -1 and ctypes.get_errno():
        result = -ctypes.get_errno()
    now = arena.snapshot()
    changed = {index for index in range(ARENA_SIZE) if previous[index] != now[index]}
    claimed: set[int] = set()
    for each in row.outputs(args, result, arena, state):
        assert each.length > 0 and each.address
        assert args[each.argument], "a range hangs on an argument that is NULL"
        start = each.address - arena.base
        assert 0 <= start <= ARENA_SIZE - each.length, f"{each} is outside of the buffers"
        claimed.update(range(start, start + each.length))
    rooms: set[int] = set()
    for address, length in arena.rooms:
        rooms.update(range(address - arena.base, address - arena.base + length))
    return result, changed, claimed, rooms


def spans(indices: set[int]) -> str:
    """A readable form of a set of offsets."""
    found: list[list[int]] = []
    for index in sorted(indices):
        if found and found[-1][1] == index:
            found[-1][1] = index + 1
        else:
            found.append([index, index + 1])
    return ", ".join(f"{first}+{end - first}" for first, end in found)


# --- files ---------------------------------------------------------------------------------------

simple("read", lambda a: (a.file(b"hello world"), a.room(32), 32))
simple("pread64", lambda a: (a.file(b"hello world"), a.room(32), 32, 6))
simple("write", lambda a: (a.file(), a.put(b"data"), 4))
simple("readv", lambda a: (a.file(b"x" * 30), a.iovec(8, 0, 16, 64), 4))
simple("preadv", lambda a: (a.file(b"x" * 30), a.iovec(8, 64), 2, 4, 0))
simple("preadv2", lambda a: (a.file(b"x" * 30), a.iovec(8, 64), 2, 4, 0, 0))
simple("writev", lambda a: (a.file(), a.iovec(8, 64), 2))
simple("stat", lambda a: (a.text("/"), a.room(160)))
simple("lstat", lambda a: (a.text("/"), a.room(160)))
simple("fstat", lambda a: (a.file(b"x"), a.room(160)))
simple("newfstatat", lambda a: (AT_FDCWD, a.text("/etc/passwd"), a.room(160), 0))
simple(
    "newfstatat",
    lambda a: (AT_FDCWD, a.text("/no/such"), a.room(160), 0),
    fails=(errno.ENOENT,),
    label="missing",
)
simple("statx", lambda a: (AT_FDCWD, a.text("/"), 0, 0xFFF, a.room(300)))
simple("statfs", lambda a: (a.text("/"), a.room(160)))
simple("fstatfs", lambda a: (a.file(), a.room(160)))
simple(
    "ustat", lambda a: (Path("/").stat().st_dev, a.room(64)), may_fail=(errno.EINVAL, errno.ENOSYS)
)
simple("getcwd", lambda a: (a.room(4096), 4096))
simple("readlink", lambda a: (a.text("/proc/self/exe"), a.room(256), 256))
simple("readlink", lambda a: (a.text("/proc/self/exe"), a.room(5), 5), label="short")
simple("readlinkat", lambda a: (AT_FDCWD, a.text("/proc/self/exe"), a.room(256), 256))
simple("openat", lambda a: (AT_FDCWD, a.text("/no/such"), 0, 0), fails=(errno.ENOENT,))
simple("access", lambda a: (a.text("/"), 0))
simple("lseek", lambda a: (a.file(b"abc"), 1, 0))


@case("getdents64", exact=False)
def entries(a):
    fd = a.fd(os.open("/etc", os.O_RDONLY))
    return fd, a.room(4096), 4096


@case("getdents", exact=False)
def old_entries(a):
    fd = a.fd(os.open("/etc", os.O_RDONLY))
    return fd, a.room(4096), 4096


@case("getxattr", may_fail=(errno.EOPNOTSUPP, errno.EPERM))
def attribute(a):
    path = a.directory()
    os.setxattr(path, "user.sysrift", b"some value")
    return a.text(path), a.text("user.sysrift"), a.room(64), 64


@case("getxattr", may_fail=(errno.EOPNOTSUPP, errno.EPERM))
def attribute_size_only(a):
    path = a.directory()
    os.setxattr(path, "user.sysrift", b"some value")
    return a.text(path), a.text("user.sysrift"), a.room(64), 0


@case("getxattrat", may_fail=(errno.EOPNOTSUPP, errno.EPERM, errno.ENOSYS))
def attribute_at(a):
    path = a.directory()
    os.setxattr(path, "user.sysrift", b"some value")
    arguments = a.put(struct.pack("<QII", a.room(64), 64, 0))
    return AT_FDCWD, a.text(path), 0, a.text("user.sysrift"), arguments, 16


@case("setxattrat", may_fail=(errno.EOPNOTSUPP, errno.EPERM, errno.ENOSYS))
def set_attribute_at(a):
    arguments = a.put(struct.pack("<QII", a.put(b"value"), 5, 0))
    return AT_FDCWD, a.text(a.directory()), 0, a.text("user.sysrift"), arguments, 16


@case("listxattr", may_fail=(errno.EOPNOTSUPP, errno.EPERM))
def attribute_names(a):
    path = a.directory()
    os.setxattr(path, "user.sysrift", b"some value")
    return a.text(path), a.room(64), 64


@case("listxattrat", may_fail=(errno.EOPNOTSUPP, errno.EPERM, errno.ENOSYS))
def attribute_names_at(a):
    path = a.directory()
    os.setxattr(path, "user.sysrift", b"some value")
    return AT_FDCWD, a.text(path), 0, a.room(64), 64


@case("name_to_handle_at", exact=False, may_fail=(errno.EOPNOTSUPP, errno.ENOSYS))
def handle(a):
    room = a.room(8 + 128)
    ctypes.memmove(room, struct.pack("<II", 128, 0), 8)
    return AT_FDCWD, a.text("/tmp"), room, a.room(8), 0


@case("name_to_handle_at", fails=(errno.EOVERFLOW,), may_fail=(errno.EOPNOTSUPP, errno.ENOSYS))
def handle_too_small(a):
    return AT_FDCWD, a.text("/tmp"), a.put(struct.pack("<II", 0, 0)), a.room(8), 0


@case("sendfile")
def sendfile_with_offset(a):
    return a.file(), a.file(b"0123456789"), a.u64(3), 5


@case("copy_file_range", may_fail=(errno.EXDEV, errno.EINVAL, errno.EOPNOTSUPP))
def copy_with_offsets(a):
    return a.file(b"0123456789"), a.u64(3), a.file(), a.u64(0), 5, 0


@case("splice")
def splice_with_offset(a):
    return a.file(b"0123456789"), a.u64(3), a.pipe()[1], 0, 5, 0


@case("vmsplice", exact=False)
def vmsplice_reading(a):
    return a.pipe(b"0123456789")[0], a.iovec(4, 64), 2, 0


@case("file_getattr", may_fail=(errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTTY, errno.EINVAL))
def file_attributes(a):
    return AT_FDCWD, a.text(a.directory()), a.room(24), 24, 0


@case("cachestat", may_fail=(errno.ENOSYS, errno.EOPNOTSUPP))
def cache_statistics(a):
    return a.file(b"x" * 5000), a.put(struct.pack("<QQ", 0, 0)), a.room(64), 0


@case("mincore")
def resident_pages(a):
    return a.base, 4096 * 5 + 1, a.room(64)


simple("sysfs", lambda a: (2, 0, a.room(64)), may_fail=(errno.ENOSYS,))
simple("sysfs", lambda a: (1, a.text("proc"), 0), may_fail=(errno.ENOSYS,), label="index")

# --- fcntl and ioctl -----------------------------------------------------------------------------


@case("fcntl")
def no_lock(a):
    lock = a.room(32)
    ctypes.memmove(lock, struct.pack("<hh4xqqi4x", fcntl.F_WRLCK, 0, 0, 0, 0), 32)
    a.rooms.clear()
    return a.file(b"x"), fcntl.F_GETLK, lock


@case("fcntl")
def open_file_lock(a):
    return a.file(b"x"), 36, a.put(struct.pack("<hh4xqqi4x", fcntl.F_WRLCK, 0, 0, 0, 0))


simple("fcntl", lambda a: (a.file(), 16, a.room(16)), label="owner")
simple("fcntl", lambda a: (a.file(), 17, a.room(16)), label="owner_uids", may_fail=(errno.EINVAL,))
simple("fcntl", lambda a: (a.file(), 1035, a.room(16)), label="hint", may_fail=(errno.EINVAL,))
simple("fcntl", lambda a: (a.file(), 1033, 0), label="seals", fails=(errno.EINVAL, errno.EPERM))

TERMINAL_REQUESTS = {
    0x5401: 36, 0x5405: 18, 0x5413: 8, 0x5411: 4, 0x541B: 4, 0x5424: 4, 0x802C542A: 44,
    0x5456: 36, 0x5419: 4, 0x80045440: 4, 0x80045432: 4,
}  # fmt: skip
for _request in TERMINAL_REQUESTS:
    simple(
        "ioctl",
        lambda a, request=_request: (a.terminal()[1], request, a.room(80)),
        label=f"terminal_{_request:x}",
        may_fail=(errno.ENOTTY, errno.EINVAL),
    )
for _request in (0x80045430, 0x80045438, 0x80045439):
    simple(
        "ioctl",
        lambda a, request=_request: (a.terminal()[0], request, a.room(80)),
        label=f"leader_{_request:x}",
    )
simple("ioctl", lambda a: (a.pipe(b"abc")[0], 0x541B, a.room(16)), label="pipe_pending")
simple(
    "ioctl", lambda a: (a.file(), 0x5401, a.room(64)), label="no_terminal", fails=(errno.ENOTTY,)
)
simple("ioctl", lambda a: (a.file(), 0x5421, a.u32(1)), label="nonblocking")
simple("ioctl", lambda a: (a.file(b"x"), 0x0002, a.room(16)), label="block_size")
simple(
    "ioctl",
    lambda a: (a.file(b"x"), 0x80086601, a.room(16)),
    label="file_flags",
    may_fail=(errno.ENOTTY, errno.EOPNOTSUPP, errno.EINVAL),
)
simple(
    "ioctl",
    lambda a: (a.file(b"x"), 0x801C581F, a.room(64)),
    label="file_attributes",
    may_fail=(errno.ENOTTY, errno.EOPNOTSUPP, errno.EINVAL),
)
simple(
    "ioctl",
    lambda a: (a.file(b"x"), 0x80087601, a.room(16)),
    label="file_generation",
    may_fail=(errno.ENOTTY, errno.EOPNOTSUPP, errno.EINVAL),
)
simple(
    "ioctl",
    lambda a: (a.file(b"x"), 0x81009431, a.room(300)),
    label="volume_name",
    exact=False,
    may_fail=(errno.ENOTTY, errno.EOPNOTSUPP, errno.EINVAL),
)
simple(
    "ioctl",
    lambda a: (a.file(b"x"), 0x80111500, a.room(64)),
    label="volume_uuid",
    may_fail=(errno.ENOTTY, errno.EOPNOTSUPP, errno.EINVAL),
)


@case("ioctl", exact=False, may_fail=(errno.EOPNOTSUPP, errno.ENOTTY))
def extents(a):
    fd = a.file(b"x" * 100000)
    os.fsync(fd)
    header = struct.pack("<QQIIII", 0, 1 << 63, 1, 0, 4, 0)
    room = a.room(32 + 56 * 4)
    ctypes.memmove(room, header, 32)
    return fd, 0xC020660B, room


@case("ioctl", exact=False)
def interface_index(a):
    return a.udp()[0].fileno(), 0x8933, a.put(b"lo".ljust(40, b"\0"))


@case("ioctl", exact=False)
def interface_address(a):
    return a.udp()[0].fileno(), 0x8915, a.put(b"lo".ljust(40, b"\0"))


@case("ioctl", exact=False)
def interfaces(a):
    return a.udp()[0].fileno(), 0x8912, a.put(struct.pack("<i4xQ", 400, a.room(400)))


@case("ioctl", exact=False)
def interfaces_counted(a):
    return a.udp()[0].fileno(), 0x8912, a.put(struct.pack("<i4xQ", 0, 0))


simple(
    "ioctl",
    lambda a: (a.fd(os.open("/dev/urandom", os.O_RDONLY)), 0x80045200, a.room(8)),
    label="entropy",
)
simple(
    "ioctl",
    lambda a: (a.fd(os.open("/proc/self/ns/user", os.O_RDONLY)), 0xB704, a.room(8)),
    label="namespace_owner",
)

# --- time ----------------------------------------------------------------------------------------

simple("clock_gettime", lambda a: (1, a.room(32)))
simple("clock_getres", lambda a: (1, a.room(32)))
simple("clock_getres", lambda a: (1, 0), label="null")
simple("gettimeofday", lambda a: (a.room(32), a.room(32)))
simple("gettimeofday", lambda a: (a.room(32), 0), label="no_zone")
simple("time", lambda a: (a.room(16),))
simple("times", lambda a: (a.room(64),))
simple("nanosleep", lambda a: (a.put(struct.pack("<qq", 0, 1000)), a.room(32)))
simple("clock_nanosleep", lambda a: (1, 0, a.put(struct.pack("<qq", 0, 1000)), a.room(32)))
simple("getitimer", lambda a: (0, a.room(64)))
simple("setitimer", lambda a: (1, a.put(bytes(32)), a.room(64)))
simple("adjtimex", lambda a: (a.put(bytes(208)),), exact=False)
simple("clock_adjtime", lambda a: (0, a.put(bytes(208))), exact=False)
simple("sched_rr_get_interval", lambda a: (0, a.room(32)))


@case("nanosleep", fails=(errno.EINTR,))
def interrupted_sleep(a):
    interrupt_soon(a)
    return a.put(struct.pack("<qq", 5, 0)), a.room(32)


@case("clock_nanosleep", fails=(errno.EINTR,))
def interrupted_clock_sleep(a):
    interrupt_soon(a)
    return 1, 0, a.put(struct.pack("<qq", 5, 0)), a.room(32)


def interrupt_soon(a):
    """Have SIGUSR2 handled in this thread while it is in the call that follows."""
    previous = signal.signal(signal.SIGUSR2, lambda *_: None)
    signal.siginterrupt(signal.SIGUSR2, True)
    a.resources.callback(signal.signal, signal.SIGUSR2, previous)
    done = threading.Event()
    here = threading.get_ident()

    def interrupt():
        # Again and again: the first may come before the call is made.
        while not done.wait(0.05):
            signal.pthread_kill(here, signal.SIGUSR2)

    thread = threading.Thread(target=interrupt)
    thread.start()
    a.resources.callback(thread.join)
    a.resources.callback(done.set)


@case("timerfd_gettime")
def timer_left(a):
    return timerfd(a), a.room(64)


@case("timerfd_settime")
def timer_set(a):
    return timerfd(a), 0, a.put(struct.pack("<4q", 0, 0, 100, 0)), a.room(64)


def timerfd(a):
    return a.fd(LIBC.timerfd_create(1, 0))


def posix_timer(a):
    identity = ctypes.c_int()
    event = (ctypes.c_char * 64)()
    struct.pack_into("<Qii", event, 0, 0, 0, 1)  # SIGEV_NONE
    assert LIBC.syscall(NAMES["timer_create"], 1, event, ctypes.byref(identity)) == 0
    a.resources.callback(LIBC.syscall, NAMES["timer_delete"], identity.value)
    return identity.value


simple("timer_gettime", lambda a: (posix_timer(a), a.room(64)))
simple(
    "timer_settime",
    lambda a: (posix_timer(a), 0, a.put(struct.pack("<4q", 0, 0, 100, 0)), a.room(64)),
)
simple(
    "timer_create", lambda a: (1, a.put(struct.pack("<Qii", 0, 0, 1).ljust(64, b"\0")), a.room(16))
)

# --- polling -------------------------------------------------------------------------------------


def pollfds(*fds):
    return b"".join(struct.pack("<ihH", fd, 1, 0x5555) for fd in fds)


def fd_bits(*fds):
    return sum(1 << fd for fd in fds).to_bytes(128, "little")


simple("poll", lambda a: (a.put(pollfds(a.pipe(b"x")[0], a.pipe()[0], -1)), 3, 0))
simple(
    "ppoll",
    lambda a: (
        a.put(pollfds(a.pipe(b"x")[0])),
        1,
        a.put(struct.pack("<qq", 5, 0)),
        a.put(bytes(8)),
        8,
    ),
)
simple("poll", lambda a: (0, 0, 1), label="sleep")


@case("poll", fails=(errno.EINTR,))
def interrupted_poll(a):
    interrupt_soon(a)
    return a.put(pollfds(a.pipe()[0])), 1, 5000


@case("ppoll", fails=(errno.EINTR,))
def interrupted_ppoll(a):
    interrupt_soon(a)
    return a.put(pollfds(a.pipe()[0])), 1, a.put(struct.pack("<qq", 5, 0)), 0, 8


@case("select")
def select_ready(a):
    ready, idle = a.pipe(b"x")[0], a.pipe()[0]
    sets = a.put(fd_bits(ready, idle)), a.put(fd_bits(idle)), a.put(fd_bits(idle))
    return max(ready, idle) + 1, *sets, a.put(struct.pack("<qq", 5, 0))


@case("select")
def select_timeout(a):
    idle = a.pipe()[0]
    return idle + 1, a.put(fd_bits(idle)), 0, 0, a.put(struct.pack("<qq", 0, 2000))


@case("select", fails=(errno.EINTR,))
def interrupted_select(a):
    interrupt_soon(a)
    idle = a.pipe()[0]
    return idle + 1, a.put(fd_bits(idle)), 0, 0, a.put(struct.pack("<qq", 5, 0))


@case("select", fails=(errno.EBADF,))
def select_closed(a):
    closed = os.dup(0)
    os.close(closed)
    return closed + 1, a.put(fd_bits(closed)), 0, 0, a.put(struct.pack("<qq", 5, 0))


@case("pselect6")
def pselect_ready(a):
    ready = a.pipe(b"x")[0]
    mask = a.put(struct.pack("<QQ", a.put(bytes(8)), 8))
    return ready + 1, a.put(fd_bits(ready)), 0, 0, a.put(struct.pack("<qq", 5, 0)), mask


def epoll(a):
    import select

    instance = a.resources.enter_context(select.epoll())
    for _ in range(3):
        instance.register(a.pipe(b"x")[0], select.EPOLLIN)
    return instance.fileno()


simple("epoll_wait", lambda a: (epoll(a), a.room(12 * 8), 8, 0))
simple("epoll_pwait", lambda a: (epoll(a), a.room(12 * 8), 2, 0, a.put(bytes(8)), 8))
simple("epoll_pwait2", lambda a: (epoll(a), a.room(12 * 8), 8, a.put(bytes(16)), 0, 8))
simple("epoll_ctl", lambda a: (epoll(a), 1, a.pipe()[0], a.put(struct.pack("<IQ", 1, 7))))

# --- sockets -------------------------------------------------------------------------------------

simple("socketpair", lambda a: (1, 1, 0, a.room(16)))
simple("pipe", lambda a: (a.room(16),))
simple("pipe2", lambda a: (a.room(16), 0))


def received(a, kind=socket.SOCK_STREAM, content=b"hello"):
    first, second = a.sockets(kind)
    first.send(content)
    return second.fileno()


def datagram(a, content=b"hello"):
    first, second = a.udp()
    first.send(content)
    return second.fileno()


simple("recvfrom", lambda a: (received(a), a.room(32), 32, 0, 0, 0))
simple(
    "recvfrom", lambda a: (datagram(a), a.room(32), 32, 0, a.room(64), a.u32(64)), label="address"
)
simple(
    "recvfrom",
    lambda a: (datagram(a), a.room(32), 32, 0, a.room(64), a.u32(5)),
    label="address_cut",
)
simple("recvfrom", lambda a: (datagram(a), a.room(3), 3, 0x20, 0, 0), label="truncated")
simple(
    "recvfrom",
    lambda a: (a.sockets()[0].fileno(), a.room(9), 9, 0x40, 0, 0),
    label="nothing",
    fails=(errno.EAGAIN,),
)
simple("getsockname", lambda a: (a.udp()[0].fileno(), a.room(64), a.u32(64)))
simple("getsockname", lambda a: (a.udp()[0].fileno(), a.room(64), a.u32(4)), label="cut")
simple("getpeername", lambda a: (a.udp()[0].fileno(), a.room(64), a.u32(64)))
simple("getsockopt", lambda a: (a.udp()[0].fileno(), 1, 7, a.room(16), a.u32(16)))
simple("getsockopt", lambda a: (a.udp()[0].fileno(), 1, 7, a.room(16), a.u32(2)), label="cut")
simple(
    "getsockopt",
    lambda a: (a.sockets()[0].fileno(), 1, 17, a.room(16), a.u32(16)),
    label="credentials",
)
simple("setsockopt", lambda a: (a.udp()[0].fileno(), 1, 2, a.u32(1), 4))


@case("getsockopt", fails=(errno.ERANGE,))
def groups_too_small(a):
    if not os.getgroups():
        pytest.skip("this user is in no supplementary group")
    return a.sockets()[0].fileno(), 1, 59, a.room(4), a.u32(0)


@case("accept4")
def accepted(a):
    server = a.resources.enter_context(socket.create_server(("127.0.0.1", 0)))
    a.resources.enter_context(socket.create_connection(server.getsockname()))
    return server.fileno(), a.room(64), a.u32(64), 0


@case("recvmsg")
def message_in_parts(a):
    fd = received(a, content=b"x" * 20)
    return fd, a.put(message(a, parts=(3, 8, 64))), 0


@case("recvmsg")
def message_with_address(a):
    fd = datagram(a)
    return fd, a.put(message(a, a.room(64), 64)), 0


@case("recvmsg")
def message_with_address_cut(a):
    fd = datagram(a)
    return fd, a.put(message(a, a.room(6), 6)), 0


@case("recvmsg")
def message_truncated(a):
    fd = datagram(a, b"x" * 50)
    return fd, a.put(message(a, parts=(8, 8))), 0x20


@case("recvmsg", exact=False)
def message_with_descriptors(a):
    first, second = a.sockets()
    socket.send_fds(first, [b"hello"], [0, 1])
    return second.fileno(), a.put(message(a, control=64)), 0


@case("recvmsg", exact=False)
def message_with_control_cut(a):
    first, second = a.sockets()
    second.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
    socket.send_fds(first, [b"hello"], [0, 1])
    return second.fileno(), a.put(message(a, control=20)), 0


@case("recvmsg", fails=(errno.EAGAIN,))
def no_message(a):
    return a.sockets()[0].fileno(), a.put(message(a, a.room(64), 64)), 0x40


@case("recvmmsg")
def messages(a):
    first, second = a.udp()
    for size in (4, 9, 40):
        first.send(b"x" * size)
    headers = b"".join(
        message(a, a.room(32), 32, parts=(3, 16)) + struct.pack("<I4x", 0xFFFFFFFF)
        for _ in range(5)
    )
    timeout = a.put(struct.pack("<qq", 5, 0))
    return second.fileno(), a.put(headers), 5, 0x10000, timeout


@case("sendmmsg")
def sent_messages(a):
    headers = b"".join(
        message(a, parts=(5, 16)) + struct.pack("<I4x", 0xFFFFFFFF) for _ in range(3)
    )
    return a.udp()[0].fileno(), a.put(headers), 3, 0


simple("sendmsg", lambda a: (a.sockets()[0].fileno(), a.put(message(a)), 0))
simple("sendto", lambda a: (a.sockets()[0].fileno(), a.put(b"data"), 4, 0, 0, 0))

# --- processes -----------------------------------------------------------------------------------

simple("uname", lambda a: (a.room(400),))
simple("sysinfo", lambda a: (a.room(128),), exact=False)
simple("getrusage", lambda a: (0, a.room(160)))
simple("getrlimit", lambda a: (resource.RLIMIT_NOFILE, a.room(32)))
simple("prlimit64", lambda a: (0, resource.RLIMIT_NOFILE, 0, a.room(32)))
simple("getresuid", lambda a: (a.room(8), a.room(8), a.room(8)))
simple("getresgid", lambda a: (a.room(8), a.room(8), a.room(8)))
simple("getgroups", lambda a: (64, a.room(256)))
simple("getgroups", lambda a: (0, a.room(256)), label="count")
simple("getcpu", lambda a: (a.room(8), a.room(8), 0))
simple("sched_getaffinity", lambda a: (0, 1024, a.room(1024)))
simple("sched_getparam", lambda a: (0, a.room(16)))
simple("sched_getattr", lambda a: (0, a.room(56), 56, 0))
simple("sched_getattr", lambda a: (0, a.room(48), 48, 0), label="first_version")
simple("get_robust_list", lambda a: (0, a.room(16), a.room(16)))
simple("getrandom", lambda a: (a.room(64), 64, 0), exact=False)
simple("capget", lambda a: (a.put(struct.pack("<Ii", 0x20080522, 0)), a.room(32)))
simple("capget", lambda a: (a.put(struct.pack("<Ii", 0x19980330, 0)), a.room(32)), label="old")
simple(
    "capget",
    lambda a: (a.put(struct.pack("<Ii", 0x1234, 0)), a.room(32)),
    label="unknown",
    fails=(errno.EINVAL,),
)
simple("prctl", lambda a: (16, a.room(32)), label="name")
simple("prctl", lambda a: (15, a.text("python3")), label="set_name")
simple("prctl", lambda a: (2, a.room(16)), label="death_signal")
simple("prctl", lambda a: (25, a.room(16)), label="tsc")
simple("prctl", lambda a: (37, a.room(16)), label="subreaper")
simple("prctl", lambda a: (40, a.room(16)), label="tid_address", may_fail=(errno.EINVAL,))
simple("prctl", lambda a: (35, 15, a.room(16), 0, 0), label="map_size", may_fail=(errno.EINVAL,))
simple(
    "prctl",
    lambda a: (0x41555856, a.room(1024), 1024, 0, 0),
    label="auxv",
    may_fail=(errno.EINVAL,),
)
simple(
    "prctl",
    lambda a: (62, 0, 0, 0, a.room(16)),
    label="core_scheduling",
    may_fail=(errno.EINVAL, errno.ENODEV),
)
simple("arch_prctl", lambda a: (0x1003, a.room(16)), label="fs")
simple("arch_prctl", lambda a: (0x1004, a.room(16)), label="gs")
simple("arch_prctl", lambda a: (0x1021, a.room(16)), label="features", may_fail=(errno.EINVAL,))
simple("arch_prctl", lambda a: (0x4001, a.room(16)), label="untag", may_fail=(errno.EINVAL,))
simple(
    "arch_prctl",
    lambda a: (0x5005, a.room(16)),
    label="shadow_stack",
    may_fail=(errno.EINVAL, errno.EOPNOTSUPP),
)
simple("modify_ldt", lambda a: (0, a.room(64), 64), may_fail=(errno.ENOSYS,))
simple("seccomp", lambda a: (3, 0, a.room(16)), may_fail=(errno.EINVAL,))
simple("seccomp", lambda a: (2, 0, a.u32(0x7FFF0000)), label="available", may_fail=(errno.EINVAL,))
simple("get_mempolicy", lambda a: (a.room(8), a.room(128), 1024, 0, 0), may_fail=(errno.ENOSYS,))
simple(
    "move_pages",
    lambda a: (0, 2, a.put(struct.pack("<QQ", a.base, a.base + 4096)), 0, a.room(16), 0),
    may_fail=(errno.ENOSYS, errno.EPERM),
)
simple("syslog", lambda a: (3, a.room(4096), 4096), may_fail=(errno.EPERM,))
simple("lsm_list_modules", lambda a: (a.room(128), a.u32(128), 0), may_fail=(errno.ENOSYS,))
simple("wait4", lambda a: (a.child(), a.room(8), 0, a.room(160)))
simple(
    "wait4",
    lambda a: (os.getpid(), a.room(8), 0, a.room(160)),
    fails=(errno.ECHILD,),
    label="no_child",
)
simple("waitid", lambda a: (1, a.child(), a.room(128), 4, a.room(160)), exact=False)
simple(
    "waitid",
    lambda a: (1, os.getpid(), a.room(128), 4, a.room(160)),
    fails=(errno.ECHILD,),
    exact=False,
    label="no_child",
)
simple(
    "process_vm_readv",
    lambda a: (
        os.getpid(),
        a.iovec(8, 64),
        2,
        a.put(struct.pack("<QQ", a.put(b"x" * 40), 40)),
        1,
        0,
    ),
    may_fail=(errno.EPERM, errno.ENOSYS),
)


@case("sched_setattr", fails=(errno.E2BIG,))
def attributes_too_large(a):
    return 0, a.put(struct.pack("<I", 4000) + b"\1" * 3996), 0


@case("perf_event_open", fails=(errno.E2BIG,), may_fail=(errno.EACCES, errno.EPERM, errno.ENOSYS))
def event_too_large(a):
    return a.put(struct.pack("<II", 0, 4000) + b"\1" * 3992), 0, -1, -1, 0


@case("futex", fails=(errno.EAGAIN,))
def futex_changed(a):
    return a.u32(5), 128, 6, 0


@case("futex")
def futex_wake_op(a):
    return a.u32(0), 5 | 128, 1, 1, a.u32(3), 7 << 12


@case("futex")
def futex_lock_pi(a):
    return a.u32(0), 6 | 128, 0, 0


# --- signals -------------------------------------------------------------------------------------

simple("rt_sigaction", lambda a: (signal.SIGUSR2, 0, a.room(64), 8))
simple("rt_sigprocmask", lambda a: (0, 0, a.room(16), 8))
simple("rt_sigpending", lambda a: (a.room(16), 8))
simple("sigaltstack", lambda a: (0, a.room(32)), exact=False)


@case("rt_sigtimedwait", exact=False)
def waited_signal(a):
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])
    a.resources.callback(signal.pthread_sigmask, signal.SIG_SETMASK, mask)
    # To this thread: a test runner's other threads do not block it.
    signal.pthread_kill(threading.get_ident(), signal.SIGUSR1)
    return a.u64(1 << signal.SIGUSR1 - 1), a.room(128), a.put(struct.pack("<qq", 1, 0)), 8


@case("signalfd4")
def signal_fd(a):
    return -1, a.u64(1 << signal.SIGUSR1 - 1), 8, 0


# --- System V and POSIX IPC ----------------------------------------------------------------------


def queue(a):
    identity = LIBC.syscall(NAMES["msgget"], 0, 0o600)
    a.resources.callback(LIBC.syscall, NAMES["msgctl"], identity, 0, 0)
    return identity


def filled_queue(a):
    identity = queue(a)
    assert LIBC.syscall(NAMES["msgsnd"], identity, struct.pack("<q", 1) + b"hello", 5, 0) == 0
    return identity


def semaphores(a):
    identity = LIBC.syscall(NAMES["semget"], 0, 3, 0o600)
    a.resources.callback(LIBC.syscall, NAMES["semctl"], identity, 0, 0)
    return identity


def segment(a):
    identity = LIBC.syscall(NAMES["shmget"], 0, 4096, 0o600)
    a.resources.callback(LIBC.syscall, NAMES["shmctl"], identity, 0, 0)
    return identity


simple("msgrcv", lambda a: (filled_queue(a), a.room(64), 56, 0, 0))
simple("msgsnd", lambda a: (queue(a), a.put(struct.pack("<q", 1) + b"hello"), 5, 0))
simple("msgctl", lambda a: (queue(a), 2, a.room(160)))
simple("msgctl", lambda a: (0, 3, a.room(160)), label="info")
simple("semctl", lambda a: (semaphores(a), 0, 2, a.room(160)))
simple("semctl", lambda a: (0, 0, 3, a.room(160)), label="info")
simple("semop", lambda a: (semaphores(a), a.put(struct.pack("<Hhh", 0, 1, 0)), 1))
simple("shmctl", lambda a: (segment(a), 2, a.room(160)))
simple("shmctl", lambda a: (0, 3, a.room(160)), label="limits")
simple("shmctl", lambda a: (0, 14, a.room(160)), label="info")


def message_queue(a):
    name = ctypes.c_char_p(f"sysrift-{os.getpid()}-{time.monotonic_ns()}".encode())
    attributes = (ctypes.c_char * 64)()
    struct.pack_into("<4q", attributes, 0, 0, 4, 64, 0)
    fd = LIBC.syscall(NAMES["mq_open"], name, os.O_RDWR | os.O_CREAT, 0o600, attributes)
    if fd < 0:
        pytest.skip("no POSIX message queues here")
    a.resources.callback(LIBC.syscall, NAMES["mq_unlink"], name)
    LIBC.syscall(NAMES["mq_timedsend"], fd, b"hello", 5, 3, None)
    return a.fd(fd)


simple("mq_timedreceive", lambda a: (message_queue(a), a.room(64), 64, a.room(8), 0))
simple("mq_getsetattr", lambda a: (message_queue(a), 0, a.room(128)))

# --- newer mount calls, asynchronous I/O, keys ---------------------------------------------------


@case("statmount", may_fail=(errno.ENOSYS, errno.EPERM))
def mount_statistics(a):
    identity = struct.unpack_from("<Q", statx_root(), 0x90)[0]
    request = a.put(struct.pack("<IIQQ", 24, 0, identity, 0x3F))
    return request, a.room(2048), 2048, 0


@case("listmount", may_fail=(errno.ENOSYS, errno.EPERM))
def mounts(a):
    request = a.put(struct.pack("<IIQQ", 24, 0, 0xFFFFFFFFFFFFFFFF, 0))
    return request, a.room(800), 100, 0


def statx_root():
    buffer = (ctypes.c_char * 256)()
    LIBC.syscall(NAMES["statx"], -100, b"/", 0, 0x4000, buffer)
    return bytes(buffer)


@case("io_setup", may_fail=(errno.ENOSYS,))
def aio_context(a):
    return 4, a.u64(0)


@case("io_uring_setup", may_fail=(errno.ENOSYS, errno.EPERM))
def ring(a):
    return 4, a.put(bytes(120))


def key(a):
    identity = LIBC.syscall(
        NAMES["add_key"], b"user", b"sysrift-test", b"payload", 7, ctypes.c_long(-1)
    )
    if identity < 0:
        pytest.skip("no keys here")
    return identity


simple("keyctl", lambda a: (11, key(a), a.room(64), 64), label="read")
simple("keyctl", lambda a: (6, key(a), a.room(128), 128), label="describe")
simple(
    "keyctl",
    lambda a: (31, a.room(64), 64),
    label="capabilities",
    may_fail=(errno.ENOSYS, errno.EOPNOTSUPP),
)


@pytest.mark.parametrize(("name", "function", "exact", "fails", "may_fail"), CASES)
def test_what_the_kernel_writes_is_what_the_row_claims(name, function, exact, fails, may_fail):
    row = TABLE[NAMES[name]]
    written: set[int] = set()
    claimed: set[int] = set()
    rooms: set[int] = set()
    for filling in (0x00, 0xAA):
        with ExitStack() as resources:
            arena = Arena(filling, resources)
            result, changed, claims, places = perform(row, arena, function)
        if -4096 < result < 0 and -result in may_fail:
            pytest.skip(f"{name}: {errno.errorcode[-result]}")
        if fails:
            assert -result in fails, f"{name} returned {result}"
        else:
            assert not -4096 < result < 0, f"{name}: {os.strerror(-result)}"
        assert changed <= claims, f"written but not claimed: {spans(changed - claims)}"
        written |= changed
        claimed |= claims
        rooms |= places
    if exact:
        unwritten = (claimed & rooms) - written
        assert not unwritten, f"claimed but not written: {spans(unwritten)}"


def test_the_cases_cover_a_good_part_of_the_calls_that_write():
    covered = {each.values[0] for each in CASES}
    assert len(covered) > 100
