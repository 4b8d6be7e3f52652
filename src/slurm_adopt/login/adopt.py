# SPDX-License-Identifier: Apache-2.0
"""The act `Adopt`: the login's processes are put into a job, and what the session gets from it is collected.

Rules of this file:
1. A failure is one more fact with its reason code; what was collected is given up.
2. Where a session line of ours follows, the session phase joins the job's namespaces, in the process that lives on.
3. Where the account stack runs in a child of sshd's (keyboard-interactive), the client still has to answer, within
   LoginGraceTime. Its user can stop the job meanwhile, and with it an sshd that is in the job and has a place of
   MaxStartups. So the session phase puts it there, if one follows for certain.
"""

from __future__ import annotations

import os
import sys

from ..model import REASONS, STEP_SILENT, Attempt
from ..record import replace
from ..system.kernel.procfs import read_cgroups
from ..system.slurm.stepd import StepFault
from ..system.tasks.task import halfway
from .adoption import adopt_into, environment_of, missing_namespaces

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from ..model import Adopt, Facts, ReasonCode
    from ..system.host.pam_stack import PamLine
    from ..system.kernel.procfs import Process
    from ..system.slurm.stepd import Extras
    from ..system.tasks.task import Task
    from .state import Login
    from .steps import OwnStep

#: What comes of an adoption where Slurm has no cgroup to put a process into.
UNCONFIRMED = ("adopt-refused", "adopt-unconfirmed")
#: More failed adoptions than this are not bad luck any more.
ATTEMPT_CAP = 4
#: logind's own sign that it runs (sd_booted(3) tells of systemd only).
LOGIND = "/run/systemd/seats"
#: Where the modules are that move sessions without logind (`pam_outlook.CGROUP_MODULES`).
MOVERS = tuple(
    f"{folder}/security/{name}"
    for folder in (f"/usr/lib/{getattr(sys.implementation, '_multiarch', '')}", "/usr/lib64", "/usr/lib")
    for name in ("pam_cgfs.so", "pam_cgroup.so")
)


def act_adopt(login: Login, decision: Adopt) -> Task[None]:
    """Try to adopt the login into this job; the attempt becomes a fact."""
    attempt = yield from _attempt(login, decision)
    login.facts = replace(login.facts, attempts=(*login.facts.attempts, attempt))
    if len(login.facts.attempts) >= ATTEMPT_CAP and attempt.failure:
        login.facts = _give_up(login.facts)


def _attempt(login: Login, decision: Adopt) -> Task[Attempt]:
    step = login.found.of_job(decision.job_id)
    assert step is not None, "the decision names one of the user's own steps"
    connection = step.connection
    yield from login.found.resume(login.deadline_ns)
    connection.deadline_ns = _attempt_deadline(login)
    try:
        yield from _expect_to_stay(login)
        if _waits_for_client(login):
            login.env = environment_of(decision.job_id)
            return Attempt(decision.job_id, decision.chosen, deferred=True)
        before = read_cgroups(login.find_processes()[0]) if login.request.phase == "open_session" else None
        extras = yield from adopt_into(
            connection,
            login.request.uid,
            login.find_processes,
            *wanted_extras(login),
            login.source.recent,
            login.options.hasten,
        )
        if before is not None and b".scope" in before:
            from .session.left_behind import adopt_left_behind

            yield from adopt_left_behind(connection, before, login.request.uid)
        login.source.settle_late(login.processes)
        yield from collect(login, decision.job_id, login.processes, extras)
    except StepFault as fault:
        login.release()
        if fault.reason == STEP_SILENT and connection.is_waited_for:
            login.source.watch_late(connection.take_over(), login.processes)
        return Attempt(decision.job_id, decision.chosen, *_why(login, fault))
    except GeneratorExit:
        if connection.is_waited_for:  # the module's process was killed: its number may be another's when it is moved
            login.source.watch_late(connection.take_over(), login.processes)
        raise
    return Attempt(decision.job_id, decision.chosen)


def _waits_for_client(login: Login) -> bool:
    """Whether sshd would wait for the client within the job (rule 3), and need not be there yet."""
    if login.request.phase != "account" or login.find_processes()[0].pid == login.caller.pid:
        return False
    return _is_guarded(login)


def _why(login: Login, fault: StepFault) -> tuple[ReasonCode, str]:
    """Reason code and detail of an attempt that failed."""
    assert login.conf is not None, "a step was found, so the configuration was read"
    tracks = login.conf.proctrack_type
    if fault.reason not in UNCONFIRMED or tracks.endswith("cgroup"):
        return fault.reason, str(fault)
    return "step-untracked", f"ProctrackType={tracks} keeps no cgroup for a job; proctrack/cgroup does ({fault})"


def _expect_to_stay(login: Login) -> Task[None]:
    """Raise `StepFault` if the session will leave the job again, or if nobody can say that it will not.

    What the files do not tell is let pass where a session outside of the job is let pass as well.
    """
    # without one of these nobody does: most compute nodes need not read their PAM files for each login
    if login.request.phase != "account" or not (os.path.isdir(LOGIND) or any(map(os.path.exists, MOVERS))):
        return
    from ..system.host.pam_outlook import session_outlook

    service, guards = login.request.service, _guards(login)
    outlook = session_outlook(service, guards, read=login.source.recent.read_stack)
    if outlook == "unknown":
        from .expect import outlook_for_user

        outlook = yield from outlook_for_user(login, guards)
    if outlook == "leaves":
        raise StepFault("session-escapes", REASONS["session-escapes"].meaning)
    if outlook == "unknown":
        if login.options.action_adopt_failure == "deny":
            raise StepFault("session-uncertain", REASONS["session-uncertain"].meaning)
        login.remark = REASONS["session-uncertain"].meaning


def _guards(login: Login) -> Callable[[PamLine], bool]:
    """Whether a session line of ours works for this service, and is as strict as this one."""
    service, options = login.request.service, login.options

    def guards(line: PamLine) -> bool:
        later = login.source.recent.options_of(line.args)
        strict_enough = later.action_adopt_failure == "deny" or options.action_adopt_failure != "deny"
        if later.enforce != "yes" and (later.enforce == "no" or options.enforce == "yes"):
            return False  # it looks on, or lets in what this one would refuse
        return later.works_in(service) and strict_enough

    return guards


def _is_guarded(login: Login) -> bool:
    """Whether each session comes by a session line of ours at last."""
    from ..system.host.pam_outlook import is_guarded

    return is_guarded(login.request.service, _guards(login), read=login.source.recent.read_stack)


def _attempt_deadline(login: Login) -> int:
    """Half of what is left, if another job could be tried afterwards; else all of it."""
    untried = len(login.found.own) - len(login.facts.attempts)
    return halfway(login.deadline_ns) if untried > 1 else login.deadline_ns


def wanted_extras(login: Login) -> tuple[bool, bool]:
    """Whether to ask the step for its X11 tunnel, and for its namespaces."""
    return not login.options.disable_x11, login.options.join_container


def collect(login: Login, job_id: int, processes: tuple[Process, ...], extras: Extras) -> Task[None]:
    """Collect the variables and namespaces that the session gets from its job."""
    if extras.namespaces:
        login.namespaces = missing_namespaces(extras.namespaces, login.caller)
    login.env = environment_of(job_id, extras.x11)
    if login.options.takes_over:
        step = login.found.of_job(job_id)
        assert step is not None
        yield from _take_over(login, step, processes)
    if login.namespaces and login.request.phase == "account":
        if _is_guarded(login):
            # the session phase joins them, in the process that lives on: from within the job's pid namespace that phase
            # could see neither slurmstepd nor itself
            login.release_namespaces()
        elif processes[0].pid != login.caller.pid:
            login.release_namespaces()  # this process ends after the account stack
            raise StepFault("namespace-deferred", REASONS["namespace-deferred"].meaning)


def _take_over(login: Login, step: OwnStep, processes: tuple[Process, ...]) -> Task[None]:
    """The job's limits and variables."""
    from .session.inherit import take_over

    conf, identity, options = login.conf, step.connection.identity, login.options
    assert conf is not None, "a step was found, so the configuration was read"
    assert identity is not None
    who = (step.path.job_id, login.request.uid, identity, processes)
    extra, remark = yield from take_over(conf, options, login.request.phase, *who, login.deadline_ns)
    login.add_remark(remark)
    named = {name for name, _ in login.env}
    login.env += tuple((name, value) for name, value in extra if name not in named)


def _give_up(facts: Facts) -> Facts:
    """Count every job as tried: the decision then ends with what the attempts have shown."""
    last = facts.attempts[-1]
    tried = {attempt.job_id for attempt in facts.attempts}
    rest = tuple(
        Attempt(step.job_id, last.chosen, last.failure, "not tried any more")
        for step in facts.steps
        if step.job_id not in tried
    )
    return replace(facts, attempts=facts.attempts + rest)
