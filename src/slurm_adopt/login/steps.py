# SPDX-License-Identifier: Apache-2.0
"""Gathering the facts of a login.

Rules of this file:
1. Steps are asked side by side: one that hangs costs a grace, not a turn.
2. Only if nothing of the user's is found, a step that does not answer gets more time than that grace.
3. Connections to other users' steps are closed at once; those of the user's own stay open for the adoption.
"""

from __future__ import annotations

import os
import time

from ..model import RUNNING, STEP_ENDING, STEP_GONE, STEP_SILENT, SUSPENDED, StepFact
from ..record import record
from ..system.kernel.freezer import is_frozen
from ..system.kernel.procfs import read_cgroups
from ..system.slurm.node_conf import read_node_conf
from ..system.slurm.spool import SpoolDirectory, SpoolFault, StepPath
from ..system.slurm.spool_dir import spool_dirs
from ..system.slurm.stepd import StepFault, connect_step
from ..system.tasks.task import MS, DeadlineExceeded, all_of, halfway
from .recent import Recent

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Protocol

    from ..model import ReasonCode
    from ..system.kernel.procfs import AnyProcess, Process
    from ..system.rpc.memory import CallerMemory
    from ..system.slurm.conf import SlurmConf
    from ..system.slurm.stepd import Identity, StepConnection
    from ..system.tasks.task import Task

    class Turn(Protocol):
        """A login's turn at its user's steps, which it may give up and take again."""

        def enter(self, deadline_ns: int) -> Task[None]:
            """Wait for it. `DeadlineExceeded`."""

        def leave(self) -> None:
            """Let the next login have it."""

    class StepSource(Protocol):
        """Where a login's facts about the node come from: looked up anew (`FreshLookup`), or remembered by the service.

        `callers`: what is known of the machines that logins come from, if anything is remembered. `recent`: what other
        logins have just found out.
        """

        callers: CallerMemory | None
        recent: Recent

        def watch_late(self, connection: StepConnection, processes: tuple[Process, ...]) -> None:
            """slurmstepd has not answered an adoption: the connection is taken over, or closed."""

        def settle_late(self, processes: tuple[Process, ...]) -> None:
            """These are in their job now: a slurmstepd that is late must not draw them into another."""

        def read_conf(self, deadline_ns: int, place: str | None = None) -> Task[SlurmConf]:
            """The node's slurm.conf as it is now; `ConfFault`. `place`: the module's option slurm_conf=, empty without
            it; None for what is no login's question."""

        def remark_of(self, conf: SlurmConf) -> str:
            """What the log line of a login should say of slurm.conf."""

        def query_own(
            self, conf: SlurmConf, nodename: str, uid: int, deadline_ns: int, needed: int = 0
        ) -> Task[OwnSteps]:
            """The extern steps of `uid`, each verified at the step itself, now; `SpoolFault`.

            `nodename` is the module's option. `needed` is the job that a login comes from, or that a session is in: no
            other one stands for it, so its step is waited for as if it was the only one. The caller closes what is
            found.
            """


#: slurmstepd answers in 0.1 to 1 ms; on a node under full load tens of ms were seen, and a few times more than this.
#: Who gives logins more time (timeout=) gives slurmstepd a share of it.
GRACE_NS = 300 * MS
GRACE_SHARE = 16
#: Helper and service keep well below RLIMIT_NOFILE (1024 soft, everywhere).
WIDTH = 256


@record
class OwnStep:
    """An extern step of the user, with an open connection to it."""

    path: StepPath
    connection: StepConnection
    fact: StepFact


class OwnSteps:
    """One user's extern steps, found in the spool directories. The caller calls `close()` when the login is decided."""

    def __init__(self) -> None:
        self.own: list[OwnStep] = []
        #: steps whose owner could not be learnt: the job, and the reason code
        self.unanswered: list[tuple[int, ReasonCode]] = []
        #: the resident service lets a few logins of a user at its steps at a time
        self.turn: Turn | None = None

    def steps(self) -> tuple[StepFact, ...]:
        return tuple([step.fact for step in self.own])

    def stepds(self) -> dict[int, Identity]:
        """The slurmstepds of the steps by job, as far as they are known."""
        found = {step.path.job_id: step.connection.identity for step in self.own}
        return {job_id: identity for job_id, identity in found.items() if identity is not None}

    def of_job(self, job_id: int) -> OwnStep | None:
        for step in self.own:
            if step.path.job_id == job_id:
                return step
        return None

    def close(self) -> None:
        for step in self.own:
            step.connection.close()
        self.pause()

    def pause(self) -> None:
        """Let other logins of the user go first: this one waits for something else now."""
        if self.turn is not None:
            self.turn.leave()

    def resume(self, deadline_ns: int) -> Task[None]:
        """The end of `pause`. `DeadlineExceeded`."""
        if self.turn is not None:
            yield from self.turn.enter(deadline_ns)


class FreshLookup:
    """The `StepSource` that remembers nothing: reads every file and asks every step of the node."""

    callers: CallerMemory | None = None

    def __init__(self) -> None:
        self.recent = Recent()

    def watch_late(self, connection: StepConnection, processes: tuple[Process, ...]) -> None:  # noqa: ARG002
        """The module holds the numbers; a helper does not live on to look."""
        connection.close()

    def settle_late(self, processes: tuple[Process, ...]) -> None:
        """Nobody looks later."""

    def read_conf(self, deadline_ns: int, place: str | None = None) -> Task[SlurmConf]:  # noqa: ARG002  # files have none
        """Read slurm.conf."""
        yield from ()
        return read_node_conf(place or "")

    def remark_of(self, conf: SlurmConf) -> str:
        """Nobody else says it."""
        return conf.remark

    def query_own(self, conf: SlurmConf, nodename: str, uid: int, deadline_ns: int, needed: int = 0) -> Task[OwnSteps]:
        """Look through the spool directories and ask all steps there."""
        owners = conf.step_owners
        directories = open_directories(conf, nodename)
        try:
            for directory in directories:
                directory.check_not_own(uid)
            paths = list_steps(directories)
            return (yield from query_own_steps(paths, uid, owners, deadline_ns, needed))
        finally:
            for directory in directories:
                os.close(directory.fd)


def list_steps(directories: Iterable[SpoolDirectory]) -> list[StepPath]:
    """Every extern step of the node; `SpoolFault` if a directory cannot be read."""
    return [path for directory in directories for path in directory.extern_steps()]


def open_directories(conf: SlurmConf, nodename: str) -> list[SpoolDirectory]:
    """All spool directories that exist; `SpoolFault` if none does, or if one is not to be trusted."""
    opened: list[SpoolDirectory] = []
    missing: SpoolFault | None = None
    try:
        for name, node in spool_dirs(conf, nodename):
            try:
                opened.append(SpoolDirectory(name, conf.step_owners, node, conf.spool_owners))
            except SpoolFault as fault:
                if fault.reason != "spool-dir-missing":
                    raise
                missing = fault
    except SpoolFault:
        for directory in opened:
            os.close(directory.fd)
        raise
    if not opened:
        raise missing or SpoolFault("spool-dir-missing", "no spool directory is known")
    return opened


def query_own_steps(
    paths: list[StepPath], uid: int, owners: tuple[int, ...], deadline_ns: int, needed: int = 0
) -> Task[OwnSteps]:
    """Find the user's own steps among `paths`."""
    found = OwnSteps()
    outcomes = yield from ask_steps(paths, uid, owners, deadline_ns, needed=needed)
    for path, outcome in zip(paths, outcomes):
        if isinstance(outcome, OwnStep):
            found.own.append(outcome)
        elif isinstance(outcome, StepFault) and outcome.reason not in (STEP_GONE, STEP_ENDING):
            found.unanswered.append((path.job_id, outcome.reason))
    return found


def ask_steps(
    paths: list[StepPath],
    uid: int,
    owners: tuple[int, ...],
    deadline_ns: int,
    known: list[Identity | None] | None = None,
    needed: int = 0,
) -> Task[list[OwnStep | StepFault | None]]:
    """Ask each step whether it is the user's: `OwnStep`, None for another user's, or why there is no answer.

    `known`: who answered at each of the paths before.

    Nobody waits longer than half of the time that is left, nor longer than a grace once a step is found that the user
    can log in to: one that is ending must not hide a running one whose slurmstepd is slow. Where the step of the job
    `needed` is among them, nothing but that one will do.
    """
    now_ns = time.monotonic_ns()
    until_ns = halfway(deadline_ns)
    known = known or [None] * len(paths)
    tasks = [_ask(path, uid, owners, until_ns, before) for path, before in zip(paths, known)]
    is_enough = _takes_logins
    if needed and any(path.job_id == needed for path in paths):

        def is_enough(answer: OwnStep | None) -> bool:
            return answer is not None and answer.path.job_id == needed

    outcomes = yield from all_of(tasks, until_ns, now_ns + grace_of(deadline_ns), WIDTH, is_enough)
    answers: list[OwnStep | StepFault | None] = []
    for outcome in outcomes:
        if isinstance(outcome, DeadlineExceeded):
            answers.append(StepFault(STEP_SILENT, "slurmstepd does not answer"))
        elif isinstance(outcome, Exception) and not isinstance(outcome, StepFault):
            for other in outcomes:
                if isinstance(other, OwnStep):
                    other.connection.close()
            raise outcome
        else:
            answers.append(outcome)
    return answers


def grace_of(deadline_ns: int) -> int:
    """How long a step is waited for that does not answer, once another one is found: nanoseconds."""
    return max(GRACE_NS, (deadline_ns - time.monotonic_ns()) // GRACE_SHARE)


def _takes_logins(answer: OwnStep | None) -> bool:
    return answer is not None and answer.fact.state == RUNNING


def _ask(
    path: StepPath, uid: int, owners: tuple[int, ...], deadline_ns: int, known: Identity | None
) -> Task[OwnStep | None]:
    connection = yield from connect_step(path.path, owners, deadline_ns, known)
    identity = connection.identity
    assert identity is not None
    if identity.uid != uid:
        connection.close()
        return None
    started = (identity.started, path.changed_ns, path.job_id)
    # slurmstepd says of a suspended job that it runs, and takes in what then stops for good
    state = SUSPENDED if identity.state == RUNNING and is_frozen(identity) else identity.state
    return OwnStep(path, connection, StepFact(path.job_id, state, started, identity.version))


def find_preferred(uid: int, found: OwnSteps) -> int:
    """The job that the user has chosen, if its extern step is still the one of that time; else 0."""
    from ..system.host.preferences import read_preference  # here, because few sites want it and every login would pay

    preference = read_preference(uid)
    step = found.of_job(preference.job_id) if preference is not None else None
    if preference is None or step is None:
        return 0
    identity = step.connection.identity
    same = identity is not None and (identity.pid, identity.started) == (preference.pid, preference.started)
    return preference.job_id if same else 0


def find_membership(processes: Iterable[AnyProcess], found: OwnSteps, recent: Recent) -> int:
    """The job in whose extern step all of these processes are, as the kernel says; 0 if there is none."""
    texts = [read_cgroups(process) for process in processes]
    if not texts or None in texts:
        return 0
    for step in found.own:
        identity = step.connection.identity
        reference = read_cgroups(identity) if identity is not None else None
        if reference is not None and all(recent.membership_of(reference, text or b"").inside for text in texts):
            return step.path.job_id
    return 0
