# SPDX-License-Identifier: Apache-2.0
"""Every fault of the table, in an isolated node with real Slurm: nobody waits, nobody slips in, root gets in."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.conformance.outcome import Outcome, outcome_of
from tests.conformance.situations import OURS, Call, Rig
from tests.node.faults import breakages
from tests.node.faults.table import DENY, ELSEWHERE, FAULTS, MODULE_TEXTS, NO_FAILURE, TABLE, Fault, render

from lab.node import Node
from slurm_adopt.model import REASONS

#: Most rows need no more than a second. Where a busy machine has taken that for itself, the row is tried once more, with
#: time enough for everybody.
TIMEOUTS_S = (1, 12)
#: What a login is decided by whose time was up.
TIME_IS_UP = {"helper-timeout", "deadline", "steps-unresponsive", "step-silent"}


@pytest.fixture(scope="module")
def rig() -> Iterator[Rig]:
    if os.geteuid() != 0:
        pytest.skip("an isolated node needs root")
    with Rig(Node()) as rig:
        breakages.start(rig)
        yield rig


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_faults__row(fault: Fault, rig: Rig) -> None:
    for timeout_s in TIMEOUTS_S:
        lines = (f"timeout={timeout_s}", f"timeout={timeout_s} profile=strict")
        root = Call(f"timeout={timeout_s} profile=strict ignore_root=0{fault.args}", "root")
        calls = [*(Call(args + fault.args, fault.user) for args in lines), root]
        mark = rig.node.log_mark()
        with fault.set_up(rig):
            results = rig.drive([(OURS, call) for call in calls], parallel=True)
        verdicts = rig.verdicts(mark)
        words = [set(re.findall(r"[\w-]+", verdicts.get(result["name"], ""))) for result in results]
        is_late = any(found & TIME_IS_UP - {reason, fault.cause} for found, reason in zip(words, fault.reasons))
        if not is_late:
            break
    names = {job: name for name, job in rig.jobs.items()}
    outcomes = [outcome_of(result, names) for result in results]
    story = "\n".join([*map(str, outcomes), *(str(result) for result in results), *rig.node.log_since(mark)])

    for outcome, result, reason, expected in zip(outcomes, results, fault.reasons, fault.results):
        line = verdicts.get(result["name"], "")
        assert outcome.result == expected, story
        assert f" reason={reason} " in line, story
        assert fault.cause in line, story
        assert result["elapsed_s"] <= fault.within_s + timeout_s - TIMEOUTS_S[0], story
        if outcome.result != DENY:
            assert outcome.job == fault.in_job, story
        check_message(outcome, result["messages"], fault, story)
    strict = outcomes[1]
    assert strict.result == DENY or (strict.result == "success" and strict.job), story

    assert outcomes[2].result in ("success", "ignore"), story
    assert results[2]["elapsed_s"] <= timeout_s + 14, story
    assert rig.node.run(["pgrep", "-f", breakages.HELPER], check=False).stdout == "", "a helper was left behind"


def check_message(outcome: Outcome, messages: list[str], fault: Fault, story: str) -> None:
    """A refused user reads the true reason; whoever gets in reads nothing."""
    said = [text for text in messages if not text.endswith("=try_again")]
    if outcome.result != DENY:
        assert said == [], story
        return
    assert len(said) == 1, story
    assert fault.text() in said[0], story


def test_faults__table_is_this_table() -> None:
    assert TABLE.read_text() == render(), "run: python -m tests.node.faults.table"


def test_faults__every_reason_code_is_proved() -> None:
    proved = {code for fault in FAULTS for code in (*fault.reasons, fault.cause)}
    assert proved - {""} <= set(REASONS)
    commands = {code for code in REASONS if code.startswith("user-")} - {"user-unknown"}
    missing = set(REASONS) - proved - NO_FAILURE - commands - {other.reason for other in ELSEWHERE}
    assert missing == set(), "a reason code without a fault in the table"
    for other in ELSEWHERE:
        file, _, function = other.test.partition("::")
        assert f"def {function}" in (Path(__file__).parents[2] / file).read_text(), other


def test_faults__names_are_unique_and_plain() -> None:
    names = [fault.name for fault in FAULTS]
    assert len(set(names)) == len(names)
    assert all(re.fullmatch(r"[a-z0-9.-]+", name) for name in names)


def test_faults__module_texts_are_the_modules() -> None:
    source = (TABLE.parents[2] / "src" / "pam" / "module.c").read_text()
    for reason, text in MODULE_TEXTS.items():
        assert f'"{reason}"' in source
        assert f'"{text}"' in source
