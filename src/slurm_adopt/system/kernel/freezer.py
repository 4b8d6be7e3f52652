# SPDX-License-Identifier: Apache-2.0
"""Suspended jobs: whether what is moved into a step would stop at once.

`scontrol suspend` and gang scheduling freeze the cgroups of a job's steps, the extern step's among them. slurmstepd
itself is outside of that: it answers as for a running job, and takes processes in, which then stop where they are, sshd
in the middle of a login included (seen on 22.05, 24.11 and 26.05).

Rules of this file:
1. The folder comes from the cgroups of a proven slurmstepd. Both are read in one go, and are of that process.
2. What is not there to be read is not frozen: without the freezer Slurm suspends by signals, which a login survives.
"""

from __future__ import annotations

from ...wire.cgroup_path import extern_folders
from .procfs import read_cgroups, read_file

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .procfs import AnyProcess

ROOT = "/sys/fs/cgroup"
FREEZER = "freezer"
WORD = FREEZER.encode("ascii")


def is_frozen(stepd: AnyProcess) -> bool:
    """Whether the extern step of this slurmstepd is frozen, or is just being frozen."""
    return is_step_frozen(read_cgroups(stepd))


def is_step_frozen(cgroups: bytes | None) -> bool:
    """`is_frozen` of the slurmstepd whose /proc/PID/cgroup this is (None: it has ended): the step's folder stays."""
    # a login asks twice, and to take all the hierarchies of cgroup v1 apart costs more than to read the state
    lines = [line + b"\n" for line in (cgroups or b"").split(b"\n") if line.startswith(b"0::") or WORD in line]
    return any(
        _is_frozen_v1(folder) if controllers else _is_frozen_v2(folder)
        for controllers, folder in extern_folders(b"".join(lines))
        if not controllers or FREEZER in controllers
    )


def _is_frozen_v1(folder: str) -> bool:
    """The state tells of parents as well: THAWED, FREEZING or FROZEN."""
    state = read_file(f"{ROOT}/{FREEZER}{folder}/freezer.state")
    return state is not None and not state.startswith(b"THAWED")


def _is_frozen_v2(folder: str) -> bool:
    """An order to freeze, here or in the step's or the job's folder above, or its effect."""
    step = folder.rpartition("/")[0]
    if b"frozen 1" in (read_file(f"{ROOT}{folder}/cgroup.events") or b""):
        return True
    job = step.rpartition("/")[0]
    return any((read_file(f"{ROOT}{place}/cgroup.freeze") or b"").strip() == b"1" for place in (folder, step, job))
