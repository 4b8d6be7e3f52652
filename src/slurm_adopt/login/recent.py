# SPDX-License-Identifier: Apache-2.0
"""What logins have just found out, for those that come at the same moment. The resident service has one; a helper's own
is empty and stays so.
"""

from __future__ import annotations

from ..wire.cgroup_path import same_step

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..system.host.pam_stack import KnownStacks, Stack
    from ..wire.cgroup_path import Membership

#: Sessions of one step look alike, and a node has fewer steps; users with a job in its prolog are fewer still.
CAP = 1024


class Recent:
    """Small tables; each is forgotten when it is full."""

    def __init__(self) -> None:
        self._memberships: dict[tuple[bytes, bytes], Membership] = {}
        self._stacks: KnownStacks | None = None
        self._prologs: dict[tuple[str, int], tuple[int, tuple[int, ...]]] = {}

    def membership_of(self, reference: bytes, target: bytes) -> Membership:
        """`same_step`, which is pure and takes 0.1 ms, once for all logins that look the same."""
        known = self._memberships.get((reference, target))
        if known is None:
            if len(self._memberships) >= CAP:
                self._memberships.clear()
            known = self._memberships[reference, target] = same_step(reference, target)
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
        if len(self._prologs) >= CAP:
            self._prologs.clear()
        self._prologs[nodename, uid] = now_ns, jobs
