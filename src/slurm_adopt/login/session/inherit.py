# SPDX-License-Identifier: Apache-2.0
"""Hands limits and variables of the job to the session, if the site asks for it.

Rules of this file:
1. With the default options (`Options.takes_over` is false) nothing here runs or is loaded.
2. It adds to a login that is in its job already; it never refuses one.
"""

from __future__ import annotations

from ...options.export import export_patterns

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ...options.parse import Options
    from ...system.kernel.procfs import AnyProcess, Process
    from ...system.slurm.conf import SlurmConf
    from ...system.tasks.task import Task

    Variables = tuple[tuple[str, str], ...]


def _asks_steps(options: Options) -> bool:
    return options.rlimits == "job" or options.export_env not in ("id", "none")


def take_over(
    conf: SlurmConf,
    options: Options,
    phase: str,
    job_id: int,
    uid: int,
    extern: AnyProcess,
    processes: tuple[Process, ...],
    deadline_ns: int,
) -> Task[tuple[Variables, str]]:
    """Apply the job's limits to the login's processes, and return its variables; and a remark for the log."""
    from .environment import query_runtime_dir, query_variables
    from .job_processes import find_job_processes
    from .rlimits import apply_limits, read_limits

    found: Variables = ()
    if options.runtime_dir == "user":
        found = yield from query_runtime_dir(uid, deadline_ns)
    if not _asks_steps(options):
        return found, ""
    sources = yield from find_job_processes(conf, options.nodename, job_id, uid, extern, deadline_ns)
    remark = ""
    # pam_limits runs in the session stack: what is set before it, it replaces
    if options.rlimits == "job" and phase == "open_session":
        remark = apply_limits(read_limits(sources), processes)
    patterns = export_patterns(options.export_env)
    if not patterns:
        return found, remark
    return found + (yield from query_variables(patterns, job_id, sources, deadline_ns, uid)), remark
