# SPDX-License-Identifier: GPL-2.0-or-later
"""The table: the rows, the families of irregular rules, and looking a call up."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

from . import (
    asynchronous,
    fcntl,
    files,
    futex,
    ioctl,
    ipc,
    keys,
    prctl,
    process,
    ptrace,
    security,
    signals,
    sized,
    sockets,
)
from .effects import Effect, Signature, split_token
from .plan import Irregular, Plan
from .row import Argument, ReplayClass, Row
from .rows import ROWS
from .variants import Family, Variants, command_lines

_CLASSES = {"M": ReplayClass.MAP, "R": ReplayClass.REGISTERS, "T": ReplayClass.TASK}

_IRREGULAR: Mapping[str, Irregular] = {
    **asynchronous.RULES,
    **files.RULES,
    **process.RULES,
    **security.RULES,
    **signals.RULES,
    **sized.RULES,
    **sockets.RULES,
}

FAMILIES: Mapping[str, Family] = {
    "arch_prctl": prctl.ARCH_PRCTL,
    "fcntl": fcntl.FCNTL,
    "fsconfig": files.FSCONFIG,
    "futex": futex.FUTEX,
    "ioctl": ioctl.IOCTL,
    "keyctl": keys.KEYCTL,
    "landlock": security.LANDLOCK,
    "modify_ldt": process.MODIFY_LDT,
    "msgctl": ipc.MSGCTL,
    "prctl": prctl.PRCTL,
    "ptrace": ptrace.PTRACE,
    "seccomp": security.SECCOMP,
    "quotactl": files.QUOTACTL,
    "semctl": ipc.SEMCTL,
    "shmctl": ipc.SHMCTL,
    "sysfs": files.SYSFS,
}


def _compile(words: list[str]) -> tuple[tuple[Argument, ...], Plan | Variants]:
    """Return the arguments and the memory rules that the words of a line declare."""
    tokens = [split_token(word) for word in words[3:] if word[0] not in "=@"]
    signature = Signature([(argument, type_word) for argument, type_word, _ in tokens])
    arguments = tuple(Argument(argument, type_word) for argument, type_word, _ in tokens)
    effects: list[Effect] = []
    for index, (_argument, type_word, text) in enumerate(tokens):
        effects += signature.effects(index, type_word, text)
    for word in words[3:]:
        if word[0] == "@":
            family, _, selector = word[1:].partition(".")
            return arguments, Variants(FAMILIES[family], signature, selector, effects)
    rules = [_IRREGULAR[word[1:]] for word in words[3:] if word[0] == "="]
    return arguments, Plan(effects, rules, guess="?" in words[2])


def parse_row(words: list[str]) -> Row:
    """Return the row for the words of a line.

    What is wrong with its arguments raises `NotationError` at the first use.
    """
    nr, name, flags = int(words[0]), words[1], words[2]
    replay_class = ReplayClass.EMULATE
    for letter in flags:
        replay_class = _CLASSES.get(letter, replay_class)
    return Row(nr, name, replay_class, "b" in flags, partial(_compile, words))


def _parse() -> dict[int, Row]:
    rows = (parse_row(words) for words in command_lines(ROWS))
    return {row.nr: row for row in rows}


TABLE: dict[int, Row] = _parse()
NAMES: dict[str, int] = {row.name: row.nr for row in TABLE.values()}


def lookup(nr: int) -> Row | None:
    """Return the row of a system call number, or None for one that the table has never seen."""
    return TABLE.get(nr)
