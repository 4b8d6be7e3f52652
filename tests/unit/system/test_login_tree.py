# SPDX-License-Identifier: Apache-2.0
"""Which processes belong to a login."""

from __future__ import annotations

from slurm_adopt.system.kernel.login_tree import find_members
from slurm_adopt.system.kernel.procfs import Row


def rows(*known: tuple[int, int, int]) -> dict[int, Row]:
    """(pid, parent, session)"""
    return {pid: Row(pid, pid, parent, session, 0) for pid, parent, session in known}


def test_login_tree__descendants_and_their_sessions() -> None:
    tree = rows(
        (900_100, 1, 900_100),  # the privileged sshd
        (900_101, 900_100, 900_101),  # the user's sshd
        (900_102, 900_101, 900_102),  # the shell
        (900_103, 900_102, 900_102),  # a child
        (900_104, 1, 900_102),  # its parent has ended, the session is the shell's
        (900_105, 900_104, 900_105),  # a child of that one, in a session of its own
        (900_106, 1, 900_105),  # a member of that session
        (900_200, 1, 900_200),  # another login
        (900_201, 900_200, 900_201),
    )
    found = [row.pid for row in find_members(tree[900_100], tree)]
    assert found[0] == 900_100
    assert sorted(found) == [900_100, 900_101, 900_102, 900_103, 900_104, 900_105, 900_106]


def test_login_tree__never_init_and_what_hangs_on_it() -> None:
    tree = rows((1, 0, 1), (900_100, 1, 900_100), (900_300, 1, 1), (900_102, 900_100, 1))
    found = {row.pid for row in find_members(tree[900_100], tree)}
    assert found == {900_100, 900_102}
