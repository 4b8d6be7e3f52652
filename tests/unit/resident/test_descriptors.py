# SPDX-License-Identifier: Apache-2.0
"""No descriptor left in the service, because somebody has many logins: no reason to refuse somebody else."""

from __future__ import annotations

import errno
import os
import resource
import signal
import time
from collections.abc import Iterator

import pytest
from tests.process import process_of

from slurm_adopt.cli.serve import DESCRIPTORS, raise_descriptor_limit
from slurm_adopt.login.decide import decide_login
from slurm_adopt.login.recent import Recent
from slurm_adopt.login.session.environment import query_variables
from slurm_adopt.observe.metrics import Metrics
from slurm_adopt.resident import sessions
from slurm_adopt.resident.clients import Clients
from slurm_adopt.resident.conf_cache import ConfCache
from slurm_adopt.resident.service import report_memory
from slurm_adopt.system.host.pam_stack import read_stack
from slurm_adopt.system.host.preferences import read_preference
from slurm_adopt.system.kernel.carrier import find_login_processes
from slurm_adopt.system.kernel.procfs import Process, has_ended, open_cgroups, read_socket_inodes
from slurm_adopt.system.rpc.peers import names_in_hosts
from slurm_adopt.system.slurm.job_end import query_job_end
from slurm_adopt.system.slurm.spool import SpoolDirectory
from slurm_adopt.system.slurm.stepd import connect_step
from slurm_adopt.system.tasks.child import call_in_child
from slurm_adopt.system.tasks.loop import Loop
from slurm_adopt.system.tasks.sockets import descriptor_share
from slurm_adopt.system.tasks.task import run
from slurm_adopt.wire.login_exchange import LoginRequest

NOFILE = resource.RLIMIT_NOFILE


@pytest.fixture
def _none_left() -> Iterator[None]:
    limits = resource.getrlimit(NOFILE)
    resource.setrlimit(NOFILE, (len(os.listdir("/proc/self/fd")) - 1, limits[1]))
    held = []
    try:
        while True:
            held.append(os.open("/dev/null", os.O_RDONLY))
    except OSError:
        yield
    finally:
        for fd in held:
            os.close(fd)
        resource.setrlimit(NOFILE, limits)


class Empty:
    """A `StepSource` of a service that cannot open anything."""

    recent = Recent()

    def read_conf(self, deadline_ns: int, place: str | None = None) -> object:  # noqa: ARG002
        yield from connect_step("/nowhere", (0,), deadline_ns)


@pytest.mark.usefixtures("_none_left")
def test_descriptors__lack_of_them_is_not_the_steps_fault() -> None:
    with pytest.raises(OSError, match="Too many open files") as error:
        run(connect_step("/nowhere", (0,), time.monotonic_ns() + 10**9))
    assert error.value.errno == errno.EMFILE


@pytest.mark.usefixtures("_none_left")
def test_descriptors__without_any_the_service_leaves_it_to_the_helper() -> None:
    request = LoginRequest("account", time.monotonic_ns() + 10**9, "sshd", "bob", 1502, args=("profile=strict",))
    with pytest.raises(OSError, match="Too many open files"):
        run(decide_login(request, Process(os.getpid(), 1), Empty()))  # type: ignore[arg-type]


@pytest.mark.usefixtures("_none_left")
def test_descriptors__lack_of_them_is_not_the_end_of_a_process() -> None:
    """Else a login would be adopted without the process that lives on, or be refused because it is gone; and so on."""
    process = Process(os.getpid(), 1)
    for look in (
        lambda: find_login_processes(process, None),
        lambda: read_socket_inodes(process),
        lambda: open_cgroups(process),
        lambda: SpoolDirectory("/tmp", (0,)),
        lambda: read_stack("of-this-test", "session"),
        lambda: read_preference(0, "/etc"),
        lambda: names_in_hosts(b""),
        lambda: run(ConfCache(Loop())._read_in_child()),
    ):
        with pytest.raises(OSError, match="Too many open files"):
            look()
    assert not has_ended(process)


def test_descriptors__process_that_was_replaced_costs_none() -> None:
    before = os.listdir("/proc/self/fd")
    assert open_cgroups(Process(os.getpid(), 1)) == -1
    assert has_ended(Process(os.getpid(), 1))
    assert os.listdir("/proc/self/fd") == before


def test_descriptors__connections_take_no_more_than_a_quarter() -> None:
    before = resource.getrlimit(NOFILE)
    try:
        resource.setrlimit(NOFILE, (400, before[1]))
        assert descriptor_share() == 100
        assert Clients(Loop(), Empty(), Metrics()).cap == 100  # type: ignore[arg-type]
    finally:
        resource.setrlimit(NOFILE, before)


def test_descriptors__a_session_without_one_is_seen_to_end_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sessions, "descriptor_share", lambda: 0)
    monkeypatch.setattr(sessions, "LOOK_NS", 1)
    child = os.fork()
    if child == 0:
        signal.pause()
    ended: list[tuple[int, str]] = []
    loop = Loop()
    watched = sessions.Sessions(loop, lambda session, why: ended.append((session.pid, why)))
    before = os.listdir("/proc/self/fd")
    watched.opened(sessions.Session(child, process_of(child).started, "alice", 1501, 1, "10.0.0.1", "", 0.0, ""))
    assert os.listdir("/proc/self/fd") == before
    loop.turn()
    assert not ended
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    loop.turn()
    assert ended == [(child, sessions.PROCESS_ENDED)]


def test_descriptors__service_takes_what_the_hard_limit_gives() -> None:
    before = resource.getrlimit(NOFILE)
    try:
        resource.setrlimit(NOFILE, (64, before[1]))
        raise_descriptor_limit()
        assert resource.getrlimit(NOFILE) == (min(DESCRIPTORS, before[1]), before[1])
    finally:
        resource.setrlimit(NOFILE, before)


def test_descriptors__without_a_process_the_service_leaves_it_to_the_helper(monkeypatch: pytest.MonkeyPatch) -> None:
    """fork(2) says EAGAIN where the unit has its TasksMax= or a user's children all hang: no fault of the login's."""

    class NoChild:
        recent = Recent()

        def read_conf(self, deadline_ns: int, place: str | None = None) -> object:  # noqa: ARG002
            yield from call_in_child(lambda: b"never", deadline_ns)

    def refuse() -> int:
        raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))

    monkeypatch.setattr(os, "fork", refuse)
    request = LoginRequest("account", time.monotonic_ns() + 10**9, "sshd", "bob", 1502, args=("profile=strict",))
    with pytest.raises(BlockingIOError):
        run(decide_login(request, Process(os.getpid(), 1), NoChild()))  # type: ignore[arg-type]
    # what a login gets from its job besides is left out
    assert run(query_variables(("SLURM_JOB_*",), 1, (), time.monotonic_ns() + 10**9)) == ()
    assert run(query_job_end(1, Process(1, 1), 1502, time.monotonic_ns() + 10**9)) == 0


def test_descriptors__lack_of_them_leaves_the_earlier_number(request: pytest.FixtureRequest) -> None:
    metrics = Metrics()
    report_memory(metrics)
    before = metrics.value("slurm_adopt_memory_bytes")
    assert before > 1 << 20
    request.getfixturevalue("_none_left")
    report_memory(metrics)
    assert metrics.value("slurm_adopt_memory_bytes") == before
