# SPDX-License-Identifier: Apache-2.0
"""What sites do to their nodes: drained, cleaned and requeued, another folder for /tmp, an sshd within a job, no Python."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
from tests.node.requeued import requeue
from tests.node.resident.test_service import AUDIT_FILE, METRICS_FILE, Service, job_of

from lab.machine import wait_for
from lab.node import Node

OURS = "required pam_slurm_adopt.so profile=strict"
SHOW = "cat /proc/self/cgroup"
NO_JOB = "you have no active jobs on this node"
BUNDLE = "/usr/lib/slurm-adopt/oneshot.bundle"
PYTHON, AWAY = "/usr/bin/python3", "/usr/bin/python3.away"
TOO_OLD = "#!/bin/sh\necho 'SyntaxError: future feature annotations is not defined' >&2\nexit 1\n"


def where(node: Node, user: str = "alice") -> int:
    """The job that the user's login is in; 0 if it is refused because there is none."""
    done = node.ssh(user, SHOW)
    assert done.returncode == 0 or NO_JOB in done.stderr, done
    return job_of(done.stdout)


@pytest.mark.parametrize("python", ["", TOO_OLD], ids=["none", "too-old"])
def test_field_nodes__without_a_python_that_runs_it(node: Node, python: str) -> None:
    """An image whose Python is gone, or older than the package: refused, and root gets in to mend it. A service that
    runs already goes on."""
    node.pam(account=[OURS], session=[OURS])
    if not python:
        service = Service(node)
        service.start()
        node.run(["mv", PYTHON, AWAY])
        try:
            assert NO_JOB in node.ssh("alice").stderr
        finally:
            node.run(["mv", AWAY, PYTHON])
            service.stop()
            node.run(["rm", "-rf", "/run/slurm-adopt", AUDIT_FILE, METRICS_FILE])
    node.run(["mv", PYTHON, AWAY])
    try:
        if python:
            node.write(PYTHON, python, 0o755)
        done = node.ssh("alice")
        assert done.returncode != 0
        assert "the login helper could not be reached" in done.stderr
        assert node.ssh("root").returncode == 0
    finally:
        node.run(["mv", AWAY, PYTHON])


@pytest.mark.extra
def test_field_nodes__a_package_on_a_file_system_that_is_dead(node: Node) -> None:
    """As on NFS without its server: it can be found, and not be read. The helper is given up at the deadline."""
    node.install(Path(__file__).parents[1] / "resident" / "locked_memory.py", "/etc/lab/locked_memory.py")
    service = Service(node)
    service.start()
    node.pam(account=[f"{OURS} timeout=30"], session=[OURS])
    argv = ["python3", "-u", "/etc/lab/locked_memory.py", "serve", BUNDLE]
    kept = node.path(BUNDLE).read_bytes()
    server = node.popen(argv, stdout=subprocess.PIPE)
    try:
        wait_for(lambda: "oneshot.bundle" in node.read("/proc/1/mountinfo"), "the file system")
        assert NO_JOB in node.ssh("alice").stderr
        service.stop()
        node.pam(account=[f"{OURS} timeout=1"], session=[OURS])
        assert "the login helper did not answer in time" in node.ssh("alice").stderr
        assert node.ssh("root").returncode == 0
    finally:
        server.kill()
        server.communicate()
        node.run(["umount", "-l", BUNDLE])
        node.path(BUNDLE).write_bytes(kept)
        if service.pid:
            service.stop()
        node.run(["rm", "-rf", "/run/slurm-adopt", AUDIT_FILE, METRICS_FILE])


def test_field_nodes__what_a_login_leaves_running_is_there_for_the_next_one(node: Node) -> None:
    """tmux, an editor's server: it stays in the job after the logout, and ends with the job."""
    job = node.submit("alice")
    node.ssh("alice", "setsid sleep 4321 >/dev/null 2>&1 </dev/null &", check=True)
    stays = node.process("sleep 4321", "alice")
    assert f"/job_{job}/step_extern" in str(stays.cgroups)
    assert node.ssh("alice", "pgrep -f '^sleep 4321'").stdout.split() == [str(stays.pid)]
    # a drained node goes on with the jobs that it has, and with their logins
    node.run(["scontrol", "update", f"NodeName={node.node_name}", "State=DRAIN", "Reason=lab"])
    try:
        assert where(node) == job
    finally:
        node.run(["scontrol", "update", f"NodeName={node.node_name}", "State=RESUME"])
    node.cancel(job)
    assert not node.processes("alice")


@pytest.mark.extra
def test_field_nodes__slurmd_that_starts_clean_ends_jobs_and_their_logins(node: Node) -> None:
    node.submit("alice")
    login = node.ssh_popen("alice", "exec sleep 4322")
    node.process("sleep 4322", "alice")
    node.slurmd.stop()
    usual = node.slurmd.argv
    node.slurmd.argv = [*usual, "-c"]
    try:
        node.slurmd.start()
        login.communicate()
        wait_for(lambda: not node.processes("alice"), "what alice ran to end")
        wait_for(lambda: not node.steps(), "the slurmstepds to end")
        assert where(node) == 0
        assert node.run("slurm-adopt status").stdout == "No ssh login.\n"
    finally:
        node.slurmd.argv = usual
        node.wait_idle()
    assert where(node, "alice") == 0
    assert node.submit("alice") == where(node)


@pytest.mark.extra
def test_field_nodes__a_login_of_a_job_that_is_requeued_ends_with_its_run(node: Node) -> None:
    """Whatever it does about signals: nothing of it is left to be taken for the next run's."""
    job = node.submit("alice")
    login = node.ssh_popen("alice", "trap '' TERM HUP INT; while :; do sleep 4323; done")
    node.process("sleep 4323", "alice")
    requeue(node, job)
    login.communicate()
    assert not node.processes("alice")
    assert where(node) == 0


def test_field_nodes__a_tmp_of_the_users_own_by_pam_namespace(node: Node) -> None:
    """Ahead of our session line, and behind it."""
    node.write("/etc/security/namespace.d/lab.conf", "/tmp /tmp-inst/ user root\n")
    node.run("mkdir -p -m 000 /tmp-inst; touch /tmp/everybodys")
    lines = ["required pam_namespace.so", OURS]
    try:
        job = node.submit("alice")
        for session in (lines, lines[::-1]):
            node.pam(account=[OURS], session=session)
            done = node.ssh("alice", f"touch /tmp/alices; ls /tmp; {SHOW}", check=True)
            assert job_of(done.stdout) == job
            assert "alices" in done.stdout
            assert "everybodys" not in done.stdout
            assert not node.path("/tmp/alices").exists()
    finally:
        node.run("rm -rf /tmp-inst /tmp/everybodys /etc/security/namespace.d/lab.conf")


def test_field_nodes__an_sshd_and_a_tmp_that_a_job_makes_for_itself(node: Node) -> None:
    """As containers and editors' helpers do. The sshd has written over its environment: nothing is read out of that.
    Namespaces that Slurm does not know of are not joined."""
    node.run("rm -f ~/key ~/key.pub; ssh-keygen -q -t ed25519 -N '' -f ~/key", user="alice")
    private = "mount -t tmpfs none /tmp; touch /tmp/the-jobs; exec sleep 4324"
    server = "/usr/sbin/sshd -D -f none -h ~/key -p 2299 -o PidFile=none -o UsePAM=no -o StrictModes=no"
    job = node.submit("alice", f"env -i unshare -rm sh -c '{private}' & exec {server}")
    node.process("sleep 4324", "alice")
    (listener,) = wait_for(
        lambda: [p for p in node.processes("alice") if "[listener]" in p.command], "the job's own sshd"
    )
    assert b"SLURM_JOB_" not in node.path(f"/proc/{listener.pid}/environ").read_bytes()
    node.pam(account=[OURS], session=[f"{OURS} export_env=job greeting=on"])
    done = node.ssh("alice", f"{SHOW}; env; ls /tmp", check=True)
    assert job_of(done.stdout) == job
    assert re.findall(r"(?m)^SLURM_\w+=.*", done.stdout) == [f"SLURM_JOB_ID={job}"]
    assert "the-jobs" not in done.stdout
    # who goes through that sshd was asked nothing, and is in the job all the same
    known = ["UserKnownHostsFile=/dev/null", "GlobalKnownHostsFile=/dev/null", "StrictHostKeyChecking=no"]
    assert f"/job_{job}/step_batch" in node.ssh("alice", SHOW, port=2299, options=known, check=True).stdout
