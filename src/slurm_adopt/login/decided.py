# SPDX-License-Identifier: Apache-2.0
"""A decided login as the books want it (`observe.notes.Decided`)."""

from __future__ import annotations

import time

from ..observe.notes import Decided
from .recorded import encode_facts
from .reply import security_event

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .answer import Answer


def decided_of(answer: Answer, seconds: float) -> Decided:
    """Return the record of an answer for metrics and audit; `seconds` is how long it took."""
    facts, verdict = answer.facts, answer.verdict
    carrier = answer.processes[0] if answer.processes else None
    return Decided(
        time.time(),
        seconds,
        answer.nodename,
        facts.phase,
        facts.user,
        facts.uid,
        facts.source,
        facts.service,
        facts.caller.status,
        security_event(facts),
        verdict.action,
        verdict.reason,
        verdict.job_id,
        verdict.chosen,
        carrier.pid if carrier else 0,
        carrier.started if carrier else 0,
        tuple(f"{attempt.job_id}:{attempt.failure}" for attempt in facts.attempts if attempt.failure),
        answer.auth,
        encode_facts(facts),
        answer.args,
        answer.strict,
        answer.enforce,
    )
