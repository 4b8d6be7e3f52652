# SPDX-License-Identifier: Apache-2.0
"""Remembers the machines that logins come from, in the resident service.

Rules of this file:
1. Nothing in here grants: a wrong or lost entry costs time, or a login that goes where it would go without caller ID.
2. What gets in are addresses of real connections of users who may log in and have several jobs here. An entry is
   on the account of the user who brought it: who brings many (IPv6 gives everyone 2**64) drives out no other user's.
3. A place is silent only if it was given a fair time, and answered nobody meanwhile. An authentic answer ends that, and
   nothing else does but time.
4. Every entry ends after a while, used or not: nodes are upgraded, moved and repaired.
"""

from __future__ import annotations

import time

from ...record import record
from ..tasks.task import MS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, Protocol

    from ...wire.slurm_nodes import NodeRecord
    from ..slurm.conf import SlurmConf
    from ..tasks.task import Task
    from .munge import MungeWorkers

    Place = tuple[str, int]

    class Turns(Protocol):
        """A few at a time for each key."""

        def wait(self, key: object, deadline_ns: int) -> Task[None]:
            """Until it is one's turn; `leave` has to follow. `DeadlineExceeded`."""

        def leave(self, key: object) -> None:
            """The next one's turn."""


#: One more second of waiting per minute and source is what a dropping firewall costs all its users together.
SILENT_NS = 60_000 * MS
#: Short, because a low version binds the answer less strongly: nobody forces one on us for long.
VERSION_NS = 600_000 * MS
#: A node's name and address are as good as DNS, whose records rarely live shorter.
NODES_NS = 300_000 * MS
#: A new node's logins do without caller ID for as long.
STRANGER_NS = 60_000 * MS
#: 10,000 nodes may be configured; at most some hundred are the sources of logins to one node.
CAP = 4096
#: One user's share of it.
SHARE = 64


@record
class _Entry:
    value: Any
    end_ns: int
    uid: int


class Table:
    """Values that end after a while. The longest unused goes first; a user's entries never drive out another's."""

    def __init__(self, clock: Callable[[], int], cap: int = CAP, share: int = SHARE) -> None:
        self._clock = clock
        self._cap = cap
        self._share = share
        self._entries: dict[object, _Entry] = {}
        self._counts: dict[int, int] = {}

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, key: object) -> Any:
        """The value, None if there is none that has not ended."""
        entry = self._entries.get(key)
        if entry is None:
            return None
        if entry.end_ns <= self._clock():
            self.remove(key)
            return None
        # the order of the dict is the order of use
        self._entries[key] = self._entries.pop(key)
        return entry.value

    def put(self, key: object, value: Any, uid: int, life_ns: int) -> None:
        """Keep a value for `life_ns`, on the account of `uid`, or of who brought the key first."""
        old = self._entries.get(key)
        owner = uid if old is None else old.uid
        self.remove(key)
        if self._counts.get(owner, 0) >= self._share:
            self.remove(next(other for other, entry in self._entries.items() if entry.uid == owner))
        elif len(self._entries) >= self._cap:
            self.remove(next(iter(self._entries)))
        self._entries[key] = _Entry(value, self._clock() + life_ns, owner)
        self._counts[owner] = self._counts.get(owner, 0) + 1

    def remove(self, key: object) -> None:
        """Forget a key, if it is there."""
        entry = self._entries.pop(key, None)
        if entry is None:
            return
        left = self._counts[entry.uid] - 1
        if left:
            self._counts[entry.uid] = left
        else:
            del self._counts[entry.uid]

    def clear(self) -> None:
        """Forget everything."""
        self._entries.clear()
        self._counts.clear()


class CallerMemory:
    """The three tables: whose address it is, which version a place speaks, which places are silent."""

    def __init__(self, clock: Callable[[], int] = time.monotonic_ns) -> None:
        self._clock = clock
        #: whom to ask about credentials; None: each question has its own
        self.workers: MungeWorkers | None = None
        #: who may ask now, of the logins of one user from one address; None: everybody
        self.turns: Turns | None = None
        self._nodes: Table = Table(clock)
        self._versions: Table = Table(clock)
        self._silent: Table = Table(clock)
        self._answers: Table = Table(clock)
        self._conf: SlurmConf | None = None
        self._hosts: object = None
        #: addresses whose name is being looked up
        self.resolving: set[str] = set()

    def nodes_of(self, address: str, conf: SlurmConf, hosts: object) -> list[NodeRecord] | None:
        """The nodes of an address, none if it is nobody's, None if that is not known.

        `hosts` tells the states of /etc/hosts apart.
        """
        if conf is not self._conf or hosts != self._hosts:
            self._nodes.clear()
            self._conf, self._hosts = conf, hosts
        nodes: list[NodeRecord] | None = self._nodes.get(address)
        return nodes

    def keep_nodes(self, address: str, nodes: list[NodeRecord], conf: SlurmConf, hosts: object, uid: int) -> None:
        """Remember the nodes found for an address, with the files that `nodes_of` was asked about."""
        if conf is self._conf and hosts == self._hosts:
            self._nodes.put(address, nodes, uid, NODES_NS if nodes else STRANGER_NS)

    def version_of(self, place: Place) -> int:
        """The protocol version that this address and port have answered to; 0 if none is known."""
        version: int = self._versions.get(place) or 0
        return version

    def silent_ns(self, place: Place, uid: int) -> int:
        """How much longer this address and port shall not be asked for a login of this user.

        One user who finds it silent (or has made it so) keeps nobody else from asking; two of them are believed.
        """
        ends: dict[int, int] = self._silent.get(place) or {}
        now_ns = self._clock()
        left = {user: end_ns - now_ns for user, end_ns in ends.items() if end_ns > now_ns}
        return left.get(uid, max(left.values()) if len(left) > 1 else 0)

    def keep_answer(self, place: Place, version: int, uid: int) -> None:
        """An authentic answer has come."""
        self._silent.remove(place)
        self._answers.put(place, self._clock(), uid, SILENT_NS)
        self._versions.put(place, version, uid, VERSION_NS)

    def forget_version(self, place: Place) -> None:
        """The version that was known does not work any more."""
        self._versions.remove(place)

    def keep_silence(self, place: Place, uid: int, since_ns: int = 0) -> None:
        """No answer to a question of `since_ns` has come in a fair time."""
        now_ns = self._clock()
        answered_ns: int = self._answers.get(place) or 0
        if since_ns and answered_ns > since_ns:
            return  # it is only slow: others' questions have been answered since
        ends: dict[int, int] = self._silent.get(place) or {}
        ends = {user: end_ns for user, end_ns in ends.items() if end_ns > now_ns and user != uid}
        # two are enough: what a third one says is said already
        self._silent.put(place, {**dict(list(ends.items())[-1:]), uid: now_ns + SILENT_NS}, uid, SILENT_NS)
