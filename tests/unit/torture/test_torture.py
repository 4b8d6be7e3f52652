# SPDX-License-Identifier: Apache-2.0
"""The parts of `make torture` that need no node: what it takes for a violation, and how it puts a node right."""

from __future__ import annotations

import random
import re
import time
from pathlib import Path
from typing import Any

import pytest
from tests.torture import deeds, hostile, people, watch
from tests.torture.__main__ import ADMITTED, SESSION, TOLD
from tests.torture.faults import EXTERN_STEP, FAULTS, is_in_job
from tests.torture.limits import soft_limit
from tests.torture.stage import stopped_processes, surely

from lab.machine import LabError

DOCUMENT = (Path(__file__).parents[3] / "docs/security/torture.md").read_text()
#: What a session in job 7 of user 2001 prints.
INSIDE = "6:freezer:/slurm/uid_2001/job_7/step_extern\n0::/\n"


class Slurm:
    """In the place of a node's people: whose job is which, and what Slurm says when it is asked."""

    def __init__(self, owners_of: dict[int, set[int]]) -> None:
        self.everybody = [people.Person("user00", 2001, "one"), people.Person("user01", 2002, "one")]
        self.owners_of = owners_of
        self.longest_stop_s: dict[int, float] = {}
        self.steps_stopped_s = float("-inf")
        self.learnt: dict[int, set[int]] = {}

    def learn(self) -> None:
        self.owners_of.update(self.learnt)


def checker(owners_of: dict[int, set[int]]) -> tuple[watch.Watch, Slurm]:
    """A watch that looks at nothing by itself."""
    slurm: Any = Slurm(owners_of)
    slurm.node = type("Node", (), {"init_pid": "self"})
    return watch.Watch(slurm, 10), slurm


def listed(title: str) -> list[str]:
    """The items below this title in the document."""
    return re.findall(r"^\* (.*)$", DOCUMENT.partition(f"\n## {title}\n")[2].partition("\n## ")[0], re.MULTILINE)


def test_torture__the_document_lists_every_fault() -> None:
    assert listed("Faults") == [fault.name for fault in FAULTS]


def test_torture__the_document_lists_every_deed() -> None:
    assert listed("Hostile users") == list(hostile.DEEDS)


def test_torture__every_deed_is_there() -> None:
    assert sorted(hostile.DEEDS.values()) == sorted(deeds.DEEDS)
    assert {hostile.deed_of(random.Random(number)).name for number in range(200)} == set(hostile.DEEDS)


def test_torture__users_and_keys_are_those_of_the_deeds() -> None:
    assert sum(count for count, _ in people.KINDS.values()) == deeds.USERS
    text = f"bla\r\nonward 2002=7=\r\n{INSIDE}=onward\r\nonward 2003=8=\n{INSIDE}".replace("\r\n", "\n")
    assert hostile.ONWARD.findall(text) == [("2002", "7", INSIDE)]


# What is a violation ---------------------------------------------------------------------------------


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_torture__what_a_session_tells(end: str) -> None:
    text = f"job=7=\n{INSIDE}=told\n".replace("\n", end)
    found = TOLD.search(text)
    assert found is not None
    assert found[1] == "7"
    assert found[2].split() == INSIDE.split()
    cut = text[: text.index("=told")]
    assert TOLD.search(cut) is None
    assert ADMITTED.search(cut) is not None
    assert ADMITTED.search(SESSION) is None, "an echo of the command is no answer"


@pytest.mark.parametrize(
    ("told", "variable", "violation"),
    [
        (INSIDE, "7", ""),
        (INSIDE, "8", "was told '8'"),
        (INSIDE.replace("2001", "2002"), "7", "is in a job of another user"),
        ("6:freezer:/\n0::/\n", "7", "is in no job"),
        ("0::/system.slice/slurmstepd.scope/job_7/step_extern/user/task_0\n", "7", ""),
        ("0::/user.slice\n", "7", "is in no job"),
    ],
)
def test_torture__a_session_is_judged(told: str, variable: str, violation: str) -> None:
    judge, _ = checker({7: {2001}})
    judge.judge_session(2001, told, variable)
    assert [violation in found for found in judge.violations] == [True] * bool(violation)


def test_torture__a_slurmstepd_that_was_stopped_may_take_in_late() -> None:
    """From one job of the user's into another one; never into another user's."""
    judge, slurm = checker({7: {2001}, 8: {2001}})
    slurm.steps_stopped_s = time.monotonic()
    judge.judge_session(2001, INSIDE, "8")
    assert (len(judge.late), judge.violations) == (1, [])
    judge.judge_session(2001, INSIDE.replace("2001", "2002"), "7")
    assert len(judge.violations) == 1
    slurm.steps_stopped_s -= 60
    judge.judge_session(2001, INSIDE, "8")
    assert (len(judge.late), len(judge.violations)) == (1, 2)


def test_torture__a_number_that_was_given_twice_is_asked_about() -> None:
    judge, slurm = checker({7: {2002}, 8: {2002}})
    judge.judge_session(2001, INSIDE, "7")
    judge.judge_session(2001, INSIDE.replace("job_7", "job_8"), "8")
    assert judge.violations == []
    slurm.learnt = {7: {2001, 2002}}
    judge.judge_unclear()
    assert judge.violations == []
    judge.judge_unclear(at_last=True)
    assert [violation.partition(" ")[2] for violation in judge.violations] == ["uid 2001 is in job 8 of another user"]


def test_torture__a_login_that_was_stopped_may_be_late() -> None:
    judge, slurm = checker({})
    line = 'sshd[7]: pam_slurm_adopt(sshd:account): verdict=allow user="user00" uid=2001 ms=17000'
    slurm.longest_stop_s = {2002: 9.0}
    assert judge.judge_log([line, line.replace("17000", "14000"), "something else"]) == 2
    assert len(judge.violations) == 1
    slurm.longest_stop_s = {2001: 2.5}
    judge.judge_log([line])
    assert len(judge.violations) == 1
    assert judge.longest_ms == 17000


def test_torture__what_a_hostile_session_managed_is_one(capsys: pytest.CaptureFixture[str]) -> None:
    judge, _ = checker({})
    judge.judge_hostile(2001, "MANAGE\nno: MANAGED\n")
    assert judge.violations == []
    deeds.managed("to signal process 1")
    judge.judge_hostile(2001, "something\r\n" + capsys.readouterr().out.replace("\n", "\r\n"))
    assert len(judge.violations) == 1
    assert judge.violations[0].endswith("uid 2001: MANAGED to signal process 1")


@pytest.mark.parametrize(
    ("state", "flags", "ending"), [("S", 0x400140, False), ("R", 0x40014C, True), ("Z", 0x40000, True), ("X", 0, True)]
)
def test_torture__a_process_that_is_ending_is_nowhere(state: str, flags: int, ending: bool) -> None:
    assert watch.is_ending(f"4711 (sshd: (x) y) {state} 1 4711 4711 0 -1 {flags} 1 2 3") is ending
    assert not watch.is_ending(Path("/proc/self/stat").read_text())


# How a node is put right -----------------------------------------------------------------------------


def remedies(
    unwell: people.Unwell, now: float, jobs: dict[int, tuple[str, str]], lost: tuple[int, ...] = ()
) -> list[str]:
    found = unwell.remedies(jobs, {5}, lambda job: job not in lost, now)
    return [" ".join(argv) for argv in found]


def test_torture__jobs_are_helped_as_they_need_it() -> None:
    unwell = people.Unwell()
    jobs = {
        1: ("RUNNING", "None"),
        2: ("PENDING", "launch failed requeued held"),
        4: ("SUSPENDED", "None"),
        5: ("SUSPENDED", "None"),
        6: ("PENDING", "Resources"),
    }
    assert remedies(unwell, 0.0, jobs) == ["scontrol release 2", "scontrol resume 4"]


def test_torture__a_job_that_has_lost_its_extern_step_is_given_up() -> None:
    unwell = people.Unwell()
    jobs = {1: ("RUNNING", "None"), 5: ("RUNNING", "None")}
    assert remedies(unwell, 0.0, jobs, (1, 5)) == []
    assert remedies(unwell, 30.0, jobs) == []
    assert remedies(unwell, 50.0, jobs, (1, 5)) == [], "it was well in between"
    assert remedies(unwell, 90.0, jobs, (1, 5)) == []
    assert remedies(unwell, 96.0, jobs, (1, 5)) == ["scancel 1"]


def test_torture__a_requeued_job_is_told_once_to_begin() -> None:
    unwell = people.Unwell()
    jobs = {1: ("PENDING", "BeginTime")}
    told = [remedies(unwell, now, jobs) for now in (0.0, 4.0, 8.0, 12.0)]
    assert told == [[], [], ["scontrol update JobId=1 StartTime=now"], []]
    assert remedies(unwell, 16.0, {1: ("RUNNING", "None")}) == []
    assert [bool(remedies(unwell, now, jobs)) for now in (20.0, 28.0)] == [False, True]


def test_torture__what_is_stopped_is_found(tmp_path: Path) -> None:
    for pid, state, uid, command in (
        (1, "S (sleeping)", 0, "init"),
        (2, "T (stopped)", 0, "slurmd"),
        (3, "T (stopped)", 0, "/usr/bin/python3 -IS /usr/libexec/slurm-adopt/helper"),
        (4, "T (stopped)", 2001, "sleep\x003000"),
        (5, "t (tracing stop)", 0, "x"),
    ):
        (tmp_path / str(pid)).mkdir()
        (tmp_path / f"{pid}/status").write_text(f"Name:\tx\nState:\t{state}\nUid:\t{uid}\t{uid}\t{uid}\t{uid}\n")
        (tmp_path / f"{pid}/cmdline").write_text(command)
    (tmp_path / "6").mkdir()  # it has just ended
    (tmp_path / "self").mkdir()
    assert sorted(stopped_processes(tmp_path)) == [(2, 0), (4, 2001)]


def test_torture__what_fails_is_tried_again() -> None:
    left = [1, 1, 0]

    def act() -> None:
        if left.pop(0):
            raise OSError("busy")

    surely(act)
    assert left == []
    left[:] = [1, 1]
    with pytest.raises(LabError, match="after 2 times: busy"):
        surely(act, 2)


LIMITS = """\
Limit                     Soft Limit           Hard Limit           Units
Max open files            1024                 524288               files
Max address space         unlimited            unlimited            bytes
"""


def test_torture__a_limit_is_read() -> None:
    assert soft_limit(LIMITS, "Max open files") == "1024"
    assert soft_limit(LIMITS, "Max address space") == "unlimited"
    with pytest.raises(ValueError, match="no limit of Max"):
        soft_limit(LIMITS, "Max")
    assert int(soft_limit(Path("/proc/self/limits").read_text(), "Max open files")) > 2


def test_torture__whose_step_and_job_it_is() -> None:
    found = EXTERN_STEP.match("slurmstepd: [17.extern]")
    assert found is not None
    assert found[1] == "17"
    assert EXTERN_STEP.match("slurmstepd: [17.batch]") is None
    assert is_in_job(["/", "/slurm/uid_2001/job_7/step_extern"], 7)
    assert is_in_job(["/slurm/uid_2001/job_7"], 7)
    assert not is_in_job(["/slurm/uid_2001/job_77/step_extern"], 7)
