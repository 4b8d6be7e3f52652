# SPDX-License-Identifier: Apache-2.0
"""What users call a job: `4700_11` is a task of an array, `4800+1` a component of a heterogeneous job; as squeue says.

Rules of this file:
1. Pure. A job is its number everywhere else; a name is for people, and decides nothing but which of a user's own jobs
   is meant by the user's own words.
2. What an environment says is a claim: sbatch hands on the variables of the job in which it is called.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

#: Components of a heterogeneous job, as sbatch takes them (MAX_HET_JOB_COMPONENTS of its manual: 128).
COMPONENT_CAP = 128


def is_name(text: str) -> bool:
    """Whether it has the form of a name: two numbers with `_` or `+` between them."""
    first, mark, second = text.partition("_" if "_" in text else "+")
    return bool(mark and _is_number(first) and _is_number(second))


def claims_in_environment(variables: Mapping[str, str]) -> dict[int, str]:
    """What the environment of a process of a job says of names, by job; a plain job's is its number. Empty if it is
    not an environment that slurmstepd has made for a task or a batch script (a login's has other variables)."""
    job_id = _number(variables.get("SLURM_JOB_ID", ""))
    if not job_id or "SLURM_TASK_PID" not in variables:
        return {}
    size = _number(variables.get("SLURM_HET_SIZE", ""))
    if size:
        ids = [
            _number(variables.get(f"SLURM_JOB_ID_HET_GROUP_{index}", "")) for index in range(min(size, COMPONENT_CAP))
        ]
        return {one: f"{ids[0]}+{index}" for index, one in enumerate(ids) if one and ids[0]}
    array, task = _number(variables.get("SLURM_ARRAY_JOB_ID", "")), variables.get("SLURM_ARRAY_TASK_ID", "")
    if array and _is_number(task):
        return {job_id: f"{array}_{int(task)}"}
    return {job_id: str(job_id)}


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) < 11


def _number(text: str) -> int:
    return int(text) if _is_number(text) else 0
