# SPDX-License-Identifier: Apache-2.0
"""Jobs with a pid namespace (NamespaceType=namespace/linux, Slurm 26.05): both phases, with and without the service."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import nullcontext

import pytest

from lab.node import Node
from lab.product import LOGIN_SOCKET, STRICT, serving, use_product
from lab.slurm import SlurmConfig

NAMESPACES = """\
defaults:
  auto_base_path: true
  base_path: "/var/namespaces"
  clone_ns_flags: ["CLONE_NEWNS","CLONE_NEWPID"]
  dirs: "/tmp"
  shared: true
"""


@pytest.fixture(scope="module")
def node() -> Iterator[Node]:
    with Node(suite="forky") as node:
        use_product(node)
        node.write("/etc/slurm/namespace.yaml", NAMESPACES)
        node.run("mkdir -p /var/namespaces")
        node.slurmd.stop()
        node.slurmctld.stop()
        config = node.config
        settings = {**config.settings, "NamespaceType": "namespace/linux"}
        node.write_slurm_config(
            SlurmConfig(node.hostname, config.nodes, settings, config.cgroup_settings, config.lines)
        )
        node.slurmctld.start()
        node.slurmd.start()
        node.wait_idle()
        node.submit("alice")
        yield node


@pytest.mark.releases
@pytest.mark.parametrize("service", ["none", "both phases", "gone between the phases"])
@pytest.mark.parametrize("lines", ["account", "both"])
def test_pid_namespace__the_session_is_in_it_and_in_the_job(node: Node, lines: str, service: str) -> None:
    session = [STRICT] if lines == "both" else []
    node.pam("sshd", account=[STRICT], session=session)
    if service == "gone between the phases":
        node.pam(
            "sshd",
            account=[STRICT],
            session=["required pam_exec.so quiet /etc/lab/end_service", *session],
        )
        node.write(
            "/etc/lab/end_service", f"#!/bin/sh\npkill -KILL -f 'slurm-adopt serve'; rm -f {LOGIN_SOCKET}\n", 0o755
        )
    with nullcontext() if service == "none" else serving(node):
        done = node.ssh("alice", "readlink /proc/self/ns/pid; grep -c step_extern /proc/self/cgroup")
    assert done.returncode == 0, done.stderr
    namespace, in_step = done.stdout.split()
    assert namespace != os.readlink(f"/proc/{node.init_pid}/ns/pid")
    assert int(in_step) > 0


@pytest.mark.releases
@pytest.mark.parametrize("is_served", [False, True], ids=["without the service", "with the service"])
def test_pid_namespace__a_second_session_line_needs_the_service(node: Node, is_served: bool) -> None:
    """The first one has joined the job's namespaces, and a helper started from there sees none of the login."""
    node.pam("sshd", account=[STRICT], session=[STRICT, STRICT])
    mark = node.log_mark()
    with serving(node) if is_served else nullcontext():
        done = node.ssh("alice", "grep -c step_extern /proc/self/cgroup")
    assert (done.returncode == 0) == is_served, done
    assert ("reason=helper-unreachable" in "\n".join(node.log_since(mark))) == (not is_served)
