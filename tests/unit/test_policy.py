# SPDX-License-Identifier: Apache-2.0
"""The decision, case by case and as properties."""

from __future__ import annotations

from typing import TYPE_CHECKING, Union

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slurm_adopt.model import (
    REASONS,
    Adopt,
    AskCaller,
    Attempt,
    AwaitStart,
    AwaitStep,
    CallerFact,
    Facts,
    HoldManager,
    StepFact,
    Verdict,
)
from slurm_adopt.options.parse import Options, parse_options
from slurm_adopt.policy import decide, newest_first, next_step
from slurm_adopt.record import replace

if TYPE_CHECKING:
    from slurm_adopt.model import AccountPhase, Phase, ReasonCode, State


Decision = Union[Adopt, AskCaller, AwaitStart, AwaitStep, HoldManager, Verdict]


def step(job_id: int, started: int = 0, state: State = "running") -> StepFact:
    return StepFact(job_id, state, (started or job_id, 0, job_id))


def facts(*steps: StepFact, phase: Phase = "account", uid: int = 1501, **more: object) -> Facts:
    return replace(Facts(phase, "sshd", "alice", uid), steps=steps, **more)


FOUND = CallerFact("found", 7, "10.0.0.1")
UNKNOWN = CallerFact("unknown", 0, "10.0.0.1")
ONE, TWO = step(7), (step(7), step(9))
VERIFIED = facts(ONE, phase="open_session", account_job=7, member_of=7)
VERIFIED_VERDICT = Verdict("allow", "session-verified", 7, "account")
ADOPTED, NOT_OURS = Verdict("allow", "adopted", 7, "only"), Verdict("ignore", "session-not-ours")
#: The user's job 9 has answered, the slurmstepd of job 7 has not.
DOUBT = facts(step(9), unanswered=("step-silent",), unanswered_jobs=(7,))
FAILED: ReasonCode = "user-manager-failed"

CASES: list[tuple[str, str, Facts, Decision]] = [
    ("no job: refused", "", facts(), Verdict("deny", "no-job")),
    ("no job, ignore", "action_no_jobs=ignore", facts(), Verdict("ignore", "no-job")),
    ("one job: adopted without asking", "", facts(ONE), Adopt(7, "only")),
    ("one job, asked", "single_job_skip_rpc=0", facts(ONE), AskCaller()),
    (
        "one job, asked, unknown",
        "single_job_skip_rpc=0 action_unknown=deny",
        facts(ONE, caller=UNKNOWN),
        Adopt(7, "only"),
    ),
    ("several jobs: asked", "", facts(*TWO), AskCaller()),
    ("several, found", "", facts(*TWO, caller=FOUND), Adopt(7, "caller")),
    ("several, unknown: the newest", "", facts(*TWO, caller=UNKNOWN), Adopt(9, "newest")),
    ("several, unknown, deny", "action_unknown=deny", facts(*TWO, caller=UNKNOWN), Verdict("deny", "unknown-denied")),
    (
        "several, unknown, allow",
        "action_unknown=allow",
        facts(*TWO, caller=UNKNOWN),
        Verdict("allow", "unknown-allowed"),
    ),
    (
        "the preference, else the newest",
        "action_unknown=preferred",
        facts(*TWO, caller=UNKNOWN, preferred=7),
        Adopt(7, "preferred"),
    ),
    ("no preference", "action_unknown=preferred", facts(*TWO, caller=UNKNOWN), Adopt(9, "newest")),
    (
        "a preference for a job that is gone",
        "action_unknown=preferred",
        facts(*TWO, caller=UNKNOWN, preferred=8),
        Adopt(9, "newest"),
    ),
    (
        "the job one comes from is stronger than a preference",
        "action_unknown=preferred",
        facts(*TWO, caller=FOUND, preferred=9),
        Adopt(7, "caller"),
    ),
    (
        "a preference counts only where the site says so",
        "",
        facts(*TWO, caller=UNKNOWN, preferred=7),
        Adopt(9, "newest"),
    ),
    (
        "a preferred job that is starting is not waited for",
        "action_unknown=preferred",
        facts(step(7), step(8, state="starting"), step(9), caller=UNKNOWN, preferred=8),
        Adopt(9, "newest"),
    ),
    (
        "the preferred job fails: the newest of the others",
        "action_unknown=preferred",
        facts(*TWO, caller=UNKNOWN, preferred=7, attempts=(Attempt(7, "preferred", "step-gone"),)),
        Adopt(9, "newest"),
    ),
    ("newest is by start, not by id", "", facts(step(9, 1), step(7, 2), caller=UNKNOWN), Adopt(7, "newest")),
    ("a foreign job is never adopted into", "", facts(*TWO, caller=CallerFact("found", 99)), Adopt(9, "newest")),
    ("adopted", "", facts(ONE, attempts=(Attempt(7, "only"),)), Verdict("allow", "adopted", 7, "only")),
    (
        "left to the session phase",
        "",
        facts(ONE, attempts=(Attempt(7, "only", deferred=True),)),
        Verdict("allow", "adopt-deferred", 7, "only"),
    ),
    ("only job suspended", "", facts(step(7, state="suspended")), Verdict("deny", "job-suspended")),
    (
        "only job suspended while it adopted",
        "",
        facts(ONE, attempts=(Attempt(7, "only", "step-suspended"),)),
        Verdict("deny", "job-suspended"),
    ),
    (
        "the session's job is suspended",
        "action_no_jobs=ignore",
        facts(step(7, state="suspended"), phase="open_session", account_job=7),
        Verdict("ignore", "job-suspended"),
    ),
    (
        "the session's job does not answer",
        "action_no_jobs=ignore",
        facts(phase="open_session", account_job=7, unanswered=("step-silent",)),
        Verdict("ignore", "steps-unresponsive"),
    ),
    (
        "a session that is let in without a job leaves the user manager alone",
        "user_manager=refuse action_unknown=allow",
        facts(*TWO, phase="open_session", caller=UNKNOWN),
        Verdict("allow", "unknown-allowed"),
    ),
    (
        "only job fails",
        "",
        facts(ONE, attempts=(Attempt(7, "only", "adopt-refused"),)),
        Verdict("allow", "adopt-failed-allowed"),
    ),
    (
        "only job fails, deny",
        "action_adopt_failure=deny",
        facts(ONE, attempts=(Attempt(7, "only", "adopt-unconfirmed"),)),
        Verdict("deny", "adopt-failed"),
    ),
    (
        "the only job ended meanwhile: no failure to adopt, but no job",
        "",
        facts(ONE, attempts=(Attempt(7, "only", "step-ending"),)),
        Verdict("deny", "job-ending"),
    ),
    (
        "caller's job fails: the unknown path comes first",
        "action_adopt_failure=deny",
        facts(*TWO, caller=FOUND, attempts=(Attempt(7, "caller", "adopt-refused"),)),
        Adopt(9, "newest"),
    ),
    (
        "all fail",
        "action_adopt_failure=deny",
        facts(*TWO, caller=UNKNOWN, attempts=(Attempt(9, "newest", "step-silent"), Attempt(7, "newest", "step-gone"))),
        Verdict("deny", "adopt-failed"),
    ),
    ("ending job only", "", facts(step(7, state="ending")), Verdict("deny", "job-ending")),
    ("starting job only: waited for", "", facts(step(7, state="starting")), AwaitStart()),
    ("only a prolog: waited for", "", facts(prologs=(7,)), AwaitStart()),
    ("waited in vain", "", facts(prologs=(7,), waited_ms=2000), Verdict("deny", "job-starting")),
    ("a wait of less than a second", "prolog_wait=0.5", facts(prologs=(7,)), AwaitStart()),
    ("waited for nothing, and not once more", "", facts(prologs=(7,), waited_ms=0), Verdict("deny", "job-starting")),
    ("waited until it was gone", "", facts(waited_ms=2000), Verdict("deny", "no-job")),
    ("waited with success", "", facts(ONE, waited_ms=2000), Adopt(7, "only")),
    ("starting, not to be waited for", "prolog_wait=0", facts(prologs=(7,)), Verdict("deny", "job-starting")),
    ("one is ready: nobody waits for the other", "", facts(ONE, prologs=(9,)), Adopt(7, "only")),
    ("ending and running", "", facts(step(7, state="ending"), step(9)), Adopt(9, "only")),
    ("silent steps, none known", "", facts(unanswered=("step-silent",)), Verdict("deny", "steps-unresponsive")),
    ("one job answers, another one's owner is not known: asked", "", DOUBT, AskCaller()),
    ("the login comes from the silent job", "", replace(DOUBT, caller=FOUND), AwaitStep(7)),
    ("it is silent to the end", "", replace(DOUBT, caller=FOUND, awaited_job=7), Adopt(9, "only")),
    ("it has answered at last", "", facts(*TWO, caller=FOUND, awaited_job=7), Adopt(7, "caller")),
    ("the login comes from elsewhere", "", replace(DOUBT, caller=CallerFact("found", 5)), Adopt(9, "only")),
    ("silent steps of others do not matter", "action_unknown=deny", replace(DOUBT, caller=UNKNOWN), Adopt(9, "only")),
    (
        "several answer, and the login comes from one that does not",
        "",
        replace(DOUBT, steps=(step(8), step(9)), caller=FOUND),
        AwaitStep(7),
    ),
    (
        "the session's job has not answered",
        "",
        replace(DOUBT, phase="open_session", account_job=7),
        AwaitStep(7),
    ),
    (
        "the session's job is silent to the end",
        "",
        replace(DOUBT, phase="open_session", account_job=7, awaited_job=7),
        Verdict("deny", "steps-unresponsive"),
    ),
    ("no spool directory: no jobs", "", facts(fault="spool-dir-missing"), Verdict("deny", "spool-dir-missing")),
    ("no slurm.conf", "", facts(fault="slurm-conf-missing"), Verdict("ignore", "slurm-conf-missing")),
    (
        "no slurm.conf, strict",
        "profile=strict",
        facts(fault="slurm-conf-missing"),
        Verdict("deny", "slurm-conf-missing"),
    ),
    ("not to be trusted", "", facts(fault="slurm-conf-untrusted"), Verdict("deny", "slurm-conf-untrusted")),
    ("lost while slurmd runs", "", facts(fault="slurm-conf-lost"), Verdict("deny", "slurm-conf-lost")),
    ("spool not to be trusted", "", facts(fault="spool-dir-untrusted"), Verdict("deny", "spool-dir-untrusted")),
    (
        "not to be trusted, and the site has said what then",
        "action_generic_failure=ignore",
        facts(fault="spool-dir-untrusted"),
        Verdict("ignore", "spool-dir-untrusted"),
    ),
    (
        "SlurmUser's own",
        "",
        facts(fault="slurm-conf-untrusted", is_own_fault=True),
        Verdict("ignore", "slurm-conf-untrusted"),
    ),
    (
        "SlurmUser's own, strict",
        "profile=strict",
        facts(fault="slurm-conf-untrusted", is_own_fault=True),
        Verdict("deny", "slurm-conf-untrusted"),
    ),
    (
        "lost, session phase",
        "",
        facts(fault="slurm-conf-lost", phase="open_session"),
        Verdict("deny", "slurm-conf-lost"),
    ),
    ("a fault, allow", "action_generic_failure=allow", facts(fault="deadline"), Verdict("allow", "deadline")),
    ("root without a job", "ignore_root=0", facts(uid=0), Verdict("ignore", "root")),
    ("root with a job", "ignore_root=0", facts(ONE, uid=0), Adopt(7, "only")),
    (
        "root, fault, strict",
        "profile=strict ignore_root=0",
        facts(uid=0, fault="deadline"),
        Verdict("ignore", "root"),
    ),
    (
        "session in place",
        "",
        facts(ONE, phase="open_session", account_job=7, member_of=7),
        Verdict("allow", "session-verified", 7, "account"),
    ),
    (
        "session in the job, but what else belongs to the job failed: not let in without it",
        "profile=strict",
        facts(ONE, phase="open_session", account_job=7, member_of=7, fault="internal-error"),
        Verdict("deny", "internal-error"),
    ),
    (
        "session put back, but what else belongs to the job failed",
        "profile=strict",
        facts(ONE, phase="open_session", account_job=7, attempts=(Attempt(7, "account"),), fault="deadline"),
        Verdict("deny", "deadline"),
    ),
    ("session was moved", "", facts(*TWO, phase="open_session", account_job=7), Adopt(7, "account")),
    (
        "session put back",
        "",
        facts(*TWO, phase="open_session", account_job=7, attempts=(Attempt(7, "account"),)),
        Verdict("allow", "session-readopted", 7, "account"),
    ),
    (
        "session cannot be put back",
        "profile=strict",
        facts(*TWO, phase="open_session", account_job=7, attempts=(Attempt(7, "account", "adopt-unconfirmed"),)),
        Verdict("deny", "adopt-failed"),
    ),
    ("the account's job is gone", "", facts(ONE, phase="open_session", account_job=5), Verdict("deny", "job-ending")),
    (
        "the account's job is gone, the user has others: no way out of all jobs",
        "action_no_jobs=ignore",
        facts(ONE, phase="open_session", account_job=5),
        Verdict("deny", "job-ending"),
    ),
    (
        "session of somebody without a job",
        "",
        facts(phase="open_session"),
        Verdict("ignore", "session-not-ours"),
    ),
    ("session line alone", "", facts(ONE, phase="open_session"), Adopt(7, "only")),
    ("the user's manager is seen to", "user_manager=refuse", VERIFIED, HoldManager()),
    (
        "also after a session was put back",
        "user_manager=confine",
        facts(ONE, phase="open_session", account_job=7, attempts=(Attempt(7, "account"),)),
        HoldManager(),
    ),
    ("not before it is in the job", "user_manager=refuse", facts(ONE, phase="open_session"), Adopt(7, "only")),
    ("not in the account phase", "user_manager=refuse", facts(ONE, attempts=(Attempt(7, "only"),)), ADOPTED),
    ("not for those without a job", "user_manager=refuse", facts(phase="open_session"), NOT_OURS),
    ("held", "user_manager=refuse", replace(VERIFIED, user_manager="held"), VERIFIED_VERDICT),
    ("not held, allow", "user_manager=refuse", replace(VERIFIED, user_manager=FAILED), VERIFIED_VERDICT),
    (
        "not held, deny",
        "user_manager=refuse action_adopt_failure=deny",
        replace(VERIFIED, user_manager=FAILED),
        Verdict("deny", FAILED),
    ),
    (
        "root's manager is root's",
        "user_manager=refuse ignore_root=0",
        facts(ONE, phase="open_session", uid=0, account_job=7, member_of=7),
        VERIFIED_VERDICT,
    ),
]


@pytest.mark.parametrize(("line", "known", "expected"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_policy__case(line: str, known: Facts, expected: Decision) -> None:
    assert decide(known, parse_options(line.split())) == expected


states = st.sampled_from(["starting", "running", "ending"])
steps = st.lists(
    st.builds(step, st.integers(1, 5), st.integers(1, 3), states), max_size=4, unique_by=lambda s: s.job_id
)
callers = st.builds(CallerFact, st.sampled_from(["not-asked", "found", "unknown"]), st.integers(0, 6))
failures = st.sampled_from(["", "adopt-refused", "step-ending", "step-gone", "step-silent"])
attempts = st.lists(st.builds(Attempt, st.integers(1, 5), st.just("newest"), failures), max_size=3)
faults = st.sampled_from(["", "", "spool-dir-missing", "slurm-conf-missing", "deadline", "internal-error"])
some_facts = st.builds(
    Facts,
    phase=st.sampled_from(["account", "open_session"]),
    service=st.just("sshd"),
    user=st.just("alice"),
    uid=st.sampled_from([0, 1501]),
    fault=faults,
    steps=steps.map(tuple),
    unanswered=st.sampled_from([(), ("step-silent",)]),
    unanswered_jobs=st.sampled_from([(), (6,)]),
    caller=callers,
    attempts=attempts.map(tuple),
    account_job=st.integers(0, 6),
    member_of=st.integers(0, 6),
    user_manager=st.sampled_from(["", "held", "user-manager-failed"]),
)
lines = st.lists(
    st.sampled_from(
        [
            "profile=strict",
            "action_unknown=deny",
            "action_unknown=allow",
            "action_unknown=preferred",
            "action_no_jobs=ignore",
            "action_adopt_failure=deny",
            "action_generic_failure=allow",
            "single_job_skip_rpc=0",
            "user_manager=refuse",
        ]
    )
)


@given(some_facts, lines)
def test_policy__every_verdict_has_a_reason_of_the_table(known: Facts, line: list[str]) -> None:
    decision = decide(known, parse_options(line))
    if isinstance(decision, Verdict):
        assert decision.reason in REASONS
        assert decision.action in ("allow", "deny", "ignore")
        assert decision.action != "deny" or REASONS[decision.reason].user_text


@given(some_facts, lines)
def test_policy__only_own_untried_steps_are_adopted_into(known: Facts, line: list[str]) -> None:
    decision = decide(known, parse_options(line))
    if isinstance(decision, Adopt):
        assert decision.job_id in {s.job_id for s in known.steps if s.state != "ending"}
        assert decision.job_id not in {attempt.job_id for attempt in known.attempts}


@given(some_facts, lines)
def test_policy__root_is_never_refused(known: Facts, line: list[str]) -> None:
    decision = decide(replace(known, uid=0), parse_options(line))
    assert not isinstance(decision, Verdict) or decision.action != "deny"


@given(some_facts, lines)
def test_policy__strict_admits_nobody_without_a_job(known: Facts, line: list[str]) -> None:
    strict = parse_options([*line, "profile=strict", "action_unknown=newest"])
    decision = decide(replace(known, uid=1501), strict)
    if isinstance(decision, Verdict) and decision.action == "allow":
        assert decision.job_id


@given(some_facts, lines)
def test_policy__ends(known: Facts, line: list[str]) -> None:
    """Whatever fails, each step of the decision uses something up: it comes to a verdict."""
    options: Options = parse_options(line)
    for _ in range(20):
        decision = decide(known, options)
        if isinstance(decision, Verdict):
            return
        if isinstance(decision, AskCaller):
            known = replace(known, caller=UNKNOWN)
        elif isinstance(decision, AwaitStart):
            known = replace(known, waited_ms=2000)
        elif isinstance(decision, AwaitStep):
            assert known.awaited_job != decision.job_id
            known = replace(known, awaited_job=decision.job_id)
        elif isinstance(decision, HoldManager):
            known = replace(known, user_manager=FAILED)
        else:
            known = replace(known, attempts=(*known.attempts, Attempt(decision.job_id, decision.chosen, "step-silent")))
    pytest.fail("no verdict")


@given(some_facts, lines, st.sampled_from(["left", "skipped"]))
def test_policy__a_session_that_others_let_in_is_left_alone(known: Facts, line: list[str], phase: AccountPhase) -> None:
    """Whatever jobs the user has, and whatever is broken."""
    decision = decide(replace(known, phase="open_session", uid=1501, account_phase=phase), parse_options(line))
    assert decision == Verdict("ignore", "session-exempt")


@given(some_facts, lines)
def test_policy__a_session_that_is_owed_an_answer_gets_the_account_lines(known: Facts, line: list[str]) -> None:
    """Without a job it is refused; with one it goes there, or what fails counts as it does in the account phase."""
    options = parse_options([*line, "user_manager=keep"])
    known = replace(known, phase="open_session", uid=1501, account_phase="owed", account_job=0, member_of=0, exempt="")
    decision = decide(known, options)
    assert decision not in (Verdict("ignore", "session-not-ours"), Verdict("ignore", "session-exempt"))
    if not known.fault and not known.attempts and not newest_first(known):
        assert isinstance(decision, Verdict)
        assert decision.action == options.action_no_jobs
        asked = decide(replace(known, phase="account", waited_ms=0), options)
        assert decision == asked


@given(some_facts, lines)
def test_policy__the_exempt_are_neither_adopted_nor_refused(known: Facts, line: list[str]) -> None:
    decision = decide(replace(known, exempt="@ops"), parse_options(line))
    assert decision == Verdict("allow", "exempt")


@given(some_facts, lines)
def test_policy__enforce_changes_no_verdict(found: Facts, line: list[str]) -> None:
    """`yes` and `adopt` go the same way; `no` ends where something would be done, and never does anything."""
    options = parse_options(line)
    decision = decide(found, options)
    assert next_step(found, replace(options, enforce="yes")) == decision
    assert next_step(found, replace(options, enforce="adopt")) == decision
    observed = next_step(found, replace(options, enforce="no"))
    assert isinstance(observed, (Verdict, AskCaller, AwaitStart, AwaitStep))
    if isinstance(decision, (Verdict, AskCaller, AwaitStart, AwaitStep)):
        assert observed == decision
    elif isinstance(decision, Adopt):
        assert observed == Verdict("allow", "would-adopt", decision.job_id, decision.chosen)


def test_policy__enforce_no_says_what_would_be_done() -> None:
    options = parse_options(["enforce=no"])
    assert next_step(facts(ONE), options) == Verdict("allow", "would-adopt", 7, "only")
    assert next_step(facts(*TWO, caller=FOUND), options) == Verdict("allow", "would-adopt", 7, "caller")


def test_policy__enforce_no_leaves_the_user_manager_alone() -> None:
    options = parse_options(["user_manager=refuse", "enforce=no"])
    assert decide(VERIFIED, options) == HoldManager()
    assert next_step(VERIFIED, options) == VERIFIED_VERDICT
