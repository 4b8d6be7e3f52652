# SPDX-License-Identifier: Apache-2.0
"""The job's resource limits for a session (`rlimits=job`).

pam_limits gives a login the node's limits, not those that slurmstepd has given the job: memlock for InfiniBand,
nofile, stack. LaunchParameters=ulimit_pam_adopt (Slurm 23.02) covers RLIMIT_RSS alone.

The user has chosen the job's limits, and sshd, which is root's, gets them before the session inherits them. So the soft
limit of core dumps stays (one of sshd's would hold its keys). What sshd has used up already, or shares with the user's
other processes (CPU time, file size, number of processes), may rise but never falls. The others keep what sshd needs to
carry the login to its end, as far as pam_limits has given that much.

Rules of this file:
1. The source is a process of the job that is not a login. Nobody but root can raise a hard limit, so the highest one
   among them is never more than slurmstepd gave the job, whatever the user's programs have done since.
2. Applied in the session phase, after pam_limits, to the processes of the login; only if they are still the same.
3. If there is nothing to take them from (a job without steps), pam_limits' stay.
"""

from __future__ import annotations

from ...system.kernel.procfs import is_same, read_limits_text

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from ...system.kernel.procfs import AnyProcess, Process

    Limit = tuple[int, int]

#: Linux has sixteen, numbered from 0; source and target are on one machine, so the numbers need no names.
COUNT = 16
INFINITY = -1
CORE = 4
#: By the kernel's numbers: CPU, FSIZE (sshd records the login in wtmp and lastlog), NPROC.
RISING = (0, 1, 6)
#: DATA and STACK in bytes, NOFILE, AS in bytes.
FLOORS = {2: 1 << 30, 3: 1 << 20, 7: 256, 9: 1 << 30}
#: "Max realtime timeout      " and all others in /proc/PID/limits
NAME_WIDTH = 26


def read_limits(sources: Iterable[AnyProcess]) -> tuple[Limit, ...]:
    """The highest (soft, hard) limits among the processes, by the kernel's number; empty if none can be read."""
    highest: list[Limit] = []
    for process in sources:
        # not prlimit(2): to look at another user's process it wants CAP_SYS_RESOURCE, which root in a container lacks
        limits = _decode(read_limits_text(process) or b"")
        if limits:
            highest = [_highest(*pair) for pair in zip(highest, limits)] if highest else limits
    return tuple(highest)


def apply_limits(limits: tuple[Limit, ...], processes: Iterable[Process]) -> str:
    """Give the limits to the login's processes; the return value says what failed, for the log.

    Without CAP_SYS_RESOURCE (a node in a container) a hard limit of pam_limits cannot be raised: then it stays.
    """
    import resource

    failed: list[str] = []
    for process in processes:
        if not is_same(process):
            continue
        for number, wanted in enumerate(limits):
            limit = wanted
            try:
                limit = limit_for(number, wanted, resource.prlimit(process.pid, number))
                resource.prlimit(process.pid, number, limit)
            except (OSError, ValueError) as error:
                failed.append(f"rlimit {number} could not be raised: {error}")
                _lower(process, number, limit)
    return failed[0] if failed else ""


def limit_for(number: int, job: Limit, own: Limit) -> Limit:
    """What a process of the login gets: the job's limit, as far as sshd can live with it. `own` is what it has now."""
    if number == CORE:  # the session may raise it for itself
        return _smaller(own[0], job[1]), job[1]
    if number in RISING:
        return _highest(job, own)
    floor = FLOORS.get(number, 0)
    return _larger(job[0], _smaller(floor, own[0])), _larger(job[1], _smaller(floor, own[1]))


def _lower(process: AnyProcess, number: int, limit: Limit) -> None:
    """Set the limit, cut to what the process's own hard limit allows."""
    import resource

    try:
        hard = resource.prlimit(process.pid, number)[1]
        resource.prlimit(process.pid, number, (_smaller(limit[0], hard), _smaller(limit[1], hard)))
    except (OSError, ValueError):
        return  # what pam_limits has set stays


def _decode(text: bytes) -> list[Limit]:
    """/proc/PID/limits: a heading, then a line for each limit in the order of the kernel's numbers."""
    found: list[Limit] = []
    for line in text.splitlines()[1 : COUNT + 1]:
        words = line[NAME_WIDTH:].split()
        if len(words) < 2 or not all(word == b"unlimited" or word.isdigit() for word in words[:2]):
            return []
        soft, hard = (INFINITY if word == b"unlimited" else int(word) for word in words[:2])
        found.append((soft, hard))
    return found


def _highest(one: Limit, other: Limit) -> Limit:
    return _larger(one[0], other[0]), _larger(one[1], other[1])


def _larger(one: int, other: int) -> int:
    return INFINITY if INFINITY in (one, other) else max(one, other)


def _smaller(one: int, other: int) -> int:
    return max(one, other) if INFINITY in (one, other) else min(one, other)
