# SPDX-License-Identifier: Apache-2.0
"""A connection that comes from this very machine: the process at its other end, without asking anybody.

Rules of this file:
1. The kernel is asked for exactly this connection; a far end elsewhere simply is no socket here.
2. Only processes of the user who logs in are looked at: another user's job would not count anyway.
3. A user may have many processes with many descriptors, and the kernel lists a million of them in one piece. They are
   looked through in a child that is killed at the deadline, two of them for a user at a time: it costs nobody else.
   A login that finds two under way waits: fifty at once come from one `mpirun`, and none may be taken for another job.
"""

from __future__ import annotations

import _socket
import os
import time

from ...record import record
from ...wire.errors import RemoteProtocolError
from ...wire.sock_diag import NETLINK_SOCK_DIAG, SocketOwner, decode_answer, encode_question, find_in_table
from ..tasks.child import ChildFault, call_in_child
from ..tasks.sockets import packed
from ..tasks.task import MS, DeadlineExceeded, sleep_until
from .procfs import (
    Process,
    list_numbers,
    read_cgroups,
    read_descriptors,
    read_owned_process,
    read_owner,
    read_process,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from ...wire.login_exchange import Connection
    from ..tasks.task import Task
    from .procfs import AnyProcess

# /proc/net/tcp of a node with 100,000 connections; only read where sock_diag is not there
MAX_TABLE = 16 << 20
# for one user at a time
SEARCHES = 2
# a search takes some ms on a free processor
PAUSE_NS = 20 * MS
#: The service runs before everybody else, a search for a user does not. Nor does it come last: on a full node it would
#: hardly come at all.
NICE = 0


@record
class LocalEnd:
    """The process at the other end, and the text of its /proc/PID/cgroup."""

    process: Process
    cgroups: bytes


def find_other_socket(connection: Connection) -> SocketOwner | None:
    """The socket at the far end of the connection, if it is in this network namespace."""
    far, near = packed(connection.peer_address), packed(connection.local_address)
    ends = (far, connection.peer_port, near, connection.local_port)
    if len(far) != len(near):
        return None
    try:
        return _by_netlink(ends)
    except (OSError, RemoteProtocolError):
        # the kernel was built without inet_diag, or may not load it
        return _by_table(ends)


def _by_netlink(ends: tuple[bytes, int, bytes, int]) -> SocketOwner | None:
    kind = _socket.SOCK_RAW | _socket.SOCK_CLOEXEC | _socket.SOCK_NONBLOCK
    sock = _socket.socket(_socket.AF_NETLINK, kind, NETLINK_SOCK_DIAG)
    try:
        sock.sendto(encode_question(*ends), (0, 0))
        # the kernel answers within sendto()
        data, (sender, _) = sock.recvfrom(8192)
        if sender != 0:
            raise RemoteProtocolError("an answer that is not the kernel's")
        return decode_answer(data, *ends)
    finally:
        sock.close()


def _by_table(ends: tuple[bytes, int, bytes, int]) -> SocketOwner | None:
    far, far_port, near, near_port = ends
    tables = [("/proc/self/net/tcp6", far, near)]
    if len(far) == 4:
        mapped = b"\0" * 10 + b"\xff\xff"
        tables = [("/proc/self/net/tcp", far, near), ("/proc/self/net/tcp6", mapped + far, mapped + near)]
    for path, source, target in tables:
        try:
            with open(path, "rb") as file:
                owner = find_in_table(file.read(MAX_TABLE), source, far_port, target, near_port)
        except (OSError, RemoteProtocolError):
            continue
        if owner is not None:
            return owner
    return None


def find_local_end(connection: Connection, uid: int, deadline_ns: int) -> Task[LocalEnd | None]:
    """The user's process that holds the other end of the connection; None if it is elsewhere or another user's.

    `DeadlineExceeded`, also if the user's other searches do not end in time.
    """
    owner = find_other_socket(connection)
    if owner is None or not owner.inode:
        return None
    wanted = f"socket:[{owner.inode}]"
    try:
        answer = yield from _search_in_child(wanted, uid, deadline_ns)
    except ChildFault:
        return None
    process = Process(*map(int, answer.split()))
    cgroups = read_cgroups(process) if process.pid else None
    return None if cgroups is None else LocalEnd(process, cgroups)


def _search_in_child(wanted: str, uid: int, deadline_ns: int) -> Task[bytes]:
    while True:
        try:
            return (yield from call_in_child(lambda: _search(wanted, uid), deadline_ns, uid, SEARCHES))
        except BlockingIOError:
            if time.monotonic_ns() >= deadline_ns:
                raise DeadlineExceeded from None
        yield from sleep_until(min(deadline_ns, time.monotonic_ns() + PAUSE_NS))


def _search(wanted: str, uid: int) -> bytes:
    """In the child: the number and the start time of the user's process with this socket, zeros if there is none."""
    os.setpriority(os.PRIO_PROCESS, 0, max(os.getpriority(os.PRIO_PROCESS, 0), NICE))
    for process in _processes_of(uid):
        if wanted in read_descriptors(process):
            return b"%d %d" % (process.pid, process.started)
    return b"0 0"


def _processes_of(uid: int) -> Iterator[AnyProcess]:
    """The user's processes, the youngest first: a connection that logs in is new, and so is who has made it.

    Those that hide from the user (not dumpable) belong to root in /proc and come last.
    """
    hidden = []
    for number in sorted(list_numbers(), reverse=True):
        owner = read_owner(number)
        if owner == 0:
            hidden.append(number)
        process = read_process(number) if owner == uid else None
        if process is not None:
            yield process
    for number in hidden:
        owned = read_owned_process(number)
        if owned is not None and uid in (owned.uid, owned.real_uid):
            yield owned


def is_here(connection: Connection) -> bool:
    """Whether the connection comes from this network namespace, whoever holds its other end."""
    return find_other_socket(connection) is not None
