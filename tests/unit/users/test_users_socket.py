# SPDX-License-Identifier: Apache-2.0
"""Book-keeping of the service for users."""

from __future__ import annotations

import os
import signal

import pytest

from slurm_adopt.system.tasks import sockets as sock
from slurm_adopt.users.server import Child, Limits, Rate, Users


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
