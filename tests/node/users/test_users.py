# SPDX-License-Identifier: Apache-2.0
"""slurm-adopt jobs and use, against real jobs and real logins."""

from __future__ import annotations

import contextlib
import json
import re
import socket
import subprocess
import time
from collections.abc import Iterator

import pytest
from tests.node.requeued import requeue, run_again

from lab.machine import wait_for
from lab.node import Node
from lab.product import use_strict_lines

SOCKET = "/run/slurm-adopt/user.sock"
PREFERRED = "required pam_slurm_adopt.so profile=strict timeout=30 action_unknown=preferred greeting=on"


@pytest.fixture
def users(node: Node) -> Iterator[Node]:
    """A node with the service for users, and lines that ask for preferences."""
    use_strict_lines(node, PREFERRED)
    with serve_users(node):
        yield node


@contextlib.contextmanager
def serve_users(node: Node, *words: str) -> Iterator[subprocess.Popen[str]]:
    node.run(f"rm -rf {SOCKET} /run/slurm-adopt/preferences")
    process = node.popen(["slurm-adopt", "serve-users", "--listen", SOCKET, *words])
    try:
        wait_for(lambda: node.path(SOCKET).exists(), "the service for users")
        yield process
    finally:
        process.kill()
        process.wait()
        node.run(f"rm -rf {SOCKET} /run/slurm-adopt/preferences")


def call(node: Node, user: str, *words: str) -> subprocess.CompletedProcess[str]:
    return node.run(["slurm-adopt", *words], user=user, check=False)


def job_of_login(node: Node, user: str = "alice") -> int:
    done = node.ssh(user, "cat /proc/self/cgroup", check=True)
    (job,) = {int(found) for found in re.findall(r"/job_(\d+)/step_extern", done.stdout)}
    return job


def test_jobs__lists_ones_own(users: Node) -> None:
    first, second = users.submit("alice"), users.submit("alice", time=60)
    users.submit("bob")
    listed = json.loads(call(users, "alice", "jobs", "--json").stdout)["jobs"]
    assert [job["job"] for job in listed] == [second, first]
    assert [job["newest"] for job in listed] == [True, False]
    assert [job["state"] for job in listed] == ["running", "running"]
    assert all(abs(job["started"] - time.time()) < 60 for job in listed)
    assert not any(job["preferred"] or job["here"] for job in listed)
    text = call(users, "alice", "jobs").stdout.splitlines()
    assert text[0].split()[:3] == ["JOB", "STATE", "STARTED"]
    assert len(text) == 3
    assert call(users, "carol", "jobs").stdout == "You have no job on this node.\n"


def test_jobs__which_one_the_session_is_in(users: Node) -> None:
    first, second = users.submit("alice"), users.submit("alice")
    listed = json.loads(users.ssh("alice", "slurm-adopt jobs --json").stdout)["jobs"]
    assert {job["job"]: job["here"] for job in listed} == {first: False, second: True}


def test_jobs__works_without_the_service(node: Node) -> None:
    job = node.submit("alice")
    done = call(node, "alice", "jobs", "--json")
    assert [one["job"] for one in json.loads(done.stdout)["jobs"]] == [job], done.stderr
    refused = call(node, "alice", "use", str(job))
    assert refused.returncode == 1
    assert "the service for users is not running" in refused.stderr


def test_use__the_next_logins_go_there(users: Node) -> None:
    first, second = users.submit("alice"), users.submit("alice")
    assert job_of_login(users) == second
    done = call(users, "alice", "use", str(first))
    assert f"go into job {first}" in done.stdout
    assert "does not ask" not in done.stdout
    assert job_of_login(users) == first
    shown = users.ssh("alice", None, tty=True, input="exit\n").stdout
    assert f"you are in job {first}, the job you have chosen (also here: {second})" in shown
    assert [job["preferred"] for job in json.loads(call(users, "alice", "jobs", "--json").stdout)["jobs"]] == [
        False,
        True,
    ]
    assert call(users, "alice", "use", "--clear").returncode == 0
    assert job_of_login(users) == second
    assert "There was no preference" in call(users, "alice", "use", "--clear").stdout


def test_use__the_job_one_comes_from_is_stronger(users: Node) -> None:
    """Caller ID, on this very node: a login from inside a job is in that job, and is told why."""
    users.run("rm -f /tmp/go /tmp/greeted; touch /tmp/greeted; chmod 666 /tmp/greeted")
    login = "echo exit | ssh -tt -o BatchMode=yes alice@127.0.0.1 >/tmp/greeted 2>&1; echo done >>/tmp/greeted"
    first = users.submit("alice", f"while [ ! -e /tmp/go ]; do sleep 0.1; done; {login}; exec sleep 1000")
    second = users.submit("alice")
    call(users, "alice", "use", str(second))
    users.run("touch /tmp/go")
    wait_for(lambda: "done" in users.read("/tmp/greeted"), "the login from inside the job", 30)
    assert f"you are in job {first}, the job you come from (also here: {second})" in users.read("/tmp/greeted")


def test_use__is_forgotten_when_the_job_ends(users: Node) -> None:
    first, second, third = (users.submit("alice") for _ in range(3))
    call(users, "alice", "use", str(first))
    users.cancel(first)
    assert job_of_login(users) == third
    # the file goes when somebody chooses again
    call(users, "bob", "use", str(users.submit("bob")))
    call(users, "alice", "use", str(second))
    assert sorted(path.name for path in users.path("/run/slurm-adopt/preferences").iterdir()) == ["1501", "1502"]


def test_use__a_job_with_the_same_id_is_another_one(users: Node) -> None:
    """A requeued job has a new extern step: the preference was for the one that is gone."""
    again, other = users.submit("alice"), users.submit("alice")
    call(users, "alice", "use", str(again))
    assert job_of_login(users) == again
    requeue(users, again)
    run_again(users, again)
    newest = users.submit("alice")
    assert other < newest == job_of_login(users)


def test_use__another_users_job_does_not_exist(users: Node) -> None:
    users.submit("alice")
    theirs = users.submit("bob")
    for job in (theirs, 999_999):
        done = call(users, "alice", "use", str(job))
        assert (done.returncode, done.stdout) == (1, "")
        assert "you have no such job on this node" in done.stderr
    assert not users.path("/run/slurm-adopt/preferences/1501").exists()


def test_use__says_so_where_the_site_does_not_ask(node: Node) -> None:
    first, second = node.submit("alice"), node.submit("alice")
    with serve_users(node):
        assert "(action_unknown=newest)" in call(node, "alice", "use", str(first)).stdout
        assert job_of_login(node) == second


@pytest.mark.parametrize(
    "words", [["use"], ["use", "x"], ["use", "0"], ["use", "-1"], ["use", "1", "--clear"], ["move"]]
)
def test_use__usage(users: Node, words: list[str]) -> None:
    assert call(users, "alice", *words).returncode == 2


def test_use__a_preference_that_is_not_roots_does_not_count(users: Node) -> None:
    first, second = users.submit("alice"), users.submit("alice")
    call(users, "alice", "use", str(first))
    assert users.run("stat -c '%U %a' /run/slurm-adopt/preferences /run/slurm-adopt/preferences/1501").stdout == (
        "root 700\nroot 600\n"
    )
    users.run("chown alice /run/slurm-adopt/preferences/1501")
    assert job_of_login(users) == second
    users.run("chown root:adm /run/slurm-adopt/preferences/1501; chmod 620 /run/slurm-adopt/preferences/1501")
    assert job_of_login(users) == second
    users.run("rm /run/slurm-adopt/preferences/1501; ln -s /etc/passwd /run/slurm-adopt/preferences/1501")
    assert job_of_login(users) == second
    users.run("rm /run/slurm-adopt/preferences/1501; mkfifo /run/slurm-adopt/preferences/1501")
    assert job_of_login(users) == second


def connect(node: Node) -> socket.socket:
    client = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    client.settimeout(5)
    client.connect(str(node.path(SOCKET)))
    return client


def test_users__silence_noise_and_floods_do_not_reach_logins(users: Node) -> None:
    users.submit("alice")
    users.submit("bob")
    silent = [connect(users) for _ in range(60)]
    assert users.ssh("alice", "true").returncode == 0  # within its `timeout=`
    for client in silent:
        client.close()
    flood = users.popen(
        ["python3", "-c", FLOOD.format(path=SOCKET)], user="bob", stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    try:
        assert flood.stdout is not None
        assert flood.stdout.readline() == "flooding\n"
        # another user is answered while bob floods, and logins do not notice
        assert call(users, "alice", "jobs").returncode == 0
        for _ in range(3):
            assert users.ssh("alice", "true").returncode == 0
        children = [process for process in users.processes("root") if "serve-users" in process.command]
        assert len(children) <= 1 + 3 + 2
    finally:
        flood.kill()
        flood.wait()


def test_users__who_lets_a_socket_linger_holds_up_nobody(users: Node) -> None:
    """The descriptors that wait in a refused connection are closed with it, and that may take as long as bob likes."""
    job = users.submit("alice")
    lingering = users.popen(["python3", "-c", LINGER.format(path=SOCKET)], user="bob", stdout=subprocess.PIPE)
    try:
        assert lingering.stdout is not None
        for _ in range(3):
            # asked and refused, again and again: some of these connections are served, most are not
            assert lingering.stdout.readline() == "sent\n"
            assert call(users, "alice", "use", str(job)).returncode == 0
    finally:
        lingering.kill()
        lingering.wait()


#: Sends sockets that take an hour to close, in connections of which the first ones only are served. Each is sent by a
#: process that ends at once: it must not be the last one to close it, and has nothing to wait for as it ends.
LINGER = """
import array, os, socket, struct, time
server = socket.create_server(("127.0.0.1", 0), backlog=200)
def lingering():
    sock = socket.create_connection(server.getsockname())
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 3600))
    sock.setblocking(False)
    try:
        while True:
            sock.send(bytes(65536))
    except BlockingIOError:
        return sock
def attack():
    socks = [lingering(), lingering()]
    messages = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [sock.fileno()])) for sock in socks]
    client = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    client.connect("{path}")
    client.sendmsg([b"x"], [messages[0]])
    client.sendmsg([b"x"], [messages[1]])
    os._exit(0)
for _ in range(3):
    for _ in range(12):
        pid = os.fork()
        if pid == 0:
            try:
                attack()
            finally:
                os._exit(0)
        os.waitpid(pid, 0)
    print("sent", flush=True)
time.sleep(3600)
"""

FLOOD = """
import socket, time
end = time.time() + 20
print("flooding", flush=True)
while time.time() < end:
    try:
        c = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        c.connect("{path}")
        c.send(b"V=1\\0COMMAND=jobs\\0")
    except OSError:
        pass
    time.sleep(0.002)
"""


@pytest.mark.parametrize("packet", [b"\0", b"V=1\0", b"V=1\0COMMAND=move\0", b"V=2\0COMMAND=jobs\0", b"x" * 8192])
def test_users__malformed_requests(users: Node, packet: bytes) -> None:
    with connect(users) as client:
        client.send(packet)
        assert b"\0REASON=user-bad-request\0" in client.recv(5000)


def test_users__a_closed_connection_is_nobodys_problem(users: Node) -> None:
    for _ in range(3):
        # it is closed already if both of this user's are still being answered
        with connect(users) as client, contextlib.suppress(BrokenPipeError):
            client.send(b"V=1\0COMMAND=jobs\0")
    time.sleep(0.3)
    assert call(users, "alice", "jobs").returncode == 0


def test_users__descriptors_are_refused(users: Node) -> None:
    with connect(users) as client, open("/dev/null", "rb") as null:
        socket.send_fds(client, [b"V=1\0COMMAND=jobs\0"], [null.fileno()])
        assert b"\0REASON=user-bad-request\0" in client.recv(5000)


def test_users__idle_exit(node: Node) -> None:
    with serve_users(node, "--idle-exit", "0.5") as process:
        assert call(node, "alice", "jobs").returncode == 0
        assert process.wait(5) == 0


def test_users__only_root_serves(node: Node) -> None:
    done = call(node, "alice", "serve-users", "--listen", "/tmp/x.sock")
    assert done.returncode == 1
    assert "needs root" in done.stderr


def test_users__an_impostor_is_not_asked(node: Node) -> None:
    """Only the path says who that is; the kernel says who listens."""
    fake = node.popen(
        [
            "python3",
            "-c",
            "import socket; s = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET); s.bind('/tmp/fake.sock'); s.listen(1);"
            "import time; time.sleep(30)",
        ],
        user="bob",
    )
    try:
        wait_for(lambda: node.path("/tmp/fake.sock").exists(), "the impostor")
        node.run("chmod 777 /tmp/fake.sock")
        done = call(node, "alice", "use", "1", "--socket", "/tmp/fake.sock")
        assert "is not root's, but uid 1502's" in done.stderr
    finally:
        fake.kill()
        fake.wait()
        node.run("rm -f /tmp/fake.sock")
