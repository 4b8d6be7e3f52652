# SPDX-License-Identifier: Apache-2.0
"""`slurm-adopt jobs`: which of one's jobs are on this node, and which one this session is in."""

from __future__ import annotations

import argparse
import json
import os
import time

from ..login.steps import FreshLookup
from ..system.kernel.procfs import read_process
from ..system.slurm.conf import ConfFault
from ..system.slurm.spool import SpoolFault
from ..system.tasks.task import DeadlineExceeded
from ..system.tasks.task import run as run_task
from ..users.requests import deadline_after, list_jobs, site_options
from ..wire.user_exchange import UserJob, UserReply, UserRequest
from ..words import called, columns, duration
from .job_names import names_of_jobs
from .main import die
from .user_client import SOCKET, ServiceAbsentError, ask_ok

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from ..system.tasks.task import Task

LOOK_S = 5.0
NOTES = {"here": "this session", "preferred": "your choice", "newest": "newest"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the command."""
    parser.add_argument("--json", action="store_true", help="print one JSON object with the list `jobs`")
    parser.add_argument("--socket", default=SOCKET, metavar="PATH", help=argparse.SUPPRESS)


def run(args: argparse.Namespace) -> int:
    """List the jobs."""
    try:
        reply = ask_ok(UserRequest("jobs"), args.socket)
    except ServiceAbsentError:
        reply = look()
    names = names_of_jobs([job.job_id for job in reply.jobs])
    if args.json:
        print(
            json.dumps({"jobs": [as_object(job, names) for job in reply.jobs], "more": reply.more, "note": reply.text})
        )
        return 0
    if not reply.jobs:
        print("You have no job on this node.")
    else:
        print("\n".join(table(reply.jobs, names, time.time())))
    if reply.more:
        print(f"... and {reply.more} more")
    if reply.text:
        print(reply.text)
    return 0


def look() -> UserReply:
    """Without the service: slurmstepd tells everybody what is needed, but for the preference, which only root reads."""
    try:
        return run_task(_look())
    except (ConfFault, SpoolFault) as fault:
        die(f"{fault}", fault.reason)
    except DeadlineExceeded:
        die("Slurm did not answer in time on this node")


def _look() -> Task[UserReply]:
    deadline_ns = deadline_after(LOOK_S)
    options = site_options()
    conf = yield from FreshLookup().read_conf(deadline_ns, options.slurm_conf)
    found = yield from FreshLookup().query_own(conf, options.nodename, os.geteuid(), deadline_ns)
    try:
        me = read_process(os.getpid())
        assert me is not None, "we are here"
        return list_jobs(me, os.geteuid(), found)
    finally:
        found.close()


def as_object(job: UserJob, names: Mapping[int, str]) -> dict[str, object]:
    """A job for --json: times are seconds since 1970, `ends` is null if it is not known; `name` is squeue's."""
    return {
        "job": job.job_id,
        "name": names.get(job.job_id, str(job.job_id)),
        "state": job.state,
        "started": job.started_s,
        "ends": job.end_s or None,
        "newest": "newest" in job.flags,
        "preferred": "preferred" in job.flags,
        "here": "here" in job.flags,
    }


def table(jobs: tuple[UserJob, ...], names: Mapping[int, str], now_s: float) -> list[str]:
    """Lines with a heading, columns side by side."""
    rows = [("JOB", "STATE", "STARTED", "ENDS IN", "")]
    for job in jobs:
        started = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(job.started_s))
        left = duration(job.end_s - now_s) if job.end_s else "-"
        notes = ", ".join(NOTES[flag] for flag in NOTES if flag in job.flags)
        rows.append((called(job.job_id, names), job.state, started, left, notes))
    return list(columns(rows))
