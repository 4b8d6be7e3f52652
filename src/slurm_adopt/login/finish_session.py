# SPDX-License-Identifier: Apache-2.0
"""The end of a session phase: what a verified session still gets from its job, and when the job ends."""

from __future__ import annotations

from ..model import Attempt, Verdict
from ..policy import decide
from ..record import replace
from ..system.slurm.stepd import StepFault, query_extras
from .adopt import collect, wanted_extras
from .answer import answer

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..system.tasks.task import Task
    from .answer import Answer
    from .state import Login


def finish_session(login: Login, verdict: Verdict, detail: str) -> Task[Answer]:
    """The answer of a session phase."""
    if verdict.reason == "session-verified":
        step = login.found.of_job(verdict.job_id)
        assert step is not None, "the session was found in one of the user's own steps"
        step.connection.deadline_ns = login.deadline_ns  # until now it was the grace of the search
        try:
            extras = yield from query_extras(step.connection, *wanted_extras(login))
            yield from collect(login, verdict.job_id, login.find_processes(), extras)
        except StepFault as fault:
            login.release()
            attempt = Attempt(verdict.job_id, verdict.chosen, fault.reason, str(fault))
            login.facts = replace(login.facts, attempts=(*login.facts.attempts, attempt), member_of=0)
            again = decide(login.facts, login.options)
            assert isinstance(again, Verdict), "the only job of a verified session was tried"
            return answer(login, again, detail)
    if login.options.greeting:
        login.end_s = yield from _find_end(login, verdict)
        login.names = _find_names(login)
    return answer(login, verdict, detail)


def _find_end(login: Login, verdict: Verdict) -> Task[int]:
    from ..system.slurm.job_end import query_job_end

    step = login.found.of_job(verdict.job_id)
    identity = step.connection.identity if step is not None else None
    if identity is None:
        return 0
    return (yield from query_job_end(verdict.job_id, identity, login.request.uid, login.deadline_ns))


def _find_names(login: Login) -> dict[int, str]:
    from ..system.slurm.job_names import read_names

    return read_names(login.found.stepds())
