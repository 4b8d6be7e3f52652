# SPDX-License-Identifier: Apache-2.0
"""Faults of a login that no broken node shows on demand: each has its reason code, none an exception."""

from __future__ import annotations

import os
import signal
import socket
import struct
import time

import pytest
from tests.process import me, replaced

from slurm_adopt.login.adopt import act_adopt
from slurm_adopt.login.adoption import adopt_into, confirm
from slurm_adopt.login.decide import decide_login
from slurm_adopt.login.recent import Recent
from slurm_adopt.login.state import Login
from slurm_adopt.login.steps import FreshLookup, OwnStep
from slurm_adopt.model import STEP_ENDING, Adopt, StepFact
from slurm_adopt.system.kernel import procfs
from slurm_adopt.system.kernel.procfs import Process
from slurm_adopt.system.slurm import stepd
from slurm_adopt.system.slurm.spool import StepPath
from slurm_adopt.system.slurm.stepd import Identity, StepConnection, StepFault
from slurm_adopt.system.tasks.task import DeadlineExceeded, run
from slurm_adopt.wire.login_exchange import LoginReply, LoginRequest

TIME_S = 5


class BrokenSource:
    """A `StepSource` whose first question fails."""

    recent = Recent()

    def __init__(self, error: Exception) -> None:
        self.error = error

    def read_conf(self, deadline_ns: int, place: str | None = None) -> object:  # noqa: ARG002
        yield from ()
        raise self.error


def login(error: Exception, *args: str, uid: int = 1501) -> LoginReply:
    deadline_ns = time.monotonic_ns() + TIME_S * 10**9
    request = LoginRequest(phase="account", deadline_ns=deadline_ns, service="sshd", user="alice", uid=uid, args=args)
    return run(decide_login(request, me(), BrokenSource(error))).reply  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("error", "reason"), [(DeadlineExceeded(), "deadline"), (RuntimeError("sabotage"), "internal-error")]
)
def test_login_faults__have_a_reason_and_the_generic_action(error: Exception, reason: str) -> None:
    by_default, strict, root = login(error), login(error, "profile=strict"), login(error, "profile=strict", uid=0)
    assert (by_default.result, by_default.reason) == ("ignore", reason)
    assert (strict.result, strict.reason) == ("perm_denied", reason)
    assert strict.error.startswith("Access denied by pam_slurm_adopt: ")
    assert "sabotage" not in strict.error
    assert root.result == "ignore"
    assert f"detail={type(error).__name__}" in strict.log.replace('"', "") or reason == "deadline"


def connection(pid: int, started: int, uid: int = 1501) -> StepConnection:
    """Never connected: what fails here fails before anything is sent."""
    made = StepConnection.__new__(StepConnection)
    made.identity = Identity(38 << 8, pid, started, uid, "running")
    return made


def test_login_faults__step_of_another_user_is_not_even_asked() -> None:
    with pytest.raises(StepFault) as fault:
        run(adopt_into(connection(1, 1, uid=1502), 1501, lambda: (me(),), x11=True, namespaces=True, recent=Recent()))
    assert fault.value.reason == "step-foreign"


def test_login_faults__process_that_was_replaced_is_never_sent() -> None:
    """The processes are looked at once more just before slurmstepd is asked: nothing is sent here, so nothing fails."""
    mine = me()
    request = LoginRequest("account", time.monotonic_ns() + TIME_S * 10**9, "sshd", "alice", 1501)
    attempted = Login(request, mine, FreshLookup())
    assert attempted.find_processes() == (mine,)
    attempted.found_ns = 0
    attempted.processes = (mine, replaced(mine))
    unconnected = connection(mine.pid, mine.started)
    unconnected.asked_ns = time.monotonic_ns()
    with pytest.raises(StepFault) as fault:
        run(adopt_into(unconnected, 1501, attempted.find_processes, x11=False, namespaces=False, recent=Recent()))
    assert fault.value.reason == "process-changed"


def test_login_faults__process_with_the_same_pid_but_another_start() -> None:
    mine = me()
    other = replaced(mine)
    with pytest.raises(StepFault) as fault:
        run(
            confirm(
                connection(mine.pid, mine.started),
                procfs.read_cgroups(mine),
                other,
                procfs.open_cgroups(other),
                Recent(),
            )
        )
    assert fault.value.reason == "process-changed"


def test_login_faults__process_that_is_gone() -> None:
    """Whenever it goes: before its cgroups were opened, or while slurmstepd worked."""
    child = os.fork()
    if child == 0:
        signal.pause()
    process = procfs.read_process(child)
    assert process is not None
    text = procfs.open_cgroups(process)
    assert text >= 0
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    mine = me()
    for opened in (text, procfs.open_cgroups(process)):
        with pytest.raises(StepFault) as fault:
            run(confirm(connection(mine.pid, mine.started), procfs.read_cgroups(mine), process, opened, Recent()))
        assert fault.value.reason == "process-changed"
    os.close(text)


def test_login_faults__slurmstepd_that_ended_while_it_adopted() -> None:
    mine = me()
    text = procfs.open_cgroups(mine)
    with pytest.raises(StepFault) as fault:
        run(confirm(connection(mine.pid, mine.started), None, mine, text, Recent()))
    assert fault.value.reason == STEP_ENDING
    os.close(text)


def test_login_faults__add_of_pid_zero_is_never_sent() -> None:
    """slurmstepd would move itself into the user's cgroup (seen on 22.05)."""
    from slurm_adopt.wire.errors import LocalProtocolError

    for pid in (0, 1, -1, 1 << 31):
        with pytest.raises(LocalProtocolError):
            run(stepd.add_process(connection(1, 1), Process(pid, 1)))


class Watching(FreshLookup):
    """Notes which adoptions are watched beyond their logins."""

    def __init__(self) -> None:
        super().__init__()
        self.watched: list[tuple[Process, ...]] = []

    def watch_late(self, connection: StepConnection, processes: tuple[Process, ...]) -> None:
        self.watched.append(processes)
        connection.close()


def test_login_faults__a_login_whose_module_is_killed_is_watched_until_slurmstepd_has_answered() -> None:
    """slurmstepd still moves the number when it comes to it, whoever has it by then."""
    mine, source = me(), Watching()
    deadline_ns = time.monotonic_ns() + TIME_S * 10**9
    ours, theirs = socket.socketpair()
    ours.setblocking(False)  # as those of `connect_step`
    attempted = Login(LoginRequest("open_session", deadline_ns, "sshd", "alice", 1501), mine, source)
    unanswered = StepConnection(ours, deadline_ns)  # type: ignore[arg-type]
    unanswered.identity = Identity(38 << 8, mine.pid, mine.started, 1501, "running")
    path = StepPath(7, "lab", "", 1, 1)
    attempted.found.own = [OwnStep(path, unanswered, StepFact(7, "running", (1, 1, 7), 38 << 8))]
    asking = act_adopt(attempted, Adopt(7, "only"))
    next(asking)
    assert struct.unpack_from("=ii", theirs.recv(100)) == (22, mine.pid)
    asking.close()
    assert source.watched == [(mine,)]
    attempted.found.close()
    theirs.close()
