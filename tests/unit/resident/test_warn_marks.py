# SPDX-License-Identifier: Apache-2.0
"""When the lines before a job's end are due, and what they say."""

from __future__ import annotations

import pytest

from slurm_adopt.resident.warn import LAST_S, Job, parse_marks
from slurm_adopt.system.kernel.procfs import Process
from slurm_adopt.system.kernel.terminals import write_to_terminals

MARKS = (900, 300, 60, LAST_S)
NOW = 1_795_388_000.0


def job(left_s: int, marks: tuple[int, ...] = MARKS) -> Job:
    one = Job(7, 1501, Process(4711, 99))
    one.set_end(int(NOW) + left_s, marks, NOW)
    return one


def lines(one: Job, *left: int) -> list[str]:
    """What is said at these times before the end."""
    end = one.end_s
    return [one.take_line(end - left_s) for left_s in left if one.due(end - left_s)]


def test_warn__each_mark_once() -> None:
    assert lines(job(3600), 901, 900, 899, 300, 250, 60, 59, 3, 2, 1, 0, -5) == [
        "slurm-adopt: job 7 ends in 15 min, and this login with it.",
        "slurm-adopt: job 7 ends in 5 min, and this login with it.",
        "slurm-adopt: job 7 ends in 60 s, and this login with it.",
        "slurm-adopt: the time of job 7 is up; this login ends with it.",
    ]


def test_warn__a_job_is_called_as_squeue_calls_it() -> None:
    one = job(3600)
    assert one.take_line(one.end_s - 300, "4700_11") == (
        "slurm-adopt: job 4700_11 (7) ends in 5 min, and this login with it."
    )
    assert one.take_line(one.end_s - 1, "4700_11").startswith("slurm-adopt: the time of job 4700_11 (7) is up;")


def test_warn__what_has_passed_is_not_made_up_for() -> None:
    assert lines(job(299), 298, 100) == []
    assert len(lines(job(299), 298, 60)) == 1


def test_warn__several_marks_at_once_are_one_line() -> None:
    """The service was held up."""
    assert lines(job(3600), 50) == ["slurm-adopt: job 7 ends in 50 s, and this login with it."]


def test_warn__a_longer_limit_begins_anew_a_shorter_one_is_late_news_once() -> None:
    one = job(3600)
    lines(one, 900)
    one.set_end(one.end_s + 3600, MARKS, one.end_s - 899)
    assert one.waiting == list(MARKS)
    one.set_end(int(NOW) + 200, MARKS, NOW)
    assert one.take_line(NOW) == "slurm-adopt: job 7 ends in 3 min, and this login with it."
    assert one.waiting == [60, LAST_S]


def test_warn__the_clocks_rounding_is_no_new_limit() -> None:
    one = job(3600)
    lines(one, 900)
    one.set_end(one.end_s + 1, MARKS, one.end_s - 899)
    assert one.waiting == [300, 60, LAST_S]


def test_warn__without_an_end_nothing_is_due() -> None:
    assert not Job(7, 1501, Process(4711, 99)).due(NOW)


@pytest.mark.parametrize(
    ("text", "marks"), [("15,5,1", (900, 300, 60)), ("90s", (90,)), (" 2 , 30s", (120, 30)), ("10080", (604800,))]
)
def test_warn__marks(text: str, marks: tuple[int, ...]) -> None:
    assert parse_marks(text) == marks


@pytest.mark.parametrize("text", ["", "0", "-1", "1.5", "1m", "s", "x", "5,,1", "٣", "10081", "1,2,3,4,5,6,7,8,9"])
def test_warn__refused_marks(text: str) -> None:
    with pytest.raises(ValueError, match=r"not a number|more than"):
        parse_marks(text)


def test_terminals__a_process_that_is_gone_has_none() -> None:
    assert write_to_terminals(Process((1 << 22) - 1, 1), 1501, "x") == 0
