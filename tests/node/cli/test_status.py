# SPDX-License-Identifier: Apache-2.0
"""`slurm-adopt status` on a node with real logins."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from typing import Any

import pytest
from tests.releases import SUITES, suite_name

from lab.machine import wait_for
from lab.node import Node
from lab.product import use_product, use_strict_lines

OUT_OF_EVERYTHING = "for file in /sys/fs/cgroup/*/cgroup.procs; do echo $1 > $file; done 2>/dev/null; true"


@pytest.fixture(
    scope="module",
    params=SUITES,
    ids=suite_name,
)
def machine(request: pytest.FixtureRequest) -> Iterator[Node]:
    with Node(suite=request.param) as node:
        use_product(node)
        yield node


@pytest.fixture
def node(machine: Node) -> Iterator[Node]:
    yield machine
    machine.reset()
    use_strict_lines(machine)


def status(node: Node, user: str | None = None) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(node.run(["slurm-adopt", "status", "--json"], user=user).stdout)
    return found


@pytest.fixture
def logins(node: Node) -> Iterator[dict[str, int]]:
    """A job and an open login of alice and bob each; the jobs by user."""
    jobs = {user: node.submit(user) for user in ("alice", "bob")}
    clients = [node.ssh_popen(user, "echo in; sleep 1000") for user in jobs]
    for client in clients:
        assert client.stdout is not None
        wait_for(lambda out=client.stdout: "in\n" in iter(out.readline, ""), "the login")
    yield jobs
    for client in clients:
        client.kill()
        client.communicate()


def test_status__an_empty_node(node: Node) -> None:
    said = node.run(["slurm-adopt", "status"]).stdout
    assert said == "No ssh login.\n"
    assert status(node) == {
        "jobs": [],
        "logins": [],
        "outside": [],
        "strangers": [],
        "pam_services_without_a_line": [],
        "unanswered": [],
        "grace_periods": {"expedited": "off", "not_hastened": "no-switch"},  # a node's /sys is read-only
        "complete": True,
    }


def test_status__every_login_with_its_job(node: Node, logins: dict[str, int]) -> None:
    found = status(node)
    seen = {login["user"]: login for login in found["logins"]}
    assert {user: login["job"] for user, login in seen.items()} == logins
    for login in seen.values():
        assert (login["from"], login["membership"]) == ("127.0.0.1", "in-job")
        assert 0 <= login["age_s"] < 60
    assert found["outside"] == []
    assert found["complete"]
    text = node.run(["slurm-adopt", "status", "--check"]).stdout
    assert f"alice  127.0.0.1  {logins['alice']}" in text
    assert "OUTSIDE" not in text


def test_status__a_login_that_only_forwards_a_port(node: Node) -> None:
    """`ssh -N -L`: it has no session, and sshd's title says so."""
    job = node.submit("alice")
    with node.popen(["ssh", "-N", "-L", "7009:127.0.0.1:22", "alice@127.0.0.1"]) as client:
        try:
            greet = "exec 3<>/dev/tcp/127.0.0.1/7009 && head -c 4 <&3"
            wait_for(lambda: node.run(greet, check=False).stdout == "SSH-", "the forwarded port")
            (login,) = status(node)["logins"]
        finally:
            client.kill()
    assert (login["user"], login["job"], login["membership"]) == ("alice", job, "in-job")


def test_status__a_login_that_was_moved_out_is_named(node: Node, logins: dict[str, int]) -> None:
    login = next(login for login in status(node)["logins"] if login["user"] == "alice")
    node.run(["sh", "-c", OUT_OF_EVERYTHING, "sh", str(login["pid"])])
    found = status(node)
    moved = next(again for again in found["logins"] if again["pid"] == login["pid"])
    assert (moved["membership"], moved["job"]) == ("outside", None)
    assert [(stray["user"], stray["kind"]) for stray in found["outside"]] == [("alice", "login")]
    done = node.run(["slurm-adopt", "status", "--check"], check=False)
    assert done.returncode == 1
    assert "OUTSIDE" in done.stdout
    assert logins["alice"] in node.jobs("alice"), "status reports only"


@pytest.mark.usefixtures("logins")
def test_status__what_is_in_no_job_is_listed(node: Node) -> None:
    """A daemon of a user who has a job but is not in it, and one of a user without any; a name full of escapes."""
    name = "x\x1b[2Jy"
    node.run(["cp", "/bin/sleep", f"/tmp/{name}"])
    with node.popen([f"/tmp/{name}", "100"], user="bob") as outside:
        with node.popen(["sleep", "100"], user="carol") as no_job:
            strays = wait_for(lambda: len(found := status(node)["outside"]) == 2 and found, "both to be seen")
            text = node.run(["slurm-adopt", "status"]).stdout
            no_job.kill()
        outside.kill()
    wait_for(lambda: status(node)["outside"] == [], "both to be gone")  # they end after what carried them in
    assert {(stray["user"], stray["user_has_job"], stray["kind"]) for stray in strays} == {
        ("bob", True, "process"),
        ("carol", False, "process"),
    }
    assert "\x1b" not in text
    assert "the user has no job here" in text


def test_status__roots_login_is_no_alarm(node: Node) -> None:
    client = node.ssh_popen("root", "echo in; sleep 1000")
    assert client.stdout is not None
    wait_for(lambda: "in\n" in iter(client.stdout.readline, ""), "the login")
    found = status(node)
    client.kill()
    client.communicate()
    assert [(login["user"], login["membership"]) for login in found["logins"]] == [("root", "root")]
    assert found["outside"] == []


def test_status__a_user_sees_his_own(node: Node, logins: dict[str, int]) -> None:
    found = status(node, "alice")
    mine = [login for login in found["logins"] if login["user"] == "alice"]
    assert [login["job"] for login in mine] == [logins["alice"]]
    assert not found["complete"]


def test_status__a_hung_slurmstepd_is_named(node: Node, logins: dict[str, int]) -> None:
    stepds = [p.pid for p in node.processes(0) if p.command.startswith(f"slurmstepd: [{logins['bob']}.extern")]
    node.run(["kill", "-STOP", *map(str, stepds)])
    try:
        found = status(node)
    finally:
        node.run(["kill", "-CONT", *map(str, stepds)])
    assert found["unanswered"] == [f"{logins['bob']}:step-silent"]
    assert not found["complete"]
    assert [job["user"] for job in found["jobs"]] == ["alice"]


def test_status__a_socket_that_a_dead_slurmstepd_has_left_is_no_job(node: Node, logins: dict[str, int]) -> None:
    """Seen with 24.11 on a busy machine: slurmd removes them late."""
    living = node.extern_socket(logins["alice"])
    assert living is not None
    dead = living.with_name(living.name.replace(f"_{logins['alice']}.", "_4711."))
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(dead))
    try:
        found = status(node)
    finally:
        dead.unlink()
    assert [job["user"] for job in found["jobs"]] == ["alice", "bob"]
    assert found["unanswered"] == []
    assert found["complete"]


def test_status__a_process_of_somebody_else_in_a_job(node: Node) -> None:
    """As slurmstepd would leave it that was told a number which had changed hands."""
    job = node.submit("alice")
    node.submit("bob", "exec sleep 4321")
    stranger = node.process("sleep 4321", "bob").pid
    node.run(f"echo {stranger} > $(echo /sys/fs/cgroup/freezer/slurm*/uid_1501/job_{job}/step_extern/cgroup.procs)")
    node.run(
        "for top in cpuset cpu,cpuacct cpuacct memory devices; do "
        f"for procs in /sys/fs/cgroup/$top/slurm*/uid_1501/job_{job}/step_extern/cgroup.procs; do "
        f"[ ! -e $procs ] || echo {stranger} > $procs; done; done"
    )
    done = node.run(["slurm-adopt", "status", "--check"], check=False)
    assert done.returncode == 1
    assert f"process {stranger} (sleep) of bob is in job {job}, which is somebody else's" in done.stdout


#: A process called sshd below a set-uid program called sshd: both names are chosen by who makes the link.
FORGE = """
import os, pty, sys, time
os.makedirs("/tmp/forged/python")
os.symlink("/usr/bin/passwd", "/tmp/forged/sshd")
os.symlink(sys.executable, "/tmp/forged/python/sshd")
if pty.fork()[0] == 0:
    if os.fork() == 0:
        os.execv("/tmp/forged/python/sshd", ["sshd: carol@pts/9", "-c", "import time; time.sleep(1000)"])
    os.execv("/tmp/forged/sshd", ["sshd: carol [priv]"])
time.sleep(1000)
"""


def test_status__what_only_calls_itself_sshd_is_no_login(node: Node) -> None:
    """Nor is its title read, which its owner can lock for whoever reads it."""
    node.write("/etc/lab/forge.py", FORGE)
    forger = node.popen(["python3", "/etc/lab/forge.py"], "alice")
    try:
        node.process("sshd: carol [priv]")
        node.process("sshd: carol@pts/9 -c import time; time.sleep(1000)", "alice")
        assert status(node)["logins"] == []
    finally:
        node.run("pkill -KILL -u alice; rm -rf /tmp/forged", check=False)
        forger.wait()
