# SPDX-License-Identifier: Apache-2.0
"""The decision: from facts and options to the next step or the verdict.

`decide()` is called again after each step with the facts that the step added, until it returns a `Verdict`.
So every login can be replayed from its recorded facts alone.

Rules of this file:
1. Pure: no I/O, no clock, no environment, no state. The same facts give the same answer.
2. An adoption counts only with the kernel's confirmation: that is what an `Attempt` without `failure` says. One that is
   deferred admits nobody: the session phase, which follows for certain, has to confirm it.
3. Nobody is adopted into a job that is not among the user's own steps, whatever anyone else says.
4. uid 0 is never refused.
"""

from __future__ import annotations

from .model import (
    ACCOUNT,
    ASKED,
    CALLER,
    ENDING,
    HELD,
    NEWEST,
    ONLY,
    OWED,
    PREFERRED,
    RUNNING,
    STEP_ENDING,
    STEP_GONE,
    STEP_SUSPENDED,
    SUSPENDED,
    Adopt,
    AskCaller,
    AwaitStart,
    AwaitStep,
    Facts,
    HoldManager,
    StepFact,
    Verdict,
)
from .record import replace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Union

    from .model import ReasonCode
    from .options.parse import Options

    Decision = Union[Adopt, AskCaller, AwaitStart, AwaitStep, HoldManager, Verdict]

#: Faults after which the node may still be said to have no jobs, as the original does: nothing ever ran here.
NO_JOB_FAULTS = ("spool-dir-missing",)
#: Faults that somebody else than root can bring about to get in, or that hide the jobs of a node which has some. The
#: default of action_generic_failure is for a node on which Slurm cannot be asked; for these it has to be said.
UNSAFE_FAULTS = ("slurm-conf-untrusted", "slurm-conf-lost", "spool-dir-untrusted")
#: A job that ended while we tried is no failure to adopt: there is just nothing left to adopt into.
ENDED = (STEP_GONE, STEP_ENDING, STEP_SUSPENDED)


def decide(facts: Facts, options: Options) -> Decision:
    """The next step of this login, or its verdict."""
    decision: Decision | None = _exempt(facts)
    if decision is None:
        decision = (_decide_session if facts.phase == "open_session" else _decide_account)(facts, options)
    if facts.uid == 0 and isinstance(decision, Verdict) and decision.action != "allow":
        return Verdict("ignore", "root")
    return decision


def _exempt(facts: Facts) -> Verdict | None:
    """Whoever let this login in has to answer for it, whatever jobs its user has."""
    if facts.phase == "open_session" and facts.account_phase not in (ASKED, OWED):
        return Verdict("ignore", "session-exempt")
    return Verdict("allow", "exempt") if facts.exempt else None


def next_step(facts: Facts, options: Options) -> Decision:
    """`decide`, as far as `enforce=` lets it go: with `no` the login ends where something would be changed.

    Questions and waiting change nothing, and without them it would not be known what the line would do.
    """
    decision = decide(facts, options)
    if options.enforce != "no":
        return decision
    if isinstance(decision, HoldManager):
        decision = decide(facts, replace(options, user_manager="keep"))
    if isinstance(decision, Adopt):
        return Verdict("allow", "would-adopt", decision.job_id, decision.chosen)
    return decision


def _decide_account(facts: Facts, options: Options) -> Decision:
    if facts.fault in NO_JOB_FAULTS:
        return Verdict(options.action_no_jobs, facts.fault)
    if facts.fault:
        return _no_facts(facts, options)
    adopted = _adopted(facts)
    if adopted is not None:
        return adopted
    usable = newest_first(facts)
    if not usable and not facts.attempts:
        reason = _why_no_job(facts)
        if reason == "job-starting" and options.prolog_wait_s > 0 and facts.waited_ms < 0:
            return AwaitStart()
        return Verdict(options.action_no_jobs, reason)
    left = _untried(facts, usable)
    # a job whose slurmstepd has not answered may be the user's, and the one that the login comes from
    if len(usable) > 1 or (usable and facts.unanswered) or not options.single_job_skip_rpc:
        return _decide_with_caller(facts, options, usable, left)
    if left:
        return Adopt(left[0].job_id, ONLY)
    return _no_adoption(facts, options)


def _no_facts(facts: Facts, options: Options) -> Verdict:
    """Nothing is known of the node's jobs."""
    if facts.fault in UNSAFE_FAULTS and not facts.is_own_fault and not options.is_generic_failure_set:
        return Verdict("deny", facts.fault)
    return Verdict(options.action_generic_failure, facts.fault)


def _decide_with_caller(
    facts: Facts, options: Options, usable: tuple[StepFact, ...], left: tuple[StepFact, ...]
) -> Decision:
    if facts.caller.status == "not-asked":
        return AskCaller()
    if facts.caller.status == "found" and any(step.job_id == facts.caller.job_id for step in left):
        return Adopt(facts.caller.job_id, CALLER)
    if facts.caller.status == "found" and _is_worth_waiting(facts, facts.caller.job_id):
        return AwaitStep(facts.caller.job_id)
    if len(usable) == 1:
        # caller ID was asked for, but there is only one job that takes logins and that it could have named
        return Adopt(left[0].job_id, ONLY) if left else _no_adoption(facts, options)
    if options.action_unknown == "deny":
        return Verdict("deny", "unknown-denied")
    if options.action_unknown == "allow":
        return Verdict("allow", "unknown-allowed")
    if options.action_unknown == "preferred" and any(step.job_id == facts.preferred for step in left):
        return Adopt(facts.preferred, PREFERRED)
    return Adopt(left[0].job_id, NEWEST) if left else _no_adoption(facts, options)


def _decide_session(facts: Facts, options: Options) -> Decision:
    decision = _decide_membership(facts, options)
    free = options.user_manager == "keep" or facts.uid == 0
    if free or not isinstance(decision, Verdict) or decision.action != "allow" or not decision.job_id:
        return decision
    if facts.user_manager == HELD:
        return decision
    if not facts.user_manager:
        return HoldManager()
    return Verdict("deny", facts.user_manager) if options.action_adopt_failure == "deny" else decision


def _decide_membership(facts: Facts, options: Options) -> Decision:
    if facts.fault and facts.fault not in NO_JOB_FAULTS:
        # first of all: a session that is in the job may have failed at its namespaces, which it lacks then
        return _no_facts(facts, options)
    if facts.member_of and not facts.attempts:
        return Verdict("allow", "session-verified", facts.member_of, ACCOUNT)
    adopted = _adopted(facts)
    if adopted is not None:
        return Verdict("allow", "session-readopted", adopted.job_id, adopted.chosen)
    if facts.account_job:
        return _decide_account_job(facts, options)
    if not facts.fault and not facts.attempts and not newest_first(facts):
        if facts.account_phase == OWED:
            return Verdict(options.action_no_jobs, _why_no_job(facts))
        # the account stack let somebody in who has no job here: that was its decision
        return Verdict("ignore", "session-not-ours")
    return _decide_account(facts, options)


def _decide_account_job(facts: Facts, options: Options) -> Decision:
    """The account phase chose this job; the session belongs there and nowhere else."""
    if any(attempt.job_id == facts.account_job for attempt in facts.attempts):
        return _no_adoption(facts, options)
    states = [step.state for step in facts.steps if step.job_id == facts.account_job]
    if states and states[0] not in (ENDING, SUSPENDED):
        return Adopt(facts.account_job, ACCOUNT)
    if _is_worth_waiting(facts, facts.account_job):
        return AwaitStep(facts.account_job)
    reason: ReasonCode = "job-suspended" if SUSPENDED in states else "job-ending"
    if facts.unanswered:
        reason = "steps-unresponsive"
    # action_no_jobs=ignore is for users without a job; SLURM_JOB_ID may also come from ~/.pam_environment
    return Verdict("deny" if newest_first(facts) else options.action_no_jobs, reason)


def _is_worth_waiting(facts: Facts, job_id: int) -> bool:
    """Whether the slurmstepd of this job has not answered, and was not given more time yet."""
    return job_id in facts.unanswered_jobs and facts.awaited_job != job_id


def _adopted(facts: Facts) -> Verdict | None:
    for attempt in facts.attempts:
        if not attempt.failure:
            reason: ReasonCode = "adopt-deferred" if attempt.deferred else "adopted"
            return Verdict("allow", reason, attempt.job_id, attempt.chosen)
    return None


def _no_adoption(facts: Facts, options: Options) -> Verdict:
    if all(attempt.failure in ENDED for attempt in facts.attempts):
        suspended = any(attempt.failure == STEP_SUSPENDED for attempt in facts.attempts)
        return Verdict(options.action_no_jobs, "job-suspended" if suspended else "job-ending")
    if options.action_adopt_failure == "allow":
        return Verdict("allow", "adopt-failed-allowed")
    return Verdict("deny", "adopt-failed")


def _why_no_job(facts: Facts) -> ReasonCode:
    states = {step.state for step in facts.steps}
    if facts.unanswered:
        return "steps-unresponsive"
    if states - {ENDING, SUSPENDED} or facts.prologs:
        return "job-starting"
    if SUSPENDED in states:
        return "job-suspended"
    return "job-ending" if states else "no-job"


def newest_first(facts: Facts) -> tuple[StepFact, ...]:
    """The user's steps that can take a login, the one that started last first."""
    usable = [step for step in facts.steps if step.state == RUNNING]
    return tuple(sorted(usable, key=lambda step: step.started, reverse=True))


def _untried(facts: Facts, steps: tuple[StepFact, ...]) -> tuple[StepFact, ...]:
    if not facts.attempts:
        return steps
    tried = {attempt.job_id for attempt in facts.attempts}
    return tuple(step for step in steps if step.job_id not in tried)
