# SPDX-License-Identifier: Apache-2.0
"""All processes of one ssh login, found from one of them.

A login's processes hang together in three ways: as children of the privileged sshd that carries the connection, by the
session (setsid(2)) that one of those leads, and by the audit session, which the kernel hands down to every
descendant, also to those that have left both (daemons, tmux). What has left all three is not found.

Rules of this file:
1. It reads only, and what it finds may be gone or replaced by the time it is used: the start time goes along.
2. The login's sshd is root's, runs sshd's executable, and is where the caller's rule says (`belongs`); a process
   that a user has named "sshd" is not.
"""

from __future__ import annotations

import os

from ..record import record
from .procfs import read_file, read_owned_process, read_stat

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

#: OpenSSH up to 9.7, and since 9.8.
SSHD_NAMES = ("sshd", "sshd-session")
NO_AUDIT_SESSION = (1 << 32) - 1
#: A shell in a shell in a tmux ...: nobody's login is deeper.
DEPTH_CAP = 256


@record
class Row:
    """A process: `session` is the pid of its session's leader, `started` in clock ticks since boot."""

    pid: int
    parent: int
    session: int
    started: int


def read_row(pid: int) -> Row | None:
    """One process; None if it is gone or a zombie, which is nowhere any more."""
    fields = read_stat(pid)
    if not fields or fields[0] in (b"Z", b"X"):
        return None
    return Row(pid, int(fields[1]), int(fields[3]), int(fields[19]))


def read_rows() -> dict[int, Row]:
    """All processes of this pid namespace."""
    rows = (read_row(int(name)) for name in os.listdir("/proc") if name.isdigit())
    return {row.pid: row for row in rows if row is not None}


def read_audit_session(pid: int) -> int:
    """The audit session's number; 0 without one (no pam_loginuid, or no audit in the kernel)."""
    text = read_file(f"/proc/{pid}/sessionid") or b""
    number = int(text) if text.strip().isdigit() else 0
    return number if number != NO_AUDIT_SESSION else 0


def find_login_sshd(pid: int, rows: dict[int, Row], belongs: Callable[[int], bool]) -> Row | None:
    """The privileged sshd of the login that `pid` is part of; None if it is part of none."""
    found = None
    row = rows.get(pid)
    for _ in range(DEPTH_CAP):
        if row is None or row.pid <= 1 or not belongs(row.pid):
            break
        # a login from this node into itself has one sshd above the other: the first is this login's
        if found is None and _is_sshd(row.pid):
            found = row
        row = rows.get(row.parent)
    if found is not None:
        return found
    session = read_audit_session(pid)
    if not session:
        return None
    same = [row for row in rows.values() if read_audit_session(row.pid) == session and belongs(row.pid)]
    return next((row for row in same if _is_sshd(row.pid)), None)


def find_members(top: Row, rows: dict[int, Row]) -> list[Row]:
    """The processes of the login that `top` carries, `top` first, parents before their children."""
    children: dict[int, list[Row]] = {}
    sessions: dict[int, list[Row]] = {}
    for row in rows.values():
        children.setdefault(row.parent, []).append(row)
        sessions.setdefault(row.session, []).append(row)
    members = {top.pid: top}
    _spread(members, [top], children, sessions)
    audit = read_audit_session(top.pid)
    if audit:
        others = [row for row in rows.values() if row.pid not in members and read_audit_session(row.pid) == audit]
        members.update((row.pid, row) for row in others)
        _spread(members, others, children, sessions)
    return list(members.values())


def _spread(
    members: dict[int, Row], first: Iterable[Row], children: dict[int, list[Row]], sessions: dict[int, list[Row]]
) -> None:
    queue = list(first)
    for row in queue:
        for near in (*children.get(row.pid, ()), *sessions.get(row.pid, ())):
            if near.pid not in members and near.pid > 1:
                members[near.pid] = near
                queue.append(near)


def _is_sshd(pid: int) -> bool:
    process = read_owned_process(pid)
    if process is None or process.real_uid != 0 or process.uid != 0:
        return False
    try:
        path = os.readlink(f"/proc/{pid}/exe")
    except OSError:
        return False
    return os.path.basename(path.removesuffix(" (deleted)")) in SSHD_NAMES
