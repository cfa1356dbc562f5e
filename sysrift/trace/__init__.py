# SPDX-License-Identifier: GPL-2.0-or-later
"""The `.srl` trace file: `schema` (the format), `writer`, `reader`, and `model` (what it holds)."""

from sysrift.trace.model import (
    ABSOLUTE,
    AFTER,
    BEFORE,
    Delivery,
    End,
    Event,
    EventFlag,
    EventKind,
    FileReference,
    Image,
    MappingImage,
    PageRun,
    Process,
    Program,
    Segment,
    SegmentKind,
)

__all__ = [
    "ABSOLUTE",
    "AFTER",
    "BEFORE",
    "Delivery",
    "End",
    "Event",
    "EventFlag",
    "EventKind",
    "FileReference",
    "Image",
    "MappingImage",
    "PageRun",
    "Process",
    "Program",
    "Segment",
    "SegmentKind",
]
