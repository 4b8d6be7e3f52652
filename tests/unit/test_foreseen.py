# SPDX-License-Identifier: Apache-2.0
"""An answer that was prepared while slurmstepd worked is used if everything came so, and never otherwise."""

from __future__ import annotations

import time
from dataclasses import dataclass

import pytest
from tests.process import me

from slurm_adopt.login.decide import Login
from slurm_adopt.login.helper import encode_answer
from slurm_adopt.login.steps import Scan
from slurm_adopt.model import NEWEST, ONLY, RUNNING, Adopt, Attempt, StepFact, Verdict
from slurm_adopt.record import replace
from slurm_adopt.wire.login_exchange import LoginRequest, decode_reply

JOB = 4711
ADOPT = Adopt(JOB, ONLY)


def login(phase: str = "account", *args: str) -> Login:
    """A login of alice, whose one job is running."""
    request = LoginRequest(phase, time.monotonic_ns() + 10**10, "sshd", "alice", 1501, args=args)
    attempted = Login(request, me(), Scan())
    attempted.facts = replace(attempted.facts, steps=(StepFact(JOB, RUNNING, (1, 1, JOB)),))
    return attempted


def adopted(attempted: Login) -> Verdict:
    """The step has taken the login in."""
    assert attempted.foreseen is not None
    attempted.facts = attempted.foreseen.facts
    attempted.env = (("SLURM_JOB_ID", str(JOB)),)
    verdict = attempted.decide()
    assert isinstance(verdict, Verdict)
    return verdict


def test_foreseen__is_what_would_have_been_composed() -> None:
    attempted, other = login(), login()
    attempted.foresee(ADOPT)
    answer = attempted.answer(adopted(attempted))
    other.facts = replace(other.facts, attempts=(Attempt(JOB, ONLY),))
    other.env = (("SLURM_JOB_ID", str(JOB)),)
    verdict = other.decide()
    assert isinstance(verdict, Verdict)
    composed = other.answer(verdict)
    assert answer.packet
    assert not composed.packet
    assert (answer.verdict, answer.reply, answer.facts) == (composed.verdict, composed.reply, composed.facts)
    assert encode_answer(answer) == encode_answer(composed)


@dataclass
class Change:
    """Something that the job gave, or that happened, and nobody could foresee."""

    name: str
    env: tuple[tuple[str, str], ...] = (("SLURM_JOB_ID", str(JOB)),)
    remark: str = ""
    detail: str = ""
    shown: str = ""


CHANGES = [
    Change("x11", env=(("SLURM_JOB_ID", str(JOB)), ("DISPLAY", "localhost:77.0")), shown="localhost:77.0"),
    Change("remark", remark="limits: nofile not set", shown="nofile not set"),
    Change("detail", detail="the index was rebuilt", shown="index was rebuilt"),
]


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.name)
def test_foreseen__is_not_used_when_there_is_more_to_say(change: Change) -> None:
    attempted = login()
    attempted.foresee(ADOPT)
    verdict = adopted(attempted)
    attempted.env, attempted.remark = change.env, change.remark
    answer = attempted.answer(verdict, change.detail)
    assert not answer.packet
    reply = decode_reply(encode_answer(answer))
    assert reply.env == change.env
    assert change.shown in f"{reply.log} {reply.env}"


def test_foreseen__a_failed_attempt_is_decided_anew() -> None:
    attempted = login()
    attempted.foresee(ADOPT)
    attempted.facts = replace(attempted.facts, attempts=(Attempt(JOB, ONLY, "adopt-unconfirmed"),))
    verdict = attempted.decide()
    assert isinstance(verdict, Verdict)
    assert (verdict.action, verdict.reason) == ("allow", "adopt-failed-allowed")
    assert attempted.answer(verdict).reply.reason == "adopt-failed-allowed"


def test_foreseen__belongs_to_the_last_attempt() -> None:
    attempted = login()
    attempted.facts = replace(attempted.facts, steps=(*attempted.facts.steps, StepFact(4712, RUNNING, (2, 2, 4712))))
    attempted.foresee(Adopt(4712, NEWEST))
    attempted.facts = replace(attempted.facts, attempts=(Attempt(4712, NEWEST, "step-closed"),))
    attempted.foresee(Adopt(JOB, NEWEST))
    verdict = adopted(attempted)
    assert verdict.job_id == JOB
    reply = attempted.answer(verdict).reply
    assert reply.env == (("SLURM_JOB_ID", str(JOB)),)
    assert "4712:step-closed" in reply.log


def test_foreseen__only_in_the_account_phase() -> None:
    attempted = login("open_session")
    attempted.foresee(ADOPT)
    assert attempted.foreseen is None


def test_foreseen__with_a_greeting_the_session_phase_learns_how_the_job_was_chosen() -> None:
    attempted = login("account", "greeting=on")
    attempted.foresee(ADOPT)
    answer = attempted.answer(adopted(attempted))
    assert answer.packet
    assert ("SLURM_ADOPT_CHOSEN", ONLY) in answer.reply.env
