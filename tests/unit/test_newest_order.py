# SPDX-License-Identifier: Apache-2.0
"""Which of several jobs is the newest: StepFact.started is (slurmstepd's start in ticks, socket ctime in ns, id)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slurm_adopt.model import CallerFact, Facts, StepFact
from slurm_adopt.options.parse import parse_options
from slurm_adopt.policy import decide, newest_first

if TYPE_CHECKING:
    from slurm_adopt.model import State


HOUR_NS = 3600 * 10**9
NOW_NS = 1_795_388_000 * 10**9


def step(job_id: int, ticks: int, changed_ns: int = NOW_NS, state: State = "running") -> StepFact:
    return StepFact(job_id, state, (ticks, changed_ns, job_id))


CASES = [
    ("by start, not by id", [step(9, 100), step(7, 200), step(8, 150)], [7, 8, 9]),
    ("same tick: the socket that was made later", [step(9, 100, NOW_NS + 1), step(7, 100, NOW_NS + 2)], [7, 9]),
    ("same tick and time: the higher id", [step(7, 100), step(9, 100), step(8, 100)], [9, 8, 7]),
    ("the clock was set back an hour in between", [step(7, 100, NOW_NS), step(9, 200, NOW_NS - HOUR_NS)], [9, 7]),
    ("the clock was set forward for the older one", [step(7, 100, NOW_NS + HOUR_NS), step(9, 200, NOW_NS)], [9, 7]),
    ("chmod of an old socket makes it no newer", [step(7, 100, NOW_NS + HOUR_NS), step(9, 101, NOW_NS)], [9, 7]),
    ("one that ends is none", [step(7, 100), step(9, 200, state="ending")], [7]),
    ("one that starts is none yet", [step(7, 100), step(9, 200, state="starting")], [7]),
    ("ids have wrapped around (MaxJobId)", [step(67_000_000, 100), step(1, 200)], [1, 67_000_000]),
]


@pytest.mark.parametrize(("steps", "order"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_newest__order(steps: list[StepFact], order: list[int]) -> None:
    for shuffled in (steps, steps[::-1]):
        facts = Facts("account", "sshd", "alice", 1501, steps=tuple(shuffled), caller=CallerFact("unknown"))
        assert [found.job_id for found in newest_first(facts)] == order
        assert decide(facts, parse_options([])).job_id == order[0]  # type: ignore[union-attr]


@given(st.lists(st.tuples(st.integers(1, 5), st.integers(1, 3)), min_size=1, max_size=6), st.randoms())
def test_newest__does_not_depend_on_the_order_of_discovery(times: list[tuple[int, int]], random) -> None:  # type: ignore[no-untyped-def]
    steps = [step(job_id, ticks, changed) for job_id, (ticks, changed) in enumerate(times, 1)]
    shuffled = random.sample(steps, len(steps))
    first, second = (newest_first(Facts("account", "sshd", "a", 1, steps=tuple(order))) for order in (steps, shuffled))
    assert first == second
    assert first[0].started[0] == max(ticks for ticks, _ in times)
