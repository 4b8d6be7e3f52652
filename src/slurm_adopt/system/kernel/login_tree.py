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

from .procfs import list_numbers, read_audit_session, read_owned_process, read_program, read_row

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from .procfs import AnyProcess, Row

#: OpenSSH up to 9.7, and since 9.8.
SSHD_NAMES = ("sshd", "sshd-session")
#: A shell in a shell in a tmux ...: nobody's login is deeper.
DEPTH_CAP = 256


def read_rows() -> dict[int, Row]:
    """All processes of this pid namespace."""
    rows = (read_row(number) for number in list_numbers())
    return {row.pid: row for row in rows if row is not None}


def find_login_sshd(process: AnyProcess, rows: dict[int, Row], belongs: Callable[[Row], bool]) -> Row | None:
    """The privileged sshd of the login that the process is part of; None if it is part of none."""
    found = None
    row = rows.get(process.pid)
    if row is not None and row.started != process.started:
        return None
    for _ in range(DEPTH_CAP):
        if row is None or row.pid <= 1 or not belongs(row):
            break
        # a login from this node into itself has one sshd above the other: the first is this login's
        if found is None and is_sshd(row):
            found = row
        row = rows.get(row.parent)
    if found is not None:
        return found
    session = read_audit_session(process)
    if not session:
        return None
    same = [row for row in rows.values() if read_audit_session(row) == session and belongs(row)]
    return next((row for row in same if is_sshd(row)), None)


def find_members(top: Row, rows: dict[int, Row]) -> list[Row]:
    """The processes of the login that `top` carries, `top` first, parents before their children."""
    children: dict[int, list[Row]] = {}
    sessions: dict[int, list[Row]] = {}
    for row in rows.values():
        children.setdefault(row.parent, []).append(row)
        sessions.setdefault(row.session, []).append(row)
    members = {top.pid: top}
    _spread(members, [top], children, sessions)
    audit = read_audit_session(top)
    if audit:
        others = [row for row in rows.values() if row.pid not in members and read_audit_session(row) == audit]
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


def runs_sshd(process: AnyProcess) -> bool:
    """Whether the process runs a program of sshd's name; whose it is, the caller has to know."""
    return os.path.basename(read_program(process)) in SSHD_NAMES


def is_sshd(row: Row) -> bool:
    """Whether it is a process of root's that runs sshd's program."""
    process = read_owned_process(row.pid)
    if process is None or process.started != row.started or process.real_uid != 0 or process.uid != 0:
        return False
    return runs_sshd(row)
