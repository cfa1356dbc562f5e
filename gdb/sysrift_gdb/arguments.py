# SPDX-License-Identifier: GPL-2.0-or-later
"""Parsing the words of a command, with mistakes told in a line."""

from __future__ import annotations

import argparse
from typing import NoReturn

from sysrift.errors import UsageError


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{self.prog}: {message}")


def parser(command: str) -> argparse.ArgumentParser:
    """An empty parser, which raises UsageError where argparse would exit."""
    return _Parser(prog=command, add_help=False, allow_abbrev=False)
