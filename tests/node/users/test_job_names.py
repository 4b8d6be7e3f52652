# SPDX-License-Identifier: Apache-2.0
"""Array tasks and components of heterogeneous jobs have the names that squeue shows: real jobs, real slurmctld."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

import pytest
from tests.node.users.test_users import PREFERRED, call, job_of_login, serve_users
from tests.releases import SUITES, suite_name

from lab.cluster import Cluster
from lab.machine import wait_for
from lab.node import WAITS, Node
from lab.product import serving, use_product, use_strict_lines

MOVABLE = f"{PREFERRED} user_move=yes timeout=60"
#: A process that tells nothing of its job.
BARE = "exec env -i sleep 1000"


@pytest.fixture(scope="module", params=SUITES, ids=suite_name)
def machine(request: pytest.FixtureRequest) -> Iterator[Node]:
    with Node(suite=request.param) as node:
        use_product(node)
        yield node


@pytest.fixture
def users(machine: Node) -> Iterator[Node]:
    use_strict_lines(machine, MOVABLE)
    with serve_users(machine):
        yield machine
    machine.run("pkill -CONT slurmctld", check=False)
    machine.reset()


def names(node: Node) -> dict[str, int]:
    """As squeue shows alice's jobs that run: name and number."""
    shown = node.run(["squeue", "-h", "-t", "running", "-u", "alice", "-o", "%i %A"]).stdout
    return {name: int(number) for name, number in map(str.split, shown.splitlines())}


def array(node: Node, script: str = WAITS) -> dict[str, int]:
    job = node.sbatch("alice", script, array="3,7")
    wait_for(lambda: {f"{job}_3", f"{job}_7"} <= names(node).keys(), "the array")
    started = names(node)
    node.wait_started(started.values())
    return started


def listed(node: Node) -> dict[str, int]:
    done = call(node, "alice", "jobs", "--json")
    assert done.returncode == 0, done.stderr
    return {job["name"]: job["job"] for job in json.loads(done.stdout)["jobs"]}


def answers(node: Node) -> bool:
    """Whether slurmctld is asked: 20.11's answer is not known."""
    return node.slurm_release >= (22, 5)


@pytest.mark.parametrize("script", [WAITS, BARE], ids=["with-an-environment", "without"])
def test_job_names__jobs_lists_them_as_squeue_does(users: Node, script: str) -> None:
    users.submit("alice", script)
    wanted = array(users, script)
    assert len(wanted) == 3
    if not answers(users):
        wanted = {str(number): number for number in wanted.values()}
    assert listed(users) == wanted
    rows = [line.split() for line in call(users, "alice", "jobs").stdout.splitlines()[1:]]
    shown = {row[0]: row[1] for row in rows}
    assert shown == {name: "running" if name == str(number) else f"({number})" for name, number in wanted.items()}


def test_job_names__use_and_move_take_and_tell_them(users: Node) -> None:
    if not answers(users):
        pytest.skip("slurmctld is not asked")
    started = array(users)
    newest_number = job_of_login(users)
    ((older, number),) = [item for item in started.items() if item[1] != newest_number]
    (newest,) = started.keys() - {older}
    done = call(users, "alice", "use", older)
    assert f"go into job {older} ({number}), until it ends" in done.stdout, done.stderr
    assert job_of_login(users) == number
    moved = users.ssh("alice", f"slurm-adopt move {newest}; cat /proc/self/cgroup")
    assert f"This login is in job {newest} ({newest_number}) now" in moved.stdout, moved
    assert f"export SLURM_JOB_ID={newest_number}" in moved.stdout
    assert f"/job_{newest_number}/step_extern" in moved.stdout
    assert call(users, "alice", "use", str(newest_number)).returncode == 0
    assert job_of_login(users) == newest_number


def test_job_names__the_service_tells_greetings_and_the_audit_stream(users: Node) -> None:
    if not answers(users):
        pytest.skip("slurmctld is not asked")
    audit, table = "/var/log/lab-audit.jsonl", "/run/slurm-adopt/job-names"
    users.run(["rm", "-f", audit, table])
    with serving(users, "--audit-file", audit):
        users.submit("alice")
        assert job_of_login(users)
        started = array(users)
        newest_number = job_of_login(users)
        names = {number: name for name, number in started.items()}
        wait_for(users.path(table).exists, "the names")
        wanted = {number: name for number, name in names.items() if name != str(number)}
        stored = [line.split() for line in users.read(table).splitlines()]
        assert {int(words[0]): words[3] for words in stored} == wanted
        assert users.path(table).stat().st_mode & 0o777 == 0o600
        text = users.ssh("alice", None, tty=True, input="exit\n").stdout
        told = re.search(r"you are in job (\S+ \(\d+\)), .*also here: (.*)\)\.", text)
        assert told
        # on a busy machine a step may not answer in its grace, and is not told of
        expected = {f"{name} ({number})" if number in wanted else str(number) for number, name in names.items()}
        assert told[1] == f"{names[newest_number]} ({newest_number})"
        assert set(told[2].split(", ")) <= expected - {told[1]}
        events = [json.loads(line) for line in users.read(audit).splitlines()]
        named = [(one["job"], one["name"], one["user"]) for one in events if one["event"] == "job-name"]
        assert named == [(newest_number, names[newest_number], "alice")]
    users.run(["rm", "-f", audit, table])


@pytest.mark.parametrize("name", ["4_4", "9+1"])
def test_job_names__of_no_job_of_ones_own(users: Node, name: str) -> None:
    users.submit("bob")
    done = call(users, "alice", "use", name)
    assert done.returncode == 1
    assert f"you have no job {name} on this node" in done.stderr


def test_job_names__a_slurmctld_that_is_silent_leaves_numbers(users: Node) -> None:
    wanted = array(users, BARE)
    users.run("pkill -STOP slurmctld")
    try:
        assert listed(users) == {str(number): number for number in wanted.values()}
    finally:
        users.run("pkill -CONT slurmctld")


def test_job_names__a_job_that_an_arrays_task_submits_is_none(users: Node) -> None:
    """sbatch hands the task's variables on: the job says that it is the task that has submitted it."""
    users.run("rm -f /tmp/child; touch /tmp/child; chmod 666 /tmp/child")
    child = "sbatch --parsable --output=/dev/null --wrap 'exec sleep 1000' >/tmp/child"
    job = users.sbatch("alice", f"{child}; exec sleep 1000", array="5")
    wait_for(lambda: users.read("/tmp/child").strip(), "the job that the task has submitted")
    number = int(users.read("/tmp/child"))
    users.wait_started([number])
    script = f"/job_{number}/step_batch"
    (told,) = wait_for(
        lambda: [p for p in users.processes("alice") if script in str(p.cgroups) and p.command.startswith("sleep")],
        "the job's script",
    )
    assert f"SLURM_ARRAY_JOB_ID={job}".encode() in users.path(f"/proc/{told.pid}/environ").read_bytes().split(b"\0")
    found = listed(users)
    assert found[str(number)] == number
    assert (f"{job}_5" in found) == answers(users)


@pytest.mark.parametrize("suite", SUITES, ids=suite_name)
def test_job_names__components_of_a_heterogeneous_job(suite: str | None) -> None:
    """On the second node nothing of the job runs but its extern step."""
    with Cluster(suite) as cluster:
        for node in cluster.nodes:
            use_product(node)
        login = cluster.login
        login.write("/tmp/heterogeneous", f"#!/bin/sh\n#SBATCH -n1\n#SBATCH hetjob\n#SBATCH -n1\n{WAITS}\n")
        submit = ["sbatch", "--parsable", "--output=/dev/null", "/tmp/heterogeneous"]
        job = int(login.run(submit, user="alice").stdout)
        wait_for(lambda: {f"{job}+0", f"{job}+1"} <= names(login).keys(), "the heterogeneous job", 120)
        where = {}
        for name, number in names(login).items():
            (node,) = [node for node in cluster.nodes if node.extern_socket(number)]
            node.wait_started([number])
            where[name] = node
            assert listed(node) == {name if answers(node) else str(number): number}
            with serve_users(node):
                done = call(node, "alice", "use", name)
            assert (done.returncode == 0) == answers(node), done
        assert len({node.hostname for node in where.values()}) == 2
