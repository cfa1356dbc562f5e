# SPDX-License-Identifier: GPL-2.0-or-later
"""Builds the native parts and puts GDB's script into the package; the rest is pyproject.toml."""

import os
import shutil
import subprocess
from pathlib import Path

from setuptools import Distribution, setup
from setuptools.command.build_py import build_py
from setuptools.errors import SetupError

ROOT = Path(__file__).parent


NATIVE = ROOT / "sysrift" / "native"
# Agent, player and counter run in the midst of the traced program: they may use no registers but
# the general ones, and have no library.
FREESTANDING = [
    "-O2", "-ffreestanding", "-fno-builtin", "-fno-pic", "-mcmodel=large",
    "-mgeneral-regs-only", "-fno-stack-protector", "-fcf-protection=none",
    "-fno-asynchronous-unwind-tables", "-Wl,--oformat=binary",
]  # fmt: skip
AGENT = [*FREESTANDING, f"-Wl,-T,{NATIVE / 'agent.ld'}"]
COUNTER = [*FREESTANDING, f"-Wl,-T,{NATIVE / 'counter.ld'}"]
PARTS = {
    "stub": ["-Wl,-z,max-page-size=4096", f"-Wl,-T,{NATIVE / 'stub.ld'}", str(NATIVE / "stub.S")],
    "agent": [*AGENT, str(NATIVE / "agent_entry.S"), str(NATIVE / "agent.c")],
    "player": [*AGENT, str(NATIVE / "player_entry.S"), str(NATIVE / "player.c")],
    "counter": [*COUNTER, str(NATIVE / "counter_entry.S"), str(NATIVE / "counter.c")],
}


def build_native(folder: Path) -> None:
    """Build all that runs in a traced process, from sysrift/native, into `folder`."""
    compiler = os.environ.get("CC", "cc")
    folder.mkdir(parents=True, exist_ok=True)
    for name, arguments in PARTS.items():
        command = [compiler, "-nostdlib", "-static", "-no-pie", "-Wl,--build-id=none",
                   "-o", str(folder / name), *arguments]  # fmt: skip
        try:
            subprocess.run(command, check=True)
        except (OSError, subprocess.CalledProcessError) as error:
            raise SetupError(
                f"SysRift needs a C compiler to build its {name} ({error}); "
                "on Debian or Ubuntu: apt-get install gcc libc6-dev"
            ) from None


class BuildWithNative(build_py):
    """build_py, and the native parts, and gdb/sysrift.gdb beside the package that it loads."""

    def run(self) -> None:
        super().run()
        if self.editable_mode:
            build_native(NATIVE)
            return
        built = Path(self.build_lib)
        build_native(built / "sysrift" / "native")
        script = ROOT / "gdb" / "sysrift.gdb"
        if script.exists():
            shutil.copy(script, built / "sysrift_gdb" / "sysrift.gdb")


class NativeDistribution(Distribution):
    """A wheel with an executable in it is for one platform."""

    def has_ext_modules(self) -> bool:
        return True


setup(cmdclass={"build_py": BuildWithNative}, distclass=NativeDistribution)
