# SPDX-License-Identifier: GPL-2.0-or-later
"""The vDSO's symbols, with this machine's own vDSO as the example."""

from __future__ import annotations

import ctypes
from pathlib import Path

from sysrift.record.vdso import vdso_functions


def own_vdso() -> tuple[int, bytes]:
    line = next(
        line for line in Path("/proc/self/maps").read_text().splitlines() if "[vdso]" in line
    )
    start, end = (int(part, 16) for part in line.split()[0].split("-"))
    return start, ctypes.string_at(start, end - start)


def test_the_functions_are_where_the_dynamic_linker_finds_them() -> None:
    start, image = own_vdso()
    functions = vdso_functions(image)
    assert {"clock_gettime", "gettimeofday", "time", "getcpu"} <= set(functions)
    linker = ctypes.CDLL("linux-vdso.so.1")
    for name in ("clock_gettime", "gettimeofday", "time", "getcpu"):
        address = ctypes.cast(getattr(linker, f"__vdso_{name}"), ctypes.c_void_p).value
        assert address == start + functions[name]


def test_what_is_no_vdso_has_no_functions() -> None:
    _, image = own_vdso()
    assert vdso_functions(b"") == {}
    assert vdso_functions(b"\x7fELF" + bytes(100)) == {}
    for cut in (5, 40, 70, 200, len(image) // 2):
        assert isinstance(vdso_functions(image[:cut]), dict)
