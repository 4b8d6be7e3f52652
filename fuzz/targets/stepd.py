# SPDX-License-Identifier: Apache-2.0
"""What slurmstepd answers is read as the layouts of docs/reference say, whole or not at all.

A reply that is cut anywhere is `Incomplete`, what follows it is left on the cursor, and encoding the value again gives
the bytes that were read. A socket's name is taken apart only if it can be put together again.
"""

from __future__ import annotations

import struct
from typing import Any

from slurm_adopt.wire import stepd as wire
from slurm_adopt.wire.cursor import Cursor
from slurm_adopt.wire.errors import Incomplete, LocalProtocolError, RemoteProtocolError

from ..reader import Reader


def _x11(value: wire.X11Display, raw: bytes) -> bytes:
    path = value.xauthority.encode("utf-8", "surrogateescape")
    ended = path + b"\0" if raw[4:8] != struct.pack("=i", 0) else b""
    return struct.pack("=ii", value.display, len(ended)) + ended


#: decoder, and how its value is written
LAYOUTS: tuple[tuple[Any, Any], ...] = (
    (wire.decode_version, lambda value, _: struct.pack("=i", value)),
    (wire.decode_int, lambda value, _: struct.pack("=i", value)),
    (wire.decode_uid, lambda value, _: struct.pack("=I", value)),
    (wire.decode_bool, lambda value, _: struct.pack("=B", value)),
    (wire.decode_pids, lambda value, _: struct.pack(f"={1 + len(value)}I", len(value), *value)),
    (wire.decode_sluid, lambda value, _: struct.pack("=Q", value)),
    (wire.decode_x11, _x11),
    (wire.decode_descriptor_byte, lambda value, _: value),
)


def check(data: bytes) -> None:
    """The first byte chooses the layout; 255 is a socket's name."""
    reader = Reader(data)
    which = reader.number(256)
    if which == 255:
        _check_name(reader.rest().decode("utf-8", "surrogateescape"))
        return
    decode, encode = LAYOUTS[which % len(LAYOUTS)]
    raw = reader.rest()
    cursor = Cursor(raw)
    try:
        value = decode(cursor)
    except RemoteProtocolError:
        return
    used = raw[: cursor.position]
    assert encode(value, used) == used
    for cut in {0, 1, len(used) // 2, len(used) - 1} & set(range(len(used))):
        try:
            decode(Cursor(used[:cut]))
        except Incomplete:
            continue
        raise AssertionError(f"a reply of {len(used)} bytes was taken from {cut}")
    if decode is wire.decode_int and isinstance(value, int):
        _check_pid(value)


def _check_pid(pid: int) -> None:
    try:
        packet = wire.encode_pid_request(wire.ADD_PID, pid)
    except LocalProtocolError:
        assert pid < 2
        return
    assert packet == struct.pack("=i", 22) + struct.pack("=i", pid)


def _check_name(name: str) -> None:
    found = wire.parse_socket_name(name)
    if found is None:
        return
    numbers = [found.job_id, found.step_id]
    if found.het_component is not None:
        numbers.append(found.het_component)
    assert found.node + "_" + ".".join(map(str, numbers)) == name
    assert 0 < found.job_id <= 0xFFFFFFFF
