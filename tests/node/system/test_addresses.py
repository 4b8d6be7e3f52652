# SPDX-License-Identifier: Apache-2.0
"""Caller ID on networks that are not one address for each node: IPv6 alone, several addresses, and NAT between nodes."""

from __future__ import annotations

import contextlib
import re
import subprocess
from collections.abc import Iterator

import pytest

from lab.cluster import Cluster
from lab.node import Node
from lab.product import use_product, use_strict_lines

WHERE = "echo job=$SLURM_JOB_ID; cat /proc/self/cgroup"
#: A second network between the nodes; slurm.conf says nothing of it.
SECOND = {"node1": "10.99.0.11", "node2": "10.99.0.12"}
#: Caller ID may take half of it, however busy the machine is.
PATIENT = "required pam_slurm_adopt.so profile=strict timeout=60 caller_timeout=20"
GATEWAY_PORT = 2299
#: What an address translator is for whom it connects to: the connection comes from the translator.
GATEWAY = f"""
import socket, sys, threading
server = socket.create_server(("", {GATEWAY_PORT}))
print("listening", flush=True)
def pass_on(source, target):
    while data := source.recv(65536):
        target.sendall(data)
    target.shutdown(socket.SHUT_WR)
while True:
    client, _ = server.accept()
    far = socket.create_connection((sys.argv[1], 22))
    for pair in ((client, far), (far, client)):
        threading.Thread(target=pass_on, args=pair, daemon=True).start()
"""


@pytest.fixture(scope="module")
def shared_cluster() -> Iterator[Cluster]:
    with Cluster() as cluster:
        for node in cluster.nodes:
            use_product(node, PATIENT)
            node.run(["ip", "addr", "add", f"{SECOND[node.hostname]}/24", "dev", "eth0"])
        yield cluster


@pytest.fixture
def cluster(shared_cluster: Cluster) -> Iterator[Cluster]:
    for node in shared_cluster.nodes:
        use_strict_lines(node, PATIENT)
    hosts = {node.hostname: node.read("/etc/hosts") for node in shared_cluster.nodes}
    yield shared_cluster
    for node in shared_cluster.nodes:
        node.write("/etc/hosts", hosts[node.hostname])
    shared_cluster.reset()


def login_from_job(cluster: Cluster, job: int, *ssh: str) -> tuple[int, str]:
    """From inside the job on node1 to node2: the job that the login is in, and the account phase's line in the log."""
    node = cluster["node2"]
    mark = node.log_mark()
    inside = ["srun", f"--jobid={job}", "--overlap", "-N1", "-n1", "-w", "node1", "ssh", "-o", "BatchMode=yes"]
    done = cluster.login.run([*inside, *ssh, WHERE], user="alice")
    said = re.search(r"^job=(\d+)$", done.stdout, re.MULTILINE)
    assert said, "\n".join([done.stdout, done.stderr, *node.log_since(mark)])
    assert set(re.findall(r"/job_(\d+)/step_extern", done.stdout)) == {said[1]}
    return int(said[1]), next(line for line in node.log_since(mark) if "phase=account" in line)


def two_jobs(cluster: Cluster) -> tuple[int, int]:
    both = ["node1", "node2"]
    return cluster.allocate("alice", both), cluster.allocate("alice", both)


def test_addresses__another_one_of_a_node_counts_if_hosts_gives_it_the_name(cluster: Cluster) -> None:
    """The connection goes over the second network; slurmd is asked where slurm.conf says that it listens."""
    older, newest = two_jobs(cluster)
    over = ["-b", SECOND["node1"], SECOND["node2"]]
    landed, line = login_from_job(cluster, older, *over)
    assert landed == newest
    assert "caller=caller-not-a-node" in line
    node = cluster["node2"]
    node.write("/etc/hosts", node.read("/etc/hosts") + f"{SECOND['node1']} node1-ib node1\n")
    landed, line = login_from_job(cluster, older, *over)
    assert landed == older
    assert "caller=found" in line


@pytest.mark.parametrize("gateway", ["login", "node2"])
def test_addresses__behind_a_translator_the_job_is_not_known(cluster: Cluster, gateway: str) -> None:
    """Whether it has an address of its own or shares a node's: nobody is put into a wrong job, the newest is taken."""
    older, newest = two_jobs(cluster)
    with running_gateway(cluster[gateway], cluster.address("node2")):
        landed, line = login_from_job(cluster, older, "-p", str(GATEWAY_PORT), cluster.address(gateway))
    assert landed == newest
    assert ("caller=caller-not-a-node" in line) == (gateway == "login")
    assert "chosen=newest" in line


@contextlib.contextmanager
def running_gateway(machine: Node, target: str) -> Iterator[None]:
    with machine.popen(["python3", "-c", GATEWAY, target], stdout=subprocess.PIPE) as gateway:
        assert gateway.stdout is not None
        try:
            assert gateway.stdout.readline() == "listening\n"
            yield
        finally:
            gateway.kill()


def test_addresses__ipv6_alone() -> None:
    """No machine has an IPv4 address but for the loopback's; Slurm and ssh use IPv6."""
    slurm = {"CommunicationParameters": "EnableIPv6"}
    with Cluster(slurm=slurm, version=6) as cluster:
        for node in cluster.nodes:
            use_product(node, PATIENT)
        older, newest = two_jobs(cluster)
        landed, line = login_from_job(cluster, older, "node2")
        assert "10.88" not in cluster["node2"].run(["ip", "-o", "addr"]).stdout
        assert landed == older, line
        assert "caller=found" in line
        mark = cluster["node2"].log_mark()
        done = cluster.login.ssh("alice", WHERE, client="alice", host="node2", check=True)
        assert f"job={newest}\n" in done.stdout
        assert f"from={cluster.address('login', 6)} " in "".join(cluster["node2"].log_since(mark))
