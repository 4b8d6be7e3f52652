# SPDX-License-Identifier: Apache-2.0
"""Many tasks side by side, for as long as the process lives.

Rules of this file:
1. One thread, one poll(). Nothing here blocks but that poll().
2. A descriptor is waited for by one task at most, and only while that task is suspended: it is taken out before the
   task goes on, so that a task may close it and its number may be used again.
3. How a task ends is the business of whoever spawned it; no exception of a task reaches the others.
"""

from __future__ import annotations

import heapq
import select
import time

from .task import MS, Wait

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from .task import Ready, Task

    OnEnd = Callable[["Running", Any], None]
    Watcher = Callable[[int], object]
    # when, a number that no other has, and whose it is: None once nobody waits for it
    Timer = list[Any]


#: Timers that nobody waits for are taken out when there are more of them, and more than of the others.
LEFT_CAP = 64


class Flag:
    """An event that happens once. Any number of tasks may wait for it."""

    def __init__(self, loop: Loop) -> None:
        self.is_set = False
        self._loop = loop
        self._waiting: list[tuple[Running, Wait]] = []

    def set(self) -> None:
        """It has happened: every task that waits goes on (those whose time was up have another wait by now)."""
        self.is_set = True
        for running, wait in self._waiting:
            if running.wait is wait:
                self._loop.resume(running)
        self._waiting.clear()

    def add(self, running: Running, wait: Wait) -> None:
        """For the loop: this task waits."""
        self._waiting.append((running, wait))


class FlagWait(Wait):
    """A wait for a flag instead of descriptors."""

    __slots__ = ("flag",)

    def __init__(self, flag: Flag, deadline_ns: int) -> None:
        super().__init__((), deadline_ns)
        self.flag = flag


def wait_flag(flag: Flag, deadline_ns: int) -> Task[bool]:
    """Wait until the flag is set or the time has come; whether it is set."""
    while not flag.is_set and time.monotonic_ns() < deadline_ns:
        yield FlagWait(flag, deadline_ns)
    return flag.is_set


class Running:
    """A task in the loop; `wait` is what it waits for, None if it is about to go on or has ended."""

    __slots__ = ("begun", "ended", "on_end", "task", "timer", "wait")

    def __init__(self, task: Task[Any], on_end: OnEnd | None) -> None:
        self.task = task
        self.on_end = on_end
        self.wait: Wait | None = None
        self.timer: Timer | None = None
        self.begun = False
        self.ended = False


class Loop:
    """Runs tasks, calls watchers of descriptors, and calls back at points in time."""

    def __init__(self) -> None:
        self._poller = select.poll()
        self._owners: dict[int, Running | Watcher] = {}
        self._ready: list[tuple[Running, Ready]] = []
        self._timers: list[Timer] = []
        self._count = 0
        #: timers that nobody waits for any more
        self._left = 0
        #: how long the longest turn has worked since `take_longest`, and what took most of it
        self._longest_ns = 0
        self._slowest = (0, "")

    def flag(self) -> Flag:
        """A flag for tasks of this loop."""
        return Flag(self)

    def spawn(self, task: Task[Any], on_end: OnEnd | None = None) -> Running:
        """Start a task with the next turn; `on_end` gets its result, or the exception it ended with."""
        running = Running(task, on_end)
        self._ready.append((running, ()))
        return running

    def start(self, task: Task[Any], on_end: OnEnd | None = None) -> Running:
        """Call `spawn` and run the task up to its first wait now: `on_end` may be called before this returns."""
        running = Running(task, on_end)
        self._step(running, ())
        return running

    def cancel(self, running: Running) -> None:
        """Close a task, whatever it waits for; `on_end` is not called."""
        if running.ended:
            return
        running.ended = True
        running.on_end = None
        self._release(running)
        running.task.close()

    def resume(self, running: Running) -> None:
        """Let a waiting task go on with the next turn."""
        self._release(running)
        self._ready.append((running, ()))

    def watch(self, fd: int, mask: int, watcher: Watcher) -> None:
        """Call `watcher(events)` whenever the descriptor is ready (its end always counts)."""
        self._owners[fd] = watcher
        self._poller.register(fd, mask)

    def unwatch(self, fd: int) -> None:
        """The end of `watch`; harmless if there was none."""
        if self._owners.pop(fd, None) is not None:
            self._poller.unregister(fd)

    def call_at(self, when_ns: int, call: Callable[[], None]) -> Timer:
        """Call back at a point in time. Until then, or `call_off`, what `call` holds is kept."""
        return self._push(when_ns, call)

    def call_off(self, timer: Timer) -> None:
        """The end of `call_at`; harmless if it has called."""
        if timer[2] is not None:
            timer[2] = None
            self._left += 1

    def turn(self) -> None:
        """Let everything that is ready go on; wait for something if nothing is."""
        began_ns = time.monotonic_ns()
        if not self._ready:
            began_ns = self._poll()
        self._expire()
        ready, self._ready = self._ready, []
        for running, events in ready:
            if not running.ended:
                step_ns = time.monotonic_ns()
                self._step(running, events)
                self._slowest = max(self._slowest, (time.monotonic_ns() - step_ns, _name_of(running)))
        self._longest_ns = max(self._longest_ns, time.monotonic_ns() - began_ns)

    def take_longest(self) -> tuple[int, str]:
        """The longest turn since the last call, in ns, and the name of the task whose step took longest.

        While a turn works nobody else is served: this is how late the loop may be.
        """
        longest = (self._longest_ns, self._slowest[1])
        self._longest_ns, self._slowest = 0, (0, "")
        return longest

    def _poll(self) -> int:
        """Wait for something and note it; when the wait was over."""
        timeout_ms = None
        if self._timers:
            # poll() counts whole milliseconds: round up, so that nobody spins through the last one
            timeout_ms = max(0, -(-(self._timers[0][0] - time.monotonic_ns()) // MS))
        events: dict[Running, list[tuple[int, int]]] = {}
        # whose an event is, is settled before anybody acts on one: who acts may close a descriptor, and the next one
        # that is opened has its number
        found = self._poller.poll(timeout_ms)
        over_ns = time.monotonic_ns()
        batch = [(fd, event, self._owners.get(fd)) for fd, event in found]
        for fd, event, owner in batch:
            if self._owners.get(fd) is not owner:
                continue
            if isinstance(owner, Running):
                events.setdefault(owner, []).append((fd, event))
            elif owner is not None:
                owner(event)
        for running, ready in events.items():
            if running.wait is not None:  # a watcher may have cancelled it just now
                self._release(running)
                self._ready.append((running, tuple(ready)))
        return over_ns

    def _expire(self) -> None:
        now_ns = time.monotonic_ns()
        while self._timers and self._timers[0][0] <= now_ns:
            timer = heapq.heappop(self._timers)
            timed, timer[2] = timer[2], None
            if timed is None:
                self._left -= 1
            elif isinstance(timed, Running):
                self.resume(timed)
            else:
                timed()

    def _step(self, running: Running, events: Ready) -> None:
        outcome: Any
        try:
            # a generator that has not begun takes nothing but None
            wait = running.task.send(events) if running.begun else next(running.task)
            running.begun = True
        except StopIteration as end:
            outcome = end.value
        except Exception as error:  # rule 3
            # its traceback holds this frame, which holds it: what the task held would stay until the collector comes
            outcome = error.with_traceback(None)
        else:
            self._suspend(running, wait)
            return
        running.ended = True
        # who spawned it may keep it: what the callback holds is given up now
        on_end, running.on_end = running.on_end, None
        if on_end is not None:
            on_end(running, outcome)

    def _suspend(self, running: Running, wait: Wait) -> None:
        running.wait = wait
        for fd, mask in wait.fds:
            self._owners[fd] = running
            self._poller.register(fd, mask)
        if isinstance(wait, FlagWait):
            wait.flag.add(running, wait)
        running.timer = self._push(wait.deadline_ns, running)

    def _release(self, running: Running) -> None:
        wait, running.wait = running.wait, None
        for fd, _ in wait.fds if wait is not None else ():
            if self._owners.pop(fd, None) is not None:
                self._poller.unregister(fd)
        timer, running.timer = running.timer, None
        if timer is not None:
            self.call_off(timer)  # a login's waits end long before their deadlines

    def _push(self, when_ns: int, timed: Running | Callable[[], None]) -> Timer:
        if self._left > LEFT_CAP and 2 * self._left > len(self._timers):
            self._timers = [timer for timer in self._timers if timer[2] is not None]
            heapq.heapify(self._timers)
            self._left = 0
        self._count += 1
        timer = [when_ns, self._count, timed]
        heapq.heappush(self._timers, timer)
        return timer


def _name_of(running: Running) -> str:
    return getattr(running.task, "__qualname__", "?")
