# SPDX-License-Identifier: Apache-2.0
"""Logins of one user, a few at a time: at their steps, or at the node that they come from.

slurmstepd has a thread for each connection, adopts under one lock, and reads all processes of its step each time.
Sixty logins at once into one step took 2.5 s where they took 0.6 s four at a time (Slurm 22.05, cgroup v1, 2 cores).
As a step is one user's, counting users is enough; and users wait only for their own logins. The node that logins come
from did not answer fifty at once in time on two busy cores; then none of the user's asked it any more for a minute.

Rules of this file:
1. First come, first served; who goes away while waiting is forgotten, who goes away as its turn comes passes it on.
2. A wait ends with the login's deadline.
3. A login that waits for anything but its user's steps (a source host, a prolog) gives its turn up meanwhile.
"""

from __future__ import annotations

from ..system.tasks.loop import wait_flag
from ..system.tasks.task import DeadlineExceeded

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Hashable

    from ..system.tasks.loop import Flag, Loop
    from ..system.tasks.task import Task

WIDTH = 4


class Turn:
    """A login's turn, which it may give up and take again; `leave` twice is nothing."""

    def __init__(self, turnstile: Turnstile, uid: int) -> None:
        self._turnstile = turnstile
        self._uid = uid
        self._inside = False

    def enter(self, deadline_ns: int) -> Task[None]:
        """Wait for a turn. `DeadlineExceeded` if there is none in time."""
        if not self._inside:
            yield from self._turnstile.wait(self._uid, deadline_ns)
            self._inside = True

    def leave(self) -> None:
        """The next one's turn."""
        if self._inside:
            self._inside = False
            self._turnstile.leave(self._uid)


class Turnstile:
    """Lets `WIDTH` logins of each key through at once."""

    def __init__(self, loop: Loop) -> None:
        self._loop = loop
        self._inside: dict[Hashable, int] = {}
        self._queues: dict[Hashable, list[Flag]] = {}

    def wait(self, key: Hashable, deadline_ns: int) -> Task[None]:
        """For `Turn`: `leave` must follow exactly once."""
        if self._inside.get(key, 0) < WIDTH:
            self._inside[key] = self._inside.get(key, 0) + 1
            return
        flag = self._loop.flag()
        self._queues.setdefault(key, []).append(flag)
        entered = False
        try:
            entered = yield from wait_flag(flag, deadline_ns)
        finally:
            if not entered:
                self._give_up(key, flag)
        if not entered:
            raise DeadlineExceeded

    def leave(self, key: Hashable) -> None:
        """For `Turn`: a place is free."""
        queue = self._queues.get(key)
        if queue:
            queue.pop(0).set()
            return
        self._queues.pop(key, None)
        self._inside[key] -= 1
        if not self._inside[key]:
            del self._inside[key]

    def _give_up(self, key: Hashable, flag: Flag) -> None:
        if flag.is_set:
            self.leave(key)
        else:
            self._queues[key].remove(flag)
