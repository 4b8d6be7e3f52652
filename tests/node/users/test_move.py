# SPDX-License-Identifier: Apache-2.0
"""slurm-adopt move: a running login changes its job. Real sshd, slurmstepd and cgroups."""

from __future__ import annotations

import re
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab.machine import wait_for
from lab.node import Node
from lab.product import use_strict_lines

OURS = "required pam_slurm_adopt.so profile=strict timeout=30 user_move=yes"
SOCKET = "/run/slurm-adopt/user.sock"


@pytest.fixture
def users(node: Node) -> Iterator[Node]:
    use_strict_lines(node, OURS)
    node.run(f"rm -f {SOCKET}")
    process = node.popen(["slurm-adopt", "serve-users", "--listen", SOCKET])
    try:
        wait_for(lambda: node.path(SOCKET).exists(), "the service for users")
        yield node
    finally:
        process.kill()
        process.wait()
        node.run(f"rm -f {SOCKET}")


class Session:
    """A login with a shell that is told what to do."""

    def __init__(self, node: Node, user: str = "alice") -> None:
        self.node = node
        self.client = node.ssh_popen(user, "bash")
        self.shell = int(self.say("echo $$"))
        self.monitor = self._monitor()

    def say(self, command: str) -> str:
        """Run a command and return what it says."""
        assert self.client.stdin is not None
        assert self.client.stdout is not None
        self.client.stdin.write(f"{command}\necho; echo end-of-it $?\n")
        self.client.stdin.flush()
        said: list[str] = []
        for line in self.client.stdout:
            if line.startswith("end-of-it"):
                return "".join(said).strip()
            said.append(line)
        raise AssertionError(f"the session has ended: {said}")

    def _monitor(self) -> int:
        """The privileged sshd: root's, above the shell."""
        pid = self.shell
        while True:
            pid = int(self.node.read(f"/proc/{pid}/stat").rpartition(") ")[2].split()[1])
            if "\nUid:\t0\t0" in self.node.read(f"/proc/{pid}/status"):
                return pid

    def jobs(self) -> set[int]:
        """The jobs in whose extern steps the login's processes are, in whatever hierarchy."""
        pids = [self.monitor, self.shell]
        return {job_of(self.node, pid) for pid in pids}

    def close(self) -> None:
        self.client.kill()
        self.client.communicate()


def job_of(node: Node, pid: int) -> int:
    """The one job that the kernel has the process in; 0 if it is in none."""
    found = {
        int(match[1]) if (match := re.search(r"/job_(\d+)/step_extern", path)) else 0
        for name, path in node.cgroups_of(pid).items()
        if "job_" in path or name in ("freezer", "unified")
    }
    found -= {0} if len(found) > 1 else set()
    assert len(found) == 1, node.cgroups_of(pid)
    return found.pop()


@pytest.fixture
def session(users: Node) -> Iterator[Session]:
    """alice's login; make her jobs before it is asked for the first time."""
    opened: list[Session] = []
    yield LazySession(users, opened)  # type: ignore[misc]
    for one in opened:
        one.close()


class LazySession:
    def __init__(self, node: Node, opened: list[Session]) -> None:
        self.node = node
        self.opened = opened

    def __call__(self, user: str = "alice") -> Session:
        self.opened.append(Session(self.node, user))
        return self.opened[-1]


def test_move__everything_of_the_login_goes(users: Node, session: LazySession) -> None:
    first, second = users.submit("alice"), users.submit("alice")
    login = session()
    login.say("sleep 1001 & setsid sleep 1002 & (sleep 1003 &) ; bash -c 'bash -c \"sleep 1004; true\"; true' &")
    assert login.jobs() == {second}
    said = login.say(f"slurm-adopt move {first}")
    assert f"This login is in job {first} now" in said
    assert f"export SLURM_JOB_ID={first}" in said
    assert login.jobs() == {first}
    for number in (1001, 1002, 1003, 1004):
        (process,) = [one for one in users.processes("alice") if one.command == f"sleep {number}"]
        assert job_of(users, process.pid) == first, process
    assert f'"job": {first}' in login.say("slurm-adopt jobs --json").partition('"here": true')[0]
    # what is started from now on as well
    assert f"/job_{first}/step_extern" in login.say("cat /proc/self/cgroup")
    assert "already" in login.say(f"slurm-adopt move {first}")


def test_move__daemons_of_the_login(users: Node, session: LazySession) -> None:
    """What has left the login's tree and sessions is found by the audit session, if the login has one."""
    users.pam("sshd", account=[OURS], session=["required pam_loginuid.so", OURS])
    first, second = users.submit("alice"), users.submit("alice")
    login, other = session(), session()
    login.say("setsid -f sleep 1007")
    other.say("setsid -f sleep 1008")
    audited = login.say("cat /proc/self/sessionid") not in ("", "4294967295")
    said = login.say(f"slurm-adopt move {first}")
    (daemon,) = [one for one in users.processes("alice") if one.command == "sleep 1007"]
    (others,) = [one for one in users.processes("alice") if one.command == "sleep 1008"]
    assert job_of(users, others.pid) == second
    assert job_of(users, daemon.pid) == (first if audited else second)
    assert f"other processes of yours stay in job {second}" in said


def test_move__the_session_lives_and_dies_with_the_new_job(users: Node, session: LazySession) -> None:
    first, second = users.submit("alice"), users.submit("alice")
    login = session()
    login.say("sleep 1005 & disown")
    login.say(f"slurm-adopt move {first}")
    users.cancel(second)
    assert login.say("echo alive") == "alive"
    assert any(process.command == "sleep 1005" for process in users.processes("alice"))
    users.cancel(first)
    assert login.client.wait(20) != 0
    wait_for(lambda: users.processes("alice") == [], "everything of alice's to be gone")


def test_move__other_logins_stay(users: Node, session: LazySession) -> None:
    first, second = users.submit("alice"), users.submit("alice")
    users.submit("bob")
    one, other, bobs = session(), session(), session("bob")
    bobs_job = bobs.jobs()
    said = one.say(f"slurm-adopt move {first}")
    assert one.jobs() == {first}
    assert other.jobs() == {second}
    assert bobs.jobs() == bobs_job
    assert f"stay in job {second}" in said


def test_move__while_it_forks(users: Node, session: LazySession) -> None:
    first, second = users.submit("alice"), users.submit("alice")
    login = session()
    login.say("(while :; do sleep 0.02; /bin/true & done) 2>/dev/null & for i in 1 2 3 4 5; do sleep 1006 & done")
    said = login.say(f"slurm-adopt move {first}")
    assert f"This login is in job {first} now" in said
    time.sleep(0.3)
    left = [one for one in users.processes("alice") if f"/job_{second}/step_extern" in str(one.cgroups)]
    assert left == []


def test_move__to_jobs_that_are_not_ones_own(users: Node, session: LazySession) -> None:
    own = users.submit("alice")
    theirs = users.submit("bob")
    login = session()
    for job in (theirs, 999_999):
        assert "you have no such job on this node" in login.say(f"slurm-adopt move {job} 2>&1")
    assert login.jobs() == {own}


def test_move__only_logins(users: Node) -> None:
    """Neither what runs outside of all jobs, nor a job's own script, is a login."""
    job = users.submit("alice")
    done = users.run(["slurm-adopt", "move", str(job)], user="alice", check=False)
    assert "this is not an ssh login in one of your jobs" in done.stderr
    users.run("rm -f /tmp/said; touch /tmp/said; chmod 666 /tmp/said")
    inside = users.submit("alice", f"slurm-adopt move {job} >/tmp/said 2>&1; exec sleep 1000")
    wait_for(lambda: users.read("/tmp/said"), "the script to be answered")
    assert "this is not an ssh login in one of your jobs" in users.read("/tmp/said")
    assert inside != job


def test_move__a_program_that_calls_itself_sshd_is_none(users: Node, session: LazySession) -> None:
    """The chain ends at the true, root-owned sshd, whatever the user runs in between."""
    first, _second = users.submit("alice"), users.submit("alice")
    login = session()
    login.say("mkdir -p ~/bin; cp /bin/bash ~/bin/sshd")
    said = login.say(f"~/bin/sshd -c 'slurm-adopt move {first}; true'")
    assert f"This login is in job {first} now" in said
    assert login.jobs() == {first}
    login.say("rm -r ~/bin")


def test_move__a_cancelled_job_takes_nobody(users: Node, session: LazySession) -> None:
    first, second = users.submit("alice"), users.submit("alice")
    login = session()
    users.cancel(first)
    assert "you have no such job" in login.say(f"slurm-adopt move {first} 2>&1")
    assert login.jobs() == {second}


def test_move__is_in_the_log(users: Node, session: LazySession) -> None:
    first, _second = users.submit("alice"), users.submit("alice")
    login = session()
    mark = users.log_mark()
    login.say(f"slurm-adopt move {first}")
    (line,) = wait_for(lambda: [line for line in users.log_since(mark) if "user-request" in line], "the log line")
    assert re.search(rf"command=move result=ok reason=user-moved uid=1501 pid=\d+ job={first} moved=\d+", line)


def test_move__a_login_by_keyboard_interactive(users: Node) -> None:
    """There the account stack ran in a child of sshd; what is moved is the login all the same."""
    lines = ["PubkeyAuthentication no", "PasswordAuthentication no", "KbdInteractiveAuthentication yes"]
    users.sshd("kbd", 2222, lines)
    first, _second = users.submit("alice"), users.submit("alice")
    done = users.ssh(
        "alice", f"slurm-adopt move {first}; cat /proc/self/cgroup", auth="keyboard-interactive", port=2222
    )
    assert isinstance(done, subprocess.CompletedProcess)
    assert f"This login is in job {first} now" in done.stdout
    assert set(re.findall(r"/job_(\d+)/step_extern", done.stdout)) == {str(first)}


def test_move__is_off_unless_the_site_wants_it(users: Node, session: LazySession) -> None:
    use_strict_lines(users, "required pam_slurm_adopt.so profile=strict")
    first = users.submit("alice")
    users.submit("alice")
    login = session()
    assert "moving logins is switched off on this node (user_move=yes" in login.say(f"slurm-adopt move {first} 2>&1")


BAGGAGE = {
    "memory": ("bytearray(100 << 20)", " MiB of memory, more than 64"),
    "memory without a name": ("os.memfd_create('x')", "/memfd:x"),
    "shared memory": ("open('/dev/shm/x', 'w')", "/dev/shm/x open"),
    "a device": ("open('/dev/fuse', 'rb')", "/dev/fuse open"),
}


@pytest.mark.parametrize("what", ["memory", "memory without a name", "shared memory", "a device"])
def test_move__what_belongs_to_the_job_of_before_is_in_the_way(users: Node, session: LazySession, what: str) -> None:
    users.run("[ -e /dev/fuse ] || mknod /dev/fuse c 10 229; chmod 666 /dev/fuse; mkdir -p -m 1777 /dev/shm")
    first, second = users.submit("alice"), users.submit("alice")
    login = session()
    make, told = BAGGAGE[what]
    script = f"import os, time; kept = {make}; open('/home/alice/ready', 'w').close(); time.sleep(1000)"
    login.say(f'python3 -c "{script}" > /dev/null 2>&1 &')
    wait_for(lambda: users.path("/home/alice/ready").exists(), "the process")
    said = login.say(f"slurm-adopt move {first} 2>&1")
    users.run("rm -f /home/alice/ready /dev/shm/x")
    assert "this login cannot be moved as it is" in said
    assert told in said, said
    assert login.jobs() == {second}


def test_move__a_namespace_of_ones_own_is_in_the_way(users: Node, session: LazySession) -> None:
    first, second = users.submit("alice"), users.submit("alice")
    login = session()
    login.say("unshare -U sleep 1000 > /dev/null 2>&1 &")
    wait_for(lambda: any(one.command == "sleep 1000" for one in users.processes("alice")), "the process")
    assert "a user namespace of its own" in login.say(f"slurm-adopt move {first} 2>&1")
    assert login.jobs() == {second}


def few_numbers(node: Node) -> None:
    """Four thousand process numbers in the node's own pid namespace (Linux 6.14 and later), and not on the machine."""
    machine = Path("/proc/sys/kernel/pid_max")
    before = machine.read_text()
    node.run("echo 4000 > /proc/sys/kernel/pid_max")
    if machine.read_text() != before:
        machine.write_text(before)
        pytest.skip("this kernel has one pid_max for all pid namespaces")


def test_move__processes_that_end_meanwhile_draw_nobody_else_in(users: Node, session: LazySession) -> None:
    """Their numbers are held: with only a few thousand there are, others get them within a second else."""
    few_numbers(users)
    first = users.submit("alice")
    users.submit("alice")
    forks = "import os, time\nwhile True:\n    if not os.fork(): time.sleep(2); os._exit(0)\n    time.sleep(0.01)\n    try: os.waitpid(-1, 1)\n    except OSError: pass"
    users.submit("bob", f'python3 -c "{forks}"')
    login = session()
    login.say("for i in $(seq 60); do sleep 0.$((RANDOM % 10))$((RANDOM % 10)) & done > /dev/null 2>&1")
    login.say(f"slurm-adopt move {first} 2>&1")
    strangers = [one for one in users.processes("bob") if f"/job_{first}/" in str(one.cgroups)]
    assert strangers == []
    assert login.jobs() == {first}
