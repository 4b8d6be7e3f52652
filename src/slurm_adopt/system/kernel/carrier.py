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

from ...record import record
from ..tasks.sockets import packed
from .login_tree import runs_sshd
from .procfs import (
    Process,
    is_same,
    read_owned_process,
    read_row,
    read_row_of,
    read_socket_inode,
    read_socket_inodes,
    same_executable,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ...wire.login_exchange import Connection
    from .procfs import Row

#: What PAM_RHOST is without a connection over IP: nothing, sshd's word for it, systemd's for vsock and unix sockets.
NO_HOST = ("", "UNKNOWN")
#: sshd's PAM child is one below the monitor; nothing known is deeper.
DEPTH_CAP = 3


@record
class LoginProcesses:
    """`processes` are those to adopt: the one that lives on first, the caller last; none if the caller is gone.

    `session_parent` is the caller's parent if it shares the caller's session: it may be the one that goes on, though
    nothing shows that it carries the login. None for sshd, whose listener gives each connection a session.
    """

    processes: tuple[Process, ...] = ()
    session_parent: Process | None = None


def find_login_processes(caller: Process, connection: Connection | None) -> LoginProcesses:
    """The processes of the login that `caller` is in. `connection` is the login's own (`choose_connection`)."""
    child = read_row_of(caller)
    if child is None:
        return LoginProcesses()
    inode = read_socket_inode(caller, connection.fd) if connection is not None else ""
    chain = [caller]
    session_parent = None
    while len(chain) < DEPTH_CAP:
        parent = read_row(child.parent) if child.parent > 1 else None
        if parent is None:
            break
        # most logins end here: sshd's listener is in another session, and carries nobody's connection
        shares_session = parent.session == child.session
        if shares_session and len(chain) == 1 and _is_parent_still(child, parent):
            session_parent = Process(parent.pid, parent.started)
        if not (shares_session or inode) or not _carries(child, parent, inode):
            break
        chain.insert(0, Process(parent.pid, parent.started))
        child = parent
    return LoginProcesses(tuple(chain), session_parent)


def _carries(child: Row, parent: Row, inode: str) -> bool:
    """Whether the parent carries the child's login, or is the listener (or another daemon) that has started it."""
    is_sshd = runs_sshd(parent)
    shares = parent.session == child.session if is_sshd else bool(inode)
    if not shares:
        return False
    owned = read_owned_process(parent.pid)
    if owned is None or owned.started != parent.started or owned.uid != 0 or owned.real_uid != 0:
        return False
    if not same_executable(child, parent) or not (is_sshd or inode in read_socket_inodes(parent)):
        return False
    return _is_parent_still(child, parent)


def _is_parent_still(child: Row, parent: Row) -> bool:
    """Whether the parent that was read is the child's parent still, and not a new process with its number."""
    again = read_row_of(child)
    return again is not None and again.parent == parent.pid and is_same(parent)


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
