# SPDX-License-Identifier: GPL-2.0-or-later
"""`python -m sysrift`: the same as the `sysrift` command."""

import sys

from sysrift.cli.main import main

sys.exit(main())
