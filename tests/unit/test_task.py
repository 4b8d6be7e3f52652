# SPDX-License-Identifier: Apache-2.0
"""Waiting side by side: who is waited for, and for how long."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from slurm_adopt.system.task import MS, DeadlineExceeded, all_of, run, sleep_until

if TYPE_CHECKING:
    from slurm_adopt.system.task import Task


def after(delay_ms: int, value: str) -> Task[str]:
    yield from sleep_until(time.monotonic_ns() + delay_ms * MS)
    return value


def elapsed_ms(tasks: list[Task[str]], is_enough: object = bool) -> tuple[float, list[object]]:
    now_ns = time.monotonic_ns()
    outcomes = run(all_of(tasks, now_ns + 400 * MS, now_ns + 100 * MS, is_enough=is_enough))  # type: ignore[arg-type]
    return (time.monotonic_ns() - now_ns) / MS, list(outcomes)


def test_all_of__one_result_is_enough_after_the_grace() -> None:
    took_ms, outcomes = elapsed_ms([after(10, "running"), after(3000, "slow")])
    assert 90 <= took_ms < 300
    assert outcomes[0] == "running"
    assert isinstance(outcomes[1], DeadlineExceeded)


def test_all_of__a_result_that_is_not_enough_does_not_end_the_wait() -> None:
    """A user's ending step is answered at once; the running one, whose slurmstepd is slow, still counts."""
    took_ms, outcomes = elapsed_ms([after(10, "ending"), after(200, "running")], lambda state: state == "running")
    assert outcomes == ["ending", "running"]
    assert took_ms < 390


def test_all_of__nothing_found_waits_to_the_end() -> None:
    took_ms, outcomes = elapsed_ms([after(10, ""), after(3000, "slow")])
    assert 390 <= took_ms < 900
    assert outcomes[0] == ""
    assert isinstance(outcomes[1], DeadlineExceeded)
