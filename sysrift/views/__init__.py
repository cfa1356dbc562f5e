# SPDX-License-Identifier: GPL-2.0-or-later
"""Traces for people and programs to read: text, JSON, colours, filters and summaries.

Used by the shell's commands and inside GDB alike, so the standard library and pygments only.
"""
