# SPDX-License-Identifier: Apache-2.0
"""The resident service with real Slurm and real sshd: fast path, fallback, restarts, storms, hung steps."""

from __future__ import annotations

import json
import os
import random
import re
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from tests.node.faults.breakages import SWITCH, stand_in

from lab.machine import wait_for
from lab.node import Node

LOGIN_SOCKET = "/run/slurm-adopt/login.sock"
AUDIT_FILE = "/run/lab/audit"
METRICS_FILE = "/run/lab/metrics.prom"
STRICT = "required pam_slurm_adopt.so profile=strict"
#: What storms are tested for is what is decided, on a machine that may have other work: time enough for everybody.
PATIENT = f"{STRICT} timeout=30"
VALUE = re.compile(r"(?P<name>\w+)(?:\{(?P<labels>[^}]*)\})? (?P<value>\S+)")
#: what `pamtester` says when the account stack lets somebody in
PASSED = "account management done"


class Service:
    """`slurm-adopt serve` in a node."""

    def __init__(self, node: Node, *more: str, before: Sequence[str] = ()) -> None:
        """more: arguments. before: what runs it."""
        self.node = node
        self.argv = [*before, "/usr/bin/slurm-adopt", "serve", "--listen", LOGIN_SOCKET, "--audit-file", AUDIT_FILE]
        self.argv += ["--metrics-file", METRICS_FILE, *more]
        self.process: subprocess.Popen[str] | None = None

    def start(self) -> None:
        before = self._inode()
        self.process = self.node.popen(self.argv)
        wait_for(lambda: self._inode() not in (0, before), "the service's socket")

    def stop(self, timeout: float = 15) -> int:
        """SIGTERM to the service itself, not to the commands that carry it into the node."""
        assert self.process is not None
        self.signal(signal.SIGTERM)
        return self.process.wait(timeout)

    def kill(self) -> None:
        assert self.process is not None
        self.signal(signal.SIGKILL)
        self.process.wait(5)

    def signal(self, number: int) -> None:
        self.node.run(["kill", f"-{number}", str(self.pid)], check=False)

    @property
    def pid(self) -> int:
        """0 if it does not run."""
        found = [
            p.pid
            for p in self.node.processes("root")
            if p.command.startswith("/usr/bin/python3 -IS") and "serve" in p.command
        ]
        return found[0] if found else 0

    def memory_kib(self) -> int:
        status = self.node.read(f"/proc/{self.pid}/status")
        return int(status.partition("VmRSS:")[2].split()[0])

    def value(self, name: str, **labels: str) -> float:
        """A number of `slurm-adopt metrics`, summed over the time series with these labels."""
        return value_in(self.node.run(["slurm-adopt", "metrics"]).stdout, name, **labels)

    def audit(self, event: str) -> list[dict[str, Any]]:
        try:
            lines = self.node.read(AUDIT_FILE).splitlines()
        except FileNotFoundError:
            return []
        return [found for found in map(json.loads, lines) if found["event"] == event]

    def _inode(self) -> int:
        try:
            return self.node.path(LOGIN_SOCKET).lstat().st_ino
        except FileNotFoundError:
            return 0


def value_in(text: str, name: str, **labels: str) -> float:
    total = 0.0
    for match in VALUE.finditer(text):
        found = dict(re.findall(r'(\w+)="([^"]*)"', match["labels"] or ""))
        if match["name"] == name and labels.items() <= found.items():
            total += float(match["value"])
    return total


@pytest.fixture
def service(node: Node) -> Iterator[Service]:
    service = Service(node)
    service.start()
    yield service
    node.run("pkill -CONT slurmstepd", check=False)
    if service.pid:
        service.stop()
    node.run(["rm", "-rf", "/run/slurm-adopt", AUDIT_FILE, METRICS_FILE])


def job_of(text: str) -> int:
    """The job whose extern step this /proc/PID/cgroup is in, 0 if none."""
    found = re.search(r"/job_(\d+)/step_extern", text)
    return int(found[1]) if found else 0


def login(node: Node, user: str, port: int = 0) -> int:
    """The job that a login of this user ends up in, 0 if it is refused; a session outside all jobs is an error.

    `port`: of an sshd that asks by keyboard-interactive authentication.
    """
    more: dict[str, Any] = {"auth": "keyboard-interactive", "port": port} if port else {}
    done = node.ssh(user, "cat /proc/self/cgroup", **more)
    if done.returncode:
        assert "Access denied by pam_slurm_adopt" in done.stderr, done.stderr
        return 0
    job = job_of(done.stdout)
    assert job, f"{user} is outside of all jobs: {done.stdout}"
    return job


def ask(node: Node, users: Sequence[str]) -> dict[str, list[bool]]:
    """The account phase for all of these users at the same time: whether each was let in."""
    lines = [
        f"( pamtester -I rhost=10.0.0.9 sshd {user} acct_mgmt > /tmp/ask.{n} 2>&1 ) &" for n, user in enumerate(users)
    ]
    node.run("rm -f /tmp/ask.*\n" + "\n".join(lines) + "\nwait", timeout=300)
    answers: dict[str, list[bool]] = {}
    for number, user in enumerate(users):
        answers.setdefault(user, []).append(PASSED in node.read(f"/tmp/ask.{number}"))
    return answers


def stepd_of(node: Node, job: int) -> int:
    return next(p.pid for p in node.processes("root") if f"[{job}.extern]" in p.command)


def make_users(node: Node, count: int) -> list[str]:
    users = [f"u{number}" for number in range(count)]
    script = "\n".join(f"id {user} >/dev/null 2>&1 || useradd -M -u {1600 + n} {user}" for n, user in enumerate(users))
    node.run(script)
    return users


# The fast path and its absence ----------------------------------------------------------------------


def test_service__logins_go_through_it(service: Service, node: Node) -> None:
    job = node.submit("alice")
    assert login(node, "alice") == job
    assert login(node, "bob") == 0
    resident = {"path": "resident", "phase": "account"}
    assert service.value("slurm_adopt_logins_total", verdict="allow", reason="adopted", **resident) == 1
    assert service.value("slurm_adopt_logins_total", verdict="deny", reason="no-job", **resident) == 1
    assert service.value("slurm_adopt_logins_total", phase="open_session", reason="session-verified") == 1
    assert service.value("slurm_adopt_login_seconds_count") == 3


def test_service__with_no_more_rights_than_its_unit_gives(node: Node) -> None:
    unit = (Path(__file__).parents[3] / "data/systemd/slurm-adopt.service.in").read_text()
    line = next(line for line in unit.splitlines() if line.startswith("CapabilityBoundingSet="))
    rights = "-all," + ",".join(f"+{word[4:].lower()}" for word in line.partition("=")[2].split())
    node.pam("sshd", account=[f"{STRICT} mode=service rlimits=job"], session=[f"{STRICT} mode=service rlimits=job"])
    service = Service(node, before=["setpriv", "--no-new-privs", f"--bounding-set={rights}", "--inh-caps=-all", "--"])
    service.start()
    try:
        job = node.submit("alice", "ulimit -S -n 777; exec sleep 1000")
        kbd = node.sshd("kbd", 2222, ["PasswordAuthentication no", "KbdInteractiveAuthentication yes"])
        assert login(node, "alice") == job
        done = node.ssh("alice", "cat /proc/self/cgroup", auth="keyboard-interactive", port=kbd.port)
        assert job_of(done.stdout) == job, done.stderr
        assert node.ssh("alice", "ulimit -n").stdout.strip() == "777"
    finally:
        service.stop()
        node.run(["rm", "-rf", "/run/slurm-adopt", AUDIT_FILE, METRICS_FILE])


def test_service__each_step_is_asked_once(service: Service, node: Node) -> None:
    jobs = node.submit_many("bob", 5)
    node.submit("alice")
    assert login(node, "alice")
    wait_for(lambda: service.value("slurm_adopt_steps", owner="known") == len(jobs) + 1, "all steps to be known")
    asked = service.value("slurm_adopt_step_questions_total")
    for _ in range(3):
        assert login(node, "alice")
    assert service.value("slurm_adopt_step_questions_total") == asked
    assert service.value("slurm_adopt_conf_reads_total") == 1


def test_service__a_changed_slurm_conf_is_read_again(service: Service, node: Node) -> None:
    job = node.submit("alice")
    assert login(node, "alice") == job
    text = node.read("/etc/slurm/slurm.conf")
    node.write("/etc/slurm/slurm.conf", text.replace("SlurmdSpoolDir=", "SlurmdSpoolDir=/nowhere#"))
    try:
        assert login(node, "alice") == 0
    finally:
        node.write("/etc/slurm/slurm.conf", text)
    assert login(node, "alice") == job
    assert service.value("slurm_adopt_conf_reads_total") == 3


def test_service__without_it_the_helper_answers(node: Node) -> None:
    job = node.submit("alice")
    assert login(node, "alice") == job
    assert login(node, "bob") == 0


def test_service__a_stranger_is_not_read(service: Service, node: Node) -> None:
    node.run(["chmod", "0666", LOGIN_SOCKET])  # the mode is the first wall; this tests the second
    script = (
        "import socket; s = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET); s.settimeout(5)\n"
        f"s.connect({LOGIN_SOCKET!r})\n"
        "try:\n    s.send(b'V=1\\0'); print(s.recv(10))\nexcept OSError as error:\n    print(b'')"
    )
    assert node.run(["python3", "-c", script], user="bob").stdout.strip() == "b''"
    assert service.value("slurm_adopt_strangers_total") == 1


def test_service__malformed_silent_and_vanished_clients(service: Service, node: Node) -> None:
    script = f"""
import socket, time
def connect():
    s = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET); s.settimeout(5); s.connect({LOGIN_SOCKET!r}); return s
for packet in (b'x', b'V=2\\0', b'V=1\\0PHASE=nonsense\\0', bytes(8000)):
    s = connect(); s.send(packet); assert s.recv(10) == b'', packet
silent = [connect() for _ in range(50)]
connect().close()
assert all(s.recv(10) == b'' for s in silent)
"""
    node.run(["python3", "-c", script])
    assert service.value("slurm_adopt_bad_requests_total") == 4
    assert service.value("slurm_adopt_dropped_total", reason="silent") == 50
    assert service.value("slurm_adopt_dropped_total", reason="client-gone") == 1
    job = node.submit("alice")
    assert login(node, "alice") == job


# Going away and coming back -------------------------------------------------------------------------


def test_service__stopped_and_started_between_logins(service: Service, node: Node) -> None:
    job = node.submit("alice")
    assert login(node, "alice") == job
    assert service.stop() == 0
    assert not node.path(LOGIN_SOCKET).exists()
    assert login(node, "alice") == job
    service.start()
    assert login(node, "alice") == job
    # the numbers go on, and the helper has left a note of the login between the two
    counted = {"phase": "account", "verdict": "allow", "reason": "adopted"}
    assert service.value("slurm_adopt_logins_total", path="resident", **counted) == 2
    assert service.value("slurm_adopt_logins_total", path="one-shot", **counted) == 1
    assert [event["path"] for event in service.audit("login")] == ["resident", "one-shot", "resident"]


def test_service__a_restart_hands_over_the_socket(service: Service, node: Node) -> None:
    """The successor starts before the old one has ended: the socket is the successor's and stays."""
    node.submit("alice")
    successor = Service(node)
    old = service.pid
    successor.start()
    node.run(["kill", str(old)])
    assert service.process is not None
    assert service.process.wait(15) == 0
    assert login(node, "alice")
    assert successor.value("slurm_adopt_logins_total", phase="account") >= 1


def test_service__killed_at_any_moment_of_a_storm(service: Service, node: Node) -> None:
    """kill -9 again and again while people log in: each login is in its job or refused, and for the right reason."""
    node.pam("sshd", account=[PATIENT], session=[PATIENT])
    jobs = {"alice": node.submit("alice"), "bob": node.submit("bob"), "carol": 0}
    chance = random.Random(1)
    kills = 0

    def people(user: str) -> set[int]:
        """The jobs that the user's logins went to, one after the other while the service is killed."""
        seen = {login(node, user)}
        while kills < 8:
            seen.add(login(node, user))
        return seen

    with stand_in(node), ThreadPoolExecutor(6) as pool:
        storm = [(user, pool.submit(people, user)) for user in [*jobs, *jobs]]
        while kills < 8:
            time.sleep(chance.uniform(0.02, 0.5))
            service.kill()
            kills += 1
            time.sleep(chance.uniform(0, 0.1))
            service.start()
        assert [(user, future.result()) for user, future in storm] == [(user, {jobs[user]}) for user in [*jobs, *jobs]]
        # who was killed in the middle of a hastened move was put right by the helper of the same login, or the successor
        assert int(node.read(SWITCH)) == 0


def test_service__restarted_during_a_storm(service: Service, node: Node) -> None:
    node.pam("sshd", account=[PATIENT], session=[PATIENT])
    users = ["alice", "bob"] * 30
    node.submit("alice")
    with ThreadPoolExecutor(1) as pool:
        storm = pool.submit(ask, node, users)
        while not storm.done():
            time.sleep(0.4)
            assert service.stop() == 0
            service.start()
        assert storm.result() == {"alice": [True] * 30, "bob": [False] * 30}


@pytest.fixture
def activator(node: Node) -> Iterator[None]:
    """A service manager: makes the socket, starts the service with it when somebody connects, again and again."""
    node.write("/run/lab/activate.py", ACTIVATE)
    process = node.popen(["python3", "/run/lab/activate.py"])
    wait_for(lambda: node.path(LOGIN_SOCKET).exists(), "the socket")
    yield
    process.kill()
    process.wait()
    node.run(["pkill", "-f", "^/usr/bin/python3 -IS /usr/bin/slurm-adopt serve"], check=False)
    wait_for(lambda: not Service(node).pid, "the service to end")
    node.run("rm -rf /run/slurm-adopt /run/lab/notify /run/lab/said /run/lab/runs")


ACTIVATE = f"""
import os, select, socket, subprocess, sys
os.makedirs("/run/slurm-adopt", exist_ok=True)
listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
listener.bind({LOGIN_SOCKET!r}); listener.listen(4096)
notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM); notify.bind("/run/lab/notify")
while True:
    select.select([listener], [], [])
    def become():
        os.dup2(listener.fileno(), 3)
        os.set_inheritable(3, True)
        os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS="1", NOTIFY_SOCKET="/run/lab/notify",
                          WATCHDOG_USEC="300000")
        os.execv("/usr/bin/slurm-adopt", ["slurm-adopt", "serve", "--idle-exit", "1"])
    pid = os.fork()
    if pid == 0:
        become()
    said = b""
    while True:
        ended = os.waitpid(pid, os.WNOHANG)[0]
        if select.select([notify], [], [], 0.02)[0]:
            said += notify.recv(100) + b" "
            open("/run/lab/said", "wb").write(said)
        elif ended:
            break
    open("/run/lab/runs", "a").write("run\\n")
"""


def test_service__socket_activation_idle_exit_and_back(activator: None, node: Node) -> None:
    job = node.submit("alice")
    for round_number in (1, 2):
        assert login(node, "alice") == job
        assert Service(node).pid
        wait_for(lambda n=round_number: _runs(node) == n, "the idle exit")
        # the socket stays, and so do the numbers
        text = node.run(["slurm-adopt", "metrics"]).stdout
        assert value_in(text, "slurm_adopt_logins_total", phase="account", verdict="allow") == round_number
    said = node.read("/run/lab/said")
    assert said.startswith("READY=1 ")
    assert "WATCHDOG=1" in said
    assert said.endswith("STOPPING=1 ")


def _runs(node: Node) -> int:
    try:
        return node.read("/run/lab/runs").count("run")
    except FileNotFoundError:
        return 0


def test_service__restart_under_socket_activation_loses_nobody(activator: None, node: Node) -> None:
    """Who is not accepted by the old one waits in the socket for the new one: not one login needs the helper."""
    node.pam("sshd", account=[f"{PATIENT} mode=service"], session=[STRICT])
    node.submit("alice")
    for _ in range(10):  # a quick machine may answer a whole storm between two restarts
        with ThreadPoolExecutor(1) as pool:
            storm = pool.submit(ask, node, ["alice", "bob"] * 50)
            while not storm.done():
                pid = Service(node).pid
                if pid:
                    node.run(["kill", str(pid)], check=False)
                time.sleep(0.1)
            assert storm.result() == {"alice": [True] * 50, "bob": [False] * 50}
        if _runs(node) > 2:
            return
    pytest.fail(f"the service was never restarted under a login ({_runs(node)} runs)")


# Storms and hung steps ------------------------------------------------------------------------------


def test_service__storm_of_200_by_20_users_with_five_hung_steps_of_another(service: Service, node: Node) -> None:
    node.pam("sshd", account=[PATIENT], session=[PATIENT])
    users = make_users(node, 20)
    with_job, without = users[:10], users[10:]
    hung = [stepd_of(node, job) for job in node.submit_many("bob", 5)]
    for user in with_job:
        node.submit(user)
    node.run(["kill", "-STOP", *map(str, hung)])
    answers = ask(node, users * 10)
    refused = [event for event in service.audit("login") if event["user"] in with_job and event["verdict"] != "allow"]
    assert [(event["user"], event["reason"], event["ms"]) for event in refused] == []
    assert {user: answers[user] for user in with_job} == {user: [True] * 10 for user in with_job}
    assert {user: answers[user] for user in without} == {user: [False] * 10 for user in without}
    # nobody was sent to the helper, nobody's time was up
    assert service.value("slurm_adopt_logins_total", phase="account") == 200
    assert service.value("slurm_adopt_logins_total", path="one-shot") == 0
    assert service.value("slurm_adopt_sent_away_total") == 0
    reasons = {event["reason"] for event in service.audit("login") if event["user"] in without}
    assert reasons <= {"steps-unresponsive", "no-job"}
    assert service.memory_kib() < 25 * 1024
    print(f"memory after the storm: {service.memory_kib()} KiB")


def test_service__hung_steps_of_another_user_hold_up_only_who_finds_nothing_else(service: Service, node: Node) -> None:
    job = node.submit("alice")
    other = node.submit("bob")
    node.run(["kill", "-STOP", str(stepd_of(node, other))])
    for _ in range(2):
        assert login(node, "alice") == job
    assert login(node, "carol") == 0
    reasons = [event["reason"] for event in service.audit("login") if event["user"] == "carol"]
    assert reasons == ["steps-unresponsive"]
    node.run(["kill", "-CONT", str(stepd_of(node, other))])
    wait_for(lambda: service.value("slurm_adopt_steps", owner="unknown") == 0, "the step to be known")
    assert login(node, "carol") == 0
    assert service.audit("login")[-1]["reason"] == "no-job"
    assert login(node, "bob") == other


def test_service__one_users_logins_that_hang_leave_places_for_the_others(service: Service, node: Node) -> None:
    """150 logins of bob, whose only step hangs, against a share of 128 places: alice gets in beside them."""
    job = node.submit("alice")
    other = node.submit("bob")
    assert login(node, "bob") == other
    stepd = str(stepd_of(node, other))
    node.run(["kill", "-STOP", stepd])
    # a busy machine takes a while to start so many: they hang until alice is in
    node.pam("sshd", account=[f"{STRICT} mode=service timeout=120"], session=[STRICT])
    with ThreadPoolExecutor(1) as pool:
        storm = pool.submit(ask, node, ["bob"] * 150)
        try:
            # who waits for a place and gets none is sent to the helper, which mode=service rules out
            full = ("slurm_adopt_logins_waiting", "slurm_adopt_sent_away_total")
            wait_for(lambda: any(map(service.value, full)), "bob's share to be full")
            running = service.value("slurm_adopt_logins_running")
            assert login(node, "alice") == job
            assert not storm.done()
        finally:
            node.run(["kill", "-CONT", stepd])
        assert sum(storm.result()["bob"]) >= 128
    assert 100 < running <= 129


def test_service__that_runs_out_of_descriptors_at_any_point_decides_nothing_wrongly(
    service: Service, node: Node
) -> None:
    """No session line here: should the service overlook the process that lives on, the session would be outside."""
    node.pam("sshd", account=[f"{STRICT} timeout=2"])
    kbd = node.sshd("kbd", 2222, ["PasswordAuthentication no", "KbdInteractiveAuthentication yes"])
    job = node.submit("alice")
    assert login(node, "alice", kbd.port) == job
    for left in range(12):
        wait_for(lambda: not service.value("slurm_adopt_sessions"), "the last session's end to be seen")
        used = len(node.run(["ls", f"/proc/{service.pid}/fd"]).stdout.split())
        node.run(["touch", "/etc/slurm/slurm.conf"])  # it is read anew
        node.run(["prlimit", "--pid", str(service.pid), f"--nofile={used + left}:"])
        assert login(node, "alice", kbd.port) == job, f"{left} left"
        assert login(node, "bob", kbd.port) == 0, f"{left} left"
        node.run(["prlimit", "--pid", str(service.pid), "--nofile=1024:"])
    # the first of them were the helper's, the last ones its own
    for path in ("one-shot", "resident"):
        assert service.value("slurm_adopt_logins_total", verdict="allow", path=path) > 1


def test_service__on_a_full_node_every_login_gets_its_verdict(service: Service, node: Node) -> None:
    """Four busy processes per processor in a job, at nice 0 as jobs have it."""
    node.pam("sshd", account=[f"{PATIENT} mode=service"], session=[f"{PATIENT} mode=service"])
    busy = 4 * len(os.sched_getaffinity(0))
    node.submit("carol", f"for i in $(seq {busy}); do (while :; do :; done) & done; wait")
    wait_for(lambda: len(node.processes("carol")) > busy, "the node to be full")
    job = node.submit("alice")
    assert [login(node, user) for user in ("alice", "bob") * 3] == [job, 0] * 3
    assert service.value("slurm_adopt_logins_total", phase="account", path="resident") == 6


# What is written down -------------------------------------------------------------------------------


def test_service__audit_of_a_login_and_its_ends(service: Service, node: Node) -> None:
    job = node.submit("alice")
    assert login(node, "alice") == job
    stays = node.ssh_popen("alice", "sleep 1234")
    wait_for(lambda: any("sleep 1234" in p.command for p in node.processes("alice")), "the second session")
    node.cancel(job)
    ends = wait_for(lambda: len(found := service.audit("end")) == 2 and found, "both ends")
    stays.kill()
    assert [end["why"] for end in ends] == ["logout", "job-ended"]
    first = service.audit("login")[0]
    assert first["where"].endswith(f"job_{job}/step_extern")
    expected = {"user": "alice", "uid": 1501, "from": "127.0.0.1", "service": "sshd", "phase": "account", "verdict": "allow",
                "reason": "adopted", "job": job, "chosen": "only", "path": "resident", "pid": ends[0]["pid"]}  # fmt: skip
    assert {key: first[key] for key in expected} == expected
    key = node.run("ssh-keygen -lf /root/.ssh/id_ed25519.pub").stdout.split()[1]
    assert ends[0]["auth"] == ends[1]["auth"] == [f"publickey {key}"]
    assert node.path(AUDIT_FILE).stat().st_mode & 0o777 == 0o600
    rows = node.run(["slurm-adopt", "history", "--file", AUDIT_FILE, "--user", "alice"]).stdout.splitlines()
    assert [row.split()[-1] for row in rows[1:]] == ["logout", "job-ended"]
    # and the same to syslog, there being no journal here
    assert sum("slurm-adopt-audit" in line for line in node.log()) >= 4


def test_service__how_a_user_authenticated_is_sshds_word_where_a_line_of_ours_comes_before_pam_env(
    service: Service, node: Node
) -> None:
    """pam_env may read the user's own files (user_readenv=1), and sshd says it in the PAM environment."""
    node.write("/etc/lab/env", "SSH_AUTH_INFO_0 OVERRIDE=password\n")
    node.submit("alice")
    pam_env = "required pam_env.so conffile=/etc/lab/env"
    for session, auth in (([pam_env, STRICT], "password"), ([STRICT, pam_env, STRICT], "publickey")):
        node.pam("sshd", account=[STRICT], session=session)
        before = len(service.audit("end"))
        assert node.ssh("alice", "true").returncode == 0
        ends = wait_for(lambda n=before: len(found := service.audit("end")) > n and found, "the end")
        assert [method.split()[0] for method in ends[-1]["auth"]] == [auth]


def test_service__a_session_survives_a_restart_of_the_service(service: Service, node: Node) -> None:
    job = node.submit("alice")
    stays = node.ssh_popen("alice", "sleep 1000")
    gone = node.ssh_popen("alice", "sleep 1000")
    wait_for(lambda: service.value("slurm_adopt_sessions") == 2, "two sessions")
    service.stop()
    gone.kill()
    gone.wait()
    wait_for(lambda: sum("sleep 1000" in p.command for p in node.processes("alice")) <= 3, "one session to end")
    pids = {event["pid"] for event in service.audit("login")}
    wait_for(lambda: sum(node.path(f"/proc/{pid}").exists() for pid in pids) == 1, "its sshd to end")
    service.start()
    wait_for(lambda: service.value("slurm_adopt_sessions") == 1, "the session that is left")
    assert [end["why"] for end in service.audit("end")] == ["unobserved"]
    node.cancel(job)
    wait_for(lambda: len(service.audit("end")) == 2, "the second end")
    assert service.audit("end")[1]["why"] == "job-ended"
    stays.kill()


def test_service__a_login_that_was_over_before_the_service_came_ends_once(service: Service, node: Node) -> None:
    """Both of its phases are in the helper's notes."""
    job = node.submit("alice")
    node.pam("sshd", account=[STRICT], session=[STRICT])
    service.stop()
    assert login(node, "alice") == job
    wait_for(lambda: not any(p.command.startswith("sshd: alice") for p in node.processes("root")), "its sshd to end")
    service.start()
    assert service.value("slurm_adopt_logins_total", path="one-shot", phase="open_session") == 1
    assert [(event["phase"], event["reason"]) for event in service.audit("login")] == [("account", "adopted")]
    wait_for(lambda: service.audit("end"), "the end")
    service.stop()  # writes what it has not written yet
    assert len(service.audit("end")) == 1


def test_service__metrics_file_is_for_others_to_read(service: Service, node: Node) -> None:
    login(node, "bob")
    text = wait_for(lambda: node.path(METRICS_FILE).exists() and node.read(METRICS_FILE), "the file")
    assert value_in(text, "slurm_adopt_logins_total", verdict="deny") == 1
    assert node.path(METRICS_FILE).stat().st_mode & 0o777 == 0o644
    assert node.path("/run/slurm-adopt/metrics.prom").stat().st_mode & 0o777 == 0o600, "users could watch others log in"
    assert service.value("slurm_adopt_logins_total", verdict="deny") == 1


def test_service__at_rest_it_is_small(service: Service, node: Node) -> None:
    node.submit("alice")
    for _ in range(3):
        login(node, "alice")
    kib = service.memory_kib()
    print(f"memory at rest: {kib} KiB")
    assert kib < 25 * 1024
