# SPDX-License-Identifier: Apache-2.0
"""The trial: a process of the doctor's own is taken into a job as a login is, and read back from the kernel.

Rules of this file:
1. Only a job that the administrator has named, or the one that the doctor itself runs in.
2. The process does nothing but wait. It is killed at the end, and the job's extern step lives on.
"""

from __future__ import annotations

import os
import time

from ...login.adoption import adopt_into
from ...login.recent import Recent
from ...login.steps import list_steps, open_directories
from ...model import REASONS, RUNNING, STEP_SUSPENDED, SUSPENDED
from ...system.kernel.freezer import is_frozen
from ...system.kernel.procfs import Process, read_cgroups, read_process
from ...system.slurm.conf import ConfFault
from ...system.slurm.spool import SpoolFault
from ...system.slurm.stepd import StepFault, connect_step
from ...system.tasks.child import end_child, start_child
from ...system.tasks.sockets import close_all
from ...system.tasks.task import DeadlineExceeded, all_of, run
from ...wire.cgroup_path import same_job
from .finding import ERROR, WARNING, Finding

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from ...system.slurm.stepd import StepConnection
    from .node import Node

#: Longer than the doctor has; the process ends by itself should nobody be left to end it.
LIFE_S = 10


def check_trial(node: Node, job_id: int) -> Iterator[Finding]:
    """Try the job that was named (0: the one we are in, if any)."""
    try:
        found = _find(node, job_id)
    except (ConfFault, SpoolFault):
        return  # said by the checks of slurm.conf
    if found is None:
        if job_id:
            yield Finding(
                "trial-no-job",
                ERROR,
                f"job {job_id} has no extern step on this node that answers",
                "the trial was asked for, and could not be made",
                "name a job that runs on this node: slurm-adopt status --json lists them",
            )
        return
    try:
        yield from _try(*found)
    finally:
        found[1].close()


def _find(node: Node, wanted: int) -> tuple[int, StepConnection] | None:
    conf = node.conf()
    directories = open_directories(conf, node.nodename)
    try:
        paths = [path for path in list_steps(directories) if wanted in (0, path.job_id)]
        tasks = [connect_step(path.path, conf.step_owners, node.deadline_ns) for path in paths]
        outcomes = run(all_of(tasks, node.deadline_ns))
    finally:
        for directory in directories:
            os.close(directory.fd)
    own = read_process(os.getpid())
    mine = (read_cgroups(own) or b"") if own is not None else b""
    chosen = None
    for path, outcome in zip(paths, outcomes):
        if isinstance(outcome, Exception):
            continue
        identity = outcome.identity
        reference = (read_cgroups(identity) or b"") if identity is not None else b""
        if chosen is None and (wanted or (reference and same_job(reference, mine))):
            chosen = path.job_id, outcome
        else:
            outcome.close()
    return chosen


def _try(job_id: int, connection: StepConnection) -> Iterator[Finding]:
    identity = connection.identity
    assert identity is not None, "connect_step asks for it"
    state = SUSPENDED if identity.state == RUNNING and is_frozen(identity) else identity.state
    if state != RUNNING:
        yield _not_running(job_id, state)
        return
    child = start_child(_wait, ())
    process = read_process(child)
    try:
        if process is None:
            raise StepFault("process-changed", "the doctor's process has ended")
        extras = run(
            adopt_into(connection, identity.uid, lambda: (process,), x11=True, namespaces=True, recent=Recent())
        )
        close_all([namespace.fd for namespace in extras.namespaces])
    except (StepFault, DeadlineExceeded) as fault:
        reason = fault.reason if isinstance(fault, StepFault) else "step-silent"
        if reason == STEP_SUSPENDED:  # just now
            yield _not_running(job_id, SUSPENDED)
            return
        yield Finding(
            "trial-failed",
            ERROR,
            f"a process could not be put into job {job_id}: {reason}: {fault or 'no answer in time'}",
            f"{REASONS[reason].meaning} A login of the job's user would end with adopt-failed",
            f"look at slurmd's log for the extern step of job {job_id}; docs/security/failure-table.md has {reason}",
        )
    finally:
        end_child(child)
        _await_end(process)


def _not_running(job_id: int, state: str) -> Finding:
    return Finding(
        "trial-not-running",
        WARNING,
        f"job {job_id} is {state}",
        "it takes no logins now, and the trial could not be made",
        "name a job that runs",
    )


def _wait() -> None:
    time.sleep(LIFE_S)


def _await_end(process: Process | None) -> None:
    """Until the process is reaped: nothing of it is to be left in the job."""
    from ...system.tasks.child import reap_children

    until = time.monotonic() + 1
    while process is not None and reap_children() and time.monotonic() < until:
        time.sleep(0.001)
