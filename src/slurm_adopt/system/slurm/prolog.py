# SPDX-License-Identifier: Apache-2.0
"""Finds the running prologs on this node and their users: the only trace of a job before its extern step exists.

While slurmd runs Prolog, the spool directory holds nothing of the job: `job00007/` and the sockets appear
together after it (seen on 20.11, 22.05, 24.11 and 26.05). What can be seen is the prolog itself, a child of slurmd
with SLURM_SCRIPT_CONTEXT=prolog_slurmd and SLURM_JOB_UID in the environment that slurmd gave it (all four releases).

With PrologFlags=RunInJob the extern step is there first, and its slurmstepd runs the prolog (seen on 24.11).

Rules of this file:
1. Only children of slurmd count, and slurmd is the one that was found when slurm.conf was read (node_conf.py), or the
   process in its pid file that runs slurmd's program as SlurmdUser.
   A user cannot start one of these: a set-uid program with such an environment would be the user's process's child.
2. It only ever makes a login wait. Nothing is granted by it.
3. Where the kernel does not list children (CONFIG_PROC_CHILDREN) or no slurmd is found, there is nothing to wait for.
"""

from __future__ import annotations

from ..kernel.procfs import has_ended, read_children, read_environ, read_file, read_owned_process, read_program
from .slurmd import is_slurmd
from .spool_dir import pid_files

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from ..kernel.procfs import AnyProcess, OwnedProcess
    from .conf import SlurmConf

CONTEXT = b"SLURM_SCRIPT_CONTEXT=prolog_slurmd"


def running_slurmds(conf: SlurmConf, nodename: str) -> list[AnyProcess]:
    """The node's slurmds as far as they are known."""
    found: list[AnyProcess] = [slurmd for slurmd in conf.slurmds if not has_ended(slurmd)]
    named = [read_slurmd(path, conf.step_owners) for path in pid_files(conf, nodename)]
    numbers = {slurmd.pid for slurmd in found}
    return found + [slurmd for slurmd in named if slurmd is not None and slurmd.pid not in numbers]


def find_prologs(slurmds: Iterable[AnyProcess], owners: tuple[int, ...], uid: int) -> tuple[int, ...]:
    """The ids of the user's jobs whose prolog runs now, ascending."""
    jobs: set[int] = set()
    for slurmd in slurmds:
        for child in read_children(slurmd):
            process = read_owned_process(child)
            if process is None or process.uid not in owners or process.real_uid not in owners:
                continue
            job_id = _job_in_prolog(read_environ(process), uid)
            if job_id:
                jobs.add(job_id)
    return tuple(sorted(jobs))


def runs_prolog(stepd: AnyProcess, owners: tuple[int, ...], uid: int) -> bool:
    """Whether the slurmstepd of a job of this user is just running the job's prolog (PrologFlags=RunInJob)."""
    for child in read_children(stepd):
        process = read_owned_process(child)
        if process is not None and process.uid in owners and _job_in_prolog(read_environ(process), uid):
            return True
    return False


def read_slurmd(pid_file: str, owners: tuple[int, ...]) -> OwnedProcess | None:
    """The slurmd that wrote this file; None if it does not run (any more)."""
    text = read_file(pid_file) or b""
    pid = int(text) if text.strip().isdigit() and len(text) < 12 else 0
    process = read_owned_process(pid) if pid > 1 else None
    if process is None or process.uid not in owners:
        return None
    return process if is_slurmd(read_program(process)) else None


def _job_in_prolog(environ: bytes, uid: int) -> int:
    """The job of a prolog's environment, 0 if it is not a prolog or not for this user."""
    variables = environ.split(b"\0")
    if CONTEXT not in variables or b"SLURM_JOB_UID=%d" % uid not in variables:
        return 0
    for variable in variables:
        name, _, value = variable.partition(b"=")
        if name == b"SLURM_JOB_ID" and value.isdigit() and len(value) <= 10:
            return int(value)
    return 0
