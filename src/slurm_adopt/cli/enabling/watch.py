# SPDX-License-Identifier: Apache-2.0
"""Who takes a change back that nobody confirms. Each of them alone is enough:

1. a process that waits for the time to come, holds nothing, and belongs to no login;
2. systemd, where it runs: slurm-adopt-restore.timer while the machine is up, whatever becomes of that process, and
   slurm-adopt-restore.service at the next boot, before sshd is there. Both are off but for as long as a change waits;
3. every other `slurm-adopt` command of root's, except the services, which may not write to /etc.
"""

from __future__ import annotations

import os
import sys
import time

from ...system.host.user_manager import ENVIRONMENT, SYSTEMCTL
from ...system.tasks.child import ChildFault, run_program, start_detached
from ...system.tasks.program import UntrustedProgram, resolve_program
from ...system.tasks.task import DeadlineExceeded
from ...system.tasks.task import run as run_task
from ..main import CommandError
from .change import describe, read_pending, take_back

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .change import End, Pending

#: It looks again after so long: the change may be confirmed, and the machine may have slept.
PAUSE_S = 2.0
#: So long after it could not be put back (a file system that was made read-only), it is tried again.
FAILED_S = 20.0
SYSTEMD_RUNS = "/run/systemd/system"
SYSTEMCTL_NS = 20 * 10**9
SERVICE, TIMER = "slurm-adopt-restore.service", "slurm-adopt-restore.timer"
#: Where systemd has what is enabled.
WANTED = (
    f"/etc/systemd/system/multi-user.target.wants/{SERVICE}",
    f"/etc/systemd/system/timers.target.wants/{TIMER}",
)


def arm(pending: Pending) -> None:
    """See to it that the change is taken back; `OSError`."""
    start_detached(lambda: wait_for(pending))
    if os.path.isdir(SYSTEMD_RUNS):
        _systemctl("enable", SERVICE, TIMER)
        _systemctl("start", TIMER)


def is_armed_for_boot() -> bool:
    """Whether the next boot takes the change back."""
    return all(os.path.lexists(path) for path in WANTED)


def disarm() -> None:
    """The change is settled. The waiting process sees that by itself."""
    if any(os.path.lexists(path) for path in WANTED):
        _systemctl("disable", SERVICE, TIMER)
        _systemctl("stop", TIMER)


def wait_for(pending: Pending) -> None:
    """In the waiting process: until the change is settled, by us or somebody else."""
    while True:
        found = read_pending()
        if found is None or (found.boot, found.due_s) != (pending.boot, pending.due_s):
            return
        if found.left_s > 0:
            time.sleep(min(found.left_s, PAUSE_S))
        elif _is_settled():
            return
        else:
            time.sleep(FAILED_S)


def _is_settled() -> bool:
    try:
        settled = restore()
    except CommandError:
        return False
    return settled is None or settled[0] != "failed"


def restore(only_if_due: bool = True) -> tuple[End, Pending] | None:
    """`take_back`; nobody waits any more to do it once it is done."""
    settled = take_back(only_if_due)
    if settled is not None and settled[0] != "failed":
        disarm()
    return settled


def restore_if_due() -> None:
    """For each command of root's: take back what is due, and say so."""
    try:
        settled = restore()
    except CommandError as error:
        print(f"slurm-adopt: {error}\n  {error.hint}", file=sys.stderr)
        return
    if settled is not None:
        print(f"slurm-adopt: {describe(*settled)}", file=sys.stderr)


def _systemctl(*words: str) -> None:
    """What it says is for nobody: whether it has helped, `is_armed_for_boot` tells."""
    deadline_ns = time.monotonic_ns() + SYSTEMCTL_NS
    try:
        program = resolve_program(SYSTEMCTL)
        run_task(run_program((program, *words), ENVIRONMENT, deadline_ns))
    except (UntrustedProgram, ChildFault, DeadlineExceeded, OSError):
        return
