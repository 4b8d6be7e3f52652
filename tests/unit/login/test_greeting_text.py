# SPDX-License-Identifier: Apache-2.0
"""The line for the user of an interactive session."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from slurm_adopt.login.session.greeting import greeting
from slurm_adopt.model import CHOICES, Facts, StepFact, Verdict
from slurm_adopt.wire.fields import TEXT_CAP

if TYPE_CHECKING:
    from slurm_adopt.model import Chosen


SESSION = Facts("open_session", "sshd", "alice", 1501)


def facts(*jobs: int, chosen: Chosen = "") -> Facts:
    steps = tuple(StepFact(job, "running", (job, 0, job)) for job in jobs)
    return Facts("open_session", "sshd", "alice", 1501, steps=steps, account_chosen=chosen)


VERIFIED = Verdict("allow", "session-verified", 7, "account")


@pytest.mark.parametrize(
    ("known", "verdict", "left_s", "text"),
    [
        (facts(7), VERIFIED, None, "slurm-adopt: you are in job 7, your only job on this node."),
        (facts(7), VERIFIED, 11_520, "slurm-adopt: you are in job 7, your only job on this node. It ends in 3 h 12 min."),
        (facts(7), VERIFIED, -3, "slurm-adopt: you are in job 7, your only job on this node. Its time is up."),
        (
            facts(5, 6, 7, chosen="newest"),
            VERIFIED,
            None,
            "slurm-adopt: you are in job 7, the newest of your 3 jobs on this node (also here: 5, 6).",
        ),
        (facts(7, 8, chosen="caller"), VERIFIED, None, "slurm-adopt: you are in job 7, the job you come from (also here: 8)."),
        (
            facts(7, 8, chosen="preferred"),
            VERIFIED,
            None,
            "slurm-adopt: you are in job 7, the job you have chosen (also here: 8).",
        ),
        (facts(7, 8), VERIFIED, None, "slurm-adopt: you are in job 7, one of your 2 jobs on this node (also here: 8)."),
        (
            facts(7, 8, chosen="caller"),
            Verdict("allow", "session-readopted", 7, "newest"),
            None,
            "slurm-adopt: you are in job 7, the newest of your 2 jobs on this node (also here: 8).",
        ),
        (
            facts(7, 8),
            Verdict("allow", "unknown-allowed"),
            None,
            "slurm-adopt: this session is in none of your 2 jobs on this node.",
        ),
        (facts(), Verdict("ignore", "session-not-ours"), None, ""),
        (facts(7), Verdict("deny", "adopt-failed"), None, ""),
    ],
)  # fmt: skip
def test_greeting__words(known: Facts, verdict: Verdict, left_s: float | None, text: str) -> None:
    assert greeting(known, verdict, left_s, {}) == text


def test_greeting__calls_jobs_as_squeue_does() -> None:
    text = greeting(facts(5, 6, 7, chosen="newest"), VERIFIED, None, {7: "5_11", 6: "6+1"})
    assert text == (
        "slurm-adopt: you are in job 5_11 (7), the newest of your 3 jobs on this node (also here: 5, 6+1 (6))."
    )


def test_greeting__fits_a_line_whatever_the_number_of_jobs() -> None:
    many = facts(*range(4_000_000_000, 4_000_000_300), chosen="newest")
    text = greeting(many, Verdict("allow", "session-verified", 4_000_000_299, "account"), 86400 * 299, {})
    assert len(text) < TEXT_CAP
    assert "and 291 more" in text
    names = {job: f"{job}_4000000000" for job in range(4_000_000_000, 4_000_000_300)}
    text = greeting(many, Verdict("allow", "session-verified", 4_000_000_299, "account"), 86400 * 299, names)
    assert len(text) < TEXT_CAP


@pytest.mark.parametrize("chosen", [choice for choice in CHOICES if choice not in ("only", "account")])
def test_greeting__every_choice_has_words(chosen: Chosen) -> None:
    assert "one of your" not in greeting(facts(7, 8, chosen=chosen), VERIFIED, None, {})
