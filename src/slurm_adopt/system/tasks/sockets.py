# SPDX-License-Identifier: Apache-2.0
"""Non-blocking sockets for tasks.

Rules of this file:
1. `_socket` instead of `socket`: the latter imports enum and selectors, 6 ms of a one-shot login.
2. Every wait has the login's deadline; every descriptor is close-on-exec from birth.
3. Who the peer is, the kernel says (SO_PEERCRED), not the path and not the bytes.
"""

from __future__ import annotations

import _socket
import errno
import os
import select
import struct
import sys
import time

from .task import MS, POLLIN, POLLOUT, DeadlineExceeded, Wait, wait_for

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .task import Task

Socket = _socket.socket
#: A full backlog can't be polled on a unix socket (connect gives EAGAIN); it is tried again this often.
BACKLOG_RETRY_NS = 2 * MS
FDS_CAP = 8
FDS_SPACE = _socket.CMSG_SPACE(4 * FDS_CAP)


class Peer:
    """Credentials of the process that listens or connects: pid as this pid namespace sees it, uid, gid."""

    __slots__ = ("gid", "pid", "uid")

    def __init__(self, pid: int, uid: int, gid: int) -> None:
        self.pid, self.uid, self.gid = pid, uid, gid


def peer_of(sock: Socket) -> Peer:
    """SO_PEERCRED of a unix socket."""
    return Peer(*struct.unpack("=iII", sock.getsockopt(_socket.SOL_SOCKET, _socket.SO_PEERCRED, 12)))


def has_hung_up(sock: Socket) -> bool:
    """Whether nobody has the other end open any more.

    As long as somebody has, the process that SO_PEERCRED names lives: what is read of its number before this answer is
    its own. (A child that has inherited the descriptor would keep it open; our peers open theirs close-on-exec.)
    """
    poller = select.poll()
    poller.register(sock.fileno(), 0)
    return bool(poller.poll(0))


def connect_unix(path: str, kind: int, deadline_ns: int) -> Task[Socket]:
    """A connected unix socket. `OSError` as connect(2) gives it, `DeadlineExceeded` on a backlog that stays full."""
    sock = Socket(_socket.AF_UNIX, kind | _socket.SOCK_NONBLOCK)
    try:
        while True:
            try:
                sock.connect(path)
                return sock
            except BlockingIOError:
                now_ns = time.monotonic_ns()
                if now_ns >= deadline_ns:
                    raise DeadlineExceeded from None
                yield Wait((), min(deadline_ns, now_ns + BACKLOG_RETRY_NS))
    except BaseException:
        sock.close()
        raise


def connect_tcp(family: int, address: tuple[str, int], deadline_ns: int) -> Task[Socket]:
    """A connected TCP socket; `OSError` as the kernel says, `DeadlineExceeded` when nothing answers."""
    sock = Socket(family, _socket.SOCK_STREAM | _socket.SOCK_NONBLOCK)
    try:
        code = sock.connect_ex(with_link(*address))
        if code == errno.EINPROGRESS:
            yield from wait_for(sock.fileno(), POLLOUT, deadline_ns)
            code = sock.getsockopt(_socket.SOL_SOCKET, _socket.SO_ERROR)
        if code:
            raise OSError(code, os.strerror(code))
        return sock
    except BaseException:
        sock.close()
        raise


def with_link(host: str, port: int) -> tuple[str, int] | tuple[str, int, int, int]:
    """An address for connect(2): of `fe80::1%3` the number of the link has a place of its own."""
    plain, mark, link = host.partition("%")
    return (plain, port, 0, int(link)) if mark and link.isascii() and link.isdigit() else (host, port)


def send_all(sock: Socket, data: bytes, deadline_ns: int) -> Task[None]:
    """Send every byte."""
    view = memoryview(data)
    while view:
        try:
            view = view[sock.send(view, _socket.MSG_NOSIGNAL) :]
        except BlockingIOError:
            yield from wait_for(sock.fileno(), POLLOUT, deadline_ns)


def receive(sock: Socket, count: int, deadline_ns: int) -> Task[bytes]:
    """Between 1 and `count` bytes; `ConnectionResetError` when the peer has closed."""
    while True:
        try:
            data = sock.recv(count)
        except BlockingIOError:
            yield from wait_for(sock.fileno(), POLLIN, deadline_ns)
            continue
        if not data:
            raise ConnectionResetError(errno.ECONNRESET, "the peer closed the connection")
        return data


def receive_with_fds(sock: Socket, count: int, deadline_ns: int) -> Task[tuple[bytes, list[int], int]]:
    """One recvmsg: data, received descriptors (close-on-exec, owned by the caller), message flags."""
    while True:
        try:
            data, ancillary, flags, _ = sock.recvmsg(count, FDS_SPACE, _socket.MSG_CMSG_CLOEXEC)
        except BlockingIOError:
            yield from wait_for(sock.fileno(), POLLIN, deadline_ns)
            continue
        return data, descriptors_of(ancillary), flags


def descriptors_of(ancillary: list[tuple[int, int, bytes]]) -> list[int]:
    """The descriptors that came beside a message; they belong to the caller."""
    fds: list[int] = []
    for level, kind, payload in ancillary:
        if level == _socket.SOL_SOCKET and kind == _socket.SCM_RIGHTS:
            fds += [fd for (fd,) in struct.iter_unpack("=i", payload[: len(payload) // 4 * 4])]
    return fds


def send_with_fds(sock: Socket, data: bytes, fds: list[int]) -> None:
    """One packet with descriptors; whole, at once, or not at all."""
    rights = [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, struct.pack(f"={len(fds)}i", *fds))] if fds else []
    sock.sendmsg([data], rights, _socket.MSG_NOSIGNAL | _socket.MSG_DONTWAIT)


def close_all(fds: list[int]) -> None:
    """Close descriptors that were received."""
    for fd in fds:
        os.close(fd)


def descriptor_share() -> int:
    """A quarter of the descriptors that this process may have: the most that any single purpose may take."""
    import resource  # here, because only the service asks

    soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return (soft if soft != resource.RLIM_INFINITY else sys.maxsize) // 4


def packed(address: str) -> bytes:
    """4 or 16 bytes; an IPv4-mapped address as plain IPv4. `ValueError` for anything that is no address."""
    address = address.partition("%")[0]
    try:
        raw = _socket.inet_pton(_socket.AF_INET6 if ":" in address else _socket.AF_INET, address)
    except (OSError, UnicodeError):
        raise ValueError(f"no address: {address[:60]!r}") from None
    return raw[12:] if len(raw) == 16 and raw.startswith(b"\0" * 10 + b"\xff\xff") else raw
