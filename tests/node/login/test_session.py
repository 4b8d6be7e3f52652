# SPDX-License-Identifier: Apache-2.0
"""Nobody ends up outside the job: real sshd, real Slurm, one isolated node.

What a login could do is listed in `CHANNELS`, and each channel is proven twice: it serves an admitted login, and
it serves nothing to one that the account or the session phase has refused.
"""

from __future__ import annotations

import contextlib
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest
from tests.releases import SUITES, suite_name

from lab.machine import wait_for
from lab.node import Node
from lab.product import install_product

OURS = "required pam_slurm_adopt.so profile=strict"
#: A session that is to be refused waits for a stopped slurmstepd first.
IMPATIENT = f"{OURS} timeout=1"
MOVE = "required pam_exec.so quiet /etc/lab/move"
EXTERNAL_SFTP, KEYBOARD = 2201, 2202

MOVE_SCRIPT = """\
#!/bin/sh
# as pam_systemd and pam_cgroup do: the process that lives on is put somewhere else
[ "$PAM_TYPE" = open_session ] || exit 0
for file in /sys/fs/cgroup/*/cgroup.procs; do echo $PPID > $file; done 2>/dev/null
[ ! -e /etc/lab/then ] || sh /etc/lab/then
"""
#: what the session script does after the move: slurmstepd cannot adopt any more, or the job is over
STOP_STEPD = "pkill -STOP -x -f 'slurmstepd: .[0-9]*[.]extern.'"
#: Not the socket: slurmstepd of 24.11 may crash at its end (SIGSEGV), and leave it.
END_JOB = "scancel -u $PAM_USER; while pgrep -x -f 'slurmstepd: .[0-9]*[.]extern.'; do sleep 0.05; done"
XAUTH_SCRIPT = "#!/bin/sh\nexit 0\n"


@pytest.fixture(
    scope="module",
    params=SUITES,
    ids=suite_name,
)
def machine(request: pytest.FixtureRequest) -> Iterator[Node]:
    with Node(suite=request.param) as node:
        install_product(node)
        node.write("/etc/lab/move", MOVE_SCRIPT, 0o755)
        if not node.path("/usr/bin/xauth").exists():
            node.write("/usr/bin/xauth", XAUTH_SCRIPT, 0o755)
        forwarding = ["X11Forwarding yes", "AllowAgentForwarding yes", "AllowTcpForwarding yes"]
        node.ssh_server.stop()
        node.ssh_server = node.sshd("internal", 22, ["Subsystem sftp internal-sftp", *forwarding])
        node.sshd("external", EXTERNAL_SFTP, ["Subsystem sftp /usr/lib/openssh/sftp-server", *forwarding])
        node.sshd("keyboard", KEYBOARD, ["PasswordAuthentication no", "KbdInteractiveAuthentication yes", *forwarding])
        yield node


@pytest.fixture
def node(machine: Node) -> Iterator[Node]:
    machine.cancel_all()  # what `kept` has left
    machine.pam(account=[OURS], session=[OURS])
    yield machine
    machine.run("pkill -CONT slurmstepd; rm -f /etc/lab/then /tmp/served /tmp/mux", check=False)
    machine.cancel_all()


@pytest.fixture
def kept(machine: Node) -> Iterator[Node]:
    """As `node`, with a job of alice that one test leaves to the next: starting and ending jobs takes seconds."""
    machine.pam(account=[OURS], session=[OURS])
    if not machine.jobs("alice"):
        machine.submit("alice")
    yield machine
    machine.run("pkill -CONT slurmstepd; rm -f /etc/lab/then /tmp/served /tmp/mux", check=False)


def shell(node: Node, script: str, timeout: float = 60.0) -> subprocess.CompletedProcess[str]:
    return node.run(f"export DISPLAY=:9 SSH_AUTH_SOCK; {script}", check=False, timeout=timeout)


SSH = "ssh -o BatchMode=yes -o ConnectTimeout=10 -o ControlPath=/tmp/mux"
#: Reads the greeting of the sshd on port 22 through a forwarded port, and says it.
GREET = "timeout 2 python3 -c 'import socket,sys;print(socket.create_connection((\"127.0.0.1\",%d),1).recv(4))'"


def listening(node: Node, port: int) -> bool:
    lines = node.read("/proc/1/net/tcp").splitlines() + node.read("/proc/1/net/tcp6").splitlines()
    return any(
        line.split()[1].endswith(f":{port:04X}") and line.split()[3] == "0A" for line in lines[1:] if ":" in line
    )


@contextlib.contextmanager
def client_of(node: Node, command: str) -> Iterator[subprocess.Popen[str]]:
    """An ssh client that runs until it is killed, or sshd ends the connection."""
    argv = ["bash", "-c", f"exec {command}"]
    nowhere = subprocess.DEVNULL
    # a pipe as its input: `cat` on the other side ends with the connection
    client = node.popen(argv, stdin=subprocess.PIPE, stdout=nowhere, stderr=nowhere, env={"DISPLAY": ":9"})
    try:
        yield client
    finally:
        client.kill()
        client.communicate()


def comes(node: Node, command: str, is_there: Callable[[], bool]) -> bool:
    """Whether what an ssh client asks for is there: sshd takes requests up after both phases have been decided."""
    mark = node.log_mark()

    def refused() -> bool:
        return client.poll() is not None or "open_session:steps-unresponsive" in reasons(node, mark)

    with client_of(node, command) as client:
        wait_for(lambda: is_there() or refused(), "what was asked for, or a refusal")
        if not is_there():
            time.sleep(0.3)  # should this be too short, a fault is not seen; none is made up
        return is_there()


@contextlib.contextmanager
def connected(node: Node, user: str, *options: str) -> Iterator[subprocess.Popen[str]]:
    """A connection without a session channel, once both phases are decided, or sshd has ended it."""
    mark = node.log_mark()
    with client_of(node, connection(user, *options)) as client:
        decided = "open_session:"
        wait_for(lambda: client.poll() is not None or decided in str(reasons(node, mark)), "the login to be decided")
        yield client


def connection(user: str, *options: str) -> str:
    """The client's command for a connection without a session channel."""
    return f"{SSH} -N {' '.join(options)} {user}@127.0.0.1"


def by_command(node: Node, user: str) -> bool:
    shell(node, f"{SSH} {user}@127.0.0.1 'touch /tmp/served'")
    return node.path("/tmp/served").exists()


def by_shell(node: Node, user: str) -> bool:
    shell(node, f"printf 'touch /tmp/served\\nexit\\n' | timeout 30 {SSH} -tt {user}@127.0.0.1")
    return node.path("/tmp/served").exists()


def by_sftp(port: int) -> Callable[[Node, str], bool]:
    def use(node: Node, user: str) -> bool:
        done = shell(node, f"echo 'put /etc/hostname /tmp/served' | sftp -b - -P {port} {user}@127.0.0.1")
        return done.returncode == 0 or node.path("/tmp/served").exists()

    return use


def by_local_forward(node: Node, user: str) -> bool:
    command = connection(user, "-L", "7001:127.0.0.1:22")
    return comes(node, command, lambda: "SSH-" in shell(node, GREET % 7001).stdout)


def by_remote_forward(node: Node, user: str) -> bool:
    command = connection(user, "-R", "7002:127.0.0.1:22")
    return comes(node, command, lambda: listening(node, 7002) or "SSH-" in shell(node, GREET % 7002).stdout)


def by_dynamic_remote_forward(node: Node, user: str) -> bool:
    return comes(node, connection(user, "-R", "7003"), lambda: listening(node, 7003))


def by_socket_forward(node: Node, user: str) -> bool:
    return comes(node, connection(user, "-R", "/tmp/served:127.0.0.1:22"), node.path("/tmp/served").exists)


def by_stdio_forward(node: Node, user: str) -> bool:
    node.write("/tmp/served", "")
    command = f"{SSH} -W 127.0.0.1:22 {user}@127.0.0.1 < /dev/null > /tmp/served"
    return comes(node, command, lambda: "SSH-" in node.read("/tmp/served"))


def by_agent(node: Node, user: str) -> bool:
    there = f"ls -d /tmp/ssh-*/agent.* | xargs -r stat -c %U; find /tmp /home/{user} -type s -user {user}"
    command = f"ssh-agent {SSH} -A {user}@127.0.0.1 cat"
    return comes(node, command, lambda: user in shell(node, there).stdout)


def by_x11(node: Node, user: str) -> bool:
    return comes(node, f"{SSH} -Y {user}@127.0.0.1 cat", lambda: listening(node, 6010))


def by_master(node: Node, user: str) -> bool:
    """A second session over the connection of the first (ControlMaster)."""
    with connected(node, user, "-M"):
        shell(node, f"timeout 30 {SSH} -S /tmp/mux {user}@127.0.0.1 'touch /tmp/served'")
        return node.path("/tmp/served").exists()


CHANNELS: dict[str, Callable[[Node, str], bool]] = {
    "command": by_command,
    "shell": by_shell,
    "sftp-internal": by_sftp(22),
    "sftp-external": by_sftp(EXTERNAL_SFTP),
    "local-forward": by_local_forward,
    "remote-forward": by_remote_forward,
    "dynamic-remote-forward": by_dynamic_remote_forward,
    "socket-forward": by_socket_forward,
    "stdio-forward": by_stdio_forward,
    "agent": by_agent,
    "x11": by_x11,
    "master": by_master,
}
every_channel = pytest.mark.parametrize("channel", CHANNELS)


def reasons(node: Node, mark: int) -> list[str]:
    """`phase:reason` of our log lines, in their order."""
    found = []
    for line in node.log_since(mark):
        words = dict(word.split("=", 1) for word in line.split() if "=" in word)
        if "pam_slurm_adopt" in line and "reason" in words:
            found.append(f"{words.get('phase', '?')}:{words['reason']}")
    return found


@every_channel
def test_session__admitted_login_is_served(kept: Node, channel: str) -> None:
    assert CHANNELS[channel](kept, "alice")


@every_channel
def test_session__refused_account_is_served_nothing(kept: Node, channel: str) -> None:
    assert not CHANNELS[channel](kept, "bob")
    wait_for(lambda: not kept.processes("bob"), "bob's processes to be gone")


@every_channel
def test_session__refused_session_is_served_nothing(kept: Node, channel: str) -> None:
    kept.pam(account=[OURS], session=[MOVE, IMPATIENT])
    kept.write("/etc/lab/then", STOP_STEPD)
    mark = kept.log_mark()
    assert not CHANNELS[channel](kept, "alice")
    assert "account:adopted" in reasons(kept, mark)
    assert "open_session:steps-unresponsive" in reasons(kept, mark)
    wait_for(lambda: all_in_batch_step(kept, "alice"), "alice to have nothing but the job's own processes")


def all_in_batch_step(node: Node, user: str) -> bool:
    return all(any("/step_batch" in path for path in p.cgroups.values()) for p in node.processes(user))


def assert_in_job(node: Node, pids: Sequence[int], job: int) -> None:
    assert pids
    for pid in pids:
        cgroups = node.cgroups_of(pid)
        held = [path for path in cgroups.values() if "/job_" in path]
        assert held, f"{pid}: {cgroups}"
        assert all(f"/job_{job}/step_extern" in path for path in held), f"{pid}: {cgroups}"


WAYS: dict[str, dict[str, Any]] = {
    "publickey": {"auth": "publickey"},
    "password": {"auth": "password"},
    "keyboard-interactive": {"auth": "keyboard-interactive", "port": KEYBOARD},
}


@pytest.mark.parametrize("way", WAYS)
def test_session__moved_session_is_put_right(node: Node, way: str) -> None:
    """The shell and the sshd above it are in the job, whatever another session module did."""
    job = node.submit("alice")
    node.pam(account=[OURS], session=[MOVE, OURS])
    mark = node.log_mark()
    client = node.ssh_popen("alice", "echo $$ $PPID; cat", **WAYS[way])
    try:
        assert client.stdout is not None
        pids = [int(word) for word in client.stdout.readline().split()]
        parent = int(node.read(f"/proc/{pids[1]}/stat").rpartition(")")[2].split()[1])
        assert_in_job(node, [*pids, parent], job)
    finally:
        client.kill()
        client.communicate()
    assert reasons(node, mark)[-1] == "open_session:session-readopted"


@pytest.mark.parametrize("way", WAYS)
def test_session__moved_session_of_an_ended_job_is_refused(node: Node, way: str) -> None:
    node.submit("alice")
    node.pam(account=[OURS], session=[MOVE, OURS])
    node.write("/etc/lab/then", END_JOB)
    mark = node.log_mark()
    done = node.ssh("alice", "touch /tmp/served", **WAYS[way])
    assert done.returncode != 0
    assert not node.path("/tmp/served").exists()
    assert reasons(node, mark)[-1] == "open_session:job-ending"
    assert "just ending" in done.stdout + done.stderr
    wait_for(lambda: not node.processes("alice"), "alice's processes to be gone")


#: In the place of a user's ~/.pam_environment, which pam_env reads where the site lets it (Debian 11 does).
FORGET = "required pam_env.so conffile=/etc/lab/env"
ENVIRONMENTS = {"taken away": "SLURM_JOB_ID DEFAULT= OVERRIDE=\n", "forged": "SLURM_JOB_ID OVERRIDE=4242\n"}


@pytest.mark.parametrize("environment", ENVIRONMENTS)
@pytest.mark.parametrize("way", WAYS)
def test_session__an_environment_of_the_users_changes_nothing(node: Node, way: str, environment: str) -> None:
    """The job has ended and the session was moved out of it: it is no session that others have let in.

    With keyboard-interactive authentication the account phase runs in another process: a file of root's says what it did.
    """
    node.write("/etc/lab/env", ENVIRONMENTS[environment])
    node.pam(account=[OURS], session=[FORGET, MOVE, OURS])
    job = node.submit("alice")
    assert f"/job_{job}/" in node.ssh("alice", "cat /proc/self/cgroup", check=True, **WAYS[way]).stdout
    node.write("/etc/lab/then", END_JOB)
    mark = node.log_mark()
    done = node.ssh("alice", "touch /tmp/served", **WAYS[way])
    assert done.returncode != 0
    assert not node.path("/tmp/served").exists()
    assert reasons(node, mark)[-1] == "open_session:job-ending"


def sshd_of(node: Node, user: str) -> list[int]:
    """Both sshd processes of every connection of the user (`sshd: alice [priv]`, `sshd: alice@notty`)."""
    titles = (f": {user} ", f": {user}@")
    return [p.pid for p in node.processes() if p.command.startswith("sshd") and any(t in p.command for t in titles)]


def test_session__a_crowd_leaves_listener_and_others_alone(node: Node) -> None:
    """50 logins of three users at once, by three ways: each in its user's job, the listeners where they were."""
    users = ("alice", "bob", "carol")
    jobs = {user: node.submit(user) for user in users}
    node.pam(account=[f"{OURS} timeout=30"], session=[f"{OURS} timeout=30"])
    listeners = {p.pid: p.cgroups for p in node.processes(0) if "[listener]" in p.command}
    assert len(listeners) == 3
    ways = list(WAYS.values())
    clients = []
    try:
        for index in range(50):
            way = ways[index // len(users) % len(ways)]
            clients.append((users[index % 3], node.ssh_popen(users[index % 3], "echo in $$ $PPID; cat", **way)))
        for user, client in clients:
            assert client.stdout is not None
            words: list[str] = next((line.split() for line in client.stdout if line.startswith("in ")), [])
            assert words, f"a login of {user} failed\n{node.diagnose()}\n{reasons(node, 0)}"
            assert_in_job(node, [int(word) for word in words[1:]], jobs[user])
        for user in users:
            pids = sshd_of(node, user)
            assert len(pids) >= 2 * 16
            assert_in_job(node, pids, jobs[user])
        assert {pid: node.cgroups_of(pid) for pid in listeners} == listeners
    finally:
        for _, client in clients:
            client.kill()
        for _, client in clients:
            client.communicate()


DETACHED = """\
nohup sleep 1001 >/dev/null 2>&1 &
setsid sh -c 'setsid sleep 1002 </dev/null >/dev/null 2>&1 & exit 0'
python3 -c 'import os, time
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        for fd in range(3): os.close(fd)
        os.chdir("/")
        import signal
        for number in (1, 2, 3, 15): signal.signal(number, signal.SIG_IGN)
        time.sleep(1003)
    os._exit(0)'
echo left
"""


@pytest.mark.parametrize("way", WAYS)
def test_session__nothing_of_a_login_outlives_the_job(node: Node, way: str) -> None:
    """Detached processes, daemons, sftp, forwarded ports and a ControlMaster end with the job."""
    job = node.submit("alice")
    other = node.submit("bob")
    with contextlib.ExitStack() as stack:
        assert "left" in node.ssh("alice", DETACHED, **WAYS[way]).stdout
        stack.enter_context(connected(node, "alice", "-M", "-L", "7001:127.0.0.1:22", "-R", "7002:127.0.0.1:22"))
        assert "SSH-" in shell(node, GREET % 7001).stdout
        assert listening(node, 7002)
        for port in (22, EXTERNAL_SFTP):
            argv = [*SSH.split()[:5], "-p", str(port), "-s", "alice@127.0.0.1", "sftp"]
            client = node.popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
            stack.callback(client.communicate)
            stack.callback(client.kill)
        wait_for(lambda: len(sshd_of(node, "alice")) >= 6, "the connections to stand")
        commands = " ".join(process.command for process in node.processes("alice"))
        assert all(f"sleep {number}" in commands for number in (1001, 1002)), commands
        node.cancel(job)
        wait_for(lambda: not node.processes("alice"), "every process of alice to be gone")
        wait_for(lambda: not sshd_of(node, "alice"), "the privileged sshd processes to be gone")
        assert not listening(node, 7002)
    assert node.jobs("bob") == [other]
