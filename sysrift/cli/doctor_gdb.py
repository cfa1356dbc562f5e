# SPDX-License-Identifier: GPL-2.0-or-later
"""Whether GDB is there, new enough, has a Python, and finds SysRift and what it needs in it."""

from __future__ import annotations

import json
import re
import shutil
import subprocess

from sysrift.cli.doctor_findings import Finding, ok, problem, warning
from sysrift.cli.gdb_script import gdb_script_path
from sysrift.errors import SysRiftError

MINIMUM = 12
NEWEST_TRIED = 18

_TIME_LIMIT = 20.0
_INSTALL = "install GDB 12 or later: apt-get install gdb (or pip install gdb-for-pwndbg)"
_ABOUT = """\
import json, sys
print("SYSRIFT " + json.dumps([gdb.VERSION, "%d.%d.%d" % sys.version_info[:3]]))"""
_IMPORTS = """\
import importlib, json
def sysrift_missing():
    missing = {}
    for name in ("construct", "pygments", "sysrift.trace.reader", "sysrift_gdb"):
        try:
            importlib.import_module(name)
        except Exception as error:
            missing[name] = "%s: %s" % (type(error).__name__, error)
    if not missing:
        try:
            gdb.execute("help sysrift-replay", to_string=True)
        except gdb.error as error:
            missing["sysrift.gdb"] = str(error)
    return missing
print("SYSRIFT " + json.dumps(sysrift_missing()))"""


def check_gdb(command: str) -> list[Finding]:
    """All that is to be said about the GDB that `command` starts (a name or a path)."""
    path = shutil.which(command)
    if path is None:
        return [problem("gdb", f"{command} is not found", _INSTALL)]
    try:
        text = _run([path, "--version"])
    except (OSError, subprocess.SubprocessError) as error:
        return [problem("gdb", f"{path} does not run: {error}", _INSTALL)]
    version = _version(text)
    if version is None:
        return [problem("gdb", f"{path} does not say a version: is it a GDB?", _INSTALL)]
    if version[0] < MINIMUM:
        return [problem("gdb", f"{path} is version {_dotted(version)}", _INSTALL)]
    found = [ok("gdb", f"{path}, version {_dotted(version)}")]
    if version[0] > NEWEST_TRIED:
        remedy = f"SysRift was tried with {MINIMUM} to {NEWEST_TRIED}"
        found = [warning("gdb", f"{path}, version {_dotted(version)}, is newer than known", remedy)]
    return [*found, *_check_python(path)]


def _check_python(path: str) -> list[Finding]:
    about = _answer(path, ["-ex", f"python {_one_line(_ABOUT)}"])
    if not isinstance(about, list) or len(about) != 2:
        remedy = "install a GDB that was built with Python: " + _INSTALL
        return [problem("GDB's Python", f"{path} has none", remedy)]
    found = [ok("GDB's Python", f"version {about[1]}")]
    try:
        script = gdb_script_path()
    except SysRiftError as error:
        return [*found, problem("SysRift in GDB", "sysrift.gdb is missing", str(error))]
    name = "SysRift in GDB"
    missing = _answer(path, ["-ex", f"source {script}", "-ex", f"python {_one_line(_IMPORTS)}"])
    if not isinstance(missing, dict):
        remedy = f"see what it says: {path} -nx -batch -ex 'source {script}'"
        return [*found, problem(name, f"{script} cannot be loaded", remedy)]
    if missing:
        reasons = "; ".join(f"{key} ({why})" for key, why in missing.items())
        remedy = (
            f"install SysRift for Python {about[1]} (python3 -m pip install sysrift), or put the "
            "directory of a python3 that has construct and pygments first in PATH"
        )
        return [*found, problem(name, f"GDB's Python cannot import {reasons}", remedy)]
    return [*found, ok(name, f"loads from {script}")]


def _answer(path: str, words: list[str]) -> object:
    """What a Python script in GDB prints behind SYSRIFT; None when it does not."""
    try:
        text = _run([path, "-nx", "-nh", "-batch", *words])
    except (OSError, subprocess.SubprocessError):
        return None
    for line in text.splitlines():
        if line.startswith("SYSRIFT "):
            try:
                value: object = json.loads(line.partition(" ")[2])
            except ValueError:
                return None
            return value
    return None


def _run(command: list[str]) -> str:
    done = subprocess.run(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        timeout=_TIME_LIMIT,
        check=False,
    )
    return done.stdout.decode(errors="replace")


def _one_line(script: str) -> str:
    """A script as one line, which is all that -ex takes."""
    return f"exec({script!r})"


def _version(text: str) -> tuple[int, int] | None:
    match = re.search(r"(\d{1,4})\.(\d{1,4})\S*\s*$", text.partition("\n")[0])
    return (int(match.group(1)), int(match.group(2))) if match else None


def _dotted(version: tuple[int, int]) -> str:
    return f"{version[0]}.{version[1]}"
