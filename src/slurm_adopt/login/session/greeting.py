# SPDX-License-Identifier: Apache-2.0
"""The line that an admitted user reads: the session's job, why this one, the other jobs, the time left.

Rules of this file:
1. Pure words: it is given the facts and the time left.
2. In the session phase only. sshd shows that phase's texts to sessions that start a shell, as it does with the message
   of the day, and to nothing else; those of the account phase go to everybody, scp included (OpenSSH 8.4 to 10.6).
3. Nothing about anybody else's jobs.
"""

from __future__ import annotations

from ...model import ACCOUNT, CALLER, NEWEST, PREFERRED, RUNNING, Facts, Verdict
from ...words import called, duration

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from ...model import Chosen


#: Other jobs that are named one by one.
NAMED_CAP = 8


def greeting(facts: Facts, verdict: Verdict, left_s: float | None, names: Mapping[int, str]) -> str:
    """The line for a session; empty if there is nothing to say. `left_s`: seconds until the job ends, if known.

    `names`: what users call those of their jobs that they do not call by number (`4700_11`).
    """
    if verdict.action != "allow":
        return ""
    jobs = [step.job_id for step in facts.steps if step.state == RUNNING or step.job_id == verdict.job_id]
    if not verdict.job_id:
        return f"slurm-adopt: this session is in none of your {len(jobs)} jobs on this node." if len(jobs) > 1 else ""
    if len(jobs) <= 1:
        which = "your only job on this node"
    else:
        which = _why(_chosen(facts, verdict), len(jobs)) + _others(jobs, verdict.job_id, names)
    return f"slurm-adopt: you are in job {called(verdict.job_id, names)}, {which}.{_end(left_s)}"


def _chosen(facts: Facts, verdict: Verdict) -> Chosen:
    return facts.account_chosen if verdict.chosen == ACCOUNT else verdict.chosen


def _why(chosen: Chosen, count: int) -> str:
    return {
        NEWEST: f"the newest of your {count} jobs on this node",
        CALLER: "the job you come from",
        PREFERRED: "the job you have chosen",
    }.get(chosen, f"one of your {count} jobs on this node")


def _others(jobs: list[int], job_id: int, names: Mapping[int, str]) -> str:
    others = sorted(job for job in jobs if job != job_id)
    shown = ", ".join(called(job, names) for job in others[:NAMED_CAP])
    more = f" and {len(others) - NAMED_CAP} more" if len(others) > NAMED_CAP else ""
    return f" (also here: {shown}{more})"


def _end(left_s: float | None) -> str:
    if left_s is None:
        return ""
    return f" It ends in {duration(left_s)}." if left_s > 0 else " Its time is up."
