# SPDX-License-Identifier: GPL-2.0-or-later
"""Where the user came from, as a browser remembers it."""

from __future__ import annotations

from sysrift.errors import UsageError
from sysrift.replay.place import Place

_LONGEST = 100


class History:
    """The places that the user left by going elsewhere."""

    def __init__(self) -> None:
        self._left: list[Place] = []

    def note(self, place: Place) -> None:
        """The user has left `place`."""
        if not self._left or self._left[-1] != place:
            self._left = [*self._left[1 - _LONGEST :], place]

    def look_back(self, steps: int) -> Place:
        """The place that many steps back. Raises UsageError when there is none."""
        if not 1 <= steps <= len(self._left):
            count = len(self._left)
            raise UsageError(
                f"there are only {count} places to go back to"
                if count
                else "no place to go back to: sysrift-goto remembers where you came from"
            )
        return self._left[-steps]

    def forget(self, steps: int) -> None:
        """The user is back at `look_back(steps)`."""
        del self._left[-steps:]


__all__ = ["History"]
