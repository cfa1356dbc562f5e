# SPDX-License-Identifier: GPL-2.0-or-later
"""The shell's commands: `main` dispatches, one module per command."""
