# SPDX-License-Identifier: Apache-2.0
"""The act `AwaitStep`: the steps are looked for once more, and no other job stands for the one that is needed."""

from __future__ import annotations

from ..record import replace
from ..system.slurm.spool import SpoolFault
from .facts import find_steps
from .steps import OwnSteps

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..model import AwaitStep
    from ..system.tasks.task import Task
    from .state import Login


def act_await_step(login: Login, decision: AwaitStep) -> Task[None]:
    """Wait for the job's slurmstepd, half of the time that is left."""
    login.facts = replace(login.facts, awaited_job=decision.job_id)
    login.found.close()
    login.found = OwnSteps()
    try:
        yield from find_steps(login, needed=decision.job_id)
    except SpoolFault as fault:
        login.take_fault(fault)
