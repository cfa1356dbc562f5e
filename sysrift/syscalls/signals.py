# SPDX-License-Identifier: GPL-2.0-or-later
"""Signal masks that are passed behind a second pointer."""

from __future__ import annotations

from collections.abc import Iterator

from .memory import Memory, read_pairs
from .plan import Args, Irregular, Range


def _sigset_pack(args: Args, memory: Memory) -> Iterator[Range]:
    """The sixth argument of `pselect6` and `io_pgetevents`: {mask, size of mask}."""
    if args[5]:
        [(address, size)] = read_pairs(memory, args[5], 1)
        yield Range(5, args[5], 16, "struct")
        yield Range(5, address, size, "struct")


RULES = {"sigset_pack": Irregular(_sigset_pack)}
