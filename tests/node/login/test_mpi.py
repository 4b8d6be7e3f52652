# SPDX-License-Identifier: Apache-2.0
"""MPI programs that are started by ssh: each process of theirs is in the job that the launcher is in."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from lab.cluster import Cluster
from lab.product import STRICT, use_product, use_strict_lines

pytestmark = pytest.mark.extra
NODES = ["node1", "node2"]
#: Where a process is: host, SLURM_JOB_ID, and the job of its cgroup.
WHERE = """#!/bin/sh
echo $(hostname) job=$SLURM_JOB_ID in=$(grep -o '/job_[0-9]*/' /proc/self/cgroup | sort -u | tr -dc 0-9)
"""
LAUNCHERS = {
    "Open MPI": "mpirun.openmpi --mca plm rsh --oversubscribe --map-by node -H node1,node2 -np 2 ./where",
    "Hydra": "mpiexec.mpich -launcher ssh -hosts node1,node2 -n 2 ./where",
}


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with Cluster(packages=("openmpi-bin", "mpich")) as cluster:
        for node in cluster.nodes:
            use_product(node)
            node.write("/home/alice/where", WHERE, 0o755, "alice")
        yield cluster


@pytest.mark.parametrize("export", ["id", "job"])
@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_mpi__processes_are_in_the_job_of_the_launcher(cluster: Cluster, launcher: str, export: str) -> None:
    """From a step of the older of two jobs, so that caller ID has to find it, and from an ssh session."""
    for node in cluster.nodes:
        # a slurmstepd that is late on a busy machine has the login go to the other job
        use_strict_lines(node, f"{STRICT} timeout=60 export_env={export}")
    older, newer = cluster.allocate("alice", NODES), cluster.allocate("alice", NODES)
    try:
        inside = ["srun", f"--jobid={older}", "--overlap", "-N1", "-n1", "-w", "node1", "sh", "-c", LAUNCHERS[launcher]]
        done = cluster.login.run(inside, user="alice", check=False, timeout=200)
        assert sorted(done.stdout.split("\n")) == ["", *(f"{name} job={older} in={older}" for name in NODES)], done
        session = f"./where; {LAUNCHERS[launcher]}"
        done = cluster.login.ssh("alice", session, client="alice", host="node1", timeout=200)
        first, *rest = done.stdout.splitlines()
        job = int(first.partition("in=")[2])
        assert sorted(rest) == [f"{name} job={job} in={job}" for name in NODES], done
    finally:
        for job in (older, newer):
            cluster.cancel(job)
