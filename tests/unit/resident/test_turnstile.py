# SPDX-License-Identifier: Apache-2.0
"""A few logins of each user at a time: in order, and no turn is ever lost."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

from slurm_adopt.resident.turnstile import WIDTH, Turn, Turnstile
from slurm_adopt.system.tasks.loop import Loop, Running
from slurm_adopt.system.tasks.task import MS, DeadlineExceeded, sleep_until

if TYPE_CHECKING:
    from slurm_adopt.system.tasks.task import Task


def soon(ms: int) -> int:
    return time.monotonic_ns() + ms * MS


class Rig:
    def __init__(self) -> None:
        self.loop = Loop()
        self.turnstile = Turnstile(self.loop)
        self.inside: list[str] = []
        self.done: list[str] = []
        self.most = 0

    def login(self, name: str, uid: int = 1, ms: int = 5, patience_ms: int = 10_000) -> Running:
        return self.loop.spawn(self._login(name, uid, ms, soon(patience_ms)), lambda _, end: self._ended(name, end))

    def _login(self, name: str, uid: int, ms: int, deadline_ns: int) -> Task[None]:
        turn = Turn(self.turnstile, uid)
        yield from turn.enter(deadline_ns)
        try:
            self.inside.append(name)
            self.most = max(self.most, len(self.inside))
            yield from sleep_until(soon(ms))
        finally:
            self.inside.remove(name)
            turn.leave()
            turn.leave()  # a second time is nothing

    def _ended(self, name: str, outcome: object) -> None:
        self.done.append(f"{name} {type(outcome).__name__}" if isinstance(outcome, Exception) else name)

    def until(self, condition: Callable[[], object]) -> None:
        end = time.monotonic() + 20
        while not condition():
            assert time.monotonic() < end
            self.loop.call_at(soon(5), lambda: None)
            self.loop.turn()


def test_turnstile__in_order_and_never_too_many() -> None:
    rig = Rig()
    names = [str(number) for number in range(20)]
    for name in names:
        rig.login(name)
    rig.until(lambda: len(rig.done) == 20)
    assert rig.done == names
    assert rig.most == WIDTH


def test_turnstile__nobody_waits_for_another_user() -> None:
    rig = Rig()
    for number in range(WIDTH + 3):
        rig.login(f"a{number}", uid=1, ms=10_000)
    rig.login("b", uid=2)
    rig.until(lambda: rig.done)
    assert rig.done == ["b"]


def test_turnstile__who_waits_too_long_goes_away() -> None:
    rig = Rig()
    holders = [rig.login(str(number), ms=10_000) for number in range(WIDTH)]
    rig.login("late", patience_ms=20)
    rig.until(lambda: rig.done)
    assert rig.done == [f"late {DeadlineExceeded.__name__}"]
    rig.loop.cancel(holders[0])
    rig.login("next")
    rig.until(lambda: len(rig.done) == 2)
    assert rig.done[1] == "next"


@pytest.mark.parametrize("seed", range(20))
def test_turnstile__whoever_is_cancelled_when_no_turn_is_lost(seed: int) -> None:
    chance = random.Random(seed)
    rig = Rig()
    running = [
        rig.login(str(number), ms=chance.randrange(3), patience_ms=chance.choice((1, 5000))) for number in range(40)
    ]
    for login in chance.sample(running, 20):
        if chance.random() < 0.5:
            rig.loop.call_at(soon(1), lambda: None)
            rig.loop.turn()
        rig.loop.cancel(login)
    rig.until(lambda: all(login.ended for login in running))
    for number in range(WIDTH):
        rig.login(f"after {number}", ms=10_000)
    rig.until(lambda: len(rig.inside) == WIDTH)
