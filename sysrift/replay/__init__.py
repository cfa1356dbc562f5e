# SPDX-License-Identifier: GPL-2.0-or-later
"""Replaying: `engine` plays a trace's events into a stub process and checks every one of them.

It knows neither GDB nor the recorder; `verify` drives it headless, `sysrift_gdb` inside GDB.
"""
