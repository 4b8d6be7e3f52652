# SPDX-License-Identifier: Apache-2.0
"""Network caller ID with real slurmds and real ssh: a login lands in the job that it comes from."""

from __future__ import annotations

import re
import secrets
import subprocess
import time
from collections.abc import Iterator

import pytest

from lab.cluster import Cluster
from lab.machine import wait_for
from lab.node import Node
from lab.product import use_product

WHERE = "echo job=$SLURM_JOB_ID; cat /proc/self/cgroup"
#: takes every connection, says nothing, and counts them
LISTENER = """
import socket
server = socket.create_server(("", 6818))
print("listening", flush=True)
while True:
    server.accept()
    print("asked", flush=True)
"""


@pytest.fixture(
    scope="module",
    params=[None, *(pytest.param(suite, marks=pytest.mark.releases) for suite in ("bullseye", "trixie", "forky"))],
    ids=lambda suite: suite or "host",
)
def shared_cluster(request: pytest.FixtureRequest) -> Iterator[Cluster]:
    with Cluster(request.param) as cluster:
        for node in cluster.nodes:
            use_product(node)
        yield cluster


@pytest.fixture
def cluster(shared_cluster: Cluster) -> Iterator[Cluster]:
    yield shared_cluster
    for node in shared_cluster.nodes:
        node.run("pkill -CONT slurmd", check=False)
    for job in shared_cluster.ctl.jobs():
        shared_cluster.cancel(job)


def job_of(done: subprocess.CompletedProcess[str]) -> int:
    """The job that a login is in, as its environment and the kernel say alike; 0 for none."""
    assert done.returncode == 0, done.stderr
    said = re.search(r"^job=(\d*)$", done.stdout, re.MULTILINE)
    seen = set(re.findall(r"/job_(\d+)/step_extern", done.stdout))
    assert said
    assert seen == ({said[1]} if said[1] else set())
    return int(said[1] or 0)


def account_line(node: Node, mark: int) -> str:
    return next(line for line in node.log_since(mark) if "phase=account" in line)


@pytest.mark.parametrize("version", [4, 6])
def test_callerid__a_login_lands_in_the_job_it_comes_from(cluster: Cluster, version: int) -> None:
    older = cluster.allocate("alice", ["node1", "node2"])
    newer = cluster.allocate("alice", ["node2"])
    node = cluster["node2"]
    mark = node.log_mark()
    assert job_of(cluster.ssh("alice", "node1", "node2", WHERE, version=version)) == older
    assert "caller=found" in account_line(node, mark)
    assert f"job={older} chosen=caller" in account_line(node, mark)
    # from nowhere in particular it is the newest
    assert job_of(cluster.login.ssh("alice", WHERE, client="alice", host="node2")) == newer


def test_callerid__from_the_node_itself(cluster: Cluster) -> None:
    cluster.allocate("alice", ["node2"])
    node = cluster["node2"]
    job = node.submit("alice", nodelist="node2")
    newest = cluster.allocate("alice", ["node2"])
    mark = node.log_mark()
    ssh = ["ssh", "-o", "BatchMode=yes", "node2", WHERE]
    # from a step of its own, not the extern step
    inside = cluster.login.run(["srun", f"--jobid={job}", "--overlap", *ssh], user="alice", check=False)
    assert job_of(inside) == job != newest
    assert "caller=found" in account_line(node, mark)


def test_callerid__a_job_of_somebody_else_is_never_joined(cluster: Cluster) -> None:
    """Bob, in his job, uses alice's key: the original puts the login into bob's job."""
    bobs = cluster.allocate("bob", ["node1", "node2"])
    cluster.allocate("alice", ["node2"])
    newest = cluster.allocate("alice", ["node2"])
    node1, node2 = cluster["node1"], cluster["node2"]
    node1.write("/home/bob/alices-key", node1.read("/home/alice/.ssh/id_ed25519"), 0o600, "bob")
    mark = node2.log_mark()
    inner = f"ssh -o BatchMode=yes -i alices-key alice@node2 '{WHERE}'"
    done = cluster.login.ssh("bob", inner, client="bob", host="node1")
    assert job_of(done) == newest != bobs
    assert "caller=caller-foreign" in account_line(node2, mark)


def test_callerid__a_listener_on_the_login_node_is_not_asked(cluster: Cluster) -> None:
    cluster.allocate("alice", ["node2"])
    newest = cluster.allocate("alice", ["node2"])
    node = cluster["node2"]
    with cluster.login.popen(["python3", "-c", LISTENER], "bob", stdout=subprocess.PIPE) as listener:
        assert listener.stdout is not None
        assert listener.stdout.readline() == "listening\n"
        mark = node.log_mark()
        assert job_of(cluster.login.ssh("alice", WHERE, client="alice", host="node2")) == newest
        assert "caller=caller-not-a-node" in account_line(node, mark)
        listener.kill()
        assert listener.stdout.read() == ""


def test_callerid__a_silent_slurmd_costs_its_budget_and_no_more(cluster: Cluster) -> None:
    cluster.allocate("alice", ["node1", "node2"])
    newest = cluster.allocate("alice", ["node2"])
    node = cluster["node2"]
    cluster["node1"].run("pkill -STOP -x slurmd")
    mark = node.log_mark()
    started = time.monotonic()
    assert job_of(cluster.ssh("alice", "node1", "node2", WHERE)) == newest
    assert time.monotonic() - started < 5
    assert "caller=caller-silent" in account_line(node, mark)


def test_callerid__a_slurmd_that_is_down(cluster: Cluster) -> None:
    cluster.allocate("alice", ["node1", "node2"])
    newest = cluster.allocate("alice", ["node2"])
    node = cluster["node2"]
    cluster["node1"].slurmd.stop()
    try:
        mark = node.log_mark()
        assert job_of(cluster.ssh("alice", "node1", "node2", WHERE)) == newest
        assert "caller=caller-unreachable" in account_line(node, mark)
    finally:
        cluster["node1"].slurmd.start()
        cluster.ctl.wait_idle()


def test_callerid__without_munge_here(cluster: Cluster) -> None:
    cluster.allocate("alice", ["node1", "node2"])
    newest = cluster.allocate("alice", ["node2"])
    node = cluster["node2"]
    node.munged.stop()
    try:
        mark = node.log_mark()
        assert job_of(cluster.ssh("alice", "node1", "node2", WHERE)) == newest
        assert "caller=caller-no-credential" in account_line(node, mark)
    finally:
        node.munged.start()


class KeyCluster(Cluster):
    """auth/slurm instead of munge."""

    def _connect(self) -> None:
        super()._connect()
        key = secrets.token_hex(64)
        for machine in self.machines.values():
            machine.write("/etc/slurm/slurm.key", key, 0o600)
            machine.run("id slurm > /dev/null 2>&1 || useradd -r slurm; chown slurm: /etc/slurm/slurm.key")


@pytest.mark.releases
@pytest.mark.parametrize("suite", ["trixie", "forky"])
def test_callerid__auth_slurm(suite: str) -> None:
    settings = {"AuthType": "auth/slurm", "CredType": "auth/slurm", "HashPlugin": "hash/sha3"}
    with KeyCluster(suite, slurm=settings) as cluster:
        source, node = cluster["node1"], cluster["node2"]  # the login node has no sackd
        use_product(node)
        job = source.submit("alice", nodelist="node1,node2", nodes=2, ntasks=2)
        newest = source.salloc("alice", nodelist="node2")
        wait_for(lambda: node.extern_socket(newest), "the newest job's extern step")
        step = ["srun", f"--jobid={job}", "--overlap", "-n1", "-w", "node1"]

        def login() -> tuple[int, str]:
            mark = node.log_mark()
            done = source.run([*step, "ssh", "-o", "BatchMode=yes", "node2", WHERE], user="alice", check=False)
            return job_of(done), account_line(node, mark)

        landed, line = login()
        assert landed == job
        # without the key, slurmd's SACK socket makes and verifies the tokens
        node.run("mv /etc/slurm/slurm.key /etc/slurm/kept.key")
        landed, line = login()
        assert landed == job
        assert "caller=found" in line
        node.run("mv /run/slurm/sack.socket /run/slurm/kept.socket")
        landed, line = login()
        assert landed == newest
        assert "caller=caller-no-credential" in line
