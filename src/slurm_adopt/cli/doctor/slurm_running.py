# SPDX-License-Identifier: Apache-2.0
"""What runs, against what slurm.conf says: slurmd's plugins, and jobs that began with other settings.

Rules of this file:
1. Where Slurm's plugins are, the running slurmd shows: the folder that it has loaded some from.
2. A job without an extern step is only named while slurmstepd says that it runs: of one that ends, the extern step may
   be gone first.
"""

from __future__ import annotations

import os

from ...model import RUNNING
from ...system.kernel.procfs import read_mapped_names
from ...system.slurm.slurmd import find_by_number, find_by_program
from ...system.slurm.spool import SpoolDirectory, SpoolFault
from ...system.slurm.spool_dir import pid_files, spool_dirs
from ...system.slurm.stepd import connect_step
from ...system.tasks.task import all_of, run
from ...wire.stepd import EXTERN_STEP, parse_socket_name
from .finding import ERROR, WARNING, Finding

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from ...system.slurm.conf import SlurmConf
    from .node import Node

NAMED_CAP = 5
STEP_CAP = 64


def missing_plugins(node: Node, conf: SlurmConf) -> list[Finding]:
    """Plugins that a login depends on and that slurmd does not find."""
    wanted = [conf.proctrack_type, *conf.task_plugin, conf.container_type]
    names = [name for name in wanted if "/" in name and not name.endswith("/none")]
    folder = "" if node.root else _plugin_folder(node, conf)
    gone = [name for name in names if folder and not any(map(node.exists, _files_of(folder, name)))]
    if not gone:
        return []
    return [
        Finding(
            "slurm-plugin-missing",
            ERROR,
            f"{conf.path} names {', '.join(gone)}, and {folder} has no {gone[0].replace('/', '_')}.so",
            "slurmd does not start again, or starts no job",
            f"mend the name in {conf.path}, or install the package that has {gone[0]}; then restart slurmd",
        )
    ]


def _files_of(folder: str, name: str) -> list[str]:
    """job_container/tmpfs is called namespace/tmpfs by later releases, which take both names."""
    return [f"{folder}/{one.replace('/', '_')}.so" for one in (name, name.replace("job_container/", "namespace/"))]


def _plugin_folder(node: Node, conf: SlurmConf) -> str:
    for slurmd in (find_by_number(pid_files(conf, node.nodename)) or find_by_program())[:1]:
        for name in sorted(read_mapped_names(slurmd) or ()):
            folder, _, file = os.fsdecode(name).rpartition("/")
            if file.startswith(("auth_", "cred_", "proctrack_", "task_")) and file.endswith(".so"):
                return folder
    return ""


def check_extern_steps(node: Node, conf: SlurmConf) -> Iterator[Finding]:
    """Jobs that run here and have no extern step."""
    if node.root:
        return
    bare: set[int] = set()
    for folder, name in spool_dirs(conf, node.nodename):
        try:
            with SpoolDirectory(folder, conf.step_owners, name, conf.spool_owners) as directory:
                bare |= _bare_jobs(node, conf, directory)
        except (SpoolFault, OSError):
            continue  # its own finding
    if bare:
        shown = ", ".join(map(str, sorted(bare)[:NAMED_CAP])) + (" and others" if len(bare) > NAMED_CAP else "")
        yield Finding(
            "slurm-no-extern",
            WARNING,
            f"{shown}: running here, without an extern step",
            "there is nothing to put a login into: users of these jobs are refused. PrologFlags=contain came later",
            "restart slurmctld and slurmd if they run since before PrologFlags=contain; jobs that begin then have one",
        )


def _bare_jobs(node: Node, conf: SlurmConf, directory: SpoolDirectory) -> set[int]:
    found: dict[int, list[str]] = {}
    contained = set()
    for entry in os.listdir(directory.fd):
        step = parse_socket_name(entry)
        if step is None or (directory.node is not None and step.node != directory.node):
            continue
        if step.step_id == EXTERN_STEP:
            contained.add(step.job_id)
        else:
            found.setdefault(step.job_id, []).append(f"/proc/self/fd/{directory.fd}/{entry}")
    paths = [(job, paths[0]) for job, paths in found.items() if job not in contained][:STEP_CAP]
    tasks = [connect_step(path, conf.step_owners, node.deadline_ns) for _, path in paths]
    running = set()
    for (job, _), outcome in zip(paths, run(all_of(tasks, node.deadline_ns)) if tasks else ()):
        if isinstance(outcome, Exception):
            continue
        if outcome.identity is not None and outcome.identity.state == RUNNING:
            running.add(job)
        outcome.close()
    return running
