# SPDX-License-Identifier: Apache-2.0
"""The environments of a job's own processes on this node, for what is known without the controller.

Rules of this file:
1. A process's owner can make reading its environment wait for ever (so does a hung Lustre): only in a child.
2. A process's environment is its owner's to change: what is found there is told to that owner only.
"""

from __future__ import annotations

import os

from ...wire.cgroup_path import decode_cgroups, decode_v1, decode_v2
from ...wire.errors import RemoteProtocolError
from ..kernel.procfs import read_cgroups, read_environ, read_file, read_owned_process

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from ..kernel.procfs import AnyProcess

CGROUP_ROOT = "/sys/fs/cgroup"
#: Below the folder of a step: cgroup v1 (20.11; 22.05), v2.
TASK_FOLDERS = ("", "/task_0", "/user/task_0", "/user/task_special")
#: The job has at least one process of its user in its first steps, or we do not know.
STEP_CAP, PROCESS_CAP = 4, 6


def read_environments(stepd: AnyProcess, uid: int) -> Iterator[bytes]:
    """The environments of the user's processes in the job's steps, the batch step's first. `stepd` is the slurmstepd of
    the job's extern step."""
    for number in job_processes(stepd):
        process = read_owned_process(number)
        if process is not None and process.real_uid == uid:
            yield read_environ(process)


def job_processes(stepd: AnyProcess) -> Iterator[int]:
    """Processes of the job's steps other than the extern step, the batch step's first."""
    for folder in _job_folders(read_cgroups(stepd) or b""):
        try:
            steps = [name for name in os.listdir(folder) if name.startswith("step_") and name != "step_extern"]
        except OSError:
            continue
        for step in sorted(steps, key=lambda name: (name != "step_batch", name))[:STEP_CAP]:
            yield from _members(f"{folder}/{step}{task}" for task in TASK_FOLDERS)
        return


def _job_folders(text: bytes) -> Iterator[str]:
    """Where the job's cgroup is mounted, for each hierarchy in which slurmstepd is in the job."""
    try:
        lines = decode_cgroups(text)
    except RemoteProtocolError:
        return
    for line in lines:
        where = decode_v2(line.path) if line.hierarchy == 0 else decode_v1(line.path)
        if where is None or line.deleted:
            continue
        job = where.top.rpartition("/")[0] if where.step else where.top
        if line.hierarchy:
            yield f"{CGROUP_ROOT}/{','.join(line.controllers).replace('name=', '')}{job}"
        else:
            yield CGROUP_ROOT + job


def _members(folders: Iterable[str]) -> Iterator[int]:
    for folder in folders:
        text = read_file(f"{folder}/cgroup.procs") or b""
        for word in text.split()[:PROCESS_CAP]:
            yield int(word)
