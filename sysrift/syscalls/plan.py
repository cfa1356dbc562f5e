# SPDX-License-Identifier: GPL-2.0-or-later
"""Effects turned into functions: which ranges a call with these registers reads and writes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple, Tuple  # noqa: UP035

from .effects import Direction, Effect, Operand, Source, When, Width
from .memory import BadAddress, Memory, read_pairs, read_u32, terminated_length

#: The six argument registers. Evaluated at import, and GDB may embed an old Python: not `tuple`.
Args = Tuple[int, ...]  # noqa: UP006

MAX_RW_COUNT = 0x7FFFF000  # include/linux/fs.h: no call moves more bytes than this
UIO_MAXIOV = 1024  # include/uapi/linux/uio.h: more is EINVAL
_ADDRESS_END = 1 << 56  # five-level paging's user half; an address above it is never written

ERESTART_FIRST, ERESTART_LAST = 512, 516
EINTR = 4
_SUCCESS, _INTERRUPTED, _FAILED = range(3)

_OUTCOMES = {
    When.SUCCESS: (_SUCCESS,),
    When.SUCCESS_OR_INTERRUPTED: (_SUCCESS, _INTERRUPTED),
    When.INTERRUPTED: (_INTERRUPTED,),
    When.ALWAYS: (_SUCCESS, _INTERRUPTED, _FAILED),
}


class Range(NamedTuple):
    """A piece of the program's memory that a call reads or writes."""

    argument: int  # index of the argument that it hangs on
    address: int
    length: int
    kind: str  # "string", "data" or "struct"


class Irregular(NamedTuple):
    """Rules that are code. The functions may raise `BadAddress`: what they gave so far counts.

    They may yield ranges at NULL or of no length, which are dropped.
    """

    inputs: Callable[[Args, Memory], Iterable[Range]] | None = None
    before: Callable[[Args, Memory], object] | None = None
    outputs: Callable[[Args, int, Memory, object], Iterable[Range]] | None = None
    when: When = When.SUCCESS
    known: Callable[[Args], bool] | None = None


#: Shared, so that a call without memory costs no allocation.
_NONE: list[Range] = []


class Plan:
    """The memory rules of one call, or of one command of a multiplexed call."""

    __slots__ = (
        "_complex_inputs",
        "_complex_outputs",
        "_known",
        "_preparations",
        "_simple_inputs",
        "_simple_outputs",
        "_strings",
        "before",
        "effects",
        "inputs",
        "is_plain",
        "outputs",
        "types",
    )

    inputs: Callable[[Args, Memory], list[Range]]
    before: Callable[[Args, Memory], object]
    outputs: Callable[[Args, int, Memory, object], list[Range]]

    def __init__(
        self,
        effects: Sequence[Effect] = (),
        irregular: Sequence[Irregular] = (),
        guess: bool = False,
        types: dict[int, str] | None = None,
    ) -> None:
        self.effects = tuple(effects)
        self.is_plain = not irregular and not guess
        """Whether `effects` says it all."""
        self.types = types or {}
        simple_outputs: tuple[list[tuple[int, Callable[[Args, int], int], str]], ...] = ([], [], [])
        simple_inputs: list[tuple[int, Callable[[Args, int], int], str]] = []
        strings: list[tuple[int, int]] = []
        complex_rules = list(irregular)
        for effect in effects:
            if effect.source is Source.STRING and effect.direction is Direction.READ:
                strings.append((effect.argument, effect.limit.constant or 4096))
            elif effect.source in (Source.STRING, Source.IOVEC, Source.VALUE_RESULT):
                complex_rules.append(_COMPLEX[effect.source](effect))
            else:
                simple = (effect.argument, length_of(effect), effect.kind)
                if effect.direction is Direction.READ:
                    simple_inputs.append(simple)
                else:
                    for outcome in _OUTCOMES[effect.when]:
                        simple_outputs[outcome].append(simple)
        self._strings = tuple(strings)
        self._simple_inputs = tuple(simple_inputs)
        self._simple_outputs = tuple(tuple(each) for each in simple_outputs)
        self._complex_inputs = tuple(rule.inputs for rule in complex_rules if rule.inputs)
        self._preparations = tuple(rule.before for rule in complex_rules if rule.before)
        self._complex_outputs = self._by_outcome(complex_rules)
        self._known = tuple(rule.known for rule in complex_rules if rule.known)
        if guess:
            self._known = (_never,)
        self._choose_functions()

    @staticmethod
    def _by_outcome(
        rules: Sequence[Irregular],
    ) -> tuple[tuple[tuple[int, Callable[..., Iterable[Range]]], ...], ...]:
        found: tuple[list[tuple[int, Callable[..., Iterable[Range]]]], ...] = ([], [], [])
        prepared = 0
        for rule in rules:
            slot = -1
            if rule.before:
                slot = prepared
                prepared += 1
            if rule.outputs:
                for outcome in _OUTCOMES[rule.when]:
                    found[outcome].append((slot, rule.outputs))
        return tuple(tuple(each) for each in found)

    def _choose_functions(self) -> None:
        reads = self._strings or self._simple_inputs or self._complex_inputs
        self.inputs = self._inputs if reads else _no_inputs
        self.before = self._before if self._preparations else _no_state
        if any(self._complex_outputs):
            self.outputs = self._outputs
        elif any(self._simple_outputs):
            self.outputs = self._simple_only
        else:
            self.outputs = _no_outputs

    def known(self, args: Args) -> bool:
        """Whether the rules are complete for these arguments."""
        return all(known(args) for known in self._known)

    def chosen(self, _args: Args) -> Plan:
        """Return this plan: it holds for all arguments."""
        return self

    def _inputs(self, args: Args, memory: Memory) -> list[Range]:
        found = []
        for index, limit in self._strings:
            address = args[index]
            if address:
                try:
                    length = terminated_length(memory, address, limit)
                except BadAddress:
                    continue
                found.append(Range(index, address, length, "string"))
        for index, measure, kind in self._simple_inputs:
            address = args[index]
            if address:
                length = measure(args, 0)
                if length > 0 and address + length <= _ADDRESS_END:
                    found.append(Range(index, address, length, kind))
        for rule in self._complex_inputs:
            _collect(found, rule, args, memory)
        return found

    def _before(self, args: Args, memory: Memory) -> object:
        states = []
        for prepare in self._preparations:
            try:
                states.append(prepare(args, memory))
            except BadAddress:
                states.append(None)
        return tuple(states)

    def _simple_only(
        self, args: Args, result: int, memory: Memory, _state: object = None
    ) -> list[Range]:
        if -4096 < result < 0:
            outcome = _failure(result)
            found = self._simple_ranges(outcome, args, result)
            return [each for each in found if _readable(each, memory)]
        return self._simple_ranges(_SUCCESS, args, result)

    def _simple_ranges(self, outcome: int, args: Args, result: int) -> list[Range]:
        found = []
        for index, measure, kind in self._simple_outputs[outcome]:
            address = args[index]
            if address:
                length = measure(args, result)
                if length > 0 and address + length <= _ADDRESS_END:
                    found.append(Range(index, address, length, kind))
        return found

    def _outputs(
        self, args: Args, result: int, memory: Memory, state: object = None
    ) -> list[Range]:
        outcome = _failure(result) if -4096 < result < 0 else _SUCCESS
        found = self._simple_ranges(outcome, args, result)
        states = state if isinstance(state, tuple) else self._before_or_nothing(args, memory)
        for slot, rule in self._complex_outputs[outcome]:
            rule_state = states[slot] if slot >= 0 else None
            if slot < 0 or rule_state is not None:
                _collect(found, rule, args, result, memory, rule_state)
        if outcome != _SUCCESS:
            found = [each for each in found if _readable(each, memory)]
        return found

    def _before_or_nothing(self, args: Args, memory: Memory) -> tuple[object, ...]:
        """The entry was not seen: what the memory holds now is the next best."""
        state = self.before(args, memory)
        return state if isinstance(state, tuple) else ()


def _never(_args: Args) -> bool:
    return False


def _no_inputs(_args: Args, _memory: Memory) -> list[Range]:
    return _NONE


def _no_state(_args: Args, _memory: Memory) -> object:
    return None


def _no_outputs(_args: Args, _result: int, _memory: Memory, _state: object = None) -> list[Range]:
    return _NONE


def _failure(result: int) -> int:
    error = -result
    interrupted = error == EINTR or ERESTART_FIRST <= error <= ERESTART_LAST
    return _INTERRUPTED if interrupted else _FAILED


def _readable(each: Range, memory: Memory) -> bool:
    """Whether a range can be read: a failed call may have failed because it cannot."""
    try:
        memory.read(each.address, each.length)
    except BadAddress:
        return False
    return True


def _collect(found: list[Range], rule: Callable[..., Iterable[Range]], *call: object) -> None:
    """Add what `rule` yields until it runs into memory that it cannot read."""
    try:
        for each in rule(*call):
            if each.address and each.length > 0 and each.address + each.length <= _ADDRESS_END:
                found.append(each)
    except BadAddress:
        pass


def value_of(operand: Operand, args: Args) -> int:
    """Return the number that the kernel sees in `operand`; negative where it does."""
    if operand.argument < 0:
        return operand.constant
    value = args[operand.argument]
    if operand.width is Width.UNSIGNED_64:
        return value if value < 1 << 63 else -1
    value &= 0xFFFFFFFF
    if operand.width is Width.SIGNED_32 and value >= 1 << 31:
        return -1
    return value


def length_of(effect: Effect) -> Callable[[Args, int], int]:
    """Return the function (args, result) -> bytes for a rule without pointers."""
    limit = effect.limit if effect.limit != Operand() else None
    divide, multiply, add, operand = effect.divide, effect.multiply, effect.add, effect.operand
    if effect.source is Source.FIXED:
        constant = operand.constant
        return lambda args, result: constant
    from_result = effect.source is Source.RESULT
    plain = (divide, multiply, add) == (1, 1, 0)
    if plain and limit is None and from_result:
        return lambda args, result: result if result < MAX_RW_COUNT else MAX_RW_COUNT

    def length(args: Args, result: int) -> int:
        value = result if from_result else value_of(operand, args)
        if limit is not None:
            value = min(value, value_of(limit, args))
        if value < 0:
            return 0
        if not plain:
            value = -(-value // divide) * multiply + add
        return value if value < MAX_RW_COUNT else MAX_RW_COUNT

    return length


def parts(argument: int, pairs: Iterable[tuple[int, int]], total: int) -> Iterator[Range]:
    """Yield the iovec buffers that hold the first `total` bytes, in order."""
    for address, length in pairs:
        if total <= 0:
            return
        length = min(length, total)
        total -= length
        yield Range(argument, address, length, "data")


def read_iovec(memory: Memory, address: int, count: int) -> list[tuple[int, int]]:
    """Return the (address, length) pairs of an iovec array; [] where the kernel says EINVAL."""
    if not 0 < count <= UIO_MAXIOV:
        return []
    return read_pairs(memory, address, count)


def iovec_inputs(
    memory: Memory, argument: int, address: int, count: int, with_data: bool
) -> Iterator[Range]:
    """Yield an iovec array and, if the kernel reads them, its buffers."""
    pairs = read_iovec(memory, address, count)
    yield Range(argument, address, len(pairs) * 16, "struct")
    if with_data and all(length < 1 << 63 for _address, length in pairs):
        yield from parts(argument, pairs, MAX_RW_COUNT)


def _iovec_rule(effect: Effect) -> Irregular:
    index, operand = effect.argument, effect.operand
    writes = effect.direction is Direction.WRITE

    def inputs(args: Args, memory: Memory) -> Iterator[Range]:
        return iovec_inputs(memory, index, args[index], value_of(operand, args), not writes)

    def before(args: Args, memory: Memory) -> list[tuple[int, int]]:
        # Taken at the entry, since the data may well land on the array itself.
        return read_iovec(memory, args[index], value_of(operand, args))

    def outputs(args: Args, result: int, memory: Memory, state: object) -> Iterator[Range]:
        assert isinstance(state, list)
        return parts(index, state, result)

    return Irregular(inputs, before, outputs, effect.when) if writes else Irregular(inputs)


def _value_result_rule(effect: Effect) -> Irregular:
    index, pointer = effect.argument, effect.operand.argument

    def before(args: Args, memory: Memory) -> int:
        return read_u32(memory, args[pointer]) if args[pointer] else 0

    def outputs(args: Args, result: int, memory: Memory, state: object) -> Iterator[Range]:
        assert isinstance(state, int)
        at_exit = read_u32(memory, args[pointer]) if args[pointer] else 0
        length = min(state, at_exit)
        if length < 1 << 31:
            yield Range(index, args[index], length, effect.kind)

    return Irregular(None, before, outputs, effect.when)


def _string_output_rule(effect: Effect) -> Irregular:
    index, limit = effect.argument, effect.limit.constant or 4096

    def outputs(args: Args, result: int, memory: Memory, state: object) -> Iterator[Range]:
        if args[index]:
            yield Range(index, args[index], terminated_length(memory, args[index], limit), "string")

    return Irregular(None, None, outputs, effect.when)


_COMPLEX: dict[Source, Callable[[Effect], Irregular]] = {
    Source.IOVEC: _iovec_rule,
    Source.VALUE_RESULT: _value_result_rule,
    Source.STRING: _string_output_rule,
}
