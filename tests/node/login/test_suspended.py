# SPDX-License-Identifier: Apache-2.0
"""A suspended job takes no login: real slurmctld, slurmstepd and sshd; `scontrol suspend` freezes the job's cgroups."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from tests.releases import SUITES, suite_name

from lab.machine import wait_for
from lab.node import Node
from lab.product import STRICT, use_product, use_strict_lines

SOCKET = "/run/slurm-adopt/login.sock"
PORT = 2222
TOLD = "your job on this node is suspended"


@pytest.fixture(
    scope="module",
    params=SUITES,
    ids=suite_name,
)
def machine(request: pytest.FixtureRequest) -> Iterator[Node]:
    with Node(suite=request.param) as node:
        use_product(node)
        node.sshd("few", PORT, ["MaxStartups 5:100:5", "KbdInteractiveAuthentication yes"])
        yield node


@pytest.fixture(params=["oneshot", "service"])
def node(machine: Node, request: pytest.FixtureRequest) -> Iterator[Node]:
    use_strict_lines(machine, f"{STRICT} mode={request.param}")
    service = None
    if request.param == "service":
        service = machine.popen(["slurm-adopt", "serve", "--listen", SOCKET, "--no-audit-journal"])
        wait_for(lambda: machine.path(SOCKET).exists(), "the service")
    yield machine
    for job in machine.jobs() + suspended(machine):
        machine.run(["scontrol", "resume", str(job)], check=False)
    machine.cancel_all()
    if service is not None:
        service.terminate()
        service.wait(20)


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
