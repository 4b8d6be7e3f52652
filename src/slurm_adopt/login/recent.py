# SPDX-License-Identifier: Apache-2.0
"""What logins have just found out, for those that come at the same moment. The resident service has one; a helper's own
is empty and stays so.
"""

from __future__ import annotations

import time

from ..options.parse import parse_options
from ..system.tasks.task import MS
from ..wire.cgroup_path import same_step

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import TypeVar

    from ..options.parse import Options
    from ..system.host.pam_stack import KnownStacks, Stack
    from ..wire.cgroup_path import Membership

    K = TypeVar("K")
    V = TypeVar("V")

#: Sessions of one step look alike, and a node has fewer steps; users with a job in its prolog are fewer still.
CAP = 256
#: Where a user's jobs are, for who tries again at once: jobs start and end.
ELSEWHERE_NS = 15_000 * MS
#: After slurmctld did not answer, refusals go out at once for a while.
SILENT_NS = 30_000 * MS
#: Users for whom slurmctld is asked at the same time.
ASKING_CAP = 4


class Recent:
    """Small tables; each is forgotten when it is full."""

    def __init__(self) -> None:
        self._options: dict[tuple[str, ...], Options] = {}
        self._memberships: dict[tuple[bytes, bytes], Membership] = {}
        self._stacks: KnownStacks | None = None
        self._prologs: dict[tuple[str, int], tuple[int, tuple[int, ...]]] = {}
        #: in which version slurmctld has answered (0: it is not known)
        self.controller_version = 0
        self._elsewhere: dict[int, tuple[int, str]] = {}
        self._asking = 0
        self._silent_until_ns = 0

    def options_of(self, args: tuple[str, ...]) -> Options:
        """`parse_options`, which is pure, once for all logins by the same PAM line."""
        known = self._options.get(args)
        if known is None:
            known = parse_options(args)
            _keep(self._options, args, known)
        return known

    def membership_of(self, reference: bytes, target: bytes) -> Membership:
        """`same_step`, which is pure and takes 0.1 ms, once for all logins that look the same."""
        known = self._memberships.get((reference, target))
        if known is None:
            known = same_step(reference, target)
            _keep(self._memberships, (reference, target), known)
        return known

    def read_stack(self, service: str, kind: str, root: str = "") -> Stack:
        """The PAM stack of a service, read once for all logins while its files stay as they are."""
        if self._stacks is None:
            from ..system.host.pam_stack import KnownStacks  # here, because without logind most logins need no stack

            self._stacks = KnownStacks()
        return self._stacks.read(service, kind, root)

    def prologs(self, nodename: str, uid: int, since_ns: int) -> tuple[int, ...] | None:
        """The user's jobs in their prolog, if somebody has looked since then."""
        seen_ns, jobs = self._prologs.get((nodename, uid), (0, ()))
        return jobs if seen_ns > since_ns else None

    def keep_prologs(self, nodename: str, uid: int, now_ns: int, jobs: tuple[int, ...]) -> None:
        """Somebody has looked."""
        _keep(self._prologs, (nodename, uid), (now_ns, jobs))

    def elsewhere_of(self, uid: int) -> str | None:
        """Where the user's jobs are, in words, if that was asked a moment ago; None if not."""
        until_ns, words = self._elsewhere.get(uid, (0, ""))
        return words if until_ns > time.monotonic_ns() else None

    def begin_asking(self, uid: int) -> bool:
        """Whether slurmctld may be asked for this user now; the user's other logins do without, until it has answered.

        If so, `end_asking` has to follow.
        """
        if self._asking >= ASKING_CAP or self._silent_until_ns > time.monotonic_ns():
            return False
        self._asking += 1
        self.keep_elsewhere(uid, "")
        return True

    def end_asking(self) -> None:
        """It has answered, or not."""
        self._asking -= 1

    def keep_elsewhere(self, uid: int, words: str) -> None:
        """It has answered."""
        _keep(self._elsewhere, uid, (time.monotonic_ns() + ELSEWHERE_NS, words))

    def keep_silence(self) -> None:
        """slurmctld is not asked for anybody for a while."""
        self._silent_until_ns = time.monotonic_ns() + SILENT_NS


def _keep(table: dict[K, V], key: K, value: V) -> None:
    if len(table) >= CAP:
        table.clear()
    table[key] = value
