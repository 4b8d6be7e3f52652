# SPDX-License-Identifier: Apache-2.0
"""The index of extern steps: always what the directory is, whatever the kernel's events say or do not say."""

from __future__ import annotations

import gc
import os
import struct
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.node.resident.fake_step import FakeStep

from slurm_adopt.login import steps
from slurm_adopt.login.steps import OwnSteps
from slurm_adopt.model import STEP_SILENT
from slurm_adopt.resident import step_index
from slurm_adopt.resident.node_cache import NodeCache
from slurm_adopt.system.kernel.inotify import IN_Q_OVERFLOW, Inotify
from slurm_adopt.system.slurm.spool import SpoolFault
from slurm_adopt.system.tasks.loop import Loop
from slurm_adopt.system.tasks.task import MS

ALICE, BOB = 1501, 1502


class Conf:
    """As much of a slurm.conf as the memory needs."""

    def __init__(self, spool_dir: Path) -> None:
        self.spool_dir = str(spool_dir)
        self.step_owners = (0,)
        self.spool_owners = (0,)
        self.slurmds = ()
        self.slurmd_user = "root"
        self.statements = ()


class Rig:
    """A spool directory, a loop, and a memory that looks at it."""

    def __init__(self, spool: Path) -> None:
        self.spool = spool
        self.loop = Loop()
        self.memory = NodeCache(self.loop)
        self.conf: Any = Conf(spool)
        self.steps: list[FakeStep] = []

    def step(self, job_id: int, uid: int, **how: Any) -> FakeStep:
        self.steps.append(FakeStep(self.spool, job_id, uid, **how))
        return self.steps[-1]

    def query(self, uid: int, seconds: float = 20, needed: int = 0) -> OwnSteps:
        """What a login of this user finds, or a session in the job `needed`; raises what it raises."""
        outcome: list[Any] = []
        deadline_ns = time.monotonic_ns() + int(seconds * 1e9)
        self.loop.spawn(
            self.memory.query_own(self.conf, "lab", uid, deadline_ns, needed), lambda _, value: outcome.append(value)
        )
        self.turn_until(lambda: outcome)
        if isinstance(outcome[0], Exception):
            raise outcome[0]
        outcome[0].close()
        found: OwnSteps = outcome[0]
        return found

    def jobs(self, uid: int) -> list[int]:
        return sorted(step.path.job_id for step in self.query(uid).own)

    def turn_until(self, condition: Callable[[], object]) -> None:
        end = time.monotonic() + 30
        while not condition():
            assert time.monotonic() < end
            self.loop.call_at(time.monotonic_ns() + 10 * MS, lambda: None)
            self.loop.turn()

    @property
    def index(self) -> step_index.StepIndex:
        return next(iter(self.memory.indexes.values()))


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    spool = tmp_path / "spool"
    spool.mkdir()
    rig = Rig(spool)
    yield rig
    for index in rig.memory.indexes.values():
        index.close()  # its questions to those that hang
    for step in rig.steps:
        step.end()


def test_step_index__each_step_is_asked_once_whose_it_is(rig: Rig) -> None:
    others = [rig.step(job, BOB) for job in range(2, 12)]
    own = rig.step(1, ALICE)
    for _ in range(5):
        assert rig.jobs(ALICE) == [1]
    assert [step.asked for step in others] == [1] * 10
    assert own.asked == 1 + 5
    assert rig.jobs(BOB) == list(range(2, 12))


def test_step_index__a_step_is_there_as_soon_as_it_listens(rig: Rig) -> None:
    assert rig.jobs(ALICE) == []
    for job in range(1, 20):
        rig.step(job, ALICE)
        assert rig.jobs(ALICE) == list(range(1, job + 1))
    assert rig.index.rebuilds == {}


def test_step_index__an_ended_step_is_gone(rig: Rig) -> None:
    rig.step(1, ALICE)
    ending = rig.step(2, ALICE)
    assert rig.jobs(ALICE) == [1, 2]
    ending.end()
    assert rig.jobs(ALICE) == [1]
    assert list(rig.index.entries) == ["lab_1.4294967292"]


def test_step_index__a_job_id_that_comes_back_is_another_job(rig: Rig) -> None:
    rig.step(1, ALICE)
    assert rig.jobs(ALICE) == [1]
    rig.steps[0].end()
    rig.step(1, BOB)
    assert rig.jobs(ALICE) == []
    assert rig.jobs(BOB) == [1]


def test_step_index__a_crashed_slurmstepd_is_no_job_and_not_unanswered(rig: Rig) -> None:
    crashed = rig.step(1, ALICE)
    assert rig.jobs(ALICE) == [1]
    crashed.kill()
    for _ in range(2):
        found = rig.query(ALICE)
        assert (found.own, found.unanswered) == ([], [])


def test_step_index__what_is_remembered_grants_nothing(rig: Rig) -> None:
    """An index that is wrong for whatever reason: the step's own word counts, and the index is mended."""
    rig.step(1, BOB)
    assert rig.jobs(BOB) == [1]
    entry = rig.index.settled[BOB].pop("lab_1.4294967292")
    entry.uid = ALICE
    rig.index.settled[ALICE] = {"lab_1.4294967292": entry}
    assert rig.jobs(ALICE) == []
    assert rig.jobs(BOB) == [1]


# Events that are lost -------------------------------------------------------------------------------


def test_step_index__overflow_of_the_event_queue(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    rig.step(1, ALICE)
    ended = rig.step(2, ALICE)
    assert rig.jobs(ALICE) == [1, 2]
    rig.step(3, ALICE)
    ended.end()
    rig.index._watch.read()  # type: ignore[union-attr]  # what the kernel had is gone
    monkeypatch.setattr(Inotify, "read", lambda _: struct.pack("=iIII", -1, IN_Q_OVERFLOW, 0, 0))
    assert rig.jobs(ALICE) == [1, 3]
    assert rig.index.rebuilds == {"events-lost": 1}


def test_step_index__a_real_overflow(rig: Rig) -> None:
    rig.step(1, ALICE)
    assert rig.jobs(ALICE) == [1]
    limit = int(Path("/proc/sys/fs/inotify/max_queued_events").read_text())
    if limit > 20_000:
        pytest.skip(f"a queue of {limit} events takes too long to fill")
    for number in range(limit // 2 + 10):
        (rig.spool / f"f{number % 7}").touch()
        (rig.spool / f"f{number % 7}").unlink()
    rig.step(2, ALICE)
    assert rig.jobs(ALICE) == [1, 2]
    assert "events-lost" in rig.index.rebuilds


def test_step_index__a_change_without_an_event(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    rig.step(1, ALICE)
    assert rig.jobs(ALICE) == [1]
    time.sleep(0.02)  # directory times are as coarse as the kernel's tick
    rig.step(2, ALICE)
    monkeypatch.setattr(Inotify, "read", lambda _: b"")
    assert rig.jobs(ALICE) == [1, 2]
    assert rig.index.rebuilds == {"missed-event": 1}


def test_step_index__no_watch_left(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_self: Inotify, _path: str) -> None:
        raise OSError(28, "no watch left")

    monkeypatch.setattr(Inotify, "__init__", full)
    rig.step(1, ALICE)
    assert rig.jobs(ALICE) == [1]
    rig.step(2, ALICE)
    rig.steps[0].end()
    assert rig.jobs(ALICE) == [2]


# The directory --------------------------------------------------------------------------------------


def test_step_index__the_directory_is_replaced(rig: Rig) -> None:
    rig.step(1, ALICE)
    assert rig.jobs(ALICE) == [1]
    rig.spool.rename(rig.spool.with_name("old"))
    with pytest.raises(SpoolFault) as fault:
        rig.query(ALICE)
    assert fault.value.reason == "spool-dir-missing"
    rig.spool.mkdir()
    assert rig.jobs(ALICE) == []
    rig.step(2, ALICE)
    assert rig.jobs(ALICE) == [2]
    rig.spool.rename(rig.spool.with_name("old2"))
    rig.spool.with_name("old").rename(rig.spool)
    assert rig.jobs(ALICE) == [1]


def test_step_index__a_directory_that_everybody_may_write_to(rig: Rig) -> None:
    rig.step(1, ALICE)
    assert rig.jobs(ALICE) == [1]
    rig.spool.chmod(0o777)
    with pytest.raises(SpoolFault) as fault:
        rig.query(ALICE)
    assert fault.value.reason == "spool-dir-untrusted"
    rig.spool.chmod(0o755)
    assert rig.jobs(ALICE) == [1]


def test_step_index__a_users_socket_is_none_of_ours(rig: Rig) -> None:
    rig.step(1, ALICE)
    step = rig.step(2, ALICE)
    os.chown(step.path, ALICE, ALICE)
    assert rig.jobs(ALICE) == [1]
    os.chown(step.path, 0, 0)
    assert rig.jobs(ALICE) == [1, 2]


def directories_and_watches() -> int:
    links = []
    for fd in os.listdir("/proc/self/fd"):
        try:
            links.append(os.readlink(f"/proc/self/fd/{fd}"))
        except OSError:
            continue  # the listing's own
    return sum("inotify" in link or "/spool" in link for link in links)


def test_step_index__leaves_no_descriptor_behind(rig: Rig) -> None:
    rig.step(1, ALICE)
    rig.jobs(ALICE)
    gc.collect()  # what the tests before have left
    before = directories_and_watches()
    for _ in range(5):
        rig.spool.rename(rig.spool.with_name("old"))
        rig.spool.mkdir()
        rig.jobs(ALICE)
        rig.spool.rmdir()
        rig.spool.with_name("old").rename(rig.spool)
        rig.jobs(ALICE)
    assert directories_and_watches() == before


# Steps that hang ------------------------------------------------------------------------------------


def test_step_index__a_hung_step_does_not_keep_others_from_theirs(rig: Rig) -> None:
    hung = rig.step(1, BOB, hung=True)
    rig.step(2, ALICE)
    for _ in range(3):
        found = rig.query(ALICE)
        assert [step.path.job_id for step in found.own] == [2]
        assert found.unanswered == [(1, STEP_SILENT)]
    # one question is on its way to it, for everybody
    assert hung.asked == 1


def test_step_index__who_finds_nothing_waits_for_the_hung_ones_only_so_long(rig: Rig) -> None:
    hung = rig.step(1, BOB, hung=True)
    for _ in range(3):
        found = rig.query(ALICE, seconds=0.4)
        assert (found.own, found.unanswered) == ([], [(1, STEP_SILENT)])
    assert hung.asked == 1


def answer_after(slow: FakeStep, asked: FakeStep) -> threading.Thread:
    """`slow` goes on as soon as `asked` has been asked once more."""
    times = asked.asked

    def work() -> None:
        while asked.asked == times:
            time.sleep(0.001)
        slow.answering.set()

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    return thread


def test_step_index__a_session_waits_for_the_step_it_is_in(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another job of the user's that answers at once is no substitute, however short the grace for slow ones is."""
    slow, quick = rig.step(1, ALICE), rig.step(2, ALICE)
    assert rig.jobs(ALICE) == [1, 2]
    monkeypatch.setattr(steps, "GRACE_NS", 0)
    slow.answering.clear()
    answering = answer_after(slow, quick)
    assert sorted(step.path.job_id for step in rig.query(ALICE, needed=1).own) == [1, 2]
    answering.join()
    # also where an earlier login has not got an answer, and the step is not among those that are known to answer
    slow.answering.clear()
    assert [step.path.job_id for step in rig.query(ALICE).own] == [2]
    assert list(rig.index.unsettled) == [slow.path.name]
    answering = answer_after(slow, quick)
    assert sorted(step.path.job_id for step in rig.query(ALICE, needed=1).own) == [1, 2]
    answering.join()


def test_step_index__a_session_waits_for_its_step_where_none_answered(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other one answers first; it is no substitute here either."""
    slow, quick = rig.step(1, ALICE), rig.step(2, ALICE)
    assert rig.jobs(ALICE) == [1, 2]
    monkeypatch.setattr(steps, "GRACE_NS", 0)
    slow.answering.clear()
    quick.answering.clear()
    assert rig.query(ALICE, 0.2).own == []
    assert len(rig.index.unsettled) == 2
    answering = answer_after(slow, quick)
    quick.answering.set()
    assert sorted(step.path.job_id for step in rig.query(ALICE, needed=1).own) == [1, 2]
    answering.join()


def test_step_index__more_time_for_logins_is_more_for_slow_steps(rig: Rig) -> None:
    """timeout= is shared: a slurmstepd that is slow does not lose its user to an older job."""
    slow, quick = rig.step(1, ALICE), rig.step(2, ALICE)
    assert rig.jobs(ALICE) == [1, 2]
    slow.answering.clear()
    answering = answer_after(slow, quick)
    assert sorted(step.path.job_id for step in rig.query(ALICE, 3600).own) == [1, 2]
    answering.join()
    now_ns = time.monotonic_ns()
    assert steps.grace_of(now_ns + 10**9) == steps.GRACE_NS
    assert steps.GRACE_NS < steps.grace_of(now_ns + 3600 * 10**9) <= 3600 * 10**9 // steps.GRACE_SHARE


def test_step_index__a_session_waits_for_a_hung_step_half_of_the_time(rig: Rig) -> None:
    slow = rig.step(1, ALICE)
    rig.step(2, ALICE)
    assert rig.jobs(ALICE) == [1, 2]
    slow.answering.clear()
    began = time.monotonic()
    found = rig.query(ALICE, 3, needed=1)
    assert time.monotonic() - began >= 1.5
    assert [step.path.job_id for step in found.own] == [2]
    assert found.unanswered == [(1, STEP_SILENT)]
    # a job that is not there is not waited for
    assert [step.path.job_id for step in rig.query(ALICE, 3, needed=7).own] == [2]


def test_step_index__a_hung_step_that_goes_on_is_known_at_once(rig: Rig) -> None:
    hung = rig.step(1, ALICE, hung=True)
    assert rig.query(ALICE, seconds=0.4).own == []
    hung.answering.set()
    rig.turn_until(lambda: not rig.index.unsettled)
    assert rig.jobs(ALICE) == [1]


def test_step_index__a_step_that_begins_to_hang(rig: Rig) -> None:
    rig.step(1, ALICE)
    own = rig.step(2, ALICE)
    assert rig.jobs(ALICE) == [1, 2]
    own.answering.clear()
    assert rig.jobs(ALICE) == [1]
    assert rig.query(ALICE).unanswered == [(2, STEP_SILENT)]
    assert rig.query(BOB, seconds=0.4).unanswered == []  # known to be alice's
    own.answering.set()
    rig.turn_until(lambda: not rig.index.unsettled)
    assert rig.jobs(ALICE) == [1, 2]


def test_step_index__a_socket_before_it_listens(rig: Rig) -> None:
    """Between bind() and listen() connections are refused; the step is found all the same."""
    import socket
    import threading

    path = rig.spool / "lab_1.4294967292"
    bare = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    bare.bind(str(path))
    replaced: list[FakeStep] = []

    def listen_later() -> None:
        time.sleep(0.15)
        step = FakeStep.__new__(FakeStep)
        step.uid, step.asked, step.path = ALICE, 0, path
        step.answering = threading.Event()
        step.answering.set()
        step._listener = bare
        bare.listen(64)
        step._thread = threading.Thread(target=step._serve, daemon=True)
        step._thread.start()
        replaced.append(step)

    thread = threading.Thread(target=listen_later)
    thread.start()
    assert rig.jobs(ALICE) == [1]
    thread.join()
    rig.steps.append(replaced[0])
