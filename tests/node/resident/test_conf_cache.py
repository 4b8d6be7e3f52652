# SPDX-License-Identifier: Apache-2.0
"""slurm.conf in the resident service: read in a child, shared by all logins, never older than its files."""

from __future__ import annotations

import errno
import os
import pwd
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from slurm_adopt.resident import conf_cache
from slurm_adopt.resident.conf_cache import ConfCache
from slurm_adopt.system.slurm import accounts
from slurm_adopt.system.slurm import conf as slurm_conf
from slurm_adopt.system.slurm.accounts import uid_of_slurm_user
from slurm_adopt.system.slurm.conf import ConfFault, SlurmConf
from slurm_adopt.system.tasks.loop import Loop
from slurm_adopt.system.tasks.task import MS, DeadlineExceeded, HelperNeeded, sleep_until


class Rig:
    def __init__(self, path: Path) -> None:
        self.path = path
        self.loop = Loop()
        self.cache = ConfCache(self.loop)

    def start(self, seconds: float = 20) -> list[Any]:
        """A login that reads; its outcome comes into the list."""
        outcome: list[Any] = []
        deadline_ns = time.monotonic_ns() + int(seconds * 1e9)
        self.loop.spawn(self.cache.read(deadline_ns), lambda _, value: outcome.append(value))
        return outcome

    def finish(self, *outcomes: list[Any]) -> list[Any]:
        end = time.monotonic() + 30
        while not all(outcomes):
            assert time.monotonic() < end
            self.loop.call_at(time.monotonic_ns() + 10 * MS, lambda: None)
            self.loop.turn()
        return [outcome[0] for outcome in outcomes]

    def read(self) -> Any:
        return self.finish(self.start())[0]


@pytest.fixture
def rig(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Rig]:
    path = tmp_path / "slurm.conf"
    path.write_text("ClusterName=one\nNodeName=lab\n")
    monkeypatch.setattr(
        conf_cache, "read_node_conf", lambda *_, thorough, **__: slurm_conf.read_slurm_conf((str(path),), thorough)
    )
    monkeypatch.setattr(conf_cache, "is_node_conf_current", lambda conf, _: slurm_conf.is_current(conf, (str(path),)))
    before = set(os.listdir("/proc/self/fd"))
    rig = Rig(path)
    yield rig
    assert set(os.listdir("/proc/self/fd")) <= before


@pytest.mark.parametrize("what", ["fork", "pipe2"])
def test_conf_cache__what_the_service_lacks_is_no_fault_of_the_file(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    """Too many processes or descriptors: the helper, which has its own, decides; the next login reads again."""

    def refuse(*_: object) -> int:
        raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))

    with monkeypatch.context() as patch:
        patch.setattr(os, what, refuse)
        assert isinstance(rig.read(), HelperNeeded)
    assert isinstance(rig.read(), SlurmConf)


def test_conf_cache__many_logins_one_read(rig: Rig) -> None:
    conf, *others = rig.finish(*[rig.start() for _ in range(20)])
    assert isinstance(conf, SlurmConf)
    assert conf.cluster_name == "one"
    assert conf.statements
    assert all(other is conf for other in others)
    assert rig.read() is conf
    assert rig.cache.reads == 1


def test_conf_cache__a_changed_file_is_read_again(rig: Rig) -> None:
    assert rig.read().cluster_name == "one"
    rig.path.write_text("ClusterName=another\n")
    assert rig.read().cluster_name == "another"
    draft = rig.path.with_name("draft")
    draft.write_text("ClusterName=replaced\n")
    draft.rename(rig.path)
    assert rig.read().cluster_name == "replaced"


def test_conf_cache__a_fault_is_every_waiting_logins_fault_and_not_for_ever(rig: Rig) -> None:
    rig.path.chmod(0o666)
    faults = rig.finish(rig.start(), rig.start())
    assert [fault.reason for fault in faults] == ["slurm-conf-untrusted"] * 2
    assert all(isinstance(fault, ConfFault) for fault in faults)
    rig.path.chmod(0o644)
    assert rig.read().cluster_name == "one"
    rig.path.unlink()
    assert rig.read().reason == "slurm-conf-missing"


def test_conf_cache__a_reader_that_hangs_holds_up_nobody_else(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conf_cache, "read_node_conf", lambda *_, **__: time.sleep(60))
    monkeypatch.setattr(conf_cache, "READ_CAP_NS", 300 * MS)
    impatient, patient = rig.start(0.05), rig.start()
    other: list[bool] = []
    rig.loop.spawn(sleep_until(time.monotonic_ns() + 10 * MS), lambda *_: other.append(not impatient))
    outcomes = rig.finish(impatient, patient)
    assert other == [True]
    assert isinstance(outcomes[0], DeadlineExceeded)
    assert outcomes[1].reason == "slurm-conf-unreadable"


def test_conf_cache__a_reader_that_dies_is_a_fault(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conf_cache, "read_node_conf", lambda *_, **__: os._exit(3))
    assert rig.read().reason == "slurm-conf-unreadable"


def test_conf_cache__slurm_user_is_found_with_the_file(rig: Rig) -> None:
    for user, uid in (("root", 0), ("daemon", 1), ("64030", 64030)):
        rig.path.write_text(f"SlurmUser={user}\n")
        conf = rig.read()
        assert uid_of_slurm_user(conf) == conf.slurm_uid == uid


def test_conf_cache__a_directory_that_hangs_costs_only_what_needs_slurm_user(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Logins go on; nobody asks the directory in the service's own thread; it is asked again later."""
    monkeypatch.setattr(accounts, "NSS_NS", 100 * MS)
    monkeypatch.setattr(conf_cache, "ASK_AGAIN_NS", 300 * MS)
    here = os.getpid()
    answer = rig.path.with_name("answer")

    def getpwnam(_: str) -> SimpleNamespace:
        assert os.getpid() != here, "the service would hang"
        if not answer.exists():
            signal.pause()
        return SimpleNamespace(pw_uid=64031)

    monkeypatch.setattr(pwd, "getpwnam", getpwnam)
    rig.path.write_text("SlurmUser=elsewhere\n")
    conf = rig.read()
    assert uid_of_slurm_user(conf) is None
    assert rig.read() is conf, "it is not read again for each login"
    answer.touch()
    monkeypatch.setattr(accounts, "NSS_NS", 60_000 * MS)  # on a busy machine a child waits its turn
    end = time.monotonic() + 120
    while uid_of_slurm_user(rig.read()) != 64031:
        assert time.monotonic() < end
        rig.loop.call_at(time.monotonic_ns() + 20 * MS, lambda: None)
        rig.loop.turn()
