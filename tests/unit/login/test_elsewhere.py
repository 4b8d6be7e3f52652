# SPDX-License-Identifier: Apache-2.0
"""Where a refused user's jobs are, in words, and how often slurmctld is asked for it."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest
from tests.process import me

from slurm_adopt.login import elsewhere, recent
from slurm_adopt.login.decide import decide_login
from slurm_adopt.login.elsewhere import TEXT_CAP, describe, find_elsewhere
from slurm_adopt.login.recent import ASKING_CAP, Recent
from slurm_adopt.login.reply import compose
from slurm_adopt.login.state import Login
from slurm_adopt.login.steps import FreshLookup, OwnSteps
from slurm_adopt.model import REASONS, Facts, Verdict
from slurm_adopt.options.parse import HINT_CAP, parse_options
from slurm_adopt.system.rpc.controller import NoAnswer, UserJobs
from slurm_adopt.system.slurm.conf import read_slurm_conf
from slurm_adopt.system.tasks.task import DeadlineExceeded, HelperNeeded, run
from slurm_adopt.wire.errors import ProtocolError
from slurm_adopt.wire.fields import TEXT_CAP as EXCHANGE_CAP
from slurm_adopt.wire.login_exchange import LoginRequest
from slurm_adopt.wire.user_jobs_question import JobPlace

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from slurm_adopt.system.tasks.task import Task

NOW_S = 1_795_829_337


def jobs(*places: tuple[str, int], now_s: int = NOW_S) -> UserJobs:
    return UserJobs(now_s, tuple(JobPlace(*place) for place in places), 42 << 8)


def test_elsewhere__jobs_that_are_not_over_on_other_nodes_than_this() -> None:
    found = jobs(("node[1-2]", 0), ("node3", NOW_S + 1), ("node4", NOW_S), ("node5", NOW_S - 9), ("", 0), ("node1", 0))
    assert describe(found, {"node2", ""}) == "node[1,3]"
    assert describe(jobs(("node2", 0)), {"node2"}) == ""
    assert describe(jobs(), set()) == ""


def test_elsewhere__hundreds_of_jobs_are_one_list() -> None:
    assert describe(jobs(*[(f"node{number:03}", 0) for number in range(700)]), set()) == "node[000-699]"
    odd = jobs(*[(f"node{number:03}", 0) for number in range(1, 700, 2)])
    assert describe(odd, set()) == "node001, node003, node005 and 347 other nodes"
    assert describe(jobs(("n[1-65000]", 0), ("m[1-65000]", 0)), set()) == "n1, n10, n100 and 8189 or more other nodes"
    long = jobs(*[(f"{letter * 200}", 0) for letter in "abcdef"])
    assert describe(long, set()) == "6 nodes"


@pytest.mark.parametrize("nodes", ["a b", "a;b", "n\x1b[2J", "n1[", "<b>", "n'", "ä1", "n[1-70000]"])
def test_elsewhere__what_is_no_name_of_a_node_is_not_told(nodes: str) -> None:
    with pytest.raises(ProtocolError):
        describe(jobs(("n1", 0), (nodes, 0)), set())


def test_elsewhere__the_longest_refusal_fits_the_exchange() -> None:
    hint = "ä" * (HINT_CAP // 2)
    for code, reason in REASONS.items():
        verdict = Verdict("deny", code)  # type: ignore[arg-type]
        words = "n" * TEXT_CAP if code in elsewhere.REASONS_WITH_PLACES else ""
        said = compose(
            Facts("account", "sshd", "alice", 1501), parse_options([f"hint={hint}"]), verdict, elsewhere=words
        )
        assert said.error.endswith(hint), reason
        assert len(said.error.encode()) <= EXCHANGE_CAP


class Controller:
    """In place of slurmctld: counts, and answers or not."""

    def __init__(self, answer: UserJobs | Exception) -> None:
        self.answer = answer
        self.asked: list[int] = []
        self.during: Callable[[], object] = lambda: None

    def query(self, conf: object, workers: object, known: int, uid: int, deadline_ns: int) -> Task[UserJobs]:  # noqa: ARG002
        yield from ()
        self.asked.append(uid)
        assert deadline_ns - time.monotonic_ns() <= elsewhere.LIMIT_NS
        self.during()
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


@pytest.fixture
def controller(monkeypatch: pytest.MonkeyPatch) -> Controller:
    made = Controller(jobs(("node[1-2]", 0)))
    monkeypatch.setattr(elsewhere, "query_user_jobs", made.query)
    return made


@pytest.fixture
def source(tmp_path: Path) -> FreshLookup:
    """The memory of a service."""
    (tmp_path / "slurm.conf").write_text("ClusterName=lab\n")
    (tmp_path / "slurm.conf").chmod(0o644)
    source = FreshLookup()
    source.recent = Recent()
    source.conf_here = read_slurm_conf((str(tmp_path / "slurm.conf"),))  # type: ignore[attr-defined]
    return source


def told(source: FreshLookup, uid: int = 1501, reason: str = "no-job") -> tuple[str, str]:
    deadline_ns = time.monotonic_ns() + 5 * 10**9
    request = LoginRequest("account", deadline_ns, "sshd", "alice", uid, args=("hint_jobs=yes", "nodename=node2"))
    login = Login(request, me(), source)
    login.conf = source.conf_here  # type: ignore[attr-defined]
    run(find_elsewhere(login, reason))  # type: ignore[arg-type]
    return login.elsewhere, login.remark


def test_elsewhere__is_asked_once_for_all_of_a_users_logins(controller: Controller, source: FreshLookup) -> None:
    assert {told(source) for _ in range(20)} == {("node1", "")}
    assert controller.asked == [1501]
    assert told(source, 1502) == ("node1", "")
    assert controller.asked == [1501, 1502]
    assert source.recent.controller_version == 42 << 8


def test_elsewhere__is_asked_again_later(
    controller: Controller, source: FreshLookup, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recent, "ELSEWHERE_NS", 0)
    told(source)
    controller.answer = jobs(("node3", 0))
    assert told(source) == ("node3", "")


def test_elsewhere__who_comes_while_it_is_asked_does_without(controller: Controller, source: FreshLookup) -> None:
    met: list[tuple[str, str]] = []
    controller.during = lambda: met.append(told(source))
    assert told(source) == ("node1", "")
    assert met == [("", "")]
    assert controller.asked == [1501]


def test_elsewhere__few_users_at_a_time(controller: Controller, source: FreshLookup) -> None:
    for uid in range(ASKING_CAP):
        assert source.recent.begin_asking(uid)
    assert told(source) == ("", "hint_jobs: slurmctld is not asked: it was silent, or is asked for others")
    source.recent.end_asking()
    assert told(source) == ("node1", "")
    assert controller.asked == [1501]


def test_elsewhere__a_silent_controller_costs_one_login_for_all(controller: Controller, source: FreshLookup) -> None:
    controller.answer = NoAnswer("no answer in time", is_silent=True)
    assert told(source) == ("", "hint_jobs: no answer of slurmctld: no answer in time")
    assert [told(source, uid)[0] for uid in range(1501, 1520)] == [""] * 19
    assert controller.asked == [1501]


def test_elsewhere__a_wrong_answer_is_that_users_alone(controller: Controller, source: FreshLookup) -> None:
    controller.answer = NoAnswer("message of 9000000 bytes", is_silent=False)
    assert told(source)[0] == ""
    controller.answer = jobs(("n1", 0))
    assert told(source)[0] == ""
    assert told(source, 1502)[0] == "n1"
    controller.answer = jobs(("a b", 0))
    assert told(source, 1503) == ("", "hint_jobs: no name of a node: 'a b'")


@pytest.mark.parametrize("reason", ["job-starting", "steps-unresponsive", "unknown-denied", "adopt-failed", "deadline"])
def test_elsewhere__other_refusals_ask_nobody(controller: Controller, source: FreshLookup, reason: str) -> None:
    assert told(source, reason=reason) == ("", "")
    assert controller.asked == []


FAULTS = [DeadlineExceeded(), HelperNeeded("x"), OSError(24, "no descriptor"), RuntimeError("x"), ValueError("x")]


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: type(fault).__name__)
def test_elsewhere__no_fault_makes_another_verdict(
    controller: Controller, source: FreshLookup, fault: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    """action_generic_failure= would let the refused user in, by default."""
    controller.answer = fault
    words, remark = told(source)
    assert words == ""
    assert remark.startswith(f"hint_jobs: {type(fault).__name__}")
    monkeypatch.setattr(source, "read_conf", lambda *_: _known(source))
    monkeypatch.setattr(source, "query_own", lambda *_: _nothing())
    request = LoginRequest("account", time.monotonic_ns() + 5 * 10**9, "sshd", "alice", 1502, args=("hint_jobs=yes",))
    reply = run(decide_login(request, me(), source)).reply
    assert (reply.result, reply.reason) == ("perm_denied", "no-job")
    assert controller.asked == [1501, 1502]


def _known(source: FreshLookup) -> Task[object]:
    yield from ()
    return source.conf_here  # type: ignore[attr-defined]


def _nothing() -> Task[OwnSteps]:
    yield from ()
    return OwnSteps()
