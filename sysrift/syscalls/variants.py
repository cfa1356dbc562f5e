# SPDX-License-Identifier: GPL-2.0-or-later
"""Calls whose memory use depends on a command: `fcntl`, `prctl`, `ioctl`, `futex`, ..."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from .effects import Effect, NotationError, Signature, split_token
from .memory import Memory
from .plan import Args, Irregular, Plan, Range


class Family(NamedTuple):
    """The commands of a multiplexed call, as data.

    `commands` has a line `number NAME argument...` for each, in the notation of `effects`, with
    `=rule` for one of `irregular` and `?` for one whose memory is only guessed at. The names are
    also what is printed for the command. `fallback` gives the arguments, as a line would, for a
    number without one, or None if nothing can be said. The number is the selecting argument
    shifted right by `shift`, and then `mask`ed.
    """

    commands: str
    irregular: Mapping[str, Irregular] = {}
    mask: int = 0xFFFFFFFF
    shift: int = 0
    fallback: Callable[[int], str | None] | None = None

    def names(self) -> dict[int, str]:
        """Return the commands' symbolic names by number; the first of several wins."""
        found: dict[int, str] = {}
        for line in command_lines(self.commands):
            found.setdefault(int(line[0], 0), line[1])
        return found


def command_lines(text: str) -> list[list[str]]:
    """Return the words of each line that says something."""
    lines = (line.partition("#")[0].split() for line in text.splitlines())
    return [words for words in lines if words]


class Variants:
    """One plan for each value of the selecting argument, over the effects of them all."""

    __slots__ = ("_common", "_family", "_index", "_plans", "_signature", "_unlisted", "_words")

    def __init__(
        self, family: Family, signature: Signature, selector: str, common: Sequence[Effect]
    ) -> None:
        self._index = signature.indices[selector]
        self._family = family
        self._common = common
        self._unlisted = Plan(common)
        self._signature = signature
        # A program uses few of the hundreds of commands: their lines are compiled when first used.
        self._words = {int(line[0], 0): line[1:] for line in command_lines(family.commands)}
        self._plans: dict[int, Plan | None] = {}

    def _plan(self, args: Args) -> Plan | None:
        command = args[self._index] >> self._family.shift & self._family.mask
        try:
            return self._plans[command]
        except KeyError:
            plan = self._compiled(command)
            self._plans[command] = plan
            return plan

    def _compiled(self, command: int) -> Plan | None:
        words = self._words.get(command)
        if words is not None:
            return self._compiled_words(words[1:])
        text = self._family.fallback(command) if self._family.fallback else None
        return None if text is None else self._compiled_words(text.split())

    def _compiled_words(self, words: Sequence[str]) -> Plan:
        """Return the plan for a command's words, whose arguments are the call's own."""
        effects = list(self._common)
        rules: list[Irregular] = []
        types: dict[int, str] = {}
        for word in words:
            if word.startswith("="):
                rules.append(self._family.irregular[word[1:]])
            elif word != "?":
                index, type_word, text = _resolved(self._signature, word)
                types[index] = type_word
                effects += self._signature.effects(index, type_word, text)
        return Plan(effects, rules, "?" in words, types)

    def compile_all(self) -> None:
        """Compile every command's line; raises `NotationError` for a wrong one."""
        for command in self._words:
            self._plans[command] = self._compiled(command)

    def command(self, args: Args) -> tuple[int, Plan | None]:
        """Return the command among `args`, and its plan if it has one."""
        return args[self._index] >> self._family.shift & self._family.mask, self._plan(args)

    @property
    def selector(self) -> tuple[int, int, int]:
        """The index of the selecting argument, how far to shift it right, and the mask."""
        return self._index, self._family.shift, self._family.mask

    def chosen(self, args: Args) -> Plan:
        """Return the plan for the command among `args`, the common one if it has none."""
        return self._plan(args) or self._unlisted

    def known(self, args: Args) -> bool:
        """Whether the command has a complete rule."""
        plan = self._plan(args)
        return plan is not None and plan.known(args)

    def inputs(self, args: Args, memory: Memory) -> list[Range]:
        """See `Row`."""
        return (self._plan(args) or self._unlisted).inputs(args, memory)

    def before(self, args: Args, memory: Memory) -> object:
        """See `Row`."""
        return (self._plan(args) or self._unlisted).before(args, memory)

    def outputs(self, args: Args, result: int, memory: Memory, state: object = None) -> list[Range]:
        """See `Row`."""
        return (self._plan(args) or self._unlisted).outputs(args, result, memory, state)


def _resolved(signature: Signature, word: str) -> tuple[int, str, str]:
    name, type_word, text = split_token(word)
    if name not in signature.indices:
        raise NotationError(f"no argument is called {name!r}")
    return signature.indices[name], type_word, text
