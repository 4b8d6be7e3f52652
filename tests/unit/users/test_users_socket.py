# SPDX-License-Identifier: Apache-2.0
"""Book-keeping of the service for users, preferences, and finding a login's processes."""

from __future__ import annotations

import os
import signal
import stat
from pathlib import Path

import pytest

from slurm_adopt.system.host.preferences import (
    Preference,
    clear_preference,
    clear_void_preferences,
    read_preference,
    write_preference,
)
from slurm_adopt.system.kernel.login_tree import find_members
from slurm_adopt.system.kernel.procfs import Row
from slurm_adopt.system.slurm.job_end import plausible, read_table, write_table
from slurm_adopt.system.tasks import sockets as sock
from slurm_adopt.users.server import Child, Limits, Rate, Users

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root's files are believed")


def test_rate__a_burst_then_one_by_one() -> None:
    rate = Rate(burst=3, per_second=1.0)
    assert [rate.take(1501, 100.0) for _ in range(5)] == [True, True, True, False, False]
    assert rate.take(1502, 100.0), "another user has a bucket of his own"
    assert not rate.take(1501, 100.9)
    assert rate.take(1501, 101.1)
    assert not rate.take(1501, 101.1)
    assert [rate.take(1501, 900.0) for _ in range(4)] == [True, True, True, False]


def test_rate__remembers_a_bounded_number_of_users() -> None:
    rate = Rate(burst=3, per_second=1.0)
    for uid in range(5000):
        assert rate.take(uid, float(uid))
    assert len(rate._buckets) <= 4097


def test_users__a_child_that_the_kernel_holds_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """It keeps its user's place; the others are served on."""
    pid = os.fork()
    if pid == 0:
        signal.pause()
    monkeypatch.setattr("slurm_adopt.users.server.os.kill", lambda *_: None)  # as if the kernel did not let it die yet
    try:
        parent = Users(sock.Socket(), Limits())
        parent.children[99] = Child(pid, 1501, 1)
        signal.alarm(5)  # ends the run if it waits
        parent._kill_late(2)
        signal.alarm(0)
        assert parent.children[99].uid == 1501
        assert parent.children[99].until_ns > 2, "it is killed again later"
    finally:
        monkeypatch.undo()
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


@needs_root
def test_preferences__round_trip(tmp_path: Path) -> None:
    directory = str(tmp_path / "preferences")
    assert read_preference(1501, directory) is None
    write_preference(1501, Preference(7, 4711, 99), directory)
    write_preference(1501, Preference(8, 4712, 100), directory)
    assert read_preference(1501, directory) == Preference(8, 4712, 100)
    assert read_preference(1502, directory) is None
    assert stat.S_IMODE(os.stat(directory).st_mode) == 0o700
    assert [(entry.name, entry.stat().st_mode & 0o777) for entry in Path(directory).iterdir()] == [("1501", 0o600)]
    assert clear_preference(1501, directory)
    assert not clear_preference(1501, directory)


@needs_root
@pytest.mark.parametrize("text", ["", "7\n", "7 1\n", "7 1 2 3\n", "7 -1 2\n", "x y z\n", "7 1 2" + "0" * 200])
def test_preferences__anything_else_is_none(tmp_path: Path, text: str) -> None:
    (tmp_path / "1501").write_text(text)
    (tmp_path / "1501").chmod(0o600)
    found = read_preference(1501, str(tmp_path))
    assert found is None or found.started >= 10**100


@needs_root
def test_preferences__the_void_ones_are_removed(tmp_path: Path) -> None:
    for uid in (1, 2, 3):
        write_preference(uid, Preference(uid, uid, uid), str(tmp_path))
    (tmp_path / ".8.1").write_text("just being written by somebody else")
    (tmp_path / ".9.1").write_text("half written")
    os.utime(tmp_path / ".9.1", (1, 1))
    assert clear_void_preferences(lambda preference: preference.job_id == 2, str(tmp_path)) == 2
    assert sorted(entry.name for entry in tmp_path.iterdir()) == [".8.1", "1", "3"]
    assert clear_void_preferences(lambda _: True, str(tmp_path / "missing")) == 0


@needs_root
def test_job_ends__table(tmp_path: Path) -> None:
    path = str(tmp_path / "job-ends")
    assert read_table(path) == {}
    write_table({(7, 4711, 99): 1_795_388_000}, path)
    assert read_table(path) == {(7, 4711, 99): 1_795_388_000}
    os.chmod(path, 0o622)
    assert read_table(path) == {}


def test_job_ends__a_job_without_a_limit_has_no_end() -> None:
    import time

    now = int(time.time())
    assert plausible(now + 3600) == now + 3600
    assert plausible(now + 365 * 86400) == plausible(now - 86400) == plausible(0) == 0


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
