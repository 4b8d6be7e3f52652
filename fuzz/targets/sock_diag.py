# SPDX-License-Identifier: Apache-2.0
"""An answer of the kernel's is about the connection that was asked for, or it is refused.

An answer made for one connection is taken for that one with the right owner, and never for another one; the same of rows
of /proc/net/tcp.
"""

from __future__ import annotations

import struct

from slurm_adopt.wire import sock_diag as wire
from slurm_adopt.wire.errors import RemoteProtocolError

from ..reader import Reader

#: ::ffff:0:0/96
MAPPED = bytes(10) + b"\xff\xff"


def check(data: bytes) -> None:
    """Two connections and the kernel's bytes."""
    reader = Reader(data)
    size = reader.one_of((4, 16))
    asked = (_address(reader, size), reader.number(65536), _address(reader, size), reader.number(65536))
    other = (_address(reader, size), reader.number(65536), _address(reader, size), reader.number(65536))
    uid, inode = reader.number(1 << 32), reader.number(1 << 32)
    raw = reader.rest()
    try:
        wire.decode_answer(raw, *asked)
    except RemoteProtocolError:
        pass
    answer = _answer(asked, uid, inode)
    assert wire.decode_answer(answer, *asked) == wire.SocketOwner(uid, inode)
    if _plain(other) != _plain(asked):
        try:
            wire.decode_answer(_answer(other, uid, inode), *asked)
        except RemoteProtocolError:
            pass
        else:
            raise AssertionError("an answer about another connection")
    try:
        wire.find_in_table(raw, *asked)
    except RemoteProtocolError:
        pass
    row = f"   0:{_row(other)} 01 0:0 0:0 0 7 0 8\n   1:{_row(asked)} 01 00000000:00000000 02:00000000 00000000 {uid} 0 {inode} 1\n"
    if other != asked:
        assert wire.find_in_table(row.encode(), *asked) == wire.SocketOwner(uid, inode)


def _plain(ends: tuple[bytes, int, bytes, int]) -> tuple[object, ...]:
    """An IPv4-mapped address is the same as the IPv4 one."""
    return tuple(end[12:] if isinstance(end, bytes) and end.startswith(MAPPED) else end for end in ends)


def _address(reader: Reader, size: int) -> bytes:
    return reader.take(size).ljust(size, b"\1")


def _row(ends: tuple[bytes, int, bytes, int]) -> str:
    return f" {wire._hex_address(ends[0])}:{ends[1]:04X} {wire._hex_address(ends[2])}:{ends[3]:04X}"


def _answer(ends: tuple[bytes, int, bytes, int], uid: int, inode: int) -> bytes:
    """struct nlmsghdr and struct inet_diag_msg, as sock_diag(7) describes them."""
    identity = struct.pack(">HH", ends[1], ends[3]) + ends[0].ljust(16, b"\0") + ends[2].ljust(16, b"\0")
    body = bytes([2, 1, 0, 0]) + identity + struct.pack("=I", 0) + bytes(8)
    body += struct.pack("=5I", 0, 0, 0, uid, inode)
    return struct.pack("=IHHII", 16 + len(body), 20, 0, 1, 0) + body
