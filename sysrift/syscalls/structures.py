# SPDX-License-Identifier: GPL-2.0-or-later
"""The kernel's structures as text, in strace's manner: `{st_mode=S_IFREG|0644, ...}`.

Each function takes the bytes of one structure and may raise `struct.error` when they are too few.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Callable, Mapping

from .constants import names
from .values import bits, pointer, quoted, signal_name, signed, symbol

RLIM_INFINITY = (1 << 64) - 1
_ARRAY_SHOWN = 32
_SI_CODES = {0: "SI_USER", 0x80: "SI_KERNEL", -1: "SI_QUEUE", -2: "SI_TIMER", -6: "SI_TKILL"}


def _file_mode(mode: int) -> str:
    kind = names("enum.filetype").get(mode & 0o170000)
    permissions = f"0{mode & 0o7777:03o}" if mode & 0o7777 else "000"
    return f"{kind}|{permissions}" if kind else f"0{mode:03o}"


def _size_or_device(mode: int, size: int, major: int, minor: int, prefix: str) -> str:
    if mode & 0o170000 in (0o020000, 0o060000):
        return f"{prefix}_rdev=makedev({major:#x}, {minor:#x})"
    return f"{prefix}_size={size}"


def _stat(content: bytes) -> str:
    (mode,) = struct.unpack_from("<I", content, 24)
    device, size = struct.unpack_from("<Qq", content, 40)
    major, minor = device >> 8 & 0xFFF, device & 0xFF | device >> 12 & 0xFFF00
    what = _size_or_device(mode, size, major, minor, "st")
    return f"{{st_mode={_file_mode(mode)}, {what}, ...}}"


def _statx(content: bytes) -> str:
    (mode,) = struct.unpack_from("<H", content, 28)
    (size,) = struct.unpack_from("<Q", content, 40)
    major, minor = struct.unpack_from("<II", content, 128)
    what = _size_or_device(mode, size, major, minor, "stx")
    return f"{{stx_mode={_file_mode(mode)}, {what}, ...}}"


def _timespec(content: bytes) -> str:
    return "{{tv_sec={}, tv_nsec={}}}".format(*struct.unpack_from("<qq", content))


def _timeval(content: bytes) -> str:
    return "{{tv_sec={}, tv_usec={}}}".format(*struct.unpack_from("<qq", content))


def _itimerspec(content: bytes) -> str:
    return f"{{it_interval={_timespec(content)}, it_value={_timespec(content[16:])}}}"


def _itimerval(content: bytes) -> str:
    return f"{{it_interval={_timeval(content)}, it_value={_timeval(content[16:])}}}"


def _timezone(content: bytes) -> str:
    return "{{tz_minuteswest={}, tz_dsttime={}}}".format(*struct.unpack_from("<ii", content))


def _limit(value: int) -> str:
    if value == RLIM_INFINITY:
        return "RLIM64_INFINITY"
    return f"{value // 1024}*1024" if value > 1024 and value % 1024 == 0 else str(value)


def _rlimit(content: bytes) -> str:
    current, maximum = struct.unpack_from("<QQ", content)
    return f"{{rlim_cur={_limit(current)}, rlim_max={_limit(maximum)}}}"


def _rusage(content: bytes) -> str:
    return f"{{ru_utime={_timeval(content)}, ru_stime={_timeval(content[16:])}, ...}}"


def _utsname(content: bytes) -> str:
    system, node = struct.unpack_from("<65s65s", content)
    return "{{sysname={}, nodename={}, ...}}".format(
        quoted(system.partition(b"\0")[0]), quoted(node.partition(b"\0")[0])
    )


def _sysinfo(content: bytes) -> str:
    uptime, *loads, total, free = struct.unpack_from("<q3QQQ", content)
    return f"{{uptime={uptime}, loads={loads}, totalram={total}, freeram={free}, ...}}"


def _tms(content: bytes) -> str:
    return "{{tms_utime={}, tms_stime={}, tms_cutime={}, tms_cstime={}}}".format(
        *struct.unpack_from("<4q", content)
    )


def _statfs(content: bytes) -> str:
    kind, block, blocks, free = struct.unpack_from("<qqQQ", content)
    return f"{{f_type={kind:#x}, f_bsize={block}, f_blocks={blocks}, f_bfree={free}, ...}}"


def _winsize(content: bytes) -> str:
    return "{{ws_row={}, ws_col={}, ws_xpixel={}, ws_ypixel={}}}".format(
        *struct.unpack_from("<4H", content)
    )


def _termios(content: bytes) -> str:
    return "{{c_iflag={:#x}, c_oflag={:#x}, c_cflag={:#x}, c_lflag={:#x}, ...}}".format(
        *struct.unpack_from("<4I", content)
    )


def _flock(content: bytes) -> str:
    kind, whence, start, length, pid = struct.unpack_from("<hh4xqqi", content)
    name = ("F_RDLCK", "F_WRLCK", "F_UNLCK")[kind] if 0 <= kind <= 2 else str(kind)
    where = symbol("enum.whence", whence)
    return f"{{l_type={name}, l_whence={where}, l_start={start}, l_len={length}, l_pid={pid}}}"


def _sigset(content: bytes) -> str:
    mask = int.from_bytes(content[:8], "little")
    inverted = mask.bit_length() == 64 and bin(mask).count("1") > 32
    shown = ~mask & (1 << 64) - 1 if inverted else mask
    members = [signal_name(bit + 1) for bit in range(64) if shown >> bit & 1]
    text = " ".join(name[3:] if name.startswith("SIG") else name for name in members)
    return f"{'~' if inverted else ''}[{text}]"


def _sigaction(content: bytes) -> str:
    handler, flags, restorer = struct.unpack_from("<QQQ", content)
    name = {0: "SIG_DFL", 1: "SIG_IGN"}.get(handler, hex(handler))
    text = f"sa_handler={name}, sa_mask={_sigset(content[24:32])}"
    text += f", sa_flags={bits('flags.sigaction', flags)}"
    return f"{{{text}, sa_restorer={pointer(restorer)}}}" if restorer else f"{{{text}}}"


def _siginfo(content: bytes) -> str:
    number, error, code, _pad, pid, uid = struct.unpack_from("<6i", content)
    text = f"si_signo={signal_name(number)}, si_code={_SI_CODES.get(code, code)}"
    if error:
        text += f", si_errno={error}"
    return f"{{{text}, si_pid={pid}, si_uid={uid}, ...}}"


def _stack(content: bytes) -> str:
    address, flags, size = struct.unpack_from("<Qi4xQ", content)
    return f"{{ss_sp={pointer(address)}, ss_flags={flags}, ss_size={size}}}"


def _sigevent(content: bytes) -> str:
    value, number, notify = struct.unpack_from("<Qii", content)
    return f"{{sigev_value={value:#x}, sigev_signo={signal_name(number)}, sigev_notify={notify}}}"


def _mq_attr(content: bytes) -> str:
    return "{{mq_flags={:#x}, mq_maxmsg={}, mq_msgsize={}, mq_curmsgs={}}}".format(
        *struct.unpack_from("<4q", content)
    )


def _msghdr(content: bytes) -> str:
    words = struct.unpack_from("<QI4xQQQQI", content)
    name, name_length, iov, count, control, control_length, flags = words
    return (
        f"{{msg_name={pointer(name)}, msg_namelen={name_length}, msg_iov={pointer(iov)}, "
        f"msg_iovlen={count}, msg_control={pointer(control)}, msg_controllen={control_length}, "
        f"msg_flags={bits('flags.msg', flags)}}}"
    )


def sockaddr(content: bytes) -> str:
    """Return an address; of an unknown family its bytes."""
    (family,) = struct.unpack_from("<H", content)
    name = names("enum.domain").get(family, str(family))
    text = f"sa_family={name}"
    if family == socket.AF_UNIX:
        path = content[2:110]
        if path[:1] == b"\0" and len(path) > 1:
            text += f", sun_path=@{quoted(path[1:])}"
        elif path:
            text += f", sun_path={quoted(path.partition(bytes(1))[0])}"
    elif family == socket.AF_INET:
        port, address = struct.unpack_from(">H4s", content, 2)
        shown = socket.inet_ntop(socket.AF_INET, address)
        text += f', sin_port=htons({port}), sin_addr=inet_addr("{shown}")'
    elif family == socket.AF_INET6:
        port, flow, address = struct.unpack_from(">HI16s", content, 2)
        (scope,) = struct.unpack_from("<I", content, 24)
        shown = socket.inet_ntop(socket.AF_INET6, address)
        text += f", sin6_port=htons({port}), sin6_flowinfo=htonl({flow})"
        text += f', inet_pton(AF_INET6, "{shown}", &sin6_addr), sin6_scope_id={scope}'
    elif family == 16:  # AF_NETLINK
        pid, groups = struct.unpack_from("<II", content, 4)
        text += f", nl_pid={pid}, nl_groups={groups:08x}"
    elif len(content) > 2:
        text += f", sa_data={quoted(content[2:16])}"
    return f"{{{text}}}"


def wait_status(content: bytes) -> str:
    """Return a status that `wait4` stored, with the macros that take it apart."""
    (status,) = struct.unpack_from("<I", content)
    number = status & 0x7F
    if status == 0xFFFF:
        return "[{WIFCONTINUED(s)}]"
    if status & 0xFF == 0x7F:
        stop = signal_name(status >> 8 & 0xFF)
        return f"[{{WIFSTOPPED(s) && WSTOPSIG(s) == {stop}}}]"
    if number:
        dumped = " && WCOREDUMP(s)" if status & 0x80 else ""
        return f"[{{WIFSIGNALED(s) && WTERMSIG(s) == {signal_name(number)}{dumped}}}]"
    return f"[{{WIFEXITED(s) && WEXITSTATUS(s) == {status >> 8 & 0xFF}}}]"


STRUCTURES: Mapping[str, Callable[[bytes], str]] = {
    "flock": _flock,
    "itimerspec": _itimerspec,
    "itimerval": _itimerval,
    "mq_attr": _mq_attr,
    "msghdr": _msghdr,
    "rlimit": _rlimit,
    "rusage": _rusage,
    "sigaction": _sigaction,
    "sigevent": _sigevent,
    "siginfo": _siginfo,
    "stack": _stack,
    "stat": _stat,
    "statfs": _statfs,
    "statx": _statx,
    "sysinfo": _sysinfo,
    "termios": _termios,
    "timespec": _timespec,
    "timeval": _timeval,
    "timezone": _timezone,
    "tms": _tms,
    "utsname": _utsname,
    "winsize": _winsize,
}


def _pollfd(content: bytes) -> str:
    fd, events, revents = struct.unpack("<iHH", content)
    text = f"fd={fd}, events={bits('flags.poll', events)}"
    return f"{{{text}, revents={bits('flags.poll', revents)}}}" if revents else f"{{{text}}}"


def _epoll_event(content: bytes) -> str:
    events, data = struct.unpack("<IQ", content)
    return f"{{events={bits('flags.epoll', events)}, data={data:#x}}}"


def _iovec(content: bytes) -> str:
    return "{{iov_base={}, iov_len={}}}".format(
        pointer(int.from_bytes(content[:8], "little")), int.from_bytes(content[8:], "little")
    )


def _word(content: bytes) -> str:
    return str(signed(int.from_bytes(content, "little"), 8 * len(content)))


#: Element size and element of the types that are arrays.
_ARRAYS: Mapping[str, tuple[int, Callable[[bytes], str]]] = {
    "epoll_event": (12, _epoll_event),
    "int_ptr": (4, _word),
    "ints": (4, _word),
    "iovec": (16, _iovec),
    "off_ptr": (8, _word),
    "pollfd": (8, _pollfd),
}
ARRAY_TYPES = frozenset(_ARRAYS)


def array(word: str, content: bytes, count: int) -> str:
    """Return `count` elements, of which `content` may hold only the first ones."""
    size, element = _ARRAYS[word]
    shown = min(count, len(content) // size, _ARRAY_SHOWN)
    texts = [element(content[index * size : (index + 1) * size]) for index in range(shown)]
    if shown < count:
        texts.append("...")
    return f"[{', '.join(texts)}]"


def fd_set(content: bytes, nfds: int) -> str:
    """Return the descriptors below `nfds` whose bit is set."""
    mask = int.from_bytes(content, "little")
    members = [fd for fd in range(min(nfds, len(content) * 8)) if mask >> fd & 1]
    return f"[{' '.join(map(str, members))}]"


def signal_set(content: bytes) -> str:
    """Return the signals of a mask, or of its complement if those are fewer."""
    return _sigset(content)
