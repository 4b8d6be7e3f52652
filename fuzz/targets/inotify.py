# SPDX-License-Identifier: Apache-2.0
"""Events as the kernel writes them (inotify(7): padded names) are read back, whatever the names are."""

from __future__ import annotations

import os
import struct

from slurm_adopt.system.kernel.inotify import decode_events

from ..reader import Reader


def check(data: bytes) -> None:
    """Any number of events."""
    reader = Reader(data)
    events, raw = [], b""
    for _ in range(reader.number(20)):
        mask, name = reader.number(1 << 32), reader.take(reader.number(255)).replace(b"\0", b"n").replace(b"/", b"s")
        padded = name.ljust((len(name) // 16 + 1) * 16, b"\0") if name else b""
        raw += struct.pack("=iIII", 1, mask, 0, len(padded)) + padded
        events.append((mask, os.fsdecode(name)))
    assert list(decode_events(raw)) == events
