# SPDX-License-Identifier: Apache-2.0
"""Logins of one user, a few at a time.

slurmstepd has a thread for each connection, adopts under one lock, and reads all processes of its step each time.
Sixty logins at once into one step took 2.5 s where they took 0.6 s four at a time (Slurm 22.05, cgroup v1, 2 cores).
As a step is one user's, counting users is enough; and users wait only for their own logins.

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
    """Lets `WIDTH` logins of each user through at once."""

    def __init__(self, loop: Loop) -> None:
        self._loop = loop
        self._inside: dict[int, int] = {}
        self._queues: dict[int, list[Flag]] = {}

    def wait(self, uid: int, deadline_ns: int) -> Task[None]:
        """For `Turn`: `leave` must follow exactly once."""
        if self._inside.get(uid, 0) < WIDTH:
            self._inside[uid] = self._inside.get(uid, 0) + 1
            return
        flag = self._loop.flag()
        self._queues.setdefault(uid, []).append(flag)
        entered = False
        try:
            entered = yield from wait_flag(flag, deadline_ns)
        finally:
            if not entered:
                self._give_up(uid, flag)
        if not entered:
            raise DeadlineExceeded

    def leave(self, uid: int) -> None:
        """For `Turn`: a place is free."""
        queue = self._queues.get(uid)
        if queue:
            queue.pop(0).set()
            return
        self._queues.pop(uid, None)
        self._inside[uid] -= 1
        if not self._inside[uid]:
            del self._inside[uid]

    def _give_up(self, uid: int, flag: Flag) -> None:
        if flag.is_set:
            self.leave(uid)
        else:
            self._queues[uid].remove(flag)
