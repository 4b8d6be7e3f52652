# SPDX-License-Identifier: Apache-2.0
"""Adopting a login's processes into one extern step, and making sure of it.

Rules of this file:
1. The step must belong to the uid that logs in, now, by its own slurmstepd's word; else nothing is sent.
2. After slurmstepd said yes, /proc/PID/cgroup is read back for every process; only that counts.
3. What is received on the way (descriptors) is closed when anything fails.
"""

from __future__ import annotations

import os

from ..model import ENDING, STEP_ENDING
from ..system.procfs import read_cgroups, read_started
from ..system.stepd import (
    Namespace,
    StepFault,
    add_process,
    query_namespaces,
    query_pid_in_step,
    query_state,
    query_x11,
)
from ..wire.cgroup_path import same_step

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from ..system.procfs import Process
    from ..system.stepd import StepConnection
    from ..system.task import Task

#: The file below /proc/PID/ns that shows whether a process has joined a namespace of this kind.
NAMESPACE_FILES = {
    "user": "user",
    "pid": "pid_for_children",
    "mount": "mnt",
    "ipc": "ipc",
    "uts": "uts",
    "net": "net",
    "cgroup": "cgroup",
}


def act_adopt(connection: StepConnection, uid: int, processes: Iterable[Process]) -> Task[None]:
    """Put the processes into the step; `StepFault` unless the kernel confirms every one of them."""
    identity = connection.identity
    if identity is None or identity.uid != uid:
        raise StepFault("step-foreign", "the step belongs to another user")
    if (yield from query_state(connection)) == ENDING:
        raise StepFault(STEP_ENDING, "the step is ending")
    for process in processes:
        yield from add_process(connection, process.pid)
    for process in processes:
        yield from confirm(connection, process)


def confirm(connection: StepConnection, process: Process) -> Task[None]:
    """Raise `StepFault` unless the kernel shows the process inside the step."""
    identity = connection.identity
    assert identity is not None
    target, reference = read_cgroups(process.pid), read_cgroups(identity.pid)
    if target is None or read_started(process.pid) != process.started:
        raise StepFault("process-changed", f"process {process.pid} ended while it was adopted")
    if reference is None or read_started(identity.pid) != identity.started:
        raise StepFault(STEP_ENDING, "slurmstepd ended while it adopted")
    membership = same_step(reference, target)
    if membership.inside:
        return
    if not membership.step_known and (yield from query_pid_in_step(connection, process.pid)):
        # ProctrackType=proctrack/linuxproc and the like: Slurm itself keeps no cgroup there is to look at
        return
    raise StepFault("adopt-unconfirmed", f"process {process.pid}: {membership.reason}")


def read_environment(connection: StepConnection, job_id: int, with_x11: bool) -> Task[tuple[tuple[str, str], ...]]:
    """The variables of a session in this job."""
    env = [("SLURM_JOB_ID", str(job_id))]
    if with_x11:
        x11 = yield from query_x11(connection)
        if x11.display:
            env.append(("DISPLAY", f"localhost:{x11.display}.0"))
            if x11.xauthority:
                env.append(("XAUTHORITY", x11.xauthority))
    return tuple(env)


def read_missing_namespaces(connection: StepConnection, pid: int) -> Task[list[Namespace]]:
    """The job's namespaces that the process is not in yet. The caller owns the descriptors."""
    missing = []
    for namespace in (yield from query_namespaces(connection)):
        if _is_in(pid, namespace):
            os.close(namespace.fd)
        else:
            missing.append(namespace)
    # joining a user namespace gives the rights for the others, joining mount changes the view of /proc: last
    missing.sort(key=lambda namespace: (namespace.kind != "user", namespace.kind == "mount"))
    return missing


def _is_in(pid: int, namespace: Namespace) -> bool:
    wanted = os.fstat(namespace.fd)
    try:
        has = os.stat(f"/proc/{pid}/ns/{NAMESPACE_FILES[namespace.kind]}")
    except OSError:
        return False
    return (wanted.st_dev, wanted.st_ino) == (has.st_dev, has.st_ino)
