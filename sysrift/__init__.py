# SPDX-License-Identifier: GPL-2.0-or-later
"""SysRift: record a program at the system call boundary, replay that run in stock GDB.

The floors, each importing only lower ones: `syscalls` (0), `trace`, `tracee`, `image` (1),
`record`, `replay`, `views` (2), `cli` and GDB's `sysrift_gdb` (3).
"""

__version__ = "0.1.0"
