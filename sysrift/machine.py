# SPDX-License-Identifier: GPL-2.0-or-later
"""What of this machine a trace depends on: the processor model, and where it shows."""

from __future__ import annotations

import os


def cpu_model() -> str:
    """The processor's name and numbers, as /proc/cpuinfo has them for the first one."""
    wanted = ("vendor_id", "cpu family", "model", "model name", "stepping")
    found: dict[str, str] = {}
    try:
        with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:
            for line in file:
                key, _, value = line.partition(":")
                if key.strip() in wanted:
                    found.setdefault(key.strip(), value.strip())
                if not line.strip() and found:
                    break
    except OSError:
        pass
    return (
        f"{found.get('model name', 'unknown processor')} "
        f"({found.get('vendor_id', '?')} family {found.get('cpu family', '?')} "
        f"model {found.get('model', '?')} stepping {found.get('stepping', '?')})"
    )


def kernel_release() -> str:
    """The running kernel's release."""
    return os.uname().release
