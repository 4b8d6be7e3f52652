# SPDX-License-Identifier: Apache-2.0
"""The rig itself: what other tests rely on when they use a node."""

from __future__ import annotations

import os
import subprocess

import pytest

from lab.machine import CommandError, wait_for
from lab.node import Node

KEYBOARD_ONLY = ["PubkeyAuthentication no", "PasswordAuthentication no", "KbdInteractiveAuthentication yes"]
ORIGINAL = "action_no_jobs=deny action_adopt_failure=deny action_generic_failure=deny"


def use_original(node: Node) -> None:
    node.pam("sshd", account=[f"required {node.original_module} {ORIGINAL}"])


def test_node__the_original_module_refuses_and_adopts(node: Node) -> None:
    use_original(node)
    refused = node.ssh("alice", "id")
    assert refused.returncode != 0
    assert "you have no active jobs on this node" in refused.stderr
    job = node.submit("alice")
    admitted = node.ssh("alice", "cat /proc/self/cgroup")
    assert f"/job_{job}/step_extern" in admitted.stdout
    assert node.ssh("bob", "id").returncode != 0


@pytest.mark.parametrize("auth", ["publickey", "password", "keyboard-interactive"])
def test_node__every_way_to_authenticate(node: Node, auth: str) -> None:
    node.pam("sshd")
    port = 22
    if auth == "keyboard-interactive":
        port = node.sshd("kbd", 2222, KEYBOARD_ONLY).port
    assert node.ssh("carol", "id -un", auth=auth, port=port).stdout == "carol\n"


def test_node__commands_run_outside_jobs_with_a_clean_environment(node: Node) -> None:
    done = node.run("env; id -un; cat /proc/self/cgroup", user="bob", env={"EXTRA": "1"})
    variables = dict(line.split("=", 1) for line in done.stdout.splitlines() if "=" in line and ":" not in line[:3])
    assert variables.keys() <= {"PATH", "HOME", "USER", "LOGNAME", "SHELL", "LANG", "EXTRA", "PWD", "SHLVL", "_"}
    assert variables["HOME"] == "/home/bob"
    assert "job_" not in done.stdout
    assert "\nbob\n" in done.stdout


def test_node__holds_mount_namespaces_made_on_any_cpu(node: Node) -> None:
    """As job_container/tmpfs keeps them: see lab.namespaces.unshare_below."""
    node.run("touch /run/lab/held")
    for cpu in os.sched_getaffinity(0):
        node.run(f"taskset -c {cpu} unshare --mount=/run/lab/held true && umount /run/lab/held")


def test_node__a_failing_command_shows_what_it_said(node: Node) -> None:
    with pytest.raises(CommandError, match="no such luck"):
        node.run("echo no such luck >&2; exit 3")
    assert node.run("exit 3", check=False).returncode == 3


def test_node__run_does_not_wait_for_what_stays_in_the_background(node: Node) -> None:
    done = node.run("sleep 3000 & echo said")  # it would raise after a minute
    assert done.stdout == "said\n"
    node.run(["pkill", "-x", "sleep"])


def test_node__a_time_out_ends_the_command_inside(node: Node) -> None:
    with pytest.raises(subprocess.TimeoutExpired):
        node.run(["sleep", "4321"], timeout=0.3)
    wait_for(lambda: not any(p.command == "sleep 4321" for p in node.processes("root")), "the command's end")


def test_node__the_log_is_kept(node: Node) -> None:
    mark = node.log_mark()
    node.run(["logger", "-p", "auth.info", "-t", "somebody", "said this"])
    assert [line for line in node.log_since(mark) if line.endswith("somebody: said this")]


def test_node__a_cancelled_job_takes_its_processes_along(node: Node) -> None:
    use_original(node)
    job = node.allocate("alice")
    node.ssh("alice", "setsid sleep 1234 >/dev/null 2>&1 </dev/null &", check=True)
    (left,) = [process for process in node.processes("alice") if process.command == "sleep 1234"]
    assert f"/job_{job}/step_extern" in left.cgroups["freezer" if "freezer" in left.cgroups else "unified"]
    node.cancel(job)
    wait_for(lambda: not node.processes("alice"), "the process to end")
    assert node.cgroups_of(left.pid) == {}


def test_node__daemons_can_be_stopped_and_started(node: Node) -> None:
    for daemon in (node.slurmd, node.munged, node.slurmctld):
        old = daemon.pid
        assert old
        daemon.stop()
        assert daemon.pid is None
        daemon.start()
        assert daemon.pid not in (None, old)
    node.wait_idle()
    node.cancel(node.allocate("alice"))


@pytest.mark.node(node_name="n-01", slurm={"SlurmdSpoolDir": "/var/spool/slurm-%n", "TaskPlugin": "task/cgroup"})
def test_node__name_and_folders_of_its_own(fresh_node: Node) -> None:
    job = fresh_node.submit("alice")
    socket = fresh_node.extern_socket(job)
    assert socket is not None
    assert socket.parent.name == "slurm-n-01"
    assert socket.name.startswith(f"n-01_{job}.")
    assert fresh_node.run(["hostname"]).stdout == "lab\n"


def test_node__a_hundred_and_fifty_jobs_at_once(fresh_node: Node) -> None:
    jobs = fresh_node.submit_many("alice", 150)
    assert len(set(jobs)) == 150
    assert fresh_node.jobs("alice") == sorted(jobs)
