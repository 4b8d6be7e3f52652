# SPDX-License-Identifier: Apache-2.0
"""Tasks: I/O that waits without blocking anybody else.

A task is a generator. It yields a `Wait` (some descriptors, one point in time), and is resumed with
those of them that are ready, or with an empty tuple when the time has come. The one-shot helper runs one task
to its end with `run()`; the resident service runs hundreds side by side; the login itself is the same code.

Rules of this file:
1. Nothing here does I/O except waiting.
2. A task that is given up is closed: its `finally` blocks release what it holds.
3. Time is `time.monotonic_ns()` and is always passed as a point in time, never as a duration.
"""

from __future__ import annotations

import errno
import select
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Sequence
    from typing import Any, TypeVar, Union

    T = TypeVar("T")
    Ready = tuple[tuple[int, int], ...]
    Task = Generator["Wait", Ready, T]
    Outcome = Union[T, Exception]

POLLIN = select.POLLIN
POLLOUT = select.POLLOUT
MS = 1_000_000
#: EAGAIN: no further process (fork); sockets say it as `BlockingIOError` only where it is expected.
OWN_LACK = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.EAGAIN)


class DeadlineExceeded(Exception):
    """The login's time was up before the other side answered."""


class HelperNeeded(Exception):
    """The resident service may not do what this login needs; a one-shot helper, which has root's rights, may."""


def raise_own_lack(error: OSError) -> None:
    """That we have no descriptor or memory left says nothing about what was to be opened: pass it on.

    A one-shot helper has its own.
    """
    if error.errno in OWN_LACK:
        raise error


class Wait:
    """A wait of a task, for any of `fds` (descriptor, poll mask), or the time `deadline_ns`."""

    __slots__ = ("deadline_ns", "fds")

    def __init__(self, fds: Sequence[tuple[int, int]], deadline_ns: int) -> None:
        self.fds = fds
        self.deadline_ns = deadline_ns


def wait_for(fd: int, mask: int, deadline_ns: int) -> Task[int]:
    """Wait until `fd` is ready and return its events; `DeadlineExceeded` when it is not in time."""
    ready = yield Wait(((fd, mask),), deadline_ns)
    if not ready:
        raise DeadlineExceeded
    return ready[0][1]


def sleep_until(deadline_ns: int) -> Task[None]:
    """Wait for a point in time."""
    while time.monotonic_ns() < deadline_ns:
        yield Wait((), deadline_ns)


def halfway(deadline_ns: int) -> int:
    """The point in time at which half of what is left has passed: the other half is for what comes then."""
    now_ns = time.monotonic_ns()
    return now_ns + (deadline_ns - now_ns) // 2


def poll_once(wait: Wait) -> Ready:
    """Block until something of `wait` is ready or its time has come."""
    poller = select.poll()
    for fd, mask in wait.fds:
        poller.register(fd, mask)
    left_ns = wait.deadline_ns - time.monotonic_ns()
    # poll() counts whole milliseconds: round up, so that nobody spins through the last one
    return tuple(poller.poll(max(0, -(-left_ns // MS))))


def run(task: Task[T]) -> T:
    """Run one task to its end, alone in this thread."""
    try:
        wait = next(task)
        while True:
            wait = task.send(poll_once(wait))
    except StopIteration as end:
        return end.value  # type: ignore[no-any-return]
    finally:
        task.close()


class Begun:
    """A task that has run up to its first wait; `result()` goes on with it. A context manager that closes it."""

    def __init__(self, task: Task[T]) -> None:
        self._task = task
        self._wait: Wait | None = None
        self._value: Any = None
        try:
            self._wait = next(task)
        except StopIteration as end:
            self._value = end.value

    @property
    def is_over(self) -> bool:
        """Whether there was nothing to wait for."""
        return self._wait is None

    def result(self) -> Task[Any]:
        """Return the result of the task."""
        while self._wait is not None:
            ready = yield self._wait
            try:
                self._wait = self._task.send(ready)
            except StopIteration as end:
                self._wait, self._value = None, end.value
        return self._value

    def __enter__(self) -> Begun:
        return self

    def __exit__(self, *_: object) -> None:
        self._task.close()


def begin(task: Task[Any]) -> Begun:
    """Let a task ask its first questions now; what can be done until they are answered is done before `result()`."""
    return Begun(task)


def all_of(
    tasks: Sequence[Task[T]],
    until_ns: int,
    enough_ns: int = 0,
    width: int = 256,
    is_enough: Callable[[T], bool] = bool,
) -> Task[list[Outcome[T]]]:
    """Run tasks side by side; their results, or the exceptions they ended with, in their order.

    A task that is not done at `until_ns` is closed, its outcome is `DeadlineExceeded`. With `enough_ns`, one result
    that `is_enough` is enough from then on. At most `width` tasks are under way at once.
    """
    outcomes: list[Any] = [DeadlineExceeded()] * len(tasks)
    waiting: dict[int, Wait] = {}
    started = 0
    found = False

    def step(index: int, ready: Ready | None) -> None:
        nonlocal found
        try:
            waiting[index] = next(tasks[index]) if ready is None else tasks[index].send(ready)
        except StopIteration as end:
            waiting.pop(index, None)
            outcomes[index] = end.value
            found = found or is_enough(end.value)
        except Exception as error:  # the outcome of one task is not the business of the others
            waiting.pop(index, None)
            # its traceback holds the list that holds it: what the task held would stay until the collector comes
            outcomes[index] = error.with_traceback(None)

    ready: Ready
    try:
        while True:
            while started < len(tasks) and len(waiting) < width:
                step(started, None)
                started += 1
            stop_ns = min(until_ns, enough_ns) if found and enough_ns else until_ns
            if not waiting or time.monotonic_ns() >= stop_ns:
                return outcomes
            owner = {fd: index for index, wait in waiting.items() for fd, _ in wait.fds}
            fds = [fd for wait in waiting.values() for fd in wait.fds]
            ready = yield Wait(fds, min(stop_ns, *[wait.deadline_ns for wait in waiting.values()]))
            events: dict[int, list[tuple[int, int]]] = {}
            for fd, event in ready:
                events.setdefault(owner[fd], []).append((fd, event))
            now_ns = time.monotonic_ns()
            for index, wait in list(waiting.items()):
                if index in events or now_ns >= wait.deadline_ns:
                    step(index, tuple(events.get(index, ())))
    finally:
        for task in tasks:
            task.close()
