# SPDX-License-Identifier: GPL-2.0-or-later
"""What a row of the system call table says, and what it is asked."""

from __future__ import annotations

import enum
from collections.abc import Callable
from typing import NamedTuple

from .effects import Effect
from .memory import Memory
from .plan import Args, Plan, Range
from .variants import Variants


class ReplayClass(enum.Enum):
    """What a replay does instead of making the call."""

    EMULATE = "emulate"  # put the result and the recorded memory in place
    MAP = "map"  # make the equivalent mapping at the recorded address
    REGISTERS = "registers"  # load the recorded registers
    TASK = "task"  # start, switch, replace or end a task


class Argument(NamedTuple):
    """One argument of a system call: its name in the man page, and a type word."""

    name: str
    type: str


class Row:
    """One system call.

    `args` is always the six argument registers as unsigned 64-bit numbers, `result` the signed
    64-bit value that the kernel leaves in rax (-4095..-1 is an error, -512..-516 among them an
    interruption). None of the functions raises, whatever the registers and the memory hold; the
    lists that they return may be shared and must not be changed.

    `inputs(args, memory)`
        The memory that the program hands in, at the entry. Depends on registers and memory only,
        so it can be compared between recording and replay. What cannot be followed (an unreadable
        string or iovec) is left out; a plain buffer is *not* probed, so reading it may still fail.
    `before(args, memory)`
        What `outputs` must know of the memory as it was at the entry; None for most calls.
    `outputs(args, result, memory, state)`
        The memory that the kernel wrote, at the exit; `state` is what `before` gave, or None when
        the entry was not seen. Ranges are never empty and never at NULL.
    """

    __slots__ = (
        "_compile",
        "arguments",
        "before",
        "blocks",
        "inputs",
        "name",
        "nr",
        "outputs",
        "plan",
        "replay_class",
        "variants",
    )

    arguments: tuple[Argument, ...]
    plan: Plan | Variants
    inputs: Callable[[Args, Memory], list[Range]]
    before: Callable[[Args, Memory], object]
    outputs: Callable[[Args, int, Memory, object], list[Range]]

    def __init__(
        self,
        nr: int,
        name: str,
        replay_class: ReplayClass,
        blocks: bool,
        compile_row: Callable[[], tuple[tuple[Argument, ...], Plan | Variants]],
    ) -> None:
        self.nr = nr
        self.name = name
        self.replay_class = replay_class
        self.blocks = blocks
        self._compile = compile_row

    def __getattr__(self, attribute: str) -> object:
        """Compile the row at the first question about its arguments or memory.

        A program makes some dozens of the calls. Compiling all rows takes half of the time of a
        short program's start, and GDB imports the table too.
        """
        if attribute not in ("arguments", "before", "inputs", "outputs", "plan"):
            raise AttributeError(attribute)
        self.arguments, self.plan = self._compile()
        # Bound here and not wrapped: a method of ours in between would cost as much as the rule.
        self.inputs = self.plan.inputs
        self.before = self.plan.before
        self.outputs = self.plan.outputs
        return object.__getattribute__(self, attribute)

    def __repr__(self) -> str:
        return f"<Row {self.nr} {self.name}>"

    def known(self, args: Args) -> bool:
        """Whether `outputs` is complete for these arguments.

        False for a command (an `ioctl` request, a `prctl` option, ...) without a rule and for the
        few calls that are only guessed at: compare memory then.
        """
        return self.plan.known(args)

    def effects(self, args: Args) -> tuple[Effect, ...]:
        """Return the declared effects of a call with these arguments, as data."""
        return self.plan.chosen(args).effects

    def arguments_of(self, args: Args) -> tuple[Argument, ...]:
        """Return `arguments` with the types that the command among `args` gives them."""
        types = self.plan.chosen(args).types
        if not types:
            return self.arguments
        return tuple(
            Argument(argument.name, types.get(index, argument.type))
            for index, argument in enumerate(self.arguments)
        )
