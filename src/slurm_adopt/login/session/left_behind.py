# SPDX-License-Identifier: Apache-2.0
"""Processes that earlier session modules have left in pam_systemd's scope: they belong to the login as well.

pam_systemd moves sshd into a scope of its own; what pam_ssh, pam_mount or pam_exec start after it (agents, daemons) is
born there. Our line puts sshd back into the job, and these with it.

Rules of this file:
1. Only for a session that was just put back: others have no scope.
2. Only a scope below the login's own `user-UID.slice`: with su, pam_systemd makes none, and the process is still in
   the session of whoever calls su.
3. What the scope's cgroup lists now is moved, each with its start time, and read back; what has ended is nowhere.
"""

from __future__ import annotations

import os

from ...system.kernel.procfs import has_ended, read_cgroups, read_file, read_process
from ...system.slurm.stepd import StepFault, add_process
from ...wire.cgroup_path import decode_cgroups, same_step
from ...wire.errors import RemoteProtocolError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from ...system.slurm.stepd import StepConnection
    from ...system.tasks.task import Task

ROOT = "/sys/fs/cgroup"
#: A session module that leaves more than this is no session module.
PROCESS_CAP = 256


def adopt_left_behind(connection: StepConnection, before: bytes, uid: int) -> Task[int]:
    """Take in what is in the scope of `uid` that the text `before` of /proc/PID/cgroup names; how many there were.

    `StepFault` if one of them stays outside.
    """
    identity = connection.identity
    reference = read_cgroups(identity) if identity is not None else None
    taken = 0
    for folder in scopes_of(before, uid):
        for number in (read_file(f"{folder}/cgroup.procs") or b"").split()[:PROCESS_CAP]:
            process = read_process(int(number))
            if process is None or process.pid == os.getpid():
                continue
            yield from add_process(connection, process)
            text = read_cgroups(process)
            if text is not None and not same_step(reference or b"", text).inside and not has_ended(process):
                raise StepFault("adopt-unconfirmed", f"process {process.pid} of a session module stays outside")
            taken += 1
    return taken


def scopes_of(text: bytes, uid: int) -> Iterator[str]:
    """The folders of logind's session scopes of `uid` in a /proc/PID/cgroup: v2, and systemd's own hierarchy on v1."""
    try:
        lines = decode_cgroups(text)
    except RemoteProtocolError:
        return
    for line in lines:
        name = line.path.rpartition("/")[2]
        # the first slice counts: what lies below another user's is that user's, whatever its folders are called
        below = line.path.partition("/user.slice/")[2]
        if not (name.startswith("session-") and name.endswith(".scope")) or below != f"user-{uid}.slice/{name}":
            continue
        if not line.controllers:
            yield f"{ROOT}{line.path}" if os.path.exists(f"{ROOT}/cgroup.controllers") else f"{ROOT}/unified{line.path}"
        elif line.controllers == ("name=systemd",):
            yield f"{ROOT}/systemd{line.path}"
