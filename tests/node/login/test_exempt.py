# SPDX-License-Identifier: Apache-2.0
"""Whom the account stack lets in without our line, or our line exempts, the session line leaves alone: jobs or not."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from lab.node import Node

OURS = "required pam_slurm_adopt.so profile=strict action_unknown=deny"
#: Jumps over the line that follows it.
JUMP = "[success=1 default=ignore] pam_succeed_if.so quiet user = bob"
#: Lets in whom ours refuses.
OTHERS = (
    "[success=done default=ignore] pam_slurm_adopt.so profile=strict action_unknown=deny",
    "required pam_permit.so",
)
KEYBOARD = 2202
WAYS = {"publickey": 22, "keyboard-interactive": KEYBOARD}


def told_of_an_adoption(way: str) -> list[str]:
    """With keyboard-interactive the session phase adopts, if there is one."""
    if way == "keyboard-interactive":
        return ["account:adopt-deferred", "open_session:session-readopted"]
    return ["account:adopted", "open_session:session-verified"]


every_way = pytest.mark.parametrize("way", WAYS)
SHOW = "cat /proc/self/cgroup; echo job=$SLURM_JOB_ID"


@pytest.fixture(autouse=True)
def _keyboard(node: Node) -> None:
    node.sshd("keyboard", KEYBOARD, ["PasswordAuthentication no", "KbdInteractiveAuthentication yes"])


@pytest.fixture
def jobs(node: Node) -> tuple[int, ...]:
    """Two of bob's and one of alice's."""
    return (*node.submit_many("bob", 2), node.submit("alice"))


def enter(node: Node, user: str, way: str) -> tuple[str, str, list[str]]:
    """Where the login is (`in JOB`, `out`, `refused`), what the user read, and the reasons in the log by phase."""
    mark = node.log_mark()
    done = node.ssh(user, SHOW, auth=way, port=WAYS[way])
    told = []
    for line in node.log_since(mark):
        words = dict(word.split("=", 1) for word in line.split() if "=" in word)
        if "reason" in words and "phase" in words:
            told.append(f"{words['phase']}:{words['reason']}")
    if "job=" not in done.stdout:
        return "refused", done.stderr, told
    inside = [line for line in done.stdout.splitlines() if "/step_extern" in line]
    return f"in {inside[0].partition('/job_')[2].partition('/')[0]}" if inside else "out", done.stderr, told


@every_way
@pytest.mark.usefixtures("jobs")
def test_exempt__jumped_over(node: Node, way: str) -> None:
    """With two jobs `action_unknown=deny` would refuse them, with one they would be adopted."""
    node.pam(account=[JUMP, OURS], session=[OURS])
    assert enter(node, "bob", way) == ("out", "", ["open_session:session-exempt"])
    where, _, told = enter(node, "alice", way)
    assert where.startswith("in ")
    assert told == told_of_an_adoption(way)


@every_way
@pytest.mark.usefixtures("jobs")
def test_exempt__refused_here_and_let_in_by_another_module(node: Node, way: str) -> None:
    node.pam(account=OTHERS, session=[OURS])
    where, _, told = enter(node, "bob", way)
    assert (where, told) == ("out", ["account:unknown-denied", "open_session:session-exempt"])
    assert enter(node, "alice", way)[0].startswith("in ")


@pytest.fixture
def netgroup(node: Node) -> Iterator[str]:
    """One that bob is in."""
    switch = node.path("/etc/nsswitch.conf")
    before = switch.read_text()
    node.write("/etc/netgroup", "ops (,bob,)\n")
    node.write("/etc/nsswitch.conf", "".join(f"{line}\n" for line in before.splitlines() if "netgroup" not in line))
    with switch.open("a") as file:
        file.write("netgroup: files\n")
    yield "@ops"
    node.write("/etc/nsswitch.conf", before)
    node.path("/etc/netgroup").unlink()


def test_exempt__by_an_option(node: Node, jobs: tuple[int, ...], netgroup: str) -> None:
    """The session line needs none; but without an account line of ours it judges everybody, and has the options too."""
    options = ("allow_users=root,bob", "allow_groups=staff,bob", "allow_groups=1502", f"allow_users={netgroup}")
    for option in options:
        for way in WAYS:
            node.pam(account=[f"{OURS} {option}"], session=[OURS])
            assert enter(node, "bob", way) == ("out", "", ["account:exempt", "open_session:session-exempt"]), option
            assert enter(node, "alice", way)[0] == f"in {jobs[2]}"
    node.pam(account=[], session=[f"{OURS} allow_users=bob"])
    assert enter(node, "bob", "publickey") == ("out", "", ["open_session:exempt"])
    assert enter(node, "alice", "publickey")[0] == f"in {jobs[2]}"
    node.pam(account=[], session=[OURS])
    assert enter(node, "bob", "publickey")[0] == "refused"


def test_exempt__slurm_is_not_even_looked_at(node: Node) -> None:
    """A fault that refuses everybody does not refuse them."""
    node.pam(account=[JUMP, OURS], session=[OURS])
    conf = node.path("/etc/slurm/slurm.conf")
    text = conf.read_text()
    try:
        conf.unlink()
        assert enter(node, "bob", "publickey")[0] == "out"
        node.pam(account=[f"{OURS} allow_users=bob"], session=[OURS])
        assert enter(node, "bob", "publickey")[0] == "out"
        assert enter(node, "alice", "publickey")[0] == "refused"
    finally:
        node.write("/etc/slurm/slurm.conf", text)


@every_way
def test_exempt__the_environment_exempts_nobody(node: Node, jobs: tuple[int, ...], way: str) -> None:
    """Where users may write into the PAM environment between the phases, and something moves the session away."""
    move = "#!/bin/sh\nfor file in /sys/fs/cgroup/*/cgroup.procs; do echo $PPID > $file; done 2>/dev/null\n"
    node.write("/etc/lab/move", move, 0o755)
    node.write("/etc/lab/env", "SLURM_JOB_ID\nSLURM_ADOPT_CHOSEN\nSSH_AUTH_INFO_0 DEFAULT=publickey\n")
    between = ["required pam_env.so conffile=/etc/lab/env", "required pam_exec.so quiet /etc/lab/move"]
    node.pam(account=[JUMP, OURS], session=[*between, OURS])
    where, _, told = enter(node, "alice", way)
    assert where == f"in {jobs[2]}"
    assert told == [told_of_an_adoption(way)[0], "open_session:session-readopted"]


def test_exempt__a_service_that_is_left_alone_is_said_if_wanted(node: Node) -> None:
    node.pam("su", account=["required pam_slurm_adopt.so service=sshd,login log_level=verbose"])
    mark = node.log_mark()
    assert "hello" in node.run("su -s /bin/sh -c 'echo hello' alice").stdout
    [line] = [line for line in node.log_since(mark) if "reason=other-service" in line]
    assert "service=su " in line
    node.pam("su", account=["required pam_slurm_adopt.so service=login,su profile=strict"])
    assert "hello" not in node.run("su -s /bin/sh -c 'echo hello' alice", check=False).stdout
