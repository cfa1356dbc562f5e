# SPDX-License-Identifier: GPL-2.0-or-later
"""Socket messages and options (recvmsg(2), net/socket.c)."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import NamedTuple

from .memory import BadAddress, Memory, read_u32, read_u64
from .plan import MAX_RW_COUNT, Args, Irregular, Range, iovec_inputs, parts, read_iovec
from .security import filter_program

_MSGHDR_SIZE = 56
_MMSGHDR_SIZE = 64
_MMSGHDR_LENGTH = 56  # offset of msg_len
_NAME_LENGTH, _CONTROL_LENGTH = 8, 40  # offsets in struct msghdr
_LARGEST_NAME = 128  # sizeof(struct sockaddr_storage); more is cut off by the kernel

SOL_IP, SOL_SOCKET, SOL_TCP, SOL_IPV6 = 0, 1, 6, 41
SO_ATTACH_FILTER, SO_ATTACH_REUSEPORT_CBPF = 26, 51
TCP_ZEROCOPY_RECEIVE = 35
#: These hand over a pointer at which the kernel stores the old counters (net/netfilter).
_REPLACE_TABLE = (64, 96, 128)


class Message(NamedTuple):
    """A `struct user_msghdr` as it was at the entry."""

    address: int
    name: int
    name_length: int
    pairs: list[tuple[int, int]]
    control: int
    control_length: int


def _message(memory: Memory, address: int) -> Message:
    words = struct.unpack("<Q I 4x Q Q Q Q 8x", memory.read(address, _MSGHDR_SIZE))
    name, name_length, iov, count, control, control_length = words
    return Message(
        address, name, name_length, read_iovec(memory, iov, count), control, control_length
    )


def _sent(memory: Memory, address: int) -> Iterator[Range]:
    """What one message to send consists of."""
    if not address:
        return
    words = struct.unpack("<Q I 4x Q Q Q Q 8x", memory.read(address, _MSGHDR_SIZE))
    name, name_length, iov, count, control, control_length = words
    yield Range(1, address, _MSGHDR_SIZE, "struct")
    if name_length < 1 << 31:
        yield Range(1, name, min(name_length, _LARGEST_NAME), "struct")
    if control_length < MAX_RW_COUNT:
        yield Range(1, control, control_length, "struct")
    if iov:
        yield from iovec_inputs(memory, 1, iov, count, with_data=True)


def _to_receive(memory: Memory, address: int) -> Iterator[Range]:
    """What one message to receive into hands in: the header and the iovec array."""
    if address:
        message = _message(memory, address)
        yield Range(1, address, _MSGHDR_SIZE, "struct")
        iov = read_u64(memory, address + 16)
        yield Range(1, iov, len(message.pairs) * 16, "struct")


def _received(memory: Memory, message: Message, result: int) -> Iterator[Range]:
    """What ___sys_recvmsg wrote: lengths and flags in the header, name, control, data.

    The lengths at the exit may be more than there was room for: the data was cut off then.
    """
    address = message.address
    yield Range(1, address, _MSGHDR_SIZE, "struct")
    name_length = read_u32(memory, address + _NAME_LENGTH)
    yield Range(1, message.name, min(message.name_length, name_length, _LARGEST_NAME), "struct")
    control_length = read_u64(memory, address + _CONTROL_LENGTH)
    yield Range(1, message.control, min(message.control_length, control_length), "struct")
    yield from parts(1, message.pairs, result)


def _sendmsg(args: Args, memory: Memory) -> Iterator[Range]:
    return _sent(memory, args[1])


def _recvmsg_inputs(args: Args, memory: Memory) -> Iterator[Range]:
    return _to_receive(memory, args[1])


def _recvmsg_before(args: Args, memory: Memory) -> Message:
    return _message(memory, args[1])


def _recvmsg(args: Args, result: int, memory: Memory, state: object) -> Iterator[Range]:
    assert isinstance(state, Message)
    return _received(memory, state, result)


def _vector(args: Args) -> list[int]:
    """The addresses of the messages of recvmmsg and sendmmsg; the kernel takes 1024 at most."""
    count = min(args[2] & 0xFFFFFFFF, 1024)
    return [args[1] + index * _MMSGHDR_SIZE for index in range(count)] if args[1] else []


def _sendmmsg_inputs(args: Args, memory: Memory) -> Iterator[Range]:
    for address in _vector(args):
        yield from _sent(memory, address)


def _sendmmsg(args: Args, result: int, memory: Memory, state: object) -> Iterator[Range]:
    for address in _vector(args)[:result]:
        yield Range(1, address + _MMSGHDR_LENGTH, 4, "struct")


def _recvmmsg_inputs(args: Args, memory: Memory) -> Iterator[Range]:
    for address in _vector(args):
        yield from _to_receive(memory, address)


def _recvmmsg_before(args: Args, memory: Memory) -> list[Message]:
    messages = []
    for address in _vector(args):
        try:
            messages.append(_message(memory, address))
        except BadAddress:
            break  # the kernel gets no further either, but it keeps what it received so far
    return messages


def _recvmmsg(args: Args, result: int, memory: Memory, state: object) -> Iterator[Range]:
    assert isinstance(state, list)
    for message in state[:result]:
        length_at = message.address + _MMSGHDR_LENGTH
        yield Range(1, length_at, 4, "struct")
        yield from _received(memory, message, read_u32(memory, length_at))


def _option(args: Args) -> tuple[int, int]:
    return args[1] & 0xFFFFFFFF, args[2] & 0xFFFFFFFF


def _setsockopt_inputs(args: Args, memory: Memory) -> Iterator[Range]:
    level, option = _option(args)
    if level == SOL_SOCKET and option in (SO_ATTACH_FILTER, SO_ATTACH_REUSEPORT_CBPF):
        yield from filter_program(memory, 3, args[3])


def _setsockopt_known(args: Args) -> bool:
    level, option = _option(args)
    return not (level in (SOL_IP, SOL_IPV6) and option in _REPLACE_TABLE)


def _getsockopt_known(args: Args) -> bool:
    """TCP_ZEROCOPY_RECEIVE maps pages where the program asked for them."""
    return _option(args) != (SOL_TCP, TCP_ZEROCOPY_RECEIVE)


RULES = {
    "sendmsg": Irregular(_sendmsg),
    "recvmsg": Irregular(_recvmsg_inputs, _recvmsg_before, _recvmsg),
    "sendmmsg": Irregular(_sendmmsg_inputs, None, _sendmmsg),
    "recvmmsg": Irregular(_recvmmsg_inputs, _recvmmsg_before, _recvmmsg),
    "setsockopt": Irregular(inputs=_setsockopt_inputs, known=_setsockopt_known),
    "getsockopt": Irregular(known=_getsockopt_known),
}
