# SPDX-License-Identifier: Apache-2.0
"""Network caller ID with real slurmds and real ssh: a login lands in the job that it comes from."""

from __future__ import annotations

import contextlib
import re
import secrets
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.releases import SUITES, suite_name

from lab.cluster import Cluster
from lab.machine import wait_for
from lab.node import Node
from lab.product import STRICT, serving, use_product, use_strict_lines
from slurm_adopt.wire.callerid import decode_message

#: the priority of a security event in the log
AUTHPRIV_WARNING = 10 * 8 + 4
#: node1's slurmd listens here
PORT = 7018
#: Caller ID could take half of this login's time: what it takes is far below that, however busy the machine is.
PATIENT = f"{STRICT} timeout=60"
FAR_BELOW_MS = 15_000
#: logins at once; sshd's MaxStartups takes them
FAN = 12
WHERE = "echo job=$SLURM_JOB_ID; cat /proc/self/cgroup"
#: takes every connection, says nothing, and counts them
LISTENER = """
import socket
server = socket.create_server(("", 6818))
print("listening", flush=True)
while True:
    server.accept()
    print("asked", flush=True)
"""


@pytest.fixture(
    scope="module",
    params=SUITES,
    ids=suite_name,
)
def shared_cluster(request: pytest.FixtureRequest) -> Iterator[Cluster]:
    with Cluster(request.param, ports={"node1": PORT}) as cluster:
        for node in cluster.nodes:
            use_product(node)
        yield cluster


@pytest.fixture
def cluster(shared_cluster: Cluster) -> Iterator[Cluster]:
    yield shared_cluster
    for node in shared_cluster.nodes:
        node.run("pkill -CONT slurmd", check=False)
    for job in shared_cluster.ctl.jobs():
        shared_cluster.cancel(job)


def answers(node: Node) -> bool:
    """Whether its slurmd finds a connection's process every time.

    20.11.4 on Linux 6 often does not: it reads garbage for the inode ("network_callerid matched ... with inode
    140346078919720" in its log, seen whoever asks), and its authentic answer is then: of no job.
    """
    return node.slurm_release >= (22, 5)


def job_of(done: subprocess.CompletedProcess[str]) -> int:
    """The job that a login is in, as its environment and the kernel say alike; 0 for none."""
    assert done.returncode == 0, done.stderr
    said = re.search(r"^job=(\d*)$", done.stdout, re.MULTILINE)
    seen = set(re.findall(r"/job_(\d+)/step_extern", done.stdout))
    assert said
    assert seen == ({said[1]} if said[1] else set())
    return int(said[1] or 0)


def account_line(node: Node, mark: int) -> str:
    return next(line for line in node.log_since(mark) if "phase=account" in line)


@pytest.mark.parametrize("version", [4, 6])
def test_callerid__a_login_lands_in_the_job_it_comes_from(cluster: Cluster, version: int) -> None:
    """Both ways: node1's slurmd has a port of its own, node2's the usual one."""
    both = ["node1", "node2"]
    older, newest = cluster.allocate("alice", both), cluster.allocate("alice", both)
    for source, target in (both, both[::-1]):
        ssh = ["ssh", "-o", "BatchMode=yes", cluster.address(target, version), WHERE]
        for job in (older, newest):
            mark = cluster[target].log_mark()
            inside = ["srun", f"--jobid={job}", "--overlap", "-N1", "-n1", "-w", source, *ssh]
            landed = job_of(cluster.login.run(inside, user="alice", check=False))
            line = account_line(cluster[target], mark)
            if not answers(cluster[source]) and "caller=unknown" in line:
                assert landed == newest
                continue
            assert landed == job
            assert f"job={job} chosen=caller" in line
            assert "caller=found" in line
    # an ssh login on node1 is in a job as well, and passes it on
    assert job_of(cluster.ssh("alice", "node1", "node2", WHERE, version=version)) == newest
    # from nowhere in particular it is the newest
    mark = cluster["node2"].log_mark()
    target = cluster.address("node2", version)
    assert job_of(cluster.login.ssh("alice", WHERE, client="alice", host=target)) == newest
    assert f"job={newest} chosen=newest" in account_line(cluster["node2"], mark)


def test_callerid__from_the_node_itself(cluster: Cluster) -> None:
    cluster.allocate("alice", ["node2"])
    node = cluster["node2"]
    job = node.submit("alice", nodelist="node2")
    newest = cluster.allocate("alice", ["node2"])
    mark = node.log_mark()
    ssh = ["ssh", "-o", "BatchMode=yes", "node2", WHERE]
    # from a step of its own, not the extern step
    inside = cluster.login.run(["srun", f"--jobid={job}", "--overlap", *ssh], user="alice", check=False)
    assert job_of(inside) == job != newest
    assert "caller=found" in account_line(node, mark)


@pytest.mark.parametrize(("mode", "source"), [("oneshot", "node1"), ("service", "node2")])
def test_callerid__the_job_it_comes_from_is_waited_for(cluster: Cluster, source: str, mode: str) -> None:
    """Its slurmstepd is late, and another job of the user's answers at once: busy nodes are like that."""
    node = cluster["node2"]
    job = cluster.allocate("alice", ["node1", "node2"])
    other = cluster.allocate("alice", ["node2"])
    use_strict_lines(node, f"{PATIENT} mode={mode}")
    (stepd,) = [process.pid for process in node.processes("root") if process.command == f"slurmstepd: [{job}.extern]"]
    mark = node.log_mark()
    inside = ["srun", f"--jobid={job}", "--overlap", "-N1", "-n1", "-w", source]
    ssh = ["ssh", "-o", "BatchMode=yes", "node2", WHERE]
    listening = ["sh", "-c", f"ss -Hxl | grep -E '_{job}.(4294967292|extern) ' || true"]
    with contextlib.ExitStack() as stack:
        stack.callback(use_strict_lines, node)
        if mode == "service":
            stack.enter_context(serving(node))
        node.run(["kill", "-STOP", str(stepd)])
        login = cluster.login.popen([*inside, *ssh], "alice", stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        try:
            wait_for(lambda: int(node.run(listening).stdout.split()[2]) > 0, "the login to ask")
            time.sleep(1)  # longer than an answer is waited for where others have one; shorter than this login has
            # 20.11's slurmd often does not know the job, and then nobody waits for it
            assert login.poll() is None or not answers(cluster[source])
        finally:
            node.run(["kill", "-CONT", str(stepd)])
            said, errors = login.communicate(timeout=300)
    line = account_line(node, mark)
    landed = job_of(subprocess.CompletedProcess([], login.returncode, said, errors))
    if not answers(cluster[source]) and "caller=unknown" in line:
        assert landed == other
        return
    assert landed == job, line
    assert f"job={job} chosen=caller" in line


@pytest.mark.parametrize(("mode", "source"), [("oneshot", "node2"), ("service", "node1"), ("service", "node2")])
def test_callerid__a_fan_out_stays_in_its_job(cluster: Cluster, source: str, mode: str) -> None:
    """As mpirun, pdsh and GNU parallel do it, from another node and from the node itself; the user has a newer job."""
    node = cluster["node2"]
    if not answers(cluster[source]) and source == "node1":
        pytest.skip("its slurmd does not find connections every time")
    job = cluster.allocate("alice", ["node1", "node2"])
    cluster.allocate("alice", ["node2"])
    # half of it is for caller ID: machines are busy, and this is many logins
    use_strict_lines(node, f"{STRICT} timeout=300 caller_timeout=30 mode={mode}")
    ssh = "ssh -o BatchMode=yes node2 grep -o job_[0-9]*/step_extern /proc/self/cgroup"
    inner = f"seq {FAN} | xargs -P {FAN} -I{{}} sh -c '{ssh} | sort -u'"
    inside = ["srun", f"--jobid={job}", "--overlap", "-N1", "-n1", "-w", source, "sh", "-c", inner]
    with contextlib.ExitStack() as stack:
        stack.callback(use_strict_lines, node)
        if mode == "service":
            stack.enter_context(serving(node))
        mark = node.log_mark()
        done = cluster.login.run(inside, user="alice", check=False, timeout=300)
    chosen = [line for line in node.log_since(mark) if "phase=account" in line]
    assert done.stdout.split() == [f"job_{job}/step_extern"] * FAN, "\n".join(chosen)
    assert all("chosen=caller" in line for line in chosen)


def test_callerid__a_job_of_somebody_else_is_never_joined(cluster: Cluster) -> None:
    """Bob, in his job, uses alice's key: the original puts the login into bob's job."""
    bobs = cluster.allocate("bob", ["node1", "node2"])
    cluster.allocate("alice", ["node2"])
    newest = cluster.allocate("alice", ["node2"])
    node1, node2 = cluster["node1"], cluster["node2"]
    node1.write("/home/bob/alices-key", node1.read("/home/alice/.ssh/id_ed25519"), 0o600, "bob")
    mark = node2.log_mark()
    inner = f"ssh -o BatchMode=yes -i alices-key alice@node2 '{WHERE}'"
    done = cluster.login.ssh("bob", inner, client="bob", host="node1")
    assert job_of(done) == newest != bobs
    line = account_line(node2, mark)
    if not answers(node1):
        assert "caller=unknown" in line
        return
    assert "caller=caller-foreign security=caller-foreign" in line
    assert f'detail="job {bobs} has no extern step of uid' in line
    assert line.startswith(f"<{AUTHPRIV_WARNING}>")


#: In a job on node1: a connection to node2's sshd, until stdin ends.
CONNECT = """
import socket, sys
sock = socket.create_connection((sys.argv[1], 22))
print(sock.getsockname()[1], flush=True)
sys.stdin.read()
"""
#: On node2, as the helper does it: ask about that connection in a version, for a user.
ASK = """
import sys, time
sys.path.insert(0, "/usr/lib/slurm-adopt")
from slurm_adopt.system.rpc.callerid import Asker, Question, ask_node, packed
from slurm_adopt.system.rpc.peers import find_nodes_of_peer
from slurm_adopt.system.slurm.conf import read_slurm_conf
from slurm_adopt.system.tasks.task import run
source, port, target, version, uid = sys.argv[1:]
conf, deadline_ns = read_slurm_conf(), time.monotonic_ns() + 10**10
(node,) = run(find_nodes_of_peer(conf, source, deadline_ns))
question = Question(packed(source), int(port), packed(target), 22)
print(run(ask_node(Asker(conf, question, int(version) << 8, int(uid)), node, deadline_ns)).job_id)
"""


def test_callerid__with_old_versions_the_user_asks(cluster: Cluster) -> None:
    """v36 and v37 do not bind a credential to its message: there it is the user's, who learns of his own jobs only."""
    source, node = cluster["node1"], cluster["node2"]
    if not answers(source) or source.slurm_release > (23, 2):
        pytest.skip("this slurmd speaks neither of them, or does not answer")
    job = cluster.allocate("alice", ["node1", "node2"])
    inside = ["srun", f"--jobid={job}", "--overlap", "-N1", "-n1", "-w", "node1", "python3", "-c", CONNECT]
    addresses = cluster.address("node1"), cluster.address("node2")
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with cluster.login.popen([*inside, addresses[1]], "alice", **pipes) as connection:
        assert connection.stdout is not None
        port = connection.stdout.readline().strip()

        def ask(version: int, user: str) -> str:
            uid = str(node.account(user)[0])
            argv = ["/usr/bin/python3", "-I", "-S", "-c", ASK, addresses[0], port, addresses[1], str(version), uid]
            return node.run(argv).stdout.strip()

        try:
            for version in (36, 37):
                assert ask(version, "alice") == str(job)
                assert ask(version, "bob") == "None"
            # bound to the message, and so asked as root, who is told whose job it is not
            assert ask(38, "bob") == str(job)
        finally:
            connection.kill()


def test_callerid__a_listener_on_the_login_node_is_not_asked(cluster: Cluster) -> None:
    cluster.allocate("alice", ["node2"])
    newest = cluster.allocate("alice", ["node2"])
    node = cluster["node2"]
    with cluster.login.popen(["python3", "-c", LISTENER], "bob", stdout=subprocess.PIPE) as listener:
        assert listener.stdout is not None
        try:
            assert listener.stdout.readline() == "listening\n"
            mark = node.log_mark()
            assert job_of(cluster.login.ssh("alice", WHERE, client="alice", host="node2")) == newest
            assert "caller=caller-not-a-node" in account_line(node, mark)
        finally:
            listener.kill()
        assert listener.stdout.read() == ""


def test_callerid__a_silent_slurmd_costs_its_budget_and_no_more(cluster: Cluster) -> None:
    cluster.allocate("alice", ["node1", "node2"])
    newest = cluster.allocate("alice", ["node2"])
    node = cluster["node2"]
    use_strict_lines(node, PATIENT)
    cluster["node1"].run("pkill -STOP -x slurmd")
    try:
        mark = node.log_mark()
        assert job_of(cluster.ssh("alice", "node1", "node2", WHERE)) == newest
    finally:
        use_strict_lines(node)
    line = account_line(node, mark)
    assert "caller=caller-silent" in line
    assert 950 < took_ms(line) < FAR_BELOW_MS


def test_callerid__a_slurmd_that_is_down(cluster: Cluster) -> None:
    cluster.allocate("alice", ["node1", "node2"])
    newest = cluster.allocate("alice", ["node2"])
    node = cluster["node2"]
    cluster["node1"].slurmd.stop()
    try:
        mark = node.log_mark()
        assert job_of(cluster.ssh("alice", "node1", "node2", WHERE)) == newest
        assert "caller=caller-unreachable" in account_line(node, mark)
    finally:
        cluster["node1"].slurmd.start()
        cluster.ctl.wait_idle()


def took_ms(line: str) -> int:
    """How long the account phase took, as the module has measured it."""
    found = re.search(r" ms=(\d+)$", line)
    assert found, line
    return int(found[1])


#: What somebody in slurmd's place may do, and what comes of it.
IMPOSTORS = {
    "forge": "caller-untrusted",
    "replay": "caller-untrusted",
    "garbage": "caller-malformed",
    "endless": "caller-malformed",
    "drip": "caller-silent",
    "silent": "caller-silent",
}


def test_callerid__nobody_in_slurmds_place_is_believed(cluster: Cluster) -> None:
    """slurmd of node1 is down, and bob, who has no right to anything, listens on its port, which is no privileged one."""
    older = cluster.allocate("alice", ["node1", "node2"])
    newest = cluster.allocate("alice", ["node2"])
    source, node = cluster["node1"], cluster["node2"]
    source.install(Path(__file__).with_name("impostor.py"), "/run/lab/impostor.py")
    source.slurmd.stop()
    try:
        for how, status in IMPOSTORS.items():
            # who answers is given the time to do so on a busy machine
            waits = status == "caller-silent"
            use_strict_lines(node, f"{PATIENT} caller_timeout={0.5 if waits else 20}")
            argv = ["python3", "/run/lab/impostor.py", how, str(PORT), str(older), "/home/bob/received"]
            with source.popen(argv, "bob", stdout=subprocess.PIPE) as impostor:
                try:
                    assert impostor.stdout is not None
                    assert impostor.stdout.readline() == "listening\n"
                    mark = node.log_mark()
                    assert job_of(cluster.ssh("alice", "node1", "node2", WHERE)) == newest, how
                finally:
                    impostor.kill()
            line = account_line(node, mark)
            assert f"caller={status}" in line, how
            assert ("security=" in line) == (not waits), how
            assert took_ms(line) < FAR_BELOW_MS, how
            received = source.path("/home/bob/received").read_bytes()
        assert_useless(source, received)
    finally:
        use_strict_lines(node)
        source.slurmd.start()
        cluster.ctl.wait_idle()


def assert_useless(machine: Node, received: bytes) -> None:
    """The credential that an impostor has got is for root alone."""
    credential = decode_message(received).credential or ""
    for user in ("bob", "alice"):
        done = machine.run(["unmunge"], user=user, input=credential, check=False)
        assert done.returncode != 0
        assert "Unauthorized credential" in done.stderr
    # so it was a credential, and a good one
    decoded = machine.run(["unmunge"], input=credential).stdout
    assert re.search(r"^STATUS: +Success", decoded)
    # and root's own only where it cannot be used for another message
    who = "alice" if machine.slurm_release < (22, 5) else "root"
    assert re.search(rf"^UID: +{who} ", decoded, re.MULTILINE)


def drop(machine: Node, port: int) -> None:
    """Packets to a port disappear, as behind a firewall."""
    machine.run(
        [
            "nft",
            f"add table inet lab; add chain inet lab inbound {{ type filter hook input priority 0; }}; "
            f"add rule inet lab inbound tcp dport {port} drop",
        ]
    )


def test_callerid__dropped_packets_cost_the_resident_services_users_one_wait(cluster: Cluster) -> None:
    cluster.allocate("alice", ["node1", "node2"])
    cluster.allocate("bob", ["node1", "node2"])
    newest = {user: cluster.allocate(user, ["node2"]) for user in ("alice", "bob")}
    node = cluster["node2"]

    def login(user: str) -> tuple[str, int]:
        mark = node.log_mark()
        assert job_of(cluster.ssh(user, "node1", "node2", WHERE)) == newest[user]
        line = account_line(node, mark)
        status = re.search(r" caller=(\S+)", line)
        assert status
        return status[1], took_ms(line)

    use_strict_lines(node, f"{PATIENT} caller_timeout=3")
    drop(cluster["node1"], PORT)
    drop(cluster.login, 6818)
    try:
        status, took = login("alice")
        assert status == "caller-silent"
        assert 2950 < took < FAR_BELOW_MS, "the one-shot helper has no memory"
        with serving(node):
            status, took = login("alice")
            assert status == "caller-silent"
            assert 2950 < took < FAR_BELOW_MS
            # one user's word is not enough to keep another from asking
            for user, expected in (
                ("alice", "skipped"),
                ("bob", "silent"),
                ("bob", "skipped"),
                ("alice", "skipped"),
            ):
                status, took = login(user)
                assert status == f"caller-{expected}"
            # the login node is no node of slurm.conf's: nobody asks it anything
            mark = node.log_mark()
            cluster.login.ssh("alice", "true", client="alice", host="node2", check=True)
            line = account_line(node, mark)
            assert "caller=caller-not-a-node" in line
    finally:
        use_strict_lines(node)
        for machine in (cluster["node1"], cluster.login):
            machine.run(["nft", "delete table inet lab"])


def test_callerid__without_munge_here(cluster: Cluster) -> None:
    cluster.allocate("alice", ["node1", "node2"])
    newest = cluster.allocate("alice", ["node2"])
    node = cluster["node2"]
    node.munged.stop()
    try:
        mark = node.log_mark()
        assert job_of(cluster.ssh("alice", "node1", "node2", WHERE)) == newest
        assert "caller=caller-no-credential" in account_line(node, mark)
    finally:
        node.munged.start()


def test_callerid__a_munged_that_hangs_costs_those_who_need_it(cluster: Cluster) -> None:
    """The resident service goes on, also with the child that it has kept from the login before; none is left hanging."""
    older = cluster.allocate("alice", ["node1", "node2"])
    newest = cluster.allocate("alice", ["node2"])
    bobs = cluster.allocate("bob", ["node2"])
    node = cluster["node2"]
    inner = f"ssh -o BatchMode=yes {cluster.address('node2')} '{WHERE}'"

    def login() -> tuple[int, str]:
        mark = node.log_mark()
        landed = job_of(cluster.login.ssh("alice", inner, client="alice", host="node1"))
        return landed, account_line(node, mark)

    def services() -> int:
        return len([p for p in node.processes("root") if "slurm-adopt serve" in p.command])

    use_strict_lines(node, f"{PATIENT} caller_timeout=4")
    try:
        with serving(node):
            landed, line = login()
            assert ("caller=found" in line, landed) == (True, older) or not answers(cluster["node1"])
            # 20.11 and 21.08 are asked as the user: such a child is never kept
            assert services() == (1 if node.slurm_release < (22, 5) else 2)
            node.run("pkill -STOP -x munged")
            mark = node.log_mark()
            client = cluster.login.ssh_popen("alice", inner, client="alice", host="node1")
            try:
                wait_for(lambda: any(": alice" in p.command for p in node.processes("root")), "alice's login")
                assert job_of(cluster.login.ssh("bob", WHERE, client="bob", host="node2")) == bobs
            finally:
                said, _ = client.communicate()
            lines = {user: line_of(node, mark, user) for user in ("alice", "bob")}
            assert "caller=caller-no-credential" in lines["alice"]
            assert f"job={newest} chosen=newest" in lines["alice"], said
            assert 3950 < took_ms(lines["alice"]) < FAR_BELOW_MS
            wait_for(lambda: services() == 1, "the child that hung to be gone")
            node.run("pkill -CONT -x munged")
            landed, line = login()
            assert ("caller=found" in line, landed) == (True, older) or not answers(cluster["node1"])
        wait_for(lambda: services() == 0, "the service and its children to be gone")
    finally:
        node.run("pkill -CONT -x munged", check=False)
        use_strict_lines(node)


def line_of(node: Node, mark: int, user: str) -> str:
    return next(line for line in node.log_since(mark) if "phase=account" in line and f" user={user} " in line)


class KeyCluster(Cluster):
    """auth/slurm instead of munge."""

    def _connect(self) -> None:
        super()._connect()
        key = secrets.token_hex(64)
        for machine in self.machines.values():
            machine.write("/etc/slurm/slurm.key", key, 0o600)
            machine.run("id slurm > /dev/null 2>&1 || useradd -r slurm; chown slurm: /etc/slurm/slurm.key")


@pytest.mark.releases
@pytest.mark.parametrize("suite", ["trixie", "forky"])
def test_callerid__auth_slurm(suite: str) -> None:
    settings = {"AuthType": "auth/slurm", "CredType": "auth/slurm", "HashPlugin": "hash/sha3"}
    with KeyCluster(suite, slurm=settings) as cluster:
        source, node = cluster["node1"], cluster["node2"]  # the login node has no sackd
        use_product(node)
        job = source.submit("alice", nodelist="node1,node2", nodes=2, ntasks=2)
        newest = source.salloc("alice", nodelist="node2")
        wait_for(lambda: node.extern_socket(newest), "the newest job's extern step")
        step = ["srun", f"--jobid={job}", "--overlap", "-n1", "-w", "node1"]

        def login() -> tuple[int, str]:
            mark = node.log_mark()
            done = source.run([*step, "ssh", "-o", "BatchMode=yes", "node2", WHERE], user="alice", check=False)
            return job_of(done), account_line(node, mark)

        landed, line = login()
        assert landed == job
        # without the key, slurmd's SACK socket makes and verifies the tokens
        node.run("mv /etc/slurm/slurm.key /etc/slurm/kept.key")
        landed, line = login()
        assert landed == job
        assert "caller=found" in line
        node.run("mv /run/slurm/sack.socket /run/slurm/kept.socket")
        landed, line = login()
        assert landed == newest
        assert "caller=caller-no-credential" in line
