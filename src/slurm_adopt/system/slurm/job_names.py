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
from ..tasks.files import read_if_trusted, replace_file
from ..tasks.task import MS, DeadlineExceeded
from .job_environment import read_environments

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from ..kernel.procfs import AnyProcess
    from ..tasks.task import Task

    #: Job, and pid and start of the slurmstepd of its extern step.
    Key = tuple[int, int, int]

TABLE = "/run/slurm-adopt/job-names"
#: 16384 jobs of a line each.
TABLE_CAP = 1 << 20
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


def read_names(jobs: Iterable[tuple[int, AnyProcess]], path: str = TABLE) -> dict[int, str]:
    """The names of those of the jobs (with the slurmstepd of their extern steps) that are in the service's table."""
    table = read_table(path)
    found = {job_id: table.get((job_id, stepd.pid, stepd.started), "") for job_id, stepd in jobs}
    return {job_id: name for job_id, name in found.items() if name}


def read_table(path: str = TABLE) -> dict[Key, str]:
    """All names in the service's table."""
    table: dict[Key, str] = {}
    for line in (read_if_trusted(path, TABLE_CAP) or b"").decode("ascii", "replace").split("\n"):
        words = line.split(" ")
        if len(words) == 4 and all(word.isascii() and word.isdigit() for word in words[:3]) and is_name(words[3]):
            table[int(words[0]), int(words[1]), int(words[2])] = words[3]
    return table


def write_table(table: dict[Key, str], path: str = TABLE) -> None:
    """Replace the table; `OSError`."""
    lines = [f"{job_id} {pid} {started} {name}\n" for (job_id, pid, started), name in table.items()]
    replace_file(path, "".join(lines).encode("ascii"), 0o600)
