# SPDX-License-Identifier: Apache-2.0
"""The kernel's answer to "which socket is the other end of this TCP connection?" (sock_diag(7), /proc/net/tcp).

Rules of this file:
1. One exact question with both addresses and ports, so that the cost does not grow with the connections of the node.
2. Netlink is in host order; ports and addresses within are in network order.
3. An answer about any other connection is malformed.
"""

from __future__ import annotations

import struct

from ..record import record
from .cursor import Cursor
from .errors import RemoteProtocolError

NETLINK_SOCK_DIAG = 4
_SOCK_DIAG_BY_FAMILY = 20
_NLMSG_ERROR = 2
_NLM_F_REQUEST = 1
_IPPROTO_TCP = 6
_ANY_STATE = 0xFFFFFFFF
_NO_COOKIE = b"\xff" * 8
ENOENT = 2
_MAPPED = b"\0" * 10 + b"\xff\xff"


@record
class SocketOwner:
    """The uid that made a socket, and its inode (0: already closed)."""

    uid: int
    inode: int


def _socket_id(local: bytes, local_port: int, remote: bytes, remote_port: int) -> bytes:
    return struct.pack(">HH", local_port, remote_port) + local.ljust(16, b"\0") + remote.ljust(16, b"\0")


def encode_question(local: bytes, local_port: int, remote: bytes, remote_port: int) -> bytes:
    """Ask for the socket whose own end is `local`; addresses of 4 or 16 bytes."""
    family = 2 if len(local) == 4 else 10
    body = struct.pack("=BBBBI", family, _IPPROTO_TCP, 0, 0, _ANY_STATE)
    body += _socket_id(local, local_port, remote, remote_port) + struct.pack("=I", 0) + _NO_COOKIE
    return struct.pack("=IHHII", 16 + len(body), _SOCK_DIAG_BY_FAMILY, _NLM_F_REQUEST, 1, 0) + body


def decode_answer(data: bytes, local: bytes, local_port: int, remote: bytes, remote_port: int) -> SocketOwner | None:
    """The socket's owner; None if there is no such socket. `RemoteProtocolError` also if the kernel cannot say."""
    cursor = Cursor(data)
    cursor.unpack("=I")
    kind = cursor.unpack("=H")
    cursor.take(10)
    if kind == _NLMSG_ERROR:
        code = -cursor.unpack("=i")
        if code == ENOENT:
            return None
        raise RemoteProtocolError(f"sock_diag: error {code}")
    if kind != _SOCK_DIAG_BY_FAMILY:
        raise RemoteProtocolError(f"sock_diag: message type {kind}")
    cursor.take(4)
    ports, own, other = cursor.take(4), cursor.take(16), cursor.take(16)
    cursor.take(4 + 8 + 4 + 4 + 4)
    owner = SocketOwner(cursor.unpack("=I"), cursor.unpack("=I"))
    # what is asked for as IPv4 may be a socket of IPv6
    plain, mapped = (own[: len(local)], other[: len(remote)]), (own, other)
    is_same = plain == (local, remote) or mapped == (_MAPPED + local, _MAPPED + remote)
    if ports != struct.pack(">HH", local_port, remote_port) or not is_same:
        raise RemoteProtocolError("sock_diag: an answer about another connection")
    return owner


def _hex_address(address: bytes) -> str:
    """Return an address as /proc/net/tcp writes it: 32-bit words of memory, printed as host numbers."""
    return "".join([f"{struct.unpack('=I', address[place : place + 4])[0]:08X}" for place in range(0, len(address), 4)])


def find_in_table(text: bytes, local: bytes, local_port: int, remote: bytes, remote_port: int) -> SocketOwner | None:
    """The same from the text of /proc/net/tcp (addresses of 4 bytes) or tcp6 (16 bytes)."""
    wanted = (f" {_hex_address(local)}:{local_port:04X} {_hex_address(remote)}:{remote_port:04X} ").encode()
    _, found, rest = text.partition(wanted)
    if not found:
        return None
    # state, queues, timer, retransmits, uid, timeout, inode, and more
    fields = rest.partition(b"\n")[0].split()
    if len(fields) < 7 or not fields[4].isdigit() or not fields[6].isdigit() or len(fields[6]) > 20:
        raise RemoteProtocolError("a malformed row of /proc/net/tcp")
    return SocketOwner(int(fields[4]), int(fields[6]))
