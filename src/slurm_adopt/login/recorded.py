# SPDX-License-Identifier: Apache-2.0
"""The facts of a login as plain values, for the audit stream, and back: so that a decision can be made once more.

Rules of this file:
1. Pure. What is as it is by default is left out; what the event says anyway (user, uid, phase, ...) as well.
2. Words and numbers only, in lists and one table: the same in JSON and in a helper's note.
"""

from __future__ import annotations

from ..model import Attempt, CallerFact, Facts, StepFact

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

#: Fields that are words, numbers or lists of these.
PLAIN = ("fault", "unanswered", "unanswered_jobs", "awaited_job", "account_job", "member_of", "account_chosen",
         "preferred", "prologs", "waited_ms", "user_manager")  # fmt: skip
LISTS = ("unanswered", "unanswered_jobs", "prologs")
#: What another node has sent may stand in a detail.
DETAIL_CAP = 200


def encode_facts(facts: Facts) -> dict[str, Any]:
    """All that `policy.decide` depends on, but for phase, service, user, uid and source."""
    defaults: dict[str, Any] = Facts.__defaults__  # type: ignore[attr-defined]  # what `record` has made
    found: dict[str, Any] = {}
    for name in PLAIN:
        value = getattr(facts, name)
        if value != defaults[name]:
            found[name] = value
    if facts.steps:
        found["steps"] = [(step.job_id, step.state, step.started, step.version) for step in facts.steps]
    if facts.caller.status != "not-asked":
        found["caller"] = (facts.caller.status, facts.caller.job_id, facts.caller.detail[:DETAIL_CAP])
    if facts.attempts:
        found["attempts"] = [
            (tried.job_id, tried.chosen, "adopt-deferred" if tried.deferred else tried.failure)
            for tried in facts.attempts
        ]
    return found


def decode_facts(event: dict[str, Any]) -> Facts:
    """The facts of a login's audit event; `ValueError` if they are not there, or not what `encode_facts` writes."""
    try:
        found = dict(event["facts"])
        facts = Facts(
            phase=event["phase"],
            service=event["service"],
            user=event["user"],
            uid=int(event["uid"]),
            source=event.get("from") or "",
            steps=tuple(_step(*values) for values in found.pop("steps", ())),
            caller=_caller(event, *found.pop("caller", ("not-asked", 0, ""))),
            attempts=tuple(_attempt(*values) for values in found.pop("attempts", ())),
            **{name: _plain(name, found.pop(name)) for name in PLAIN if name in found},
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"no recorded facts: {type(error).__name__}: {error}") from None
    if found:
        raise ValueError(f"facts of another version: {', '.join(sorted(map(str, found)))}")
    return facts


def _step(job_id: int, state: Any, started: Any, version: int) -> StepFact:
    first, second, third = map(int, started)
    return StepFact(int(job_id), state, (first, second, third), int(version))


def _attempt(job_id: int, chosen: Any, failure: Any) -> Attempt:
    deferred = failure == "adopt-deferred"
    return Attempt(int(job_id), chosen, "" if deferred else failure, deferred=deferred)


def _caller(event: dict[str, Any], status: Any, job_id: int, detail: str) -> CallerFact:
    return CallerFact(status, int(job_id), event.get("from") or "", str(detail))


def _plain(name: str, value: Any) -> Any:
    if name in LISTS:
        return tuple(value)
    if not isinstance(value, (str, int)):
        raise TypeError(f"{name} is {value!r}")
    return value
