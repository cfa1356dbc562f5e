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


def build_stub(target: Path) -> None:
    """Build sysrift/native/stub.S into the static executable `target`."""
    native = ROOT / "sysrift" / "native"
    compiler = os.environ.get("CC", "cc")
    command = [compiler, "-nostdlib", "-static", "-no-pie", "-Wl,--build-id=none",
               "-Wl,-z,max-page-size=4096", f"-Wl,-T,{native / 'stub.ld'}",
               "-o", str(target), str(native / "stub.S")]  # fmt: skip
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        subprocess.run(command, check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        raise SetupError(
            f"SysRift needs a C compiler to build its replay stub ({error}); "
            "on Debian or Ubuntu: apt-get install gcc libc6-dev"
        ) from None


class BuildWithNative(build_py):
    """build_py, and the stub, and gdb/sysrift.gdb beside the package that it loads."""

    def run(self) -> None:
        super().run()
        if self.editable_mode:
            build_stub(ROOT / "sysrift" / "native" / "stub")
            return
        built = Path(self.build_lib)
        build_stub(built / "sysrift" / "native" / "stub")
        script = ROOT / "gdb" / "sysrift.gdb"
        if script.exists():
            shutil.copy(script, built / "sysrift_gdb" / "sysrift.gdb")


class NativeDistribution(Distribution):
    """A wheel with an executable in it is for one platform."""

    def has_ext_modules(self) -> bool:
        return True


setup(cmdclass={"build_py": BuildWithNative}, distclass=NativeDistribution)
