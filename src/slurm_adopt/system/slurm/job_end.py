# SPDX-License-Identifier: Apache-2.0
"""When a job will end, as far as this node knows it without asking the controller.

Two sources, in this order:
* the service's table: what slurmctld said when the service last asked for it (a limit may be changed meanwhile);
* SLURM_JOB_END_TIME in the environment of the job's own processes, of whatever step. slurmd 24.11 and 26.05 set it,
  20.11 and 22.05 do not (seen).

Rules of this file:
1. It reads local files, and a time that is not found is 0: nothing depends on it but words. A process's owner can
   make reading its environment wait for ever (so does a hung Lustre): logins ask in a child (`query_job_end`).
2. A process's environment is its owner's to change: what is found there is told to that owner only.
"""

from __future__ import annotations

import time

from ..tasks.child import ChildFault, call_in_child
from ..tasks.task import MS, DeadlineExceeded
from .job_environment import read_environments
from .job_table import is_number, read_words, write_words

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..kernel.procfs import AnyProcess
    from ..tasks.task import Task
    from .job_table import Key

TABLE = "/run/slurm-adopt/job-ends"
MARK = b"\0SLURM_JOB_END_TIME="
SHARE_NS = 200 * MS
#: slurmctld writes a year ahead for a job without a limit; a time long past is nobody's end either.
AHEAD_S, PAST_S = 300 * 86400, 3600


def query_job_end(job_id: int, stepd: AnyProcess, uid: int, deadline_ns: int) -> Task[int]:
    """Call `find_job_end` in a child, within a small share of the time: the job's processes may hang it."""

    def work() -> bytes:
        return b"%d" % find_job_end(job_id, stepd, uid)

    try:
        return int((yield from call_in_child(work, min(deadline_ns, time.monotonic_ns() + SHARE_NS), uid)))
    except (ChildFault, DeadlineExceeded, OSError):
        return 0  # a courtesy: without a child it is not known


def find_job_end(job_id: int, stepd: AnyProcess, uid: int) -> int:
    """When the job ends, in seconds since 1970; 0 if that is not known."""
    known = read_table().get((job_id, stepd.pid, stepd.started), 0)
    return known or plausible(_from_processes(stepd, uid))


def plausible(end_s: int) -> int:
    """`end_s`, or 0 if it is not a time at which a running job may end."""
    return end_s if -PAST_S < end_s - time.time() < AHEAD_S else 0


def read_table(path: str = TABLE) -> dict[Key, int]:
    """End times by (job id, slurmstepd's pid, its start)."""
    return {key: int(word) for key, word in read_words(path, is_number).items()}


def write_table(table: dict[Key, int], path: str = TABLE) -> None:
    """Replace the table; `OSError`."""
    write_words(table, path)


def _from_processes(stepd: AnyProcess, uid: int) -> int:
    for environment in read_environments(stepd, uid):
        _, mark, rest = (b"\0" + environment).partition(MARK)
        value = rest.partition(b"\0")[0]
        if mark and value.isdigit() and len(value) < 12:
            return int(value)
    return 0
