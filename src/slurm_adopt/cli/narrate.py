# SPDX-License-Identifier: Apache-2.0
"""A login told step by step, each step with the fact that it used: for `explain`, now and of a recorded login.

Rules of this file:
1. Pure words: facts, options and decisions in, sentences out. The decisions are those of `policy`.
"""

from __future__ import annotations

from ..model import REASONS, Adopt, AskCaller, AwaitStart, AwaitStep, CallerFact, HoldManager, Verdict
from ..policy import next_step
from ..record import record, replace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from ..model import Facts
    from ..options.parse import Options

#: More steps than any decision has.
STEP_CAP = 20
CHOSEN = {
    "only": "the user's only job here that takes logins",
    "caller": "the job that the login comes from",
    "preferred": "the job that the user has chosen",
    "newest": "the one of the user's jobs here that started last",
    "account": "the job of the account phase",
}


@record
class Step:
    """One step: what is looked at or done, and the fact."""

    step: str
    fact: str


def tell_facts(facts: Facts) -> Iterator[Step]:
    """What was found on the node before anything was decided."""
    if facts.fault:
        yield Step("facts", f"{facts.fault}: {REASONS[facts.fault].meaning}")
        return
    for known in sorted(facts.steps, key=lambda step: step.started, reverse=True):
        yield Step("job", f"job {known.job_id} of {facts.user} is here, and {known.state}")
    for code in sorted(set(facts.unanswered)):
        yield Step("job", f"{facts.unanswered.count(code)} slurmstepd cannot be asked whose it is: {code}")
    for job_id in facts.prologs:
        yield Step("job", f"job {job_id} of {facts.user} is in its prolog here")
    if not facts.steps and not facts.unanswered and not facts.prologs:
        yield Step("job", f"no slurmstepd on this node works for a job of {facts.user}")
    if facts.phase == "open_session":
        told = f"in job {facts.member_of}, as the kernel shows" if facts.member_of else "in none of the user's jobs"
        yield Step("session", f"the session is {told}")
        if facts.account_job:
            yield Step("session", f"the account phase chose job {facts.account_job}")
    if facts.preferred:
        yield Step("job", f"the user has chosen job {facts.preferred} with `slurm-adopt use`")


def tell_decision(facts: Facts, options: Options) -> tuple[list[Step], Verdict | None]:
    """Each step of the decision, from the facts of a login that is over, and its verdict.

    None for a verdict: the decision goes another way than that login did, and asks for what was never found out.
    """
    steps: list[Step] = []
    known = replace(facts, caller=CallerFact(), attempts=(), waited_ms=-1, awaited_job=0, user_manager="")
    for _ in range(STEP_CAP):
        decision = next_step(known, options)
        if isinstance(decision, Verdict):
            return [*steps, tell_verdict(decision)], decision
        if isinstance(decision, AskCaller):
            known = replace(known, caller=facts.caller)
            steps.append(tell_caller(facts.caller))
            if facts.caller.status == "not-asked":
                break
        elif isinstance(decision, AwaitStart):
            known = replace(known, waited_ms=max(facts.waited_ms, 0))
            steps.append(Step("wait", f"the login waited {known.waited_ms} ms for the job to start"))
        elif isinstance(decision, AwaitStep):
            known = replace(known, awaited_job=decision.job_id)
            steps.append(tell_wait(decision))
        elif isinstance(decision, HoldManager):
            known = replace(known, user_manager=facts.user_manager)
            steps.append(Step("manager", f"user_manager={options.user_manager}: {facts.user_manager or 'not done'}"))
            if not facts.user_manager:
                break
        else:
            done = len(known.attempts)
            known = replace(known, attempts=facts.attempts[: done + 1])
            tried = known.attempts[-1] if len(known.attempts) > done else None
            if tried is None or tried.job_id != decision.job_id:
                steps.append(Step("adopt", f"into job {decision.job_id}: that login did not try it"))
                break
            outcome = f"failed: {tried.failure}" if tried.failure else "the kernel confirms it"
            outcome = "left to the session phase" if tried.deferred else outcome
            chosen = CHOSEN.get(tried.chosen, tried.chosen)
            steps.append(Step("adopt", f"into job {tried.job_id}, {chosen}: {outcome}"))
    return steps, None


def tell_caller(caller: CallerFact) -> Step:
    """What network caller ID found."""
    source = caller.source or "an unknown address"
    if caller.status == "found":
        return Step("caller ID", f"the login comes from {source}, from job {caller.job_id}")
    meaning = REASONS[caller.status].meaning if caller.status in REASONS else "it names no job"
    why = f" ({caller.detail})" if caller.detail else ""
    return Step("caller ID", f"the login comes from {source}: {caller.status}: {meaning}{why}")


def tell_wait(decision: AwaitStep) -> Step:
    """A job that did not answer with the others."""
    return Step("wait", f"slurmstepd of job {decision.job_id} had not answered: it got half of the time that was left")


def tell_adoption(decision: Adopt) -> Step:
    """What would be done; it is not known whether it succeeds."""
    chosen = CHOSEN.get(decision.chosen, decision.chosen)
    return Step(
        "adopt",
        f"slurmstepd of job {decision.job_id} is asked to take the login in ({chosen}). Not tried here: "
        f"`slurm-adopt doctor --try-job {decision.job_id}` does it with a process of its own",
    )


def tell_verdict(verdict: Verdict) -> Step:
    """The end."""
    job = f" into job {verdict.job_id}" if verdict.job_id else ""
    return Step("verdict", f"{verdict.action}{job}: {verdict.reason}: {REASONS[verdict.reason].meaning}")
