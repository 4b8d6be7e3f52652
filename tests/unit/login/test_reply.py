# SPDX-License-Identifier: Apache-2.0
"""What the log says of a login, and how loud."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from slurm_adopt.login.reply import compose, security_event
from slurm_adopt.model import Attempt, CallerFact, Facts, Verdict
from slurm_adopt.options.parse import parse_options

if TYPE_CHECKING:
    from slurm_adopt.model import CallerStatus


ADOPTED = Verdict("allow", "adopted", 7, "newest")


def facts(status: CallerStatus, detail: str = "") -> Facts:
    caller = CallerFact(status, 0, "10.0.0.1", detail)
    return Facts("account", "sshd", "alice", 1001, source="10.0.0.1", caller=caller)


@pytest.mark.parametrize(
    ("status", "level", "security"),
    [
        ("found", "info", ""),
        ("caller-silent", "info", ""),
        ("caller-no-credential", "warning", ""),
        ("caller-foreign", "warning", "caller-foreign"),
        ("caller-untrusted", "warning", "caller-untrusted"),
    ],
)
def test_reply__the_log_is_as_loud_as_its_loudest_reason(status: CallerStatus, level: str, security: str) -> None:
    reply = compose(facts(status), parse_options([]), ADOPTED)
    assert reply.level == level
    assert f"caller={status}" in reply.log
    assert (f"security={security}" in reply.log) == bool(security)
    assert ("security=" in reply.log) == bool(security)
    assert compose(facts(status), parse_options(["mode=x"]), ADOPTED).level == "err"


def test_reply__says_why_the_caller_is_not_known() -> None:
    reply = compose(facts("caller-untrusted", "made by uid 5"), parse_options([]), ADOPTED)
    assert reply.log.endswith('caller=caller-untrusted security=caller-untrusted detail="made by uid 5"')
    assert "uid 5" not in reply.error + reply.info
    long = compose(facts("caller-malformed", "x" * 5000), parse_options([]), ADOPTED).log
    assert len(long) < 500


def test_reply__an_admitted_session_whose_manager_runs_on_is_an_error_in_the_log() -> None:
    said = compose(
        Facts("open_session", "sshd", "alice", 1001, user_manager="user-manager-failed"), parse_options([]), ADOPTED
    )
    assert (said.result, said.level) == ("success", "err")
    assert "user_manager=user-manager-failed" in said.log


def test_reply__a_quiet_log_stays_quiet() -> None:
    assert compose(facts("caller-foreign"), parse_options(["log_level=fatal"]), ADOPTED).log == ""
    assert compose(facts("found"), parse_options(["log_level=quiet"]), ADOPTED).log == ""


def test_reply__untrusted_steps_are_security_events() -> None:
    tried = Facts("account", "sshd", "alice", 1001, attempts=(Attempt(7, "only", "step-untrusted"),))
    assert security_event(tried) == "step-untrusted"
    assert security_event(Facts("account", "sshd", "alice", 1001, unanswered=("step-silent", "step-foreign"))) == (
        "step-foreign"
    )
    assert security_event(Facts("account", "sshd", "alice", 1001)) == ""


@pytest.mark.parametrize(
    ("enforce", "action", "phase", "result"),
    [
        ("yes", "deny", "account", "perm_denied"),
        ("yes", "deny", "open_session", "session_err"),
        ("yes", "allow", "account", "success"),
        ("adopt", "deny", "account", "ignore"),
        ("adopt", "deny", "open_session", "ignore"),
        ("adopt", "allow", "account", "success"),
        ("no", "deny", "account", "ignore"),
        ("no", "allow", "account", "ignore"),
        ("no", "allow", "open_session", "ignore"),
    ],
)
def test_reply__enforce_is_what_is_left_of_a_verdict(enforce: str, action: str, phase: str, result: str) -> None:
    """The log keeps the verdict as it would be; nobody is told of a refusal that is none."""
    verdict = Verdict(action, "no-job" if action == "deny" else "adopted")  # type: ignore[arg-type]
    found = Facts(phase, "sshd", "alice", 1001)  # type: ignore[arg-type]
    reply = compose(found, parse_options([f"enforce={enforce}", "profile=strict"]), verdict, joins=("mount",))
    assert reply.result == result
    assert reply.log.startswith(f"verdict={action} ")
    assert (f" enforce={enforce} " in reply.log) == (enforce != "yes")
    assert bool(reply.error) == (action == "deny" and enforce == "yes")
    assert reply.join_failed == (
        "success" if enforce != "yes" else "perm_denied" if phase == "account" else "session_err"
    )


@pytest.mark.parametrize(
    ("reason", "elsewhere", "hint", "line"),
    [
        ("no-job", "", "", "you have no active jobs on this node"),
        ("no-job", "n[1-2]", "", "you have no active jobs on this node. Your jobs are on n[1-2]"),
        ("no-job", "", "Ask us!", "you have no active jobs on this node. Ask us!"),
        ("no-job", "n1", "Ask us!", "you have no active jobs on this node. Your jobs are on n1. Ask us!"),
        ("adopt-failed", "", "help@x.y", "your login could not be put into your job. Please tell your administrator. help@x.y"),
    ],
)  # fmt: skip
def test_reply__what_a_refused_user_reads(reason: str, elsewhere: str, hint: str, line: str) -> None:
    options = parse_options([f"hint={hint}"] if hint else [])
    said = compose(facts("not-asked"), options, Verdict("deny", reason), elsewhere=elsewhere)  # type: ignore[arg-type]
    assert said.error == f"Access denied by pam_slurm_adopt: {line}"
    for enforce in ("no", "adopt"):
        options = parse_options([f"hint={hint}", f"enforce={enforce}"])
        assert compose(facts("not-asked"), options, Verdict("deny", reason), elsewhere=elsewhere).error == ""  # type: ignore[arg-type]


def test_reply__a_namespace_that_cannot_be_joined_comes_with_the_hint() -> None:
    options = parse_options(["profile=strict", "hint=Ask us!"])
    assert compose(facts("not-asked"), options, ADOPTED, joins=("mount",)).join_error.endswith("administrator. Ask us!")
