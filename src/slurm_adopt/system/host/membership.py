# SPDX-License-Identifier: Apache-2.0
"""Which of some groups and netgroups a user is in. Directory services answer that, or hang.

Rules of this file:
1. NSS runs in a child with the login's deadline; nothing of it stays in this process.
2. A name that nobody knows has no members. No answer at all is a fault, never "not a member".
"""

from __future__ import annotations

import os

from ..tasks.child import ChildFault, call_in_child

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from ..tasks.task import Task


class MembershipFault(Exception):
    """NSS has not answered; the message says what happened."""


def query_memberships(user: str, uid: int, names: Iterable[str], deadline_ns: int) -> Task[frozenset[str]]:
    """Those of `names` that the user is in: groups by name or number, `@name` is a netgroup.

    `MembershipFault`, `DeadlineExceeded`; `OSError` if there is no child to be had.
    """
    asked = tuple(names)
    try:
        answer = yield from call_in_child(lambda: _look(user, asked), deadline_ns, uid)
    except ChildFault as fault:
        raise MembershipFault(f"the groups of {user} could not be looked up: {fault}") from None
    if not answer.startswith(b"."):
        raise MembershipFault(f"the groups of {user} could not be looked up: {answer.decode('utf-8', 'replace')}")
    return frozenset(name for name, mark in zip(asked, answer[1:].decode("ascii")) if mark == "1")


def _look(user: str, names: tuple[str, ...]) -> bytes:
    """In the child: a point, then 1 or 0 for each name; or what went wrong."""
    import grp
    import pwd

    try:
        gids = set(os.getgrouplist(user, pwd.getpwnam(user).pw_gid))
    except (KeyError, OSError) as error:
        return repr(error).encode("utf-8", "replace")
    marks = b"."
    for name in names:
        if name.startswith("@"):
            found = _in_netgroup(name[1:], user)
        elif name.isascii() and name.isdigit():
            found = int(name) in gids
        else:
            try:
                found = grp.getgrnam(name).gr_gid in gids
            except KeyError:
                found = False
        marks += b"1" if found else b"0"
    return marks


def _in_netgroup(name: str, user: str) -> bool:
    import ctypes

    return bool(
        ctypes.CDLL(None).innetgr(
            name.encode("utf-8", "surrogateescape"), None, user.encode("utf-8", "surrogateescape"), None
        )
    )
