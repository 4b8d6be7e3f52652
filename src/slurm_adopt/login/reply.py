# SPDX-License-Identifier: Apache-2.0
"""From a verdict to what the module carries out: return code, words for the user, one line for the log.

Rules of this file:
1. What a user reads is the true reason in one sentence, the site's own, and nothing about anybody else's jobs.
2. One line per login, in a fixed order of fields; a level that the site's log_level= does not want is not sent.
"""

from __future__ import annotations

from ..model import REASONS, STEP_SILENT, Facts, Verdict
from ..wire.login_exchange import LoginReply
from ..wire.logline import format_line

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..model import Action, Enforce, Phase, ReasonCode
    from ..options.parse import Options

#: The same words as the original's, which sites document and users know.
DENIED = "Access denied by pam_slurm_adopt: "
DETAIL_CAP = 200
#: SlurmdDebug numbers from which a syslog priority is wanted.
WANTED_FROM = {"err": 1, "warning": 2, "notice": 3, "info": 3, "debug": 5}


def result_of(action: Action, phase: Phase) -> str:
    """The PAM return code of an action. sshd shows a refused account as such, a refused session as a session error."""
    if action == "allow":
        return "success"
    if action == "ignore":
        return "ignore"
    return "perm_denied" if phase == "account" else "session_err"


def enforced(result: str, enforce: Enforce) -> str:
    """The return code that `enforce=` leaves of one: with `no` as if the line were not there, and nobody refused."""
    admits = result in ("success", "ignore")
    return result if enforce == "yes" or (enforce == "adopt" and admits) else "ignore"


def refuses(verdict: Verdict, enforce: Enforce) -> bool:
    """Whether the login is refused: with another `enforce=` a refusal stands in the log only."""
    return verdict.action == "deny" and enforce == "yes"


def refusal(reason: ReasonCode, hint: str = "", elsewhere: str = "") -> str:
    """The line that a refused user reads. `elsewhere` is where the user's jobs are, `hint` the site's own sentence."""
    line = DENIED + (REASONS[reason].user_text or REASONS["internal-error"].user_text)
    for part in (f"Your jobs are on {elsewhere}" if elsewhere else "", hint):
        if part:
            line += f" {part}" if line[-1] in ".!?" else f". {part}"
    return line


def compose(
    facts: Facts,
    options: Options,
    verdict: Verdict,
    env: tuple[tuple[str, str], ...] = (),
    joins: tuple[str, ...] = (),
    detail: str = "",
    info: str = "",
    unset: tuple[str, ...] = (),
    elsewhere: str = "",
) -> LoginReply:
    """The reply for a verdict."""
    level = _level(facts, options, verdict)
    lenient = options.action_adopt_failure == "allow" or options.enforce != "yes"
    join_failed = "success" if lenient else result_of("deny", facts.phase)
    result = enforced(result_of(verdict.action, facts.phase), options.enforce)
    return LoginReply(
        result=result,
        reason=verdict.reason,
        level=level,
        log=log_line(facts, options, verdict, detail) if options.log_level >= WANTED_FROM[level] else "",
        error=refusal(verdict.reason, options.hint, elsewhere) if refuses(verdict, options.enforce) else "",
        info=info,
        env=env,
        unset=unset,
        hold=verdict.action == "deny" and any(attempt.failure == STEP_SILENT for attempt in facts.attempts),
        leave=verdict.reason == "exempt",
        joins=joins,
        join_failed=join_failed if joins else "",
        join_error=refusal("adopt-failed", options.hint) if joins and join_failed != "success" else "",
    )


def _level(facts: Facts, options: Options, verdict: Verdict) -> str:
    """The loudest of what happened: an admitted login may still come with a warning about its source, say."""
    if options.problems:
        return "err"
    level = REASONS[verdict.reason].level
    for code in (facts.caller.status, facts.user_manager):
        if code in REASONS:
            level = min(level, REASONS[code].level, key=lambda name: WANTED_FROM[name])
    return level


def security_event(facts: Facts) -> str:
    """The reason code of what looks like an attempt to get something that is not the user's; empty if nothing does."""
    codes = [facts.caller.status, *facts.unanswered]
    if facts.attempts:
        codes += [attempt.failure for attempt in facts.attempts]
    for code in codes:
        if code in REASONS and REASONS[code].security:
            return code
    return ""


def log_line(facts: Facts, options: Options, verdict: Verdict, detail: str) -> str:
    """The login in one line."""
    pairs: list[tuple[str, str | int]] = [
        ("verdict", verdict.action),
        ("reason", verdict.reason),
        # what stands there already would be if this were `yes`
        ("enforce", options.enforce if options.enforce != "yes" else ""),
        ("user", facts.user),
        ("uid", facts.uid),
        ("from", facts.source or "-"),
        ("service", facts.service),
        ("phase", facts.phase),
        ("job", verdict.job_id or "-"),
        ("chosen", verdict.chosen or "-"),
        ("jobs", len(facts.steps)),
    ]
    if facts.caller.status != "not-asked":
        pairs.append(("caller", facts.caller.status))
    pairs.append(("security", security_event(facts)))
    if facts.unanswered:
        pairs += [("unanswered", f"{code}:{facts.unanswered.count(code)}") for code in sorted(set(facts.unanswered))]
    if facts.waited_ms >= 0:
        pairs.append(("waited_ms", facts.waited_ms))
    if facts.exempt:
        pairs.append(("exempt", facts.exempt))
    if facts.user_manager:
        pairs.append(("user_manager", facts.user_manager))
    # what another node has sent may stand in it
    why = [facts.caller.detail[:DETAIL_CAP]]
    for attempt in facts.attempts:
        if attempt.failure:
            pairs.append(("failed", f"{attempt.job_id}:{attempt.failure}"))
            why.append(attempt.detail)
    pairs += [("detail", detail or "; ".join(filter(None, why))), ("options", "; ".join(options.problems))]
    return format_line(pairs)
