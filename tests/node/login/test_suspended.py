# SPDX-License-Identifier: Apache-2.0
"""A suspended job takes no login: real slurmctld, slurmstepd and sshd; `scontrol suspend` freezes the job's cgroups."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import nullcontext

import pytest
from tests.releases import SUITES, suite_name

from lab.machine import wait_for
from lab.node import Node
from lab.product import STRICT, serving, use_product, use_strict_lines

PORT, GRACE_PORT = 2222, 2223
FEW = ("MaxStartups 5:100:5", "KbdInteractiveAuthentication yes")
TOLD = "your job on this node is suspended"


@pytest.fixture(
    scope="module",
    params=SUITES,
    ids=suite_name,
)
def machine(request: pytest.FixtureRequest) -> Iterator[Node]:
    with Node(suite=request.param) as node:
        use_product(node)
        node.sshd("few", PORT, FEW)
        yield node


@pytest.fixture(params=["oneshot", "service"])
def node(machine: Node, request: pytest.FixtureRequest) -> Iterator[Node]:
    use_strict_lines(machine, f"{STRICT} mode={request.param}")
    with serving(machine) if request.param == "service" else nullcontext():
        yield machine
        for job in machine.jobs() + suspended(machine):
            machine.run(["scontrol", "resume", str(job)], check=False)
        machine.cancel_all()


def suspended(node: Node) -> list[int]:
    return [int(job) for job in node.run(["squeue", "-h", "-t", "suspended", "-o", "%A"]).stdout.split()]


def suspend(node: Node, job: int) -> None:
    node.run(["scontrol", "suspend", str(job)])
    wait_for(lambda: node.job_state(job) == "SUSPENDED", f"job {job} to be suspended")
    wait_for(lambda: "FROZEN" in freezer(node, job), f"the cgroup of job {job} to be frozen")


def freezer(node: Node, job: int) -> str:
    return node.run(f"cat /sys/fs/cgroup/freezer/slurm*/uid_*/job_{job}/step_extern/freezer.state", check=False).stdout


@pytest.mark.parametrize("auth", ["publickey", "keyboard-interactive"])
def test_suspended__refused_at_once_and_nobody_else_is_kept_out(node: Node, auth: str) -> None:
    job = node.submit("alice")
    node.submit("bob")
    suspend(node, job)
    logins = [node.ssh_popen("alice", "true", auth=auth, port=PORT) for _ in range(6)]
    said = [login.communicate(timeout=30)[0] for login in logins]
    # a sixth connection at once may be more than sshd takes
    assert sum(TOLD in text for text in said) >= 5, said
    assert all(login.returncode for login in logins)
    for user in ("bob", "root"):
        assert node.ssh(user, "true", port=PORT, timeout=15).returncode == 0
    node.run(["scontrol", "resume", str(job)])
    wait_for(lambda: "THAWED" in freezer(node, job), "the job to run again")
    assert node.ssh("alice", "true", auth=auth, port=PORT).returncode == 0


#: A module behind ours that takes its time: it stands for a client that does not answer sshd's last, empty prompt.
WAIT = """#!/bin/sh
[ "$PAM_USER" = root ] && exit 0
: > /run/lab/waits.$$
until [ -e /run/lab/go ]; do sleep 0.1; done
"""


def test_suspended__while_sshd_waits_for_the_client(node: Node) -> None:
    """keyboard-interactive: whoever stops the job between account and session phase keeps none of sshd's places."""
    node.write("/etc/lab/wait", WAIT, 0o755)
    (line,) = re.findall(r"^account\s+(.*pam_slurm_adopt.*)$", node.read("/etc/pam.d/sshd"), re.MULTILINE)
    node.pam("sshd", account=[line, "required pam_exec.so /etc/lab/wait"], session=[line])
    sshd = node.sshd("grace", GRACE_PORT, [*FEW, "LoginGraceTime 20"])
    job = node.submit("alice")
    logins = [node.ssh_popen("alice", "true", auth="keyboard-interactive", port=GRACE_PORT) for _ in range(5)]
    try:
        wait_for(lambda: len(list(node.path("/run/lab").glob("waits.*"))) == 5, "the account phases")
        suspend(node, job)
        for login in logins:
            login.kill()
            login.wait()
        assert [one for one in node.processes(0) if f"/job_{job}/" in str(one.cgroups) and "sshd" in one.command] == []
        # not at once: sshd itself waits for the modules until LoginGraceTime is over
        wait_for(lambda: node.ssh("root", "true", port=GRACE_PORT, timeout=15).returncode == 0, "root to get in", 120)
    finally:
        node.run(f"touch /run/lab/go; scontrol resume {job}", check=False)
        use_strict_lines(node, line)
        wait_for(lambda: not any("/etc/lab/wait" in one.command for one in node.processes()), "the modules to end")
        node.run("rm -f /run/lab/go /run/lab/waits.*")
        sshd.stop()
    assert (
        f"/job_{job}/"
        in node.ssh("alice", "cat /proc/self/cgroup", auth="keyboard-interactive", port=PORT, check=True).stdout
    )


def test_suspended__another_job_takes_the_login(node: Node) -> None:
    other = node.submit("alice")
    job = node.submit("alice")
    suspend(node, job)
    assert node.ssh("alice", "echo $SLURM_JOB_ID").stdout.strip() == str(other)
    listed = json.loads(node.run(["slurm-adopt", "jobs", "--json"], user="alice").stdout)
    assert {one["job"]: one["state"] for one in listed["jobs"]} == {other: "running", job: "suspended"}
    assert f"{job}" in node.run(["slurm-adopt", "status"]).stdout


#: Runs in the node: takes a process into the job's extern step, which is frozen just before slurmstepd is asked.
IN_THE_MIDDLE = """
import glob, os, subprocess, sys, time
sys.path.insert(0, "/usr/lib/slurm-adopt")
from slurm_adopt.login import adoption
from slurm_adopt.login.steps import FreshLookup
from slurm_adopt.system.kernel.procfs import read_process
from slurm_adopt.system.slurm.stepd import StepFault
from slurm_adopt.system.tasks.task import run
job = sys.argv[1]
deadline_ns = time.monotonic_ns() + 5 * 10**9
source = FreshLookup()
found = run(source.query_own(run(source.read_conf(deadline_ns)), "", 1501, deadline_ns))
child = subprocess.Popen(["sleep", "100"])
process = read_process(child.pid)
state = glob.glob(f"/sys/fs/cgroup/freezer/slurm*/uid_*/job_{job}/step_extern/freezer.state")[0]
cgroups = lambda: open(f"/proc/{child.pid}/cgroup").read()
before = cgroups()
request = adoption.request_adoption

def request_and_freeze(*arguments):
    open(state, "w").write("FROZEN")
    return request(*arguments)

adoption.request_adoption = request_and_freeze
try:
    run(adoption.adopt_into(found.own[0].connection, 1501, lambda: (process,), False, False, source.recent))
    print("adopted")
except StepFault as fault:
    print(fault.reason)
open(state, "w").write("THAWED")
print("as before" if cgroups() == before else cgroups())
child.kill()
child.wait()
"""


def test_suspended__in_the_middle_of_a_login(node: Node) -> None:
    """Between our look and slurmstepd's move: what was taken in is put back where it was, and can go on."""
    job = node.submit("alice")
    node.write("/etc/lab/middle.py", IN_THE_MIDDLE)
    said = node.run(["python3", "-I", "/etc/lab/middle.py", str(job)], timeout=30).stdout.splitlines()
    assert said == ["step-suspended", "as before"]
