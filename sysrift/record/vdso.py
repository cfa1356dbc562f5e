# SPDX-License-Identifier: GPL-2.0-or-later
"""The functions of a vDSO image (vdso(7)).

A few fields of elf(5) by hand: an ELF library takes longer to import than everything else that
starting a recording does.
"""

from __future__ import annotations

import struct

_SECTION = struct.Struct("<IIQQQQIIQQ")  # Elf64_Shdr
_SYMBOL = struct.Struct("<IBBHQQ")  # Elf64_Sym
_SEGMENT = struct.Struct("<IIQQQQQQ")  # Elf64_Phdr
_SHT_DYNSYM, _PT_LOAD = 11, 1
_STT_NOTYPE, _STT_FUNC = 0, 2


def vdso_functions(image: bytes) -> dict[str, int]:
    """The functions of a vDSO image, without their `__vdso_` prefix, and their offsets in it.

    Empty when the image is no such ELF file.
    """
    try:
        return dict(_functions(image))
    except (struct.error, ValueError, IndexError):
        return {}


def _functions(image: bytes) -> list[tuple[str, int]]:
    if not image.startswith(b"\x7fELF\x02\x01"):
        return []
    segments_at, sections_at = struct.unpack_from("<QQ", image, 32)
    _, segment_count, _, section_count = struct.unpack_from("<4H", image, 54)
    segments = [
        _SEGMENT.unpack_from(image, segments_at + i * _SEGMENT.size) for i in range(segment_count)
    ]
    base = next((s[3] - s[2] for s in segments if s[0] == _PT_LOAD), 0)
    sections = [
        _SECTION.unpack_from(image, sections_at + i * _SECTION.size) for i in range(section_count)
    ]
    found = []
    for _, kind, _, _, offset, size, link, _, _, _ in sections:
        if kind != _SHT_DYNSYM:
            continue
        names = sections[link][4]
        for at in range(offset, offset + size, _SYMBOL.size):
            name_at, info, _, _, value, _ = _SYMBOL.unpack_from(image, at)
            if value and info & 15 in (_STT_NOTYPE, _STT_FUNC):
                start = names + name_at
                name = image[start : image.index(b"\0", start)].decode("ascii")
                found.append((name.replace("__vdso_", ""), value - base))
    return found
