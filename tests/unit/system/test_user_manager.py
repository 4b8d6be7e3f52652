# SPDX-License-Identifier: Apache-2.0
"""What several jobs have together, and whether a slice has no more. The rest is in tests/vm/test_managers_of_users.py."""

from __future__ import annotations

from pathlib import Path

import pytest

from slurm_adopt.cli.main import main
from slurm_adopt.system.host.user_manager import (
    UNBOUND,
    Bounds,
    ManagerFault,
    confine_manager,
    decode_cpus,
    is_confined,
    is_within,
    read_bounds,
    refuse_manager,
    sum_of,
)

SMALL, LARGE = Bounds(frozenset({0}), "1000", "0"), Bounds(frozenset({0, 3}), "2000", "max")
NOBODY = 2**31 - 5


@pytest.mark.parametrize(
    ("text", "cpus"), [(b"0-2,5\n", {0, 1, 2, 5}), (b"7\n", {7}), (b"\n", set()), (b"0,2-3,64-65\n", {0, 2, 3, 64, 65})]
)
def test_user_manager__cpus(text: bytes, cpus: set[int]) -> None:
    assert decode_cpus(text) == cpus


def test_user_manager__jobs_together() -> None:
    assert sum_of([SMALL]) == SMALL
    assert sum_of([SMALL, LARGE]) == Bounds(frozenset({0, 3}), "3000", "max")
    assert sum_of([SMALL, UNBOUND]) == UNBOUND
    with pytest.raises(ManagerFault):
        sum_of([])


def test_user_manager__within() -> None:
    assert is_within(SMALL, SMALL)
    assert is_within(SMALL, LARGE)
    assert is_within(LARGE, UNBOUND)
    assert not is_within(LARGE, SMALL)
    assert not is_within(UNBOUND, LARGE)
    for one in ("cpus", "memory", "swap"):
        assert not is_within(Bounds(**{**SMALL.__dict__, one: getattr(UNBOUND, one)}), SMALL)


def test_user_manager__bounds_of_a_folder(tmp_path: Path) -> None:
    assert read_bounds(str(tmp_path)) == UNBOUND
    for name, text in (("cpuset.cpus.effective", "1-2\n"), ("memory.max", "4096\n"), ("memory.swap.max", "max\n")):
        (tmp_path / name).write_text(text)
    assert read_bounds(str(tmp_path)) == Bounds(frozenset({1, 2}), "4096", "max")


def test_user_manager__who_has_no_manager_costs_nothing() -> None:
    """No process is started, nothing is waited for: the task ends at once."""
    for task in (refuse_manager(NOBODY, 0), confine_manager(NOBODY, [], 0)):
        with pytest.raises(StopIteration):
            next(task)
    assert not is_confined(NOBODY)
    assert main(["confine", str(NOBODY)]) == 0


def test_user_manager__roots_units_are_never_confined() -> None:
    assert main(["confine", "0"]) == 0
