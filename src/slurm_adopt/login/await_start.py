# SPDX-License-Identifier: Apache-2.0
"""Waiting for a job that is just starting.

slurmctld starts a batch script as soon as the first node of the job has run its prolog, so its first ssh may
reach another node before that one is ready. To refuse it there breaks the job; sites help themselves with `sleep 60`.

Rules of this file:
1. The wait is bounded by `prolog_wait=` and by the login's deadline, less what an adoption takes.
2. Nobody but a login whose user has a job in its prolog (or a step that is not running yet) waits at all.
3. Other users' steps are asked at most four times a second.
"""

from __future__ import annotations

import time

from ..model import RUNNING, STARTING
from ..record import replace
from ..system.slurm.prolog import find_prologs, running_slurmds, runs_prolog
from ..system.slurm.spool import SpoolFault
from ..system.tasks.task import MS, sleep_until

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..model import AwaitStart
    from ..system.slurm.conf import SlurmConf
    from ..system.tasks.task import Task
    from .recent import Recent
    from .state import Login
    from .steps import OwnSteps, StepSource

#: What is kept of the deadline for the adoption that follows.
ADOPT_NS = 500 * MS
POLL_NS = 25 * MS
#: The extern step appears within tens of ms after the prolog has ended; if it has not after this, the prolog failed.
AFTER_NS = 1000 * MS
ASK_NS = 250 * MS


def find_starting(recent: Recent, conf: SlurmConf, nodename: str, uid: int) -> tuple[int, ...]:
    """The user's jobs in their prolog on this node; looked for only where there is one: it costs 0.3 ms.

    A hundred logins that wait for one job look once, not a hundred times, every 25 ms.
    """
    if not conf.prolog:
        return ()
    now_ns = time.monotonic_ns()
    jobs = recent.prologs(nodename, uid, now_ns - POLL_NS // 2)
    if jobs is None:
        jobs = find_prologs(running_slurmds(conf, nodename), conf.step_owners, uid)
        recent.keep_prologs(nodename, uid, now_ns, jobs)
    return jobs


def mark_prologs(conf: SlurmConf, found: OwnSteps, uid: int) -> None:
    """Call those steps starting whose prolog still runs: with PrologFlags=RunInJob they take logins before it ends."""
    if not conf.prolog or "runinjob" not in conf.prolog_flags:
        return
    for index, step in enumerate(found.own):
        identity = step.connection.identity
        if step.fact.state == RUNNING and identity is not None and runs_prolog(identity, conf.step_owners, uid):
            found.own[index] = replace(step, fact=replace(step.fact, state=STARTING))


def await_start(
    source: StepSource, conf: SlurmConf, nodename: str, uid: int, found: OwnSteps, wait_ns: int, deadline_ns: int
) -> Task[OwnSteps]:
    """The user's steps once one of them runs, or when waiting has no sense any more. `found` is closed."""
    until_ns = min(time.monotonic_ns() + wait_ns, deadline_ns - ADOPT_NS)
    prologs = find_starting(source.recent, conf, nodename, uid)
    seen_ns = asked_ns = time.monotonic_ns()
    while time.monotonic_ns() < until_ns:
        found.pause()
        yield from sleep_until(min(until_ns, time.monotonic_ns() + POLL_NS))
        before, prologs = prologs, find_starting(source.recent, conf, nodename, uid)
        now_ns = time.monotonic_ns()
        if prologs and prologs == before and now_ns - asked_ns < ASK_NS and not _states(found):
            seen_ns = now_ns
            continue
        found.close()
        found = yield from source.query_own(conf, nodename, uid, deadline_ns)
        mark_prologs(conf, found, uid)
        asked_ns = time.monotonic_ns()
        if RUNNING in _states(found):
            break
        if prologs or STARTING in _states(found):
            seen_ns = asked_ns
        elif asked_ns - seen_ns > AFTER_NS:
            break
    return found


def _states(found: OwnSteps) -> set[str]:
    return {step.state for step in found.steps()}


def act_await_start(login: Login, _: AwaitStart) -> Task[None]:
    """Wait for the user's job to start; what is found then takes the place of what was found before."""
    conf, options, uid = login.conf, login.options, login.request.uid
    assert conf is not None, "steps or prologs were found"
    begun_ns = time.monotonic_ns()
    wait_ns = int(options.prolog_wait_s * 1000) * MS
    try:
        found = yield from await_start(
            login.source, conf, options.nodename, uid, login.found, wait_ns, login.deadline_ns
        )
    except SpoolFault as fault:
        login.take_fault(fault)
        return
    login.take_steps(found)
    login.facts = replace(
        login.facts,
        prologs=find_starting(login.source.recent, conf, options.nodename, uid),
        waited_ms=(time.monotonic_ns() - begun_ns) // MS,
    )
