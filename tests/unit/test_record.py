# SPDX-License-Identifier: Apache-2.0
"""Records behave as the frozen dataclasses that the type checker takes them for."""

from __future__ import annotations

from typing import Any

import pytest

from slurm_adopt.record import record, replace


@record
class Point:
    x: int
    y: int = 2


@record
class Positive:
    value: int

    def __post_init__(self) -> None:
        if self.value <= 0:
            raise ValueError(self.value)


def test_record__fields_by_position_name_and_default() -> None:
    assert Point(1) == Point(1, 2) == Point(x=1, y=2) == Point(1, y=2)
    assert Point(1) != Point(2)
    assert Point(1) != (1, 2)
    assert repr(Point(1)) == "Point(x=1, y=2)"
    assert len({Point(1), Point(1, 2), Point(3)}) == 2


@pytest.mark.parametrize(
    ("args", "kwargs"),
    [
        ((), {}),
        ((1, 2, 3), {}),
        ((1,), {"x": 1}),
        ((), {"y": 1}),
        ((), {"y": 1, "z": 2}),
        ((), {"x": 1, "z": 2}),
        ((1,), {"z": 2}),
    ],
)
def test_record__wrong_fields(args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    with pytest.raises(TypeError, match="Point"):
        Point(*args, **kwargs)


def test_record__frozen() -> None:
    point: Any = Point(1)
    with pytest.raises(AttributeError):
        point.x = 5
    with pytest.raises(AttributeError):
        del point.x
    with pytest.raises(AttributeError):
        point.z = 5
    assert point == Point(1)


def test_record__replace_validates_anew() -> None:
    assert replace(Point(1), y=5) == Point(1, 5)
    with pytest.raises(TypeError):
        replace(Point(1), z=5)
    with pytest.raises(ValueError, match="0"):
        replace(Positive(1), value=0)
