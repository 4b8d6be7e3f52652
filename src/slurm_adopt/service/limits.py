# SPDX-License-Identifier: Apache-2.0
"""The job's resource limits for a session (`rlimits=job`).

pam_limits gives a login the node's limits, not those that slurmstepd has given the job: memlock for InfiniBand,
nofile, stack. LaunchParameters=ulimit_pam_adopt (Slurm 23.02) covers RLIMIT_RSS alone.

Rules of this file:
1. The source is a process of the job that is not a login. Nobody but root can raise a hard limit, so the highest one
   among them is never more than slurmstepd gave the job, whatever the user's programs have done since.
2. Applied in the session phase, after pam_limits, to the processes of the login; only if they are still the same.
3. If there is nothing to take them from (a job without steps), pam_limits' stay.
"""

from __future__ import annotations

from ..system.procfs import read_started

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from ..system.procfs import Process

    Limit = tuple[int, int]

#: Linux has sixteen, numbered from 0; source and target are on one machine, so the numbers need no names.
COUNT = 16
INFINITY = -1


def read_limits(pids: Iterable[int]) -> tuple[Limit, ...]:
    """The highest (soft, hard) limits among the processes, by the kernel's number; empty if none can be read."""
    import resource

    highest: list[Limit] = []
    for pid in pids:
        try:
            limits = [resource.prlimit(pid, number) for number in range(COUNT)]
        except OSError:
            continue  # it has ended
        highest = [_highest(*pair) for pair in zip(highest, limits)] if highest else limits
    return tuple(highest)


def apply_limits(limits: tuple[Limit, ...], processes: Iterable[Process]) -> str:
    """Give the limits to the login's processes; the return value says what failed, for the log."""
    import resource

    failed = []
    for process in processes:
        if read_started(process.pid) != process.started:
            continue
        for number, limit in enumerate(limits):
            try:
                resource.prlimit(process.pid, number, limit)
            except (OSError, ValueError) as error:
                failed.append(f"{number}: {error}")
    return f"rlimits: {failed[0]}" if failed else ""


def _highest(one: Limit, other: Limit) -> Limit:
    return _larger(one[0], other[0]), _larger(one[1], other[1])


def _larger(one: int, other: int) -> int:
    return INFINITY if INFINITY in (one, other) else max(one, other)
