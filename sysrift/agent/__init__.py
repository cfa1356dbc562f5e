# SPDX-License-Identifier: GPL-2.0-or-later
"""Code of SysRift's within a traced process, which a patched `syscall` instruction comes to.

What the recording agent and the player of a replay have in common: where they lie (`code`), the
`syscall` instructions that jump to them (`sites`), and the system call table in their form
(`rows`).
"""
