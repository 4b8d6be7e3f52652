# SPDX-License-Identifier: Apache-2.0
"""Which processes of a login have to be in the job.

The process that calls PAM is not always the one that lives on: for keyboard-interactive sshd runs the account stack
in a short-lived child (seen on OpenSSH 8.4, 9.2, 10.0 and 10.6); the user's shell comes from its parent, which
carries the connection. To move only the caller would leave the session outside the job.

Rules of this file:
1. The parent is taken only if it is root, runs the same executable as the caller, and belongs to the same login. It
   does if it is sshd in the caller's session: sshd makes a session for each connection, of whatever kind that is (TCP,
   a unix socket, vsock, the pipes of `sshd -i`), so the listening sshd is in another one. For any other program only
   the very same ssh connection counts (socket inode), as cron and its children share a session, and a directory
   service's socket (nss_ldap) a listener may have opened itself: all logins would follow it into somebody's job.
2. The caller is always among the processes, and a wrong guess is never a guess: no match means the caller alone.
"""

from __future__ import annotations

import os

from ..tasks.sockets import packed
from .login_tree import SSHD_NAMES
from .procfs import (
    Process,
    is_same,
    read_owned_process,
    read_process,
    read_program,
    read_row_of,
    read_socket_inode,
    read_socket_inodes,
    same_executable,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ...wire.login_exchange import Connection
    from .procfs import OwnedProcess, Row

#: What PAM_RHOST is without a connection over IP: nothing, sshd's word for it, systemd's for vsock and unix sockets.
NO_HOST = ("", "UNKNOWN")
#: sshd's PAM child is one below the monitor; nothing known is deeper.
DEPTH_CAP = 3


def find_login_processes(caller: Process, connection: Connection | None) -> tuple[Process, ...]:
    """The processes to adopt: the one that lives on first, the caller last. Empty if the caller is gone.

    `connection` is the login's own (`choose_connection`).
    """
    if not is_same(caller):
        return ()
    inode = read_socket_inode(caller, connection.fd) if connection is not None else ""
    chain = [caller]
    while len(chain) < DEPTH_CAP:
        parent = _carrying_parent(chain[0], inode)
        if parent is None:
            break
        chain.insert(0, parent)
    return tuple(chain)


def find_session_parent(caller: Process) -> Process | None:
    """The parent that shares the caller's session: it may be the one that goes on, though nothing shows that it carries
    the login. None for sshd, whose listener gives each connection a session, or if the caller is gone."""
    row = read_row_of(caller)
    parent = read_process(row.parent) if row is not None and row.parent > 1 else None
    above = read_row_of(parent) if parent is not None else None
    return parent if row is not None and above is not None and above.session == row.session else None


def _carrying_parent(child: Process, inode: str) -> Process | None:
    row = read_row_of(child)
    if row is None or row.parent <= 1:
        return None
    parent = read_owned_process(row.parent)
    if parent is None or parent.uid != 0 or parent.real_uid != 0:
        return None
    if not same_executable(child, parent) or not _is_of_one_login(row, parent, inode):
        return None
    # the parent we read is the child's parent still, and not a new process with its number
    again = read_row_of(child)
    if again is None or again.parent != parent.pid or not is_same(parent):
        return None
    return Process(parent.pid, parent.started)


def _is_of_one_login(child: Row, parent: OwnedProcess, inode: str) -> bool:
    """Whether the parent carries the child's login, or is the listener (or another daemon) that has started it."""
    if os.path.basename(read_program(parent)) in SSHD_NAMES:
        above = read_row_of(parent)
        return above is not None and above.session == child.session
    return bool(inode) and inode in read_socket_inodes(parent)


def choose_connection(connections: tuple[Connection, ...], rhost: str) -> Connection | None:
    """The ssh connection among the caller's sockets.

    A directory service's socket (LDAP, SSSD, Kerberos) or a database's may be open as well. The one whose far end is
    PAM_RHOST is it. If PAM_RHOST is an address and no socket leads there, none is (a proxy that has passed the login
    on by pipes). Nor is one if PAM_RHOST says nothing, as for a unix socket (sshd: `UNKNOWN`), cron or su. If it is a
    name, the lowest descriptor is it, because the connection is opened before anything else is asked.
    """
    if rhost.upper() in NO_HOST:
        return None
    wanted = _packed_or_none(rhost)
    if wanted is None:
        return connections[0] if connections else None
    for conn in connections:
        if _packed_or_none(conn.peer_address) == wanted:
            return conn
    return None


def _packed_or_none(address: str) -> bytes | None:
    try:
        return packed(address)
    except ValueError:
        return None


def plain_address(address: str) -> str:
    """An IPv4-mapped IPv6 address as plain IPv4; anything else as it is."""
    return address[7:] if address.lower().startswith("::ffff:") and "." in address else address
