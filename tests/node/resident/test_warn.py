# SPDX-License-Identifier: Apache-2.0
"""Logins are told on their terminals before their job ends. Real sshd and slurmctld; the resident service."""

from __future__ import annotations

import contextlib
import os
import select
import subprocess
import time
from collections.abc import Iterator

import pytest

from lab.machine import wait_for
from lab.node import Node
from lab.product import use_strict_lines

LOGIN = "/run/slurm-adopt/login.sock"


@contextlib.contextmanager
def serve(node: Node, marks: str) -> Iterator[subprocess.Popen[str]]:
    """The resident service, and lines that greet."""
    use_strict_lines(node, "required pam_slurm_adopt.so profile=strict greeting=on")
    node.run(f"rm -f {LOGIN} /run/slurm-adopt/job-ends")
    process = node.popen(["slurm-adopt", "serve", "--listen", LOGIN, "--no-audit-journal", "--warn-before", marks])
    try:
        wait_for(lambda: node.path(LOGIN).exists(), "the service")
        yield process
    finally:
        process.terminate()
        process.wait(20)
        node.run("rm -rf /run/slurm-adopt")


class Terminal:
    """A login at a terminal, and what it shows."""

    def __init__(self, node: Node, user: str = "alice") -> None:
        self.client = node.ssh_popen(user, "echo ready; sleep 1000", tty=True)
        assert self.client.stdout is not None
        self.fd = self.client.stdout.fileno()
        self.text = ""
        assert self.shows("ready", 60), self.text

    def shows(self, text: str, timeout_s: float) -> bool:
        """Whether the text comes in time."""
        until = time.monotonic() + timeout_s
        while text not in self.text:
            left = until - time.monotonic()
            if left <= 0 or not select.select([self.fd], [], [], left)[0]:
                return False
            piece = os.read(self.fd, 4096)
            if not piece:
                return False
            self.text += piece.decode(errors="replace")
        return True

    def close(self) -> None:
        self.client.kill()
        self.client.communicate()


@pytest.fixture
def terminals() -> Iterator[list[Terminal]]:
    opened: list[Terminal] = []
    yield opened
    for terminal in opened:
        terminal.close()


def end_of(node: Node, job: int) -> float:
    shown = node.run(["squeue", "-h", "-j", str(job), "-o", "%e"], env={"TZ": "UTC0"}).stdout.strip()
    import calendar

    return calendar.timegm(time.strptime(shown, "%Y-%m-%dT%H:%M:%S"))


def test_warn__before_the_end_and_at_the_end(node: Node, terminals: list[Terminal]) -> None:
    with serve(node, "50s,5s"):
        job = node.submit("alice", time=1, array="7")
        terminals.append(Terminal(node))
        end = end_of(node, job)
        name = f"{job}_7 ({job})"  # slurmctld is asked for it after the login; by the second line it is known
        for left_s, line in (
            (50, " ends in 50 s, and this login with it."),
            (5, f"slurm-adopt: job {name} ends in 5 s, and this login with it."),
            (2, f"slurm-adopt: the time of job {name} is up; this login ends with it."),
        ):
            assert terminals[0].shows(line, end - left_s - time.time() + 60), terminals[0].text
            assert time.time() > end - left_s - 5, "too early"
        # the job itself is ended at slurmctld's next look, up to half a minute later
        assert terminals[0].text.count("slurm-adopt: job") == 2


def test_warn__only_those_who_are_in_the_job(node: Node, terminals: list[Terminal]) -> None:
    with serve(node, "50s"):
        other = node.submit("alice", time=90)
        terminals.append(Terminal(node))
        short = node.submit("alice", time=1)
        terminals.append(Terminal(node))
        node.submit("bob", time=90)
        terminals.append(Terminal(node, "bob"))
        # a fourth one whose terminal takes nothing any more (Ctrl-S) holds up nobody
        stopped = node.ssh_popen("alice", "sleep 1000", tty=True)
        try:
            assert stopped.stdin is not None
            stopped.stdin.write("\x13")
            stopped.stdin.flush()
            assert terminals[1].shows(f"job {short} ends in ", 25), terminals[1].text
            assert not terminals[0].shows("slurm-adopt", 1), f"{terminals[0].text} in job {other}"
            assert not terminals[2].shows("slurm-adopt", 0.2)
        finally:
            stopped.kill()
            stopped.communicate()


def test_warn__a_longer_limit_is_noticed(node: Node, terminals: list[Terminal]) -> None:
    with serve(node, "50s"):
        job = node.submit("alice", time=1)
        terminals.append(Terminal(node))
        wait_for(lambda: node.path("/run/slurm-adopt/job-ends").exists(), "the end to be known")
        node.run(["scontrol", "update", f"JobId={job}", "TimeLimit=30"])
        assert not terminals[0].shows("slurm-adopt: job", 16)
        shown = node.ssh("alice", None, tty=True, input="exit\n").stdout
        assert "It ends in 29 min." in shown


def test_warn__the_greeting_knows_what_the_service_has_learnt(node: Node, terminals: list[Terminal]) -> None:
    with serve(node, "1"):
        job = node.submit("alice", time=90)
        terminals.append(Terminal(node))
        wait_for(lambda: node.path("/run/slurm-adopt/job-ends").exists(), "the end to be known")
        shown = node.ssh("alice", None, tty=True, input="exit\n").stdout
        assert f"you are in job {job}, your only job on this node. It ends in 1 h 29 min." in shown


def test_warn__without_a_controller_logins_go_on(node: Node, terminals: list[Terminal]) -> None:
    node.submit("alice", time=90)
    node.slurmctld.stop()
    try:
        with serve(node, "5"):
            terminals.append(Terminal(node))
            took_s = []
            for _ in range(3):
                started = time.monotonic()
                assert node.ssh("alice", "true").returncode == 0
                took_s.append(time.monotonic() - started)
                time.sleep(0.7)
            # squeue would need more than that to give up; the machine may be busy with other things
            assert min(took_s) < 3
    finally:
        node.slurmctld.start()
        node.wait_idle()


def test_warn__usage(node: Node) -> None:
    done = node.run(["slurm-adopt", "serve", "--listen", "/run/x.sock", "--warn-before", "soon"], check=False)
    assert done.returncode == 1
    assert "--warn-before: 'soon' is not a number of minutes" in done.stderr
