# SPDX-License-Identifier: Apache-2.0
"""The newest of several real jobs is the one whose extern step started last."""

from __future__ import annotations

import re

import pytest
from tests.node.requeued import requeue, run_again

from lab.machine import wait_for
from lab.node import Node
from lab.product import STRICT, use_strict_lines


@pytest.fixture(autouse=True)
def _time_for_slow_steps(node: Node) -> None:
    """On a busy machine the newest step may be the one that answers last."""
    use_strict_lines(node, f"{STRICT} timeout=30")


def job_of_login(node: Node, user: str = "alice") -> int:
    done = node.ssh(user, "echo $SLURM_JOB_ID; cat /proc/self/cgroup", check=True)
    named = int(done.stdout.splitlines()[0])
    (kernel,) = {int(found) for found in re.findall(r"/job_(\d+)/step_extern", done.stdout)}
    assert named == kernel
    return kernel


def extern_started(node: Node, job: int) -> tuple[int, int]:
    """(start of slurmstepd in clock ticks, ctime of its socket), from outside the product."""
    (stepd,) = [process for process in node.processes("root") if process.command == f"slurmstepd: [{job}.extern]"]
    fields = node.read(f"/proc/{stepd.pid}/stat").rpartition(") ")[2].split()
    socket = node.extern_socket(job)
    assert socket is not None
    return int(fields[19]), socket.stat().st_ctime_ns


def test_newest__a_held_job_that_starts_last_has_a_lower_id(node: Node) -> None:
    held = node.sbatch("alice", hold=True)
    later = node.submit("alice")
    assert job_of_login(node) == later
    node.run(["scontrol", "release", str(held)])
    wait_for(lambda: node.job_state(held) == "RUNNING" and node.extern_socket(held), "the held job to run")
    assert held < later
    assert job_of_login(node) == held


def test_newest__many_at_once(node: Node) -> None:
    jobs = node.submit_many("alice", 8)
    wait_for(lambda: all(node.job_state(job) == "RUNNING" for job in jobs), "the jobs to run")
    assert job_of_login(node) == max(jobs, key=lambda job: (*extern_started(node, job), job))


def test_newest__a_touched_socket_is_not_newer(node: Node) -> None:
    """Its ctime only decides between two that started in the same hundredth of a second."""
    old = node.submit("alice")
    new = node.submit("alice")
    socket = node.extern_socket(old)
    assert socket is not None
    socket.chmod(0o777)
    assert extern_started(node, old)[1] > extern_started(node, new)[1]
    assert job_of_login(node) == new


def test_newest__the_folders_of_cgroups_do_not_matter(node: Node) -> None:
    """The original goes by the mtime of the job's cgroup folder, which any new step changes (21.08 and later)."""
    old = node.submit("alice")
    new = node.submit("alice")
    node.run(["srun", f"--jobid={old}", "--overlap", "true"], user="alice")
    assert job_of_login(node) == new


def test_newest__a_requeued_job_is_new_again(node: Node) -> None:
    again = node.submit("alice")
    other = node.submit("alice")
    before = extern_started(node, again)
    assert job_of_login(node) == other
    requeue(node, again)
    assert job_of_login(node) == other
    run_again(node, again)
    assert extern_started(node, again) > before
    assert job_of_login(node) == again


def test_newest__of_ones_own_jobs_only(node: Node) -> None:
    own = [node.submit("alice"), node.submit("alice")]
    node.submit("bob")
    assert job_of_login(node) == own[1]
    assert job_of_login(node, "bob") not in own


@pytest.mark.node(node_name="n-01.x_2", slurm={"SlurmdSpoolDir": "/var/spool/slurm-%n"})
def test_newest__where_the_node_has_another_name(fresh_node: Node) -> None:
    """The multiple-slurmd name stands in sockets (and in cgroup folders of such builds): digits in it are no job ids."""
    node = fresh_node
    held = node.sbatch("alice", hold=True)
    later = node.submit("alice")
    assert job_of_login(node) == later
    node.run(["scontrol", "release", str(held)])
    wait_for(lambda: node.job_state(held) == "RUNNING" and node.extern_socket(held), "the held job to run")
    assert job_of_login(node) == held
