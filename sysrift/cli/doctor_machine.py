# SPDX-License-Identifier: GPL-2.0-or-later
"""The machine itself: architecture, processor, kernel, and room for traces."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

from sysrift import machine
from sysrift.cli.doctor_findings import Check, Finding, ok, problem, warning
from sysrift.errors import SysRiftError
from sysrift.trace import store
from sysrift.views.summary import size_text

_LITTLE_SPACE = 1 << 30


def check_architecture() -> Finding:
    """SysRift is for Linux on x86-64."""
    name = "architecture"
    system = os.uname()
    text = f"{system.sysname} on {system.machine}"
    if system.sysname != "Linux" or system.machine != "x86_64" or sys.maxsize < 1 << 32:
        return problem(name, text, "SysRift records 64-bit programs on Linux x86-64 only")
    return ok(name, text)


def check_processor() -> Finding:
    """The model is part of a trace: what `cpuid` tells a program cannot be recorded."""
    return ok("processor", f"{machine.cpu_model()}, {os.cpu_count()} of them")


def check_kernel() -> Finding:
    """The version is for people to know; what matters is tried."""
    return ok("kernel", machine.kernel_release())


def check_store() -> Finding:
    """Whether traces can be kept, and how much room there is."""
    name = "store directory"
    try:
        directory = store.store_directory()
    except SysRiftError as error:
        return warning(name, "there is none", str(error))
    there = _nearest(directory)
    if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
        remedy = "set SYSRIFT_TRACE_DIR to a directory that can be written, or use -o"
        return warning(name, f"{directory} cannot be written", remedy)
    try:
        free = shutil.disk_usage(there).free
    except OSError as error:
        return warning(name, f"{directory}: {error.strerror}")
    text = f"{directory}, {size_text(free)} free"
    if free < _LITTLE_SPACE:
        remedy = "remove old traces (sysrift ls), or set SYSRIFT_TRACE_DIR to a larger disk"
        return warning(name, text, remedy)
    return ok(name, text)


def _nearest(directory: Path) -> Path:
    """The directory itself, or the nearest one above it that exists."""
    for candidate in (directory, *directory.parents):
        try:
            if candidate.exists():
                return candidate
        except OSError:
            break
    return directory


CHECKS: tuple[tuple[str, Check], ...] = (
    ("architecture", check_architecture),
    ("processor", check_processor),
    ("kernel", check_kernel),
    ("store directory", check_store),
)
