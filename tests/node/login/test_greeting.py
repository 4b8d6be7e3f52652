# SPDX-License-Identifier: Apache-2.0
"""The greeting: shown to a session at a terminal, never in the way of anything else. Real sshd."""

from __future__ import annotations

import re
import subprocess

import pytest

from lab.node import Node
from lab.product import use_strict_lines

GREETING = "required pam_slurm_adopt.so profile=strict timeout=30 greeting=on"
MARK = "slurm-adopt: "


def shell(node: Node, user: str = "alice", **how: object) -> str:
    """What an interactive session shows."""
    done = node.ssh(user, None, tty=True, input="echo in:$SLURM_JOB_ID; exit\n", **how)  # type: ignore[arg-type]
    assert done.returncode == 0, done.stderr
    return done.stdout.replace("\r", "") + done.stderr


def greetings(text: str) -> list[str]:
    return [line for line in text.splitlines() if line.startswith(MARK)]


@pytest.fixture
def greeting(node: Node) -> Node:
    use_strict_lines(node, GREETING)
    return node


def test_greeting__is_off_by_default(node: Node) -> None:
    node.submit("alice")
    use_strict_lines(node, "required pam_slurm_adopt.so profile=strict")
    assert greetings(shell(node)) == []
    assert "SLURM_ADOPT" not in node.ssh("alice", "env").stdout


def test_greeting__only_job(greeting: Node) -> None:
    job = greeting.submit("alice")
    (line,) = greetings(shell(greeting))
    assert line.startswith(f"slurm-adopt: you are in job {job}, your only job on this node.")


def test_greeting__newest_of_three(greeting: Node) -> None:
    jobs = [greeting.submit("alice") for _ in range(3)]
    greeting.submit("bob")
    (line,) = greetings(shell(greeting))
    wanted = f"job {jobs[2]}, the newest of your 3 jobs on this node (also here: {jobs[0]}, {jobs[1]})."
    assert wanted in line


def test_greeting__time_left(greeting: Node) -> None:
    """From the job's own processes, where slurmd tells them (not up to 22.05)."""
    job = greeting.submit("alice", time=90)
    (line,) = greetings(shell(greeting))
    told = any(
        b"SLURM_JOB_END_TIME=" in greeting.path(f"/proc/{process.pid}/environ").read_bytes()
        for process in greeting.processes("alice")
    )
    wanted = r" It ends in 1 h (29|30) min\." if told else ""
    assert re.fullmatch(rf"slurm-adopt: you are in job {job}, your only job on this node\.{wanted}", line)


def test_greeting__time_left_as_the_service_has_learnt_it(greeting: Node) -> None:
    job = greeting.submit("alice")
    (stepd,) = [p for p in greeting.processes("root") if p.command == f"slurmstepd: [{job}.extern]"]
    started = greeting.read(f"/proc/{stepd.pid}/stat").rpartition(") ")[2].split()[19]
    greeting.run(
        f"mkdir -p /run/slurm-adopt; echo {job} {stepd.pid} {started} $(($(date +%s) + 2 * 86400 + 3700)) >/run/slurm-adopt/job-ends"
    )
    try:
        assert greetings(shell(greeting))[0].endswith(" It ends in 2 d 1 h.")
        greeting.run(f"echo {job} 1 {started} $(($(date +%s) + 7200)) >/run/slurm-adopt/job-ends")
        assert "2 h" not in greetings(shell(greeting))[0], "of a former job with this id"
        greeting.run("chown alice /run/slurm-adopt/job-ends")
    finally:
        greeting.run("rm -f /run/slurm-adopt/job-ends")


@pytest.mark.parametrize("auth", ["publickey", "password", "keyboard-interactive"])
def test_greeting__once_however_the_user_logs_in(greeting: Node, auth: str) -> None:
    first = greeting.submit("alice")
    second = greeting.submit("alice")
    lines = ["PubkeyAuthentication no", "PasswordAuthentication no", "KbdInteractiveAuthentication yes"]
    port = greeting.sshd("kbd", 2222, lines).port if auth == "keyboard-interactive" else 22
    shown = shell(greeting, auth=auth, port=port)
    (line,) = greetings(shown)
    assert f"job {second}, the newest of your 2 jobs on this node (also here: {first})" in line
    assert f"in:{second}" in shown


@pytest.mark.parametrize("auth", ["publickey", "keyboard-interactive"])
def test_greeting__commands_see_nothing_of_it(greeting: Node, auth: str) -> None:
    greeting.submit("alice")
    lines = ["PubkeyAuthentication no", "PasswordAuthentication no", "KbdInteractiveAuthentication yes"]
    port = greeting.sshd("kbd", 2222, lines).port if auth == "keyboard-interactive" else 22
    done = greeting.ssh("alice", "printf exact; printf err >&2", auth=auth, port=port)
    assert (done.stdout, done.returncode) == ("exact", 0)
    # with a password, Debian's client says nothing more either
    assert MARK not in done.stderr
    assert done.stderr.endswith("err")
    tty = greeting.ssh("alice", "printf exact", tty=True, auth=auth, port=port)
    assert MARK not in tty.stdout + tty.stderr


def test_greeting__copies_are_undisturbed(greeting: Node) -> None:
    """scp in both protocols, sftp, and what rsync and tar do: a binary stream through a command."""
    greeting.submit("alice")
    port = greeting.sshd("sftp", 2223, ["Subsystem sftp internal-sftp"]).port
    greeting.run("head -c 3000000 /dev/urandom >/tmp/one; chmod 644 /tmp/one")
    for command in (
        f"scp -P {port} /tmp/one alice@127.0.0.1:two",
        f"scp -O -P {port} /tmp/one alice@127.0.0.1:two",
        f"echo 'put /tmp/one two' | sftp -b - -P {port} alice@127.0.0.1",
        f"ssh -p {port} alice@127.0.0.1 'cat >two' </tmp/one",
        f"ssh -p {port} alice@127.0.0.1 'cat /tmp/one' >/home/alice/two",
    ):
        done = greeting.run(command)
        assert MARK not in done.stdout + done.stderr, command
        greeting.run("cmp /tmp/one /home/alice/two; rm -f /home/alice/two")


def test_greeting__hushlogin(greeting: Node) -> None:
    greeting.submit("alice")
    greeting.run("touch /home/alice/.hushlogin")
    try:
        assert greetings(shell(greeting)) == []
    finally:
        greeting.run("rm /home/alice/.hushlogin")


def test_greeting__a_user_cannot_make_it_lie_beyond_its_words(greeting: Node) -> None:
    """SLURM_ADOPT_CHOSEN travels through the PAM environment: only known words are taken from there."""
    greeting.submit("alice")
    greeting.submit("alice")
    account = "required pam_slurm_adopt.so profile=strict"
    env = "required pam_env.so conffile=/tmp/env.conf"
    greeting.run("echo 'SLURM_ADOPT_CHOSEN DEFAULT=root-shell' >/tmp/env.conf")
    greeting.pam("sshd", account=[account], session=[env, GREETING])
    (line,) = greetings(shell(greeting))
    assert "one of your 2 jobs on this node" in line


def test_greeting__a_login_in_no_job(node: Node) -> None:
    line = "required pam_slurm_adopt.so action_unknown=allow greeting=on"
    use_strict_lines(node, line)
    node.submit("alice")
    node.submit("alice")
    shown = shell(node)
    assert greetings(shown) == ["slurm-adopt: this session is in none of your 2 jobs on this node."], shown


def test_greeting__client_that_wants_no_pty(greeting: Node) -> None:
    """`ssh -T host` with neither command nor terminal: sshd shows it what it shows of the message of the day."""
    greeting.submit("alice")
    argv = ["ssh", "-T", "-p", "22", "alice@127.0.0.1", "sh", "-s"]
    done = greeting.run(argv, input="echo marker\n")
    assert isinstance(done, subprocess.CompletedProcess)
    assert (done.stdout, MARK in done.stderr) == ("marker\n", False)
