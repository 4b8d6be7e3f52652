# SPDX-License-Identifier: Apache-2.0
"""Decides which login is served now, which waits, and which goes to the one-shot helper.

Rules of this file:
1. Pure book-keeping: no I/O, no clock.
2. One user never has more than a quarter of the places, nor of the waiting room: whatever users do to their own
   jobs (a hung slurmstepd holds a place up to the login's deadline), the others find a place.
3. Waiting is better than sending away: a storm that is sent away starts a process for each login. Only what would
   not fit the waiting room goes there.
4. Places that become free go round among the users that wait, not to the one that asked most.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

RUN, WAIT, SEND_AWAY = "run", "wait", "send-away"
PLACES = 512
WAITING_ROOM = 2048


class Admission:
    """The places of the service. A login is whatever stands for it: the caller gets back what it has offered."""

    def __init__(self, places: int = PLACES, waiting_room: int = WAITING_ROOM) -> None:
        self.places = places
        self.share = max(1, places // 4)
        self.waiting_share = max(1, waiting_room // 4)
        self.waiting_room = waiting_room
        self.running = 0
        self.waiting = 0
        self._running: dict[int, int] = {}
        #: in the order in which the users get their turn
        self._queues: dict[int, list[Any]] = {}

    def offer(self, uid: int, login: Any) -> str:
        """A login of this user has come: `RUN`, `WAIT` (a later `leave` returns it) or `SEND_AWAY`."""
        queue = self._queues.get(uid, [])
        if not queue and self._take(uid):
            return RUN
        if len(queue) >= self.waiting_share or self.waiting >= self.waiting_room:
            return SEND_AWAY
        self._queues.setdefault(uid, []).append(login)
        self.waiting += 1
        return WAIT

    def leave(self, uid: int) -> list[Any]:
        """A running login of this user has ended: the logins that run from now on."""
        self.running -= 1
        self._running[uid] -= 1
        if not self._running[uid]:
            del self._running[uid]
        return self._next()

    def give_up(self, uid: int, login: Any) -> None:
        """A waiting login goes away."""
        self._queues[uid].remove(login)
        self.waiting -= 1
        if not self._queues[uid]:
            del self._queues[uid]

    def _next(self) -> list[Any]:
        started: list[Any] = []
        for uid in list(self._queues):
            if not self._take(uid):
                continue
            queue = self._queues.pop(uid)
            started.append(queue.pop(0))
            self.waiting -= 1
            if queue:
                self._queues[uid] = queue  # behind all others
        return started

    def _take(self, uid: int) -> bool:
        """A place for one more login of this user, if there is one."""
        has = self._running.get(uid, 0)
        if self.running >= self.places or has >= self.share:
            return False
        self.running += 1
        self._running[uid] = has + 1
        return True
