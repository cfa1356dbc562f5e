# SPDX-License-Identifier: GPL-2.0-or-later
"""System calls as text: what strace prints for the same calls."""

from __future__ import annotations

import os
import signal
import socket
import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sysrift.syscalls import NAMES, TABLE
from sysrift.syscalls.constants import _SETS, names
from sysrift.syscalls.decode import errno_name, format_arguments, format_call, format_result
from sysrift.syscalls.table import FAMILIES

MASK = (1 << 64) - 1


def call(name, *values, result=0, limit=32, **fragments):
    """The text of a call; `f1=b"..."` is the fragment of argument 1."""
    args = tuple(each & MASK for each in (*values, 0, 0, 0, 0, 0, 0)[:6])
    known = {int(key[1:]): content for key, content in fragments.items()}
    return format_call(TABLE[NAMES[name]], NAMES[name], args, result, known, limit)


STAT = bytearray(144)
struct.pack_into("<I", STAT, 24, 0o100644)
struct.pack_into("<q", STAT, 48, 2996)
DEVICE = bytearray(144)
struct.pack_into("<I", DEVICE, 24, 0o020620)
struct.pack_into("<Q", DEVICE, 40, os.makedev(136, 3))
IOV = struct.pack("<QQQQ", 0x5000, 4, 0x6000, 10)
INET = struct.pack("<H", 2) + struct.pack(">H4s", 80, socket.inet_aton("127.0.0.1")) + bytes(8)
INET6 = struct.pack("<H", 10) + struct.pack(">HI", 80, 0) + bytes(15) + b"\1" + bytes(4)

EXPECTED = [
    (
        call("openat", -100, 0x1000, os.O_RDONLY | os.O_CLOEXEC, 0o777, f1=b"/etc/passwd\0"),
        'openat(AT_FDCWD, "/etc/passwd", O_RDONLY|O_CLOEXEC)',
    ),
    (
        call("openat", 3, 0x1000, 0o1101, 0o644, f1=b"out\0"),
        'openat(3, "out", O_WRONLY|O_CREAT|O_TRUNC, 0644)',
    ),
    (call("open", 0x1000, 2, 0), "open(0x1000, O_RDWR)"),
    (call("open", 0x1000, 0x410002, 0o600), "open(0x1000, O_RDWR|O_TMPFILE, 0600)"),
    (call("read", 3, 0x1000, 100, result=5, f1=b"hello"), 'read(3, "hello", 100)'),
    (call("read", 3, 0x1000, 100, result=-9), "read(3, 0x1000, 100)"),
    (call("read", 3, 0x1000, 100, result=-9, f1=b"junk"), "read(3, 0x1000, 100)"),
    (call("read", 3, 0x1000, 100, result=0, f1=b"junk"), 'read(3, "", 100)'),
    (
        call("write", 1, 0x1000, 50, result=50, f1=b"a" * 50),
        'write(1, "' + "a" * 32 + '"..., 50)',
    ),
    (call("write", 1, 0x1000, 50, limit=3, f1=b"a" * 50), 'write(1, "aaa"..., 50)'),
    (call("write", 1, 0x1000, 5, f1=b'a\n"\\\x01'), r'write(1, "a\n\"\\\1", 5)'),
    (call("write", 1, 0x1000, 3, f1=b"\x001\xff"), r'write(1, "\0001\377", 3)'),
    (call("write", -1, 0, 5), "write(-1, NULL, 5)"),
    (call("close", 0xFFFFFFFF00000003), "close(3)"),
    (call("fstat", 3, 0x10, f1=bytes(STAT)), "fstat(3, {st_mode=S_IFREG|0644, st_size=2996, ...})"),
    (
        call("fstat", 3, 0x1000, f1=bytes(DEVICE)),
        "fstat(3, {st_mode=S_IFCHR|0620, st_rdev=makedev(0x88, 0x3), ...})",
    ),
    (call("fstat", 3, 0x1000, f1=bytes(20)), "fstat(3, 0x1000)"),
    (call("fstat", 3, 0x1000, result=-9, f1=bytes(144)), "fstat(3, 0x1000)"),
    (
        call("mmap", 0, 8192, 3, 0x22, -1, 0),
        "mmap(NULL, 8192, PROT_READ|PROT_WRITE, MAP_PRIVATE|MAP_ANONYMOUS, -1, 0)",
    ),
    (call("mprotect", 0x1000, 4096, 0), "mprotect(0x1000, 4096, PROT_NONE)"),
    (call("lseek", 3, -5, 2), "lseek(3, -5, SEEK_END)"),
    (call("access", 0x1000, 4, f0=b"/x\0"), 'access("/x", R_OK)'),
    (call("kill", -1, 15), "kill(-1, SIGTERM)"),
    (call("tgkill", 5, 6, 33), "tgkill(5, 6, SIGRT_1)"),
    (
        call("rt_sigaction", 11, 0x1000, 0, 8, f1=struct.pack("<QQQQ", 0x401000, 0x14000000, 5, 2)),
        "rt_sigaction(SIGSEGV, {sa_handler=0x401000, sa_mask=[INT], "
        "sa_flags=SA_RESTORER|SA_RESTART, sa_restorer=0x5}, NULL, 8)",
    ),
    (
        call("rt_sigprocmask", 0, 0x1000, 0, 8, f1=(MASK - 0x100).to_bytes(8, "little")),
        "rt_sigprocmask(SIG_BLOCK, ~[KILL], NULL, 8)",
    ),
    (call("clock_gettime", 1, 0x10, f1=struct.pack("<qq", 5, 7)),
     "clock_gettime(CLOCK_MONOTONIC, {tv_sec=5, tv_nsec=7})"),
    (
        call("poll", 0x1000, 1, -1, result=1, f0=struct.pack("<ihh", 3, 1, 1)),
        "poll([{fd=3, events=POLLIN, revents=POLLIN}], 1, -1)",
    ),
    (
        call("select", 6, 0x1000, 0, 0, 0x2000, f1=b"\x28" + bytes(7), f4=struct.pack("<qq", 1, 0)),
        "select(6, [3 5], NULL, NULL, {tv_sec=1, tv_usec=0})",
    ),
    (
        call("writev", 1, 0x1000, 2, f1=IOV),
        "writev(1, [{iov_base=0x5000, iov_len=4}, {iov_base=0x6000, iov_len=10}], 2)",
    ),
    (
        call("connect", 3, 0x1000, 16, f1=INET),
        'connect(3, {sa_family=AF_INET, sin_port=htons(80), sin_addr=inet_addr("127.0.0.1")}, 16)',
    ),
    (
        call("connect", 3, 0x1000, 28, f1=INET6),
        "connect(3, {sa_family=AF_INET6, sin6_port=htons(80), sin6_flowinfo=htonl(0), "
        'inet_pton(AF_INET6, "::1", &sin6_addr), sin6_scope_id=0}, 28)',
    ),
    (
        call("connect", 3, 0x1000, 110, f1=b"\1\0/run/x\0\0"),
        'connect(3, {sa_family=AF_UNIX, sun_path="/run/x"}, 110)',
    ),
    (call("bind", 3, 0x1000, 5, f1=b"\1\0\0ab"), 'bind(3, {sa_family=AF_UNIX, sun_path=@"ab"}, 5)'),
    (call("socket", 2, 0x80801, 0), "socket(AF_INET, SOCK_STREAM|SOCK_CLOEXEC|SOCK_NONBLOCK, 0)"),
    (call("setsockopt", 3, 1, 2, 0x1000, 4, f3=b"\1\0\0\0"),
     r'setsockopt(3, SOL_SOCKET, SO_REUSEADDR, "\1\0\0\0", 4)'),
    (call("fcntl", 3, 3), "fcntl(3, F_GETFL, 0)"),
    (call("fcntl", 3, 2, 1), "fcntl(3, F_SETFD, FD_CLOEXEC)"),
    (call("fcntl", 3, 777, 0x1000), "fcntl(3, 777, 0x1000)"),
    (
        call("ioctl", 1, 0x5413, 0x1000, f2=struct.pack("<4H", 24, 80, 0, 0)),
        "ioctl(1, TIOCGWINSZ, {ws_row=24, ws_col=80, ws_xpixel=0, ws_ypixel=0})",
    ),
    (call("ioctl", 1, 0x5401, 0x1000, result=-25), "ioctl(1, TCGETS, 0x1000)"),
    (call("prctl", 15, 0x1000, f1=b"worker\0"), 'prctl(PR_SET_NAME, "worker", 0, 0, 0)'),
    (
        call("futex", 0x1000, 128, 1, 0),
        "futex(0x1000, FUTEX_WAIT_PRIVATE, 1, NULL, NULL, 0)",
    ),
    (call("clone", 0x1200011, 0, 0, 0x5000, 0),
     "clone(CLONE_CHILD_CLEARTID|CLONE_CHILD_SETTID|SIGCHLD, NULL, NULL, 0x5000, 0)"),
    (call("wait4", -1, 0x1000, 0, 0, result=5, f1=b"\0\x03\0\0"),
     "wait4(-1, [{WIFEXITED(s) && WEXITSTATUS(s) == 3}], 0, NULL)"),
    (call("wait4", -1, 0x1000, 1, 0, result=5, f1=struct.pack("<I", 0x80 | signal.SIGSEGV)),
     "wait4(-1, [{WIFSIGNALED(s) && WTERMSIG(s) == SIGSEGV && WCOREDUMP(s)}], WNOHANG, NULL)"),
    (call("pipe2", 0x1000, os.O_CLOEXEC, f0=struct.pack("<ii", 3, 4)), "pipe2([3, 4], O_CLOEXEC)"),
    (call("shmget", 0, 4096, 0o1600), "shmget(0, 4096, IPC_CREAT|0600)"),
    (call("prlimit64", 0, 7, 0, 0x1000, f3=struct.pack("<QQ", 1024, MASK)),
     "prlimit64(0, RLIMIT_NOFILE, NULL, {rlim_cur=1024, rlim_max=RLIM64_INFINITY})"),
    (call("getpid"), "getpid()"),
    (call("chown", 0x1000, -1, 5, f0=b"f\0"), 'chown("f", -1, 5)'),
    (call("epoll_wait", 3, 0x10, 8, -1, result=1, f1=struct.pack("<IQ", 1, 7)),
     "epoll_wait(3, [{events=EPOLLIN, data=0x7}], 8, -1)"),
    (call("stat", 0x1000, 0x2000, result=-2, f0=b"/" + b"a" * 100 + b"\0"),
     f'stat("/{"a" * 100}", 0x2000)'),
]  # fmt: skip


@pytest.mark.parametrize(("text", "expected"), EXPECTED, ids=[each[1][:30] for each in EXPECTED])
def test_calls_look_as_strace_prints_them(text, expected):
    assert text == expected


@pytest.mark.parametrize(
    ("name", "result", "expected"),
    [
        ("openat", 3, "3"),
        ("openat", -2, "-1 ENOENT (No such file or directory)"),
        ("mmap", 0x7FFFF7DD5000, "0x7ffff7dd5000"),
        ("mmap", -12, "-1 ENOMEM (Cannot allocate memory)"),
        ("brk", 0x555555559000, "0x555555559000"),
        ("read", -512, "? ERESTARTSYS (To be restarted if SA_RESTART is set)"),
        ("nanosleep", -516, "? ERESTART_RESTARTBLOCK (Interrupted by signal)"),
        ("exit_group", 0, "?"),
        ("umask", 0o22, "022"),
        ("lseek", 1 << 40, str(1 << 40)),
    ],
)
def test_results(name, result, expected):
    assert format_result(TABLE[NAMES[name]], result) == expected


def test_a_call_that_the_table_does_not_know():
    args = (1, 2, 0, 0xFFFF, 0, 0)
    assert format_call(None, 999, args, 0, {}) == ("syscall_0x3e7(0x1, 0x2, 0x0, 0xffff, 0x0, 0x0)")
    assert format_result(None, -38) == "-1 ENOSYS (Function not implemented)"


def test_error_names():
    assert errno_name(2) == "ENOENT"
    assert errno_name(512) == "ERESTARTSYS"
    assert errno_name(4000) == "E4000"


def test_every_symbol_set_that_a_row_names_exists():
    used = set()
    for row in TABLE.values():
        used.update(argument.type for argument in row.arguments if "." in argument.type)
    for family in FAMILIES.values():
        for word in family.commands.split():
            type_word = word.partition(":")[2].partition("<")[0].partition(">")[0]
            if "." in type_word:
                used.add(type_word)
    missing = {
        each for each in used if each not in _SETS and each.removeprefix("enum.") not in FAMILIES
    }
    assert not missing
    assert all(names(each) for each in _SETS)


words = st.one_of(st.integers(0, 4096), st.integers(0, MASK), st.just(MASK))


@settings(max_examples=1000, deadline=None)
@given(
    row=st.one_of(st.none(), st.sampled_from(sorted(TABLE.values(), key=lambda each: each.nr))),
    nr=st.integers(-5, 1 << 32),
    args=st.tuples(words, words, words, words, words, words),
    result=st.one_of(st.integers(-4096, 300), st.integers(-(1 << 63), (1 << 63) - 1)),
    fragments=st.dictionaries(st.integers(0, 6), st.binary(max_size=300), max_size=6),
    limit=st.integers(0, 64),
)
def test_nothing_ever_raises(row, nr, args, result, fragments, limit):
    texts = format_arguments(row, nr, args, result, fragments, limit)
    assert all(isinstance(each, str) and each for each in texts)
    assert all(each.isprintable() for each in texts)
    assert format_call(row, nr, args, result, fragments, limit).endswith(")")
    assert format_result(row, result)


@settings(max_examples=300, deadline=None)
@given(
    name=st.sampled_from(["ioctl", "fcntl", "prctl", "semctl", "futex", "arch_prctl", "keyctl"]),
    data=st.data(),
    content=st.binary(max_size=300),
    result=st.integers(-20, 300),
)
def test_no_command_ever_raises(name, data, content, result):
    selector = TABLE[NAMES[name]].plan._index
    args = [0x1000] * 6
    args[selector] = data.draw(st.sampled_from(sorted(FAMILIES[name].names())))
    fragments = dict.fromkeys(range(6), content)
    assert call_text(name, tuple(args), result, fragments)


def call_text(name, args, result, fragments):
    return format_call(TABLE[NAMES[name]], NAMES[name], args, result, fragments)
