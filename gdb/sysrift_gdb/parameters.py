# SPDX-License-Identifier: GPL-2.0-or-later
"""`set sysrift ...` and `show sysrift ...`."""

from __future__ import annotations

import gdb


class _Setting(gdb.Parameter):
    """What all have in common."""

    def get_set_string(self) -> str:
        """What `set sysrift ...` says: nothing (GDB 12 prints an empty line otherwise)."""
        return ""


class Echo(_Setting):
    """Whether what the program wrote to its stdout and stderr is shown while replaying."""

    set_doc = "Set whether the program's recorded output is shown while replaying."
    show_doc = "Show whether the program's recorded output is shown while replaying."

    def __init__(self) -> None:
        super().__init__("sysrift echo", gdb.COMMAND_RUNNING, gdb.PARAM_BOOLEAN)
        self.value = True

    def get_show_string(self, value: str) -> str:
        """What `show sysrift echo` says."""
        return f"Echoing the program's recorded output while replaying is {value}."


class Prompt(_Setting):
    """Whether GDB's prompt shows the number of the next event."""

    set_doc = "Set whether GDB's prompt shows the number of the next event."
    show_doc = "Show whether GDB's prompt shows the number of the next event."

    def __init__(self) -> None:
        super().__init__("sysrift prompt", gdb.COMMAND_RUNNING, gdb.PARAM_BOOLEAN)
        self.value = False

    def get_show_string(self, value: str) -> str:
        """What `show sysrift prompt` says."""
        return f"Showing the number of the next event in the prompt is {value}."


class CheckpointMemory(_Setting):
    """How much memory checkpoints may take, in MiB; 0 for no checkpoints."""

    set_doc = "Set how many MiB of memory the checkpoints of a replay may take (0: none)."
    show_doc = "Show how many MiB of memory the checkpoints of a replay may take."

    def __init__(self) -> None:
        super().__init__("sysrift checkpoint-memory", gdb.COMMAND_RUNNING, gdb.PARAM_ZUINTEGER)
        self.value = 256

    def get_show_string(self, value: str) -> str:
        """What `show sysrift checkpoint-memory` says."""
        return f"The memory that checkpoints may take is {value} MiB."


class CheckpointInterval(_Setting):
    """Milliseconds of replaying between two checkpoints; 0: wherever one can be."""

    set_doc = "Set how many milliseconds of replaying lie between two checkpoints."
    show_doc = "Show how many milliseconds of replaying lie between two checkpoints."

    def __init__(self) -> None:
        super().__init__("sysrift checkpoint-interval", gdb.COMMAND_RUNNING, gdb.PARAM_ZUINTEGER)
        self.value = 250

    def get_show_string(self, value: str) -> str:
        """What `show sysrift checkpoint-interval` says."""
        return f"Checkpoints are taken every {value} ms of replaying."


class _SetPrefix(gdb.Command):
    """Settings of SysRift."""

    def __init__(self) -> None:
        super().__init__("set sysrift", gdb.COMMAND_RUNNING, gdb.COMPLETE_NONE, True)


class _ShowPrefix(gdb.Command):
    """Show SysRift's settings."""

    def __init__(self) -> None:
        super().__init__("show sysrift", gdb.COMMAND_RUNNING, gdb.COMPLETE_NONE, True)


def register() -> None:
    """Make the settings known to GDB."""
    _SetPrefix()
    _ShowPrefix()
    Echo()
    Prompt()
    CheckpointMemory()
    CheckpointInterval()


def echo() -> bool:
    """Whether to show the program's output."""
    return bool(gdb.parameter("sysrift echo"))


def prompt() -> bool:
    """Whether to show the next event in the prompt."""
    return bool(gdb.parameter("sysrift prompt"))


def checkpoint_memory() -> int:
    """Bytes that checkpoints may take."""
    return int(gdb.parameter("sysrift checkpoint-memory") or 0) << 20


def checkpoint_interval() -> float:
    """Seconds of replaying between two checkpoints."""
    return int(gdb.parameter("sysrift checkpoint-interval") or 0) / 1000
