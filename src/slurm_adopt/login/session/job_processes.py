# SPDX-License-Identifier: Apache-2.0
"""The processes that slurmstepd started in a job on this node, besides those of the extern step.

They are the source of what a session takes over from its job: limits and variables.

Rules of this file:
1. The steps are asked like any other: root's socket, slurmstepd's own pid, the user's uid.
2. A process counts if its step names it, all its uids are the user's, and the kernel shows it in the same job as
   the session. Processes of the extern step do not count: they are logins, with limits from pam_limits.
3. It is a courtesy, never a condition: a step that is silent or gone yields nothing, within a small share of the time.
"""

from __future__ import annotations

import os
import time

from ...system.kernel.procfs import read_cgroups, read_owned_process
from ...system.slurm.spool import SpoolFault
from ...system.slurm.stepd import StepFault, connect_step, query_numbers
from ...system.tasks.task import MS, all_of
from ...wire.cgroup_path import same_job
from ...wire.stepd import BATCH_STEP, EXTERN_STEP, parse_socket_name
from ..steps import open_directories

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ...system.kernel.procfs import AnyProcess, OwnedProcess
    from ...system.slurm.conf import SlurmConf
    from ...system.slurm.spool import SpoolDirectory
    from ...system.slurm.stepd import Identity
    from ...system.tasks.task import Task
    from ...wire.stepd import StepSocket

#: A job may run hundreds of steps at once; those after the first few hold nothing new.
STEP_CAP = 8
PROCESS_CAP = 32
SHARE_NS = 300 * MS


def find_job_processes(
    conf: SlurmConf, nodename: str, job_id: int, uid: int, extern: AnyProcess, deadline_ns: int
) -> Task[tuple[OwnedProcess, ...]]:
    """Those that slurmstepd started itself come first; empty if the job has only its extern step here.

    `extern` is the slurmstepd of the job's extern step.
    """
    until_ns = min(deadline_ns, time.monotonic_ns() + SHARE_NS)
    owners = conf.step_owners
    try:
        directories = open_directories(conf, nodename)
    except SpoolFault:
        return ()
    try:
        paths = [path for directory in directories for path in _other_steps(directory, job_id)][:STEP_CAP]
        tasks = [_ask(path, uid, owners, until_ns) for path in paths]
        outcomes = yield from all_of(tasks, until_ns)
    finally:
        for directory in directories:
            os.close(directory.fd)
    reference = read_cgroups(extern)
    found: list[tuple[bool, int, OwnedProcess]] = []
    for outcome in outcomes:
        if isinstance(outcome, Exception) or reference is None:
            continue
        stepd, numbers = outcome
        for number in numbers[:PROCESS_CAP]:
            process = read_owned_process(number)
            if process is None or process.uid != uid or process.real_uid != uid:
                continue
            if same_job(reference, read_cgroups(process) or b""):
                found.append((process.parent != stepd.pid, number, process))
    found.sort(key=lambda one: one[:2])
    return tuple(process for _, _, process in found)[:PROCESS_CAP]


def _other_steps(directory: SpoolDirectory, job_id: int) -> list[str]:
    """Paths of the job's sockets, the batch step first."""
    try:
        names = os.listdir(directory.fd)
    except OSError:
        return []
    found: list[tuple[bool, int, str]] = []
    for name in names:
        socket: StepSocket | None = parse_socket_name(name)
        if socket is None or socket.job_id != job_id or socket.step_id == EXTERN_STEP:
            continue
        if directory.node is None or socket.node == directory.node:
            found.append((socket.step_id != BATCH_STEP, socket.step_id, f"/proc/self/fd/{directory.fd}/{name}"))
    return [path for _, _, path in sorted(found)]


def _ask(path: str, uid: int, owners: tuple[int, ...], until_ns: int) -> Task[tuple[Identity, tuple[int, ...]]]:
    connection = yield from connect_step(path, owners, until_ns)
    try:
        identity = connection.identity
        if identity is None or identity.uid != uid:
            raise StepFault("step-foreign", "the step belongs to another user")
        return identity, (yield from query_numbers(connection))
    finally:
        connection.close()
