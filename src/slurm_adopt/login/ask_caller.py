# SPDX-License-Identifier: Apache-2.0
"""The act `AskCaller`: caller ID, in at most half of the time that is left; `caller_timeout=` is for the network."""

from __future__ import annotations

from ..record import replace
from ..system.rpc.callerid import find_caller
from ..system.rpc.memory import CallerMemory
from ..system.rpc.munge import MungeWorkers
from ..system.tasks.task import MS, halfway

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..model import AskCaller
    from ..system.slurm.conf import SlurmConf
    from ..system.tasks.task import Task
    from .state import Login


def act_ask_caller(login: Login, _: AskCaller) -> Task[None]:
    """Ask the source of the connection which job it comes from."""
    assert login.conf is not None, "there are steps, so there is a configuration"
    memory = login.source.callers or _own_memory(login.conf)
    own = [(step.path.job_id, step.connection.identity) for step in login.found.own]
    stepds = tuple((job_id, identity) for job_id, identity in own if identity is not None)
    version = max([step.version for step in login.facts.steps], default=0)
    budget_ns = int(login.options.caller_timeout_s * 1000) * MS
    deadline_ns = halfway(login.deadline_ns)
    login.found.pause()
    who = (login.conf, login.connection, login.request.uid, stepds, version)
    try:
        caller = yield from find_caller(*who, deadline_ns, memory, budget_ns, login.facts.unanswered_jobs)
    finally:
        if memory is not login.source.callers and memory.workers is not None:
            memory.workers.close()
    login.facts = replace(login.facts, caller=caller)


def _own_memory(conf: SlurmConf) -> CallerMemory:
    """Memory of a one-shot login. The child that speaks to munged starts early: it loads libmunge meanwhile."""
    memory = CallerMemory()
    memory.workers = MungeWorkers()
    if conf.auth_type == "auth/munge":
        memory.workers.prepare()
    return memory
