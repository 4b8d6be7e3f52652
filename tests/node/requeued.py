# SPDX-License-Identifier: Apache-2.0
"""A job that Slurm puts back into the queue and starts again under its old id."""

from __future__ import annotations

import time

from lab.machine import wait_for
from lab.node import Node


def requeue(node: Node, job: int) -> None:
    """Requeue a running job and wait until its run is over: it would start again in two minutes."""
    node.run(["scontrol", "requeue", str(job)])

    def waits() -> bool:
        shown = node.run(["scontrol", "show", "job", str(job)]).stdout
        return "JobState=PENDING Reason=BeginTime" in shown and not node.extern_socket(job)

    wait_for(waits, f"job {job} to be queued again", interval=0.1)


def run_again(node: Node, job: int) -> None:
    """Start it now. Once: slurmctld begins to count anew each time it is told. And not at once: slurmd would take the
    new credential for that of the run that was ended, it goes by whole seconds (22.05)."""
    ended = time.time()
    wait_for(lambda: time.time() > ended + 3, "the clock to be seconds further")
    node.run(["scontrol", "update", f"JobId={job}", "StartTime=now"])
    node.wait_started([job])
    wait_for(lambda: node.job_state(job) == "RUNNING", f"job {job} to run again")
