# SPDX-License-Identifier: Apache-2.0
"""Nothing is left of a node, however its owner ends."""

from __future__ import annotations

import os
import secrets
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from lab.cgroups import CgroupTree
from lab.leaks import settled, snapshot
from lab.machine import LabError, Machine, wait_for
from lab.node import Node

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="an isolated node needs root")

OWNER = """
import sys, time
from lab.node import Node
with Node() as node:
    node.pam("sshd", account=[f"required {node.original_module}"])
    job = node.allocate("alice")
    node.ssh("alice", "setsid sleep 4000 >/dev/null 2>&1 </dev/null &", check=True)
    if "freeze" in sys.argv:
        for process in node.processes("alice"):
            freezer = node.path("/sys/fs/cgroup/freezer" + process.cgroups["freezer"]) / "freezer.state"
            freezer.write_text("FROZEN")
    login = node.ssh_popen("alice", "sleep 4001")
    print(node.name, node.init_pid, flush=True)
    time.sleep(1000)
"""


def names_in_cgroups(name: str) -> list[str]:
    return [path for path, _, _ in os.walk("/sys/fs/cgroup") if name in path]


def gone(pid: int) -> bool:
    """A zombie counts: when its parent was killed, the host's process 1 reaps it in its own time."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


@contextmanager
def owner(*arguments: str) -> Iterator[tuple[subprocess.Popen[str], str, int]]:
    """A process with a busy node: (it, the node's name, its process 1)."""
    tools = str(Path(__file__).parents[2] / "tools")
    command = [sys.executable, "-c", OWNER, *arguments]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env={**os.environ, "PYTHONPATH": tools}
    )
    assert process.stdout is not None
    try:
        name, pid = process.stdout.readline().split()
        assert names_in_cgroups(name)
        assert not gone(int(pid))
        yield process, name, int(pid)
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def test_leaks__with_ends() -> None:
    before = snapshot()
    with Node() as node:
        node.submit("alice")
        name, pid = node.name, node.init_pid
    assert gone(pid)
    assert names_in_cgroups(name) == []
    assert settled(before) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL], ids=lambda number: number.name)
def test_leaks__owner_is_killed(number: signal.Signals) -> None:
    before = snapshot()
    with owner() as (process, name, pid):
        process.send_signal(number)
        process.wait(30)
        assert settled(before) == []
        assert gone(pid)
        assert names_in_cgroups(name) == []


@pytest.mark.skipif(not Path("/sys/fs/cgroup/freezer").is_dir(), reason="cgroup v1's freezer")
def test_leaks__owner_is_killed_while_processes_are_frozen() -> None:
    before = snapshot()
    with owner("freeze") as (process, name, pid):
        process.kill()
        process.wait(30)
        assert settled(before) == []
        assert gone(pid)
        assert names_in_cgroups(name) == []


def test_leaks__the_supervisor_is_killed() -> None:
    """Process 1 dies with it, and the caller removes the cgroups."""
    before = snapshot()
    node = Node()
    node.up()
    name, pid = node.name, node.init_pid
    supervisor = node._supervisor
    assert supervisor is not None
    supervisor.kill()
    with pytest.raises(LabError):
        node.close()
    assert settled(before) == []
    assert gone(pid)
    assert names_in_cgroups(name) == []


def test_leaks__a_node_that_cannot_start() -> None:
    before = snapshot()
    node = Node(slurm={"ProctrackType": "proctrack/nonsense"})
    with pytest.raises(LabError):
        node.up()
    assert settled(before) == []
    assert names_in_cgroups(node.name) == []


def test_leaks__the_check_sees_what_is_left() -> None:
    """Or the tests above could not fail."""
    before = snapshot()
    name = f"slurm-adopt-lab-{secrets.token_hex(4)}"
    tree = CgroupTree.on_this_host(name)
    tree.create()
    path = Path("/run", name)
    path.touch()
    parent = subprocess.Popen(["unshare", "--pid", "--fork", "sleep", "77"], start_new_session=True)
    children = Path(f"/proc/{parent.pid}/task/{parent.pid}/children")
    orphan = int(wait_for(children.read_text, "the orphan"))
    wait_for(lambda: Path(f"/proc/{orphan}/cmdline").read_text().startswith("sleep"), "the orphan's program")
    parent.kill()
    parent.wait()
    try:
        found = settled(before, 0.2)
        assert len([line for line in found if line.startswith("cgroup left") and name in line]) == len(
            tree.directories()
        )
        assert f"path left: {path}" in found
        assert f"process {orphan} left: sleep 77" in found
    finally:
        os.kill(orphan, signal.SIGKILL)
        path.unlink()
        assert tree.remove() == []


def test_leaks__machines_do_not_meet() -> None:
    with Machine() as one, Machine() as other:
        one.write("/etc/only-here", "x")
        assert not other.path("/etc/only-here").exists()
        assert one.run(["readlink", "/proc/1/ns/net"]).stdout != other.run(["readlink", "/proc/1/ns/net"]).stdout
        assert len(other.processes()) == 1
