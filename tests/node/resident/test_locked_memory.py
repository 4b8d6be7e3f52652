# SPDX-License-Identifier: Apache-2.0
"""A user whose processes cannot be looked at (on purpose, or because Lustre hangs) delays nobody, himself included."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab.machine import wait_for
from lab.node import Node
from lab.product import STRICT, use_strict_lines

SCRIPT, FILE, RUN = "/etc/lab/locked_memory.py", "/run/lab/locked", "/run/lab"
SOCKET = "/run/slurm-adopt/login.sock"


@pytest.fixture
def locked(node: Node) -> Iterator[Node]:
    """alice has a job with a process whose environment nobody can read; bob has a job too.

    Until the FUSE server has ended nothing here may look through all processes' command lines: ps and pkill -f would wait.
    """
    jobs: list[int] = []
    service = node.popen(
        ["sh", "-c", f"echo $$ > {RUN}/service.pid; exec slurm-adopt serve --listen {SOCKET} --warn-before 30s"]
    )
    node.write(SCRIPT, Path(__file__).with_name("locked_memory.py").read_text())
    server = node.popen(
        ["sh", "-c", f"echo $$ > {RUN}/fuse.pid; exec python3 {SCRIPT} serve {FILE} > {RUN}/locked.log"]
    )
    try:
        wait_for(lambda: FILE in node.run("cat /proc/mounts").stdout, "the FUSE file")
        wait_for(lambda: node.path(SOCKET).exists(), "the service's socket")
        jobs.append(node.submit("alice", f"python3 {SCRIPT} lock {FILE}"))
        jobs.append(node.submit("bob"))
        wait_for(lambda: "locked" in node.run(f"cat {RUN}/locked.log").stdout, "alice's process to lock its memory")
        time.sleep(0.8)  # until its other thread queues for the lock
        yield node
    finally:
        node.run(f"kill -9 $(cat {RUN}/fuse.pid); umount -l {FILE}", check=False)
        server.wait(10)
        for job in jobs:
            node.cancel(job)
        node.run(f"kill $(cat {RUN}/service.pid)", check=False)
        service.wait(10)
        node.run(["rm", "-rf", "/run/slurm-adopt"])


@pytest.mark.parametrize(
    "options",
    ["greeting=on", *(pytest.param(one, marks=pytest.mark.extra) for one in ("export_env=job", "log_level=info"))],
)
@pytest.mark.parametrize("mode", ["service", "oneshot"])
def test_locked_memory__of_one_user_delays_nobody(locked: Node, mode: str, options: str) -> None:
    use_strict_lines(locked, f"{STRICT} mode={mode} {options}")
    with locked.ssh_popen("alice", "cat /proc/self/cgroup") as alice:
        time.sleep(0.3)
        begun = time.monotonic()
        bob = locked.ssh("bob", "cat /proc/self/cgroup", timeout=20)
        bob_s = time.monotonic() - begun
        service = locked.read(f"{RUN}/service.pid").strip()
        state = locked.read(f"/proc/{service}/stat").rpartition(")")[2].split()[0]
        said, _ = alice.communicate(timeout=20)
    assert "step_extern" in bob.stdout, bob.stderr
    assert bob_s < 4, "bob waited for alice's process"
    assert state != "D", "the service itself waits for alice's process"
    assert "step_extern" in said, said
    children = f"cat /proc/$(cat {RUN}/service.pid)/task/*/children"
    wait_for(lambda: not locked.run(children).stdout.strip(), "the service to have no child, dead or alive")
