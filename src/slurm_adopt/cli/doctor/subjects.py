# SPDX-License-Identifier: Apache-2.0
"""The one table of subjects, and how they are looked at: all at once, each in a child, none for longer than its time.

A file system that hangs, a daemon that does not answer or a fault of a check costs what is said about its own subject,
and no other.
"""

from __future__ import annotations

import json
import time

from ...system.tasks.child import ChildFault, call_in_child
from ...system.tasks.task import MS, DeadlineExceeded, all_of, run
from .daemons import check_auth, check_slurmd
from .finding import ERROR, WARNING, Finding
from .helper import check_helper, check_package
from .kernel import check_kernel
from .leftovers import check_change, check_copies
from .module import check_module
from .node import Node
from .pam import check_pam
from .pam_options import check_names
from .selinux import check_selinux
from .service import check_service
from .slurm import check_slurm
from .sshd import check_sshd
from .trial import check_trial
from .units import check_units
from .user_managers import check_user_managers

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Check = Callable[[Node], Iterator[Finding]]

#: In the order in which they are shown.
SUBJECTS: tuple[tuple[str, Check], ...] = (
    ("module", check_module),
    ("helper", check_helper),
    ("package", check_package),
    ("copies", check_copies),
    ("service", check_service),
    ("units", check_units),
    ("sshd", check_sshd),
    ("pam", check_pam),
    ("names", check_names),
    ("change", check_change),
    ("slurm", check_slurm),
    ("slurmd", check_slurmd),
    ("auth", check_auth),
    ("selinux", check_selinux),
    ("kernel", check_kernel),
    ("user managers", check_user_managers),
)
TRIAL = "trial"
#: All together take half a second; daemons that hang are given a second by their own checks. What takes longer than
#: this is a file system that hangs, or a machine with much to do.
BUDGET_NS = 5000 * MS
#: What a check waits for ends before its child is ended, so that it can say what did not answer.
INNER_NS = 4500 * MS
ANSWER_CAP = 1 << 20
#: A check's own time was up.
LATE = "late"


def look_at(nodename: str = "", job_id: int = 0) -> list[Finding]:
    """All findings of all subjects."""
    begun_ns = time.monotonic_ns()
    node = Node("", nodename, begun_ns + INNER_NS)
    checks: list[tuple[str, Check]] = [*SUBJECTS, (TRIAL, lambda place: check_trial(place, job_id))]
    until_ns = begun_ns + BUDGET_NS
    tasks = [call_in_child(_answering(check, node), until_ns, cap=ANSWER_CAP) for _, check in checks]
    outcomes = run(all_of(tasks, until_ns + BUDGET_NS))
    findings: list[Finding] = []
    for (name, _), outcome in zip(checks, outcomes):
        if isinstance(outcome, Exception):
            findings.append(_unfinished(name, outcome))
            continue
        answer = json.loads(outcome)
        findings += [Finding(**fields) for fields in answer["findings"]]
        if answer["fault"]:
            late = answer["fault"] == LATE
            findings.append(_unfinished(name, DeadlineExceeded() if late else ChildFault(answer["fault"])))
    return findings


def _answering(check: Check, node: Node) -> Callable[[], bytes]:
    def work() -> bytes:
        found: list[dict[str, object]] = []
        fault = ""
        try:
            found.extend(dict(finding.__dict__) for finding in check(node))
        except DeadlineExceeded:
            fault = LATE
        except Exception as error:  # one more finding, and what was found before it is kept
            fault = f"{type(error).__name__}: {error}"
        return json.dumps({"findings": found, "fault": fault}).encode()

    return work


def _unfinished(name: str, error: Exception) -> Finding:
    if isinstance(error, DeadlineExceeded):
        return Finding(
            "check-hung",
            WARNING,
            f"what there is to see of {name} could not be read in time",
            "a file system or daemon that hangs holds up logins in the same way",
            f"look for processes in state D (ps), and for a file system that does not answer: {name}",
        )
    return Finding(
        "check-failed",
        ERROR,
        f"the check of {name} failed: {error}",
        "this is a fault of the doctor, or something that nobody has thought of; the other subjects were looked at",
        "report it, with the output of slurm-adopt doctor --json",
    )
