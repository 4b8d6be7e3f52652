# SPDX-License-Identifier: Apache-2.0
"""Tasks side by side in the resident service."""

from __future__ import annotations

import contextlib
import gc
import os
import time
import weakref
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import pytest

from slurm_adopt.system.tasks.loop import Loop, Running, wait_flag
from slurm_adopt.system.tasks.task import MS, POLLIN, DeadlineExceeded, Wait, all_of, run, sleep_until, wait_for

if TYPE_CHECKING:
    from slurm_adopt.system.tasks.task import Task


def turn_until(loop: Loop, condition: Callable[[], object], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    loop.call_at(time.monotonic_ns() + int(seconds * 1e9), lambda: None)
    while not condition():
        assert time.monotonic() < end
        loop.turn()


def soon(ms: int = 20) -> int:
    return time.monotonic_ns() + ms * MS


def test_loop__one_that_hangs_holds_up_nobody() -> None:
    loop = Loop()
    ends: list[object] = []
    read, write = os.pipe()
    loop.spawn(wait_for(read, POLLIN, soon(10_000)), lambda _, outcome: ends.append(outcome))
    other_read, other_write = os.pipe()
    loop.spawn(wait_for(other_read, POLLIN, soon(10_000)), lambda *_: ends.append("other"))
    os.write(other_write, b"x")
    turn_until(loop, lambda: ends)
    assert ends == ["other"]
    for fd in (read, write, other_read, other_write):
        os.close(fd)


def test_loop__time_is_up() -> None:
    loop = Loop()
    ends: list[object] = []
    read, write = os.pipe()
    loop.spawn(wait_for(read, POLLIN, soon()), lambda _, outcome: ends.append(outcome))
    turn_until(loop, lambda: ends)
    assert isinstance(ends[0], DeadlineExceeded)
    os.close(read)
    os.close(write)


def test_loop__an_exception_is_an_outcome() -> None:
    def broken() -> Task[None]:
        yield from sleep_until(soon(1))
        raise RuntimeError("a fault of ours")

    loop = Loop()
    ends: list[object] = []
    loop.spawn(broken(), lambda _, outcome: ends.append(outcome))
    loop.spawn(sleep_until(soon(10)), lambda _, outcome: ends.append(outcome))
    turn_until(loop, lambda: len(ends) == 2)
    assert isinstance(ends[0], RuntimeError)
    assert ends[1] is None


class Held:
    """What a task holds: a socket, say."""


@contextlib.contextmanager
def no_collector() -> Iterator[None]:
    """As in the service, where it comes late."""
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def failing(seen: list[weakref.ref[Held]], now: bool) -> Task[None]:
    """A task that ends with an exception, at once or after a wait, and the wait is over at once."""
    held = Held()
    seen.append(weakref.ref(held))
    if not now:
        yield Wait((), 0)
    raise ValueError("failed")


@pytest.mark.parametrize("now", [True, False])
def test_loop__what_a_failed_task_held_is_freed_at_once(now: bool) -> None:
    loop = Loop()
    seen: list[weakref.ref[Held]] = []
    outcomes: list[str] = []
    with no_collector():
        loop.spawn(failing(seen, now), lambda _, outcome: outcomes.append(str(outcome)))
        turn_until(loop, lambda: outcomes)
        assert outcomes == ["failed"]
        assert seen[0]() is None


@pytest.mark.parametrize("now", [True, False])
def test_all_of__what_a_failed_task_held_is_freed_at_once(now: bool) -> None:
    seen: list[weakref.ref[Held]] = []
    with no_collector():
        outcomes = run(all_of([failing(seen, now)], soon()))
        assert [str(outcome) for outcome in outcomes] == ["failed"]
        assert seen[0]() is None
        del outcomes


def test_loop__a_cancelled_task_releases_what_it_holds() -> None:
    released = []

    def holder(fd: int) -> Task[None]:
        try:
            yield from wait_for(fd, POLLIN, soon(10_000))
        finally:
            released.append(fd)

    loop = Loop()
    read, write = os.pipe()
    running: Running = loop.spawn(holder(read), lambda *_: released.append(-1))
    turn_until(loop, lambda: running.wait is not None)
    loop.cancel(running)
    assert released == [read]
    os.write(write, b"x")
    loop.call_at(0, lambda: None)
    loop.turn()
    assert released == [read]
    os.close(read)
    os.close(write)


def test_loop__nothing_is_kept_of_waits_that_ended_long_before_their_deadline() -> None:
    """As nearly all of a login's do; and those whose time comes are called among them."""

    def alive() -> int:
        return sum(isinstance(thing, (Wait, Running)) for thing in gc.get_objects())

    loop = Loop()
    ends: list[str] = []
    before = alive()
    read, write = os.pipe()
    os.write(write, b"x")
    late, early = os.pipe(), os.pipe()
    loop.spawn(wait_for(late[0], POLLIN, soon(60)), lambda _, outcome: ends.append(f"late {type(outcome).__name__}"))
    for _ in range(500):
        loop.spawn(wait_for(read, POLLIN, soon(100_000)), lambda _, outcome: ends.append(str(outcome)))
        turn_until(loop, lambda: str(POLLIN) in ends)
        ends[:] = [end for end in ends if end.startswith("late")]
    assert alive() - before <= 2, "the one that is late"
    loop.spawn(wait_for(early[0], POLLIN, soon(10)), lambda _, outcome: ends.append(f"early {type(outcome).__name__}"))
    turn_until(loop, lambda: len(ends) == 2)
    assert sorted(ends) == ["early DeadlineExceeded", "late DeadlineExceeded"]
    for fd in (read, write, *late, *early):
        os.close(fd)


def test_loop__what_was_called_off_is_not_called_and_not_kept() -> None:
    loop = Loop()
    calls: list[int] = []

    def call_of(held: Held) -> Callable[[], None]:
        return lambda: calls.append(id(held))

    held = Held()
    seen = weakref.ref(held)
    timers = [loop.call_at(soon(20), call_of(held)), loop.call_at(soon(1), lambda: calls.append(1))]
    del held
    with no_collector():
        loop.call_off(timers[0])
        assert seen() is None
    turn_until(loop, lambda: calls)
    loop.call_off(timers[1])  # has called
    loop.call_at(soon(30), lambda: calls.append(2))
    turn_until(loop, lambda: len(calls) == 2)
    assert calls == [1, 2]


def test_loop__a_flag_wakes_all_who_wait_and_nobody_else() -> None:
    loop = Loop()
    ends: list[bool] = []
    flag, other = loop.flag(), loop.flag()
    for _ in range(3):
        loop.spawn(wait_flag(flag, soon(10_000)), lambda _, outcome: ends.append(outcome))
    loop.spawn(wait_flag(other, soon(10_000)), lambda _, outcome: ends.append(outcome))
    loop.call_at(soon(5), flag.set)
    turn_until(loop, lambda: len(ends) == 3)
    loop.call_at(0, lambda: None)
    loop.turn()
    assert ends == [True, True, True]
    loop.spawn(wait_flag(other, soon(5)), lambda _, outcome: ends.append(outcome))
    turn_until(loop, lambda: len(ends) == 4)
    assert ends[-1] is False


def test_loop__a_number_that_is_used_again_gets_no_old_event() -> None:
    """One watcher closes a descriptor that is ready as well, and another one takes its number."""
    loop = Loop()
    first, second = os.pipe(), os.pipe()
    os.write(first[1], b"x")
    os.write(second[1], b"x")
    got: list[str] = []

    def replace(mine: int, other: int) -> None:
        got.append("first")
        loop.unwatch(mine)
        loop.unwatch(other)
        fresh = os.pipe()
        os.dup2(fresh[0], other)
        loop.watch(other, POLLIN, lambda _: got.append("stale event"))

    loop.watch(first[0], POLLIN, lambda _: replace(first[0], second[0]))
    loop.watch(second[0], POLLIN, lambda _: replace(second[0], first[0]))
    loop.turn()
    loop.call_at(0, lambda: None)
    loop.turn()
    assert got == ["first"]


def never() -> Task[str]:
    yield Wait((), soon(60_000))
    return "late"


def at_once(value: str) -> Task[str]:
    yield from ()
    return value


def test_all_of__hung_ones_do_not_keep_the_rest_from_their_turn() -> None:
    tasks = [never(), *[at_once(str(n)) for n in range(10)]]
    outcomes = run(all_of(tasks, soon(50), width=2))
    assert isinstance(outcomes[0], DeadlineExceeded)
    assert outcomes[1:] == [str(n) for n in range(10)]


def test_all_of__one_result_is_enough_after_a_while() -> None:
    outcomes = run(all_of([never(), at_once("found")], soon(600_000), enough_ns=soon(20)))
    assert outcomes[1] == "found"
    assert isinstance(outcomes[0], DeadlineExceeded)


def test_loop__says_how_late_it_was_and_who_held_it_up() -> None:
    loop = Loop()

    def busy() -> Task[None]:
        until = time.monotonic_ns() + 20_000_000
        while time.monotonic_ns() < until:
            pass
        yield from ()

    loop.spawn(busy())
    loop.turn()
    longest_ns, name = loop.take_longest()
    assert longest_ns >= 20_000_000
    assert name.endswith("busy")
    assert loop.take_longest() == (0, "")
