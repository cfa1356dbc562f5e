# SPDX-License-Identifier: GPL-2.0-or-later
"""What every command of `sysrift` is."""

from __future__ import annotations

import argparse
from typing import Protocol


class Command(Protocol):
    """A command. The docstring of its class is the help text; the first line says it in short.

    A command's module is imported when the command is used, or listed in the help: what is slow to
    import (rich, pygments) belongs inside `run`.
    """

    def prepare_parser(self, parser: argparse.ArgumentParser) -> None:
        """Declare the command's arguments."""

    def run(self, args: argparse.Namespace) -> int:
        """Do it; returns the exit code. Raises SysRiftError for what the user should know."""
