# SPDX-License-Identifier: Apache-2.0
"""What one call did, in words that can be compared between the two modules."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

#: Linux-PAM's codes that a module may give. TRY_AGAIN stands behind the module in the test's stack: only
#: PAM_IGNORE gets there.
CODES = {0: "success", 6: "perm_denied", 14: "session_err", 24: "ignore", 10: "user_unknown", 28: "module_unknown"}
#: What a message means, whoever words it.
SENSES = (
    ("no jobs", r"no active jobs|has no jobs|no Slurm jobs"),
    ("ending", r"just ending"),
    ("undetermined", r"can ?not be determined|could not be determined|Unable to determine"),
    ("not adopted", r"failed to adopt|adoption failure|could not be put into"),
    ("unsafe", r"not safe to use"),
    ("lost", r"its configuration could not be found"),
    ("not set up", r"no slurm\.conf|configuration on this node"),
)
ANY = "any"


@dataclass(frozen=True)
class Outcome:
    """`result` of the module; `says` the senses of its messages; `job` that the caller is in afterwards, by the name the
    situation gives it ("" none); `env` what it put into the PAM environment; `mount` whether it joined a mount
    namespace; `killed` whether something killed the session right afterwards.
    """

    result: str
    says: str = ""
    job: str = ""
    env: tuple[tuple[str, str], ...] = ()
    mount: bool = False
    killed: bool = False

    def __str__(self) -> str:
        parts = [self.result]
        if self.job:
            parts.append(f"in job *{self.job}*")
        env = [f"{name}={value}" for name, value in self.env if (name, value) != ("SLURM_JOB_ID", self.job)]
        if self.job and not any(name == "SLURM_JOB_ID" for name, _ in self.env):
            env.append("no SLURM_JOB_ID")
        parts += env
        parts += [f"“{self.says}”"] if self.says else []
        parts += ["mount namespace joined"] if self.mount else []
        parts += ["killed at once"] if self.killed else []
        return ", ".join(parts)

    def fits(self, expected: Outcome) -> bool:
        """Equal, where a job `any` in `expected` stands for any job."""
        if expected.job != ANY or not self.job:
            return self == expected
        env = tuple((name, self.job if value == ANY else value) for name, value in expected.env)
        return self == replace(expected, job=self.job, env=env)


def adopted(job: str, **more: Any) -> Outcome:
    """Admitted, in the job and told so."""
    return Outcome("success", job=job, env=(("SLURM_JOB_ID", job),), **more)


ALLOWED = Outcome("success")
IGNORED = Outcome("ignore")


def denied(sense: str) -> Outcome:
    """Refused in the account phase, and told why."""
    return Outcome("perm_denied", sense)


def outcome_of(result: Mapping[str, Any], jobs: Mapping[int, str]) -> Outcome:
    """The driver's result; `jobs` are the names of the situation's jobs by id."""
    if result["hung"]:
        return Outcome("hung")
    if result["code"] is None:
        return Outcome(f"ends the process (exit {result['exit']})" if result["signal"] is None else "killed")

    def name_of(job_id: str) -> str:
        return jobs.get(int(job_id), f"unexpected {job_id}")

    found = re.search(r"/job_(\d+)/step_extern", result["cgroup"])
    env = tuple(
        (name, name_of(value) if name == "SLURM_JOB_ID" else value) for name, value in sorted(result["env"].items())
    )
    return Outcome(
        CODES.get(result["code"], str(result["code"])),
        senses_of(result["messages"]),
        name_of(found[1]) if found else "",
        env,
        result["mount_joined"],
        result["signal"] is not None,
    )


def senses_of(messages: Sequence[str]) -> str:
    """The senses of messages in their order, each once; the text itself if none is known."""
    found: list[str] = []
    for text in messages:
        if text.endswith("=try_again"):
            continue  # pam_debug behind the module
        sense = next((sense for sense, pattern in SENSES if re.search(pattern, text, re.IGNORECASE)), text)
        if sense not in found:
            found.append(sense)
    return ", ".join(found)
