# SPDX-License-Identifier: Apache-2.0
"""Jobs with a pid namespace (NamespaceType=namespace/linux, Slurm 26.05): both phases, with and without the service."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from lab.machine import wait_for
from lab.node import Node
from lab.product import STRICT, use_product
from lab.slurm import SlurmConfig

SOCKET = "/run/slurm-adopt/login.sock"
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
    process = None
    if service != "none":
        process = node.popen(["slurm-adopt", "serve", "--listen", SOCKET, "--no-audit-journal"])
        wait_for(lambda: node.path(SOCKET).exists(), "the service")
    if service == "gone between the phases":
        node.pam(
            "sshd",
            account=[STRICT],
            session=["required pam_exec.so quiet /etc/lab/end_service", *session],
        )
        node.write("/etc/lab/end_service", f"#!/bin/sh\npkill -KILL -f 'slurm-adopt serve'; rm -f {SOCKET}\n", 0o755)
    try:
        done = node.ssh("alice", "readlink /proc/self/ns/pid; grep -c step_extern /proc/self/cgroup")
    finally:
        if process is not None:
            process.kill()
            process.wait()
            node.run(["rm", "-f", SOCKET])
    assert done.returncode == 0, done.stderr
    namespace, in_step = done.stdout.split()
    assert namespace != os.readlink(f"/proc/{node.init_pid}/ns/pid")
    assert int(in_step) > 0


@pytest.mark.releases
@pytest.mark.parametrize("service", ["without the service", "with the service"])
def test_pid_namespace__a_second_session_line_needs_the_service(node: Node, service: str) -> None:
    """The first one has joined the job's namespaces, and a helper started from there sees none of the login."""
    node.pam("sshd", account=[STRICT], session=[STRICT, STRICT])
    process = None
    if service == "with the service":
        process = node.popen(["slurm-adopt", "serve", "--listen", SOCKET, "--no-audit-journal"])
        wait_for(lambda: node.path(SOCKET).exists(), "the service")
    mark = node.log_mark()
    try:
        done = node.ssh("alice", "grep -c step_extern /proc/self/cgroup")
    finally:
        if process is not None:
            process.kill()
            process.wait()
            node.run(["rm", "-f", SOCKET])
    assert (done.returncode == 0) == (process is not None), done
    assert ("reason=helper-unreachable" in "\n".join(node.log_since(mark))) == (process is None)
