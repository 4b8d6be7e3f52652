# SPDX-License-Identifier: Apache-2.0
"""Waiting side by side: who is waited for, and for how long."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from slurm_adopt.system.tasks.task import MS, DeadlineExceeded, all_of, run, sleep_until

if TYPE_CHECKING:
    from slurm_adopt.system.tasks.task import Task


def after(delay_ms: int, value: str) -> Task[str]:
    yield from sleep_until(time.monotonic_ns() + delay_ms * MS)
    return value


def outcomes_of(tasks: list[Task[str]], is_enough: object = bool, all_ms: int = 60_000) -> list[object]:
    """Each one's outcome: a grace of 100 ms once one is enough, and `all_ms` for all.

    What takes longer than the grace and less than the whole tells which of the two it was, however slow the machine is.
    """
    now_ns = time.monotonic_ns()
    return list(run(all_of(tasks, now_ns + all_ms * MS, now_ns + 100 * MS, is_enough=is_enough)))  # type: ignore[arg-type]


def test_all_of__one_result_is_enough_after_the_grace() -> None:
    began = time.monotonic_ns()
    outcomes = outcomes_of([after(10, "running"), after(30_000, "slow")])
    assert time.monotonic_ns() - began >= 90 * MS
    assert outcomes[0] == "running"
    assert isinstance(outcomes[1], DeadlineExceeded)


def test_all_of__a_result_that_is_not_enough_does_not_end_the_wait() -> None:
    """A user's ending step is answered at once; the running one, whose slurmstepd is slow, still counts."""
    tasks = [after(10, "ending"), after(200, "running"), after(30_000, "slow")]
    outcomes = outcomes_of(tasks, lambda state: state == "running")
    assert outcomes[:2] == ["ending", "running"]
    assert isinstance(outcomes[2], DeadlineExceeded)


def test_all_of__nothing_found_waits_to_the_end() -> None:
    began = time.monotonic_ns()
    outcomes = outcomes_of([after(10, ""), after(60_000, "slow")], all_ms=400)
    assert time.monotonic_ns() - began >= 390 * MS
    assert outcomes[0] == ""
    assert isinstance(outcomes[1], DeadlineExceeded)
