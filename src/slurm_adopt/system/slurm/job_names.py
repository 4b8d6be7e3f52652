# SPDX-License-Identifier: Apache-2.0
"""What users call the jobs of this node (`4700_11`, `4800+1`), as the resident service has learnt it of slurmctld.

The environment of a job's processes is no source: a job that an array's task submits has the task's SLURM_ARRAY_JOB_ID
and SLURM_ARRAY_TASK_ID (seen on 22.05.8 and 24.11.5), and the prolog of an array's task has none of them. But a job
whose processes have no such variable is neither an array's task nor a component, and nobody has to be asked about it.

Rules of this file:
1. Nothing depends on a name but words; a job whose name is not known has its number.
2. Environments are read in a child, within a small share of the time (`job_environment.py`).
"""

from __future__ import annotations

import time

from ...wire.job_names import claims_in_environment, is_name
from ..tasks.child import ChildFault, call_in_child
from ..tasks.task import MS, DeadlineExceeded
from .job_environment import read_environments
from .job_table import read_words, write_words

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from ..kernel.procfs import AnyProcess
    from ..tasks.task import Task
    from .job_table import Key

TABLE = "/run/slurm-adopt/job-names"
SHARE_NS = 200 * MS


def query_claim(stepd: AnyProcess, uid: int, deadline_ns: int) -> Task[bool]:
    """Whether a process of the job says that it is an array's task or a component; `stepd` is the extern step's."""

    def work() -> bytes:
        found = any(is_name(name) for text in read_environments(stepd, uid) for name in claims_of(text).values())
        return b"1" if found else b"0"

    try:
        return (yield from call_in_child(work, min(deadline_ns, time.monotonic_ns() + SHARE_NS), uid)) == b"1"
    except (ChildFault, DeadlineExceeded, OSError):
        return False  # a courtesy: without a child it is not known


def claims_of(text: bytes) -> dict[int, str]:
    """What an environment says that its job is called; the number of a job that says that it is neither."""
    if b"SLURM_JOB_ID=" not in text:
        return {}
    variables = {}
    for entry in text.split(b"\0"):
        name, _, value = entry.partition(b"=")
        if name.startswith(b"SLURM_"):
            variables[name.decode("ascii", "replace")] = value.decode("ascii", "replace")
    return claims_in_environment(variables)


def read_names(jobs: Mapping[int, AnyProcess], path: str = TABLE) -> dict[int, str]:
    """The names of those of the jobs (with the slurmstepd of their extern steps) that are in the service's table."""
    table = read_table(path)
    found = {job_id: table.get((job_id, stepd.pid, stepd.started), "") for job_id, stepd in jobs.items()}
    return {job_id: name for job_id, name in found.items() if name}


def read_table(path: str = TABLE) -> dict[Key, str]:
    """All names in the service's table."""
    return read_words(path, is_name)


def write_table(table: dict[Key, str], path: str = TABLE) -> None:
    """Replace the table; `OSError`."""
    write_words(table, path)
