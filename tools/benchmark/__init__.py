# SPDX-License-Identifier: GPL-2.0-or-later
"""The benchmark of recording and replaying whole programs: `python -m tools.benchmark --help`."""
