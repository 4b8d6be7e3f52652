# SPDX-License-Identifier: Apache-2.0
"""The rig's cluster: what tests of logins from node to node rely on."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from lab.cluster import Cluster
from lab.leaks import settled, snapshot
from lab.node import Node

ORIGINAL = "action_no_jobs=deny action_adopt_failure=deny action_generic_failure=deny"


@pytest.fixture(scope="module")
def on_its_port(request: pytest.FixtureRequest) -> Iterator[Cluster]:
    """A cluster whose slurmds listen elsewhere."""
    if os.geteuid() != 0:
        pytest.skip("an isolated cluster needs root")
    before = snapshot()
    with Cluster(request.config.getoption("--suite"), slurmd_port=7000) as cluster:
        yield cluster
    assert settled(before) == []


def use_original(cluster: Cluster) -> None:
    for node in cluster.nodes:
        node.pam("sshd", account=[f"required {node.original_module} {ORIGINAL}"])


@pytest.mark.parametrize("name", ["node1", "node2", "login"])
@pytest.mark.parametrize("version", [4, 6])
def test_cluster__every_machine_is_reached_by_ssh(cluster: Cluster, name: str, version: int) -> None:
    cluster[name].pam("sshd")
    done = cluster.login.ssh("alice", "hostname", client="alice", host=cluster.address(name, version))
    assert done.stdout == f"{name}\n", done.stderr


def test_cluster__a_login_from_a_job_goes_to_that_job(on_its_port: Cluster) -> None:
    """With the original module, over IPv4: the caller is node1's slurmd, asked on its own port."""
    cluster = on_its_port
    use_original(cluster)
    both = cluster.allocate("alice", ["node1", "node2"])
    newer = cluster.allocate("alice", ["node2"])
    done = cluster.ssh("alice", "node1", "node2", "hostname; cat /proc/self/cgroup")
    assert done.stdout.startswith("node2\n"), done.stderr
    assert f"/job_{both}/step_extern" in done.stdout
    for job in (both, newer):
        cluster.cancel(job)
    assert cluster["node2"].steps() == {}


def test_cluster__a_user_without_a_job_is_refused_on_each_node(cluster: Cluster) -> None:
    use_original(cluster)
    job = cluster.allocate("bob", ["node1"])

    def enters(node: Node) -> bool:
        return cluster.login.ssh("bob", client="bob", host=node.hostname).returncode == 0

    assert [enters(node) for node in cluster.nodes] == [True, False]
    cluster.cancel(job)
