# SPDX-License-Identifier: Apache-2.0
"""Hastened moves in a node: with the machine's own /sys/kernel/rcu_expedited, and with a file in its place.

A node's /sys is read-only, so nothing is hastened in other tests. Here it is opened for one test at a time; the machine's
setting is put back whatever happens. (Beside us others may hasten, each node with a lock of its own: 0 is waited for.)
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.node.faults.breakages import SWITCH, stand_in

from lab.machine import wait_for
from lab.node import Node
from slurm_adopt.system.kernel.hasten import OURS, PLACES, find_obstacle

STRICT = "required pam_slurm_adopt.so profile=strict hasten=yes"
REAL = Path(SWITCH)
LEAVE = """
import os, sys
sys.path.insert(0, "/usr/lib/slurm-adopt")
from slurm_adopt.system.kernel.hasten import HASTE
assert HASTE.begin("yes")
os.kill(os.getpid(), 9)
"""


@pytest.fixture
def real(node: Node) -> Iterator[Path]:
    """The machine's own setting, which the node may write. It is put back."""
    before = REAL.read_text()
    if int(before) != 0 or find_obstacle("yes", PLACES):
        pytest.skip("this machine's kernel has nothing to hasten")
    node.run(["mount", "-o", "remount,rw", "/sys"])
    try:
        yield REAL
    finally:
        node.run(["mount", "-o", "remount,ro", "/sys"])
        REAL.write_text(before)


@pytest.fixture
def file(node: Node) -> Iterator[Path]:
    """A file in the setting's place."""
    with stand_in(node):
        yield node.path(SWITCH)


@pytest.fixture
def fake(node: Node) -> Iterator[None]:
    """alice's only slurmstepd takes the question, and never answers."""
    node.install(Path(__file__).parents[1] / "faults/fake_stepd.py", "/run/lab/fake_stepd.py")
    path = f"{node.spool_dir}/{node.node_name}_4711.4294967292"
    argv = ["python3", "/run/lab/fake_stepd.py", "silent on add", path, str(node.account("alice")[0])]
    process = node.popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    yield
    process.communicate()


def is_inside(node: Node, job: int, user: str = "alice") -> bool:
    done = node.ssh(user, "cat /proc/self/cgroup")
    return f"/job_{job}/step_extern" in done.stdout


def test_hasten__the_kernels_own_setting(node: Node, real: Path, fake: None) -> None:
    """It is set while slurmstepd is asked, and not a moment longer, though slurmstepd keeps the login waiting."""
    node.pam("sshd", account=[f"{STRICT} timeout=3"])
    for _ in range(20):  # it is set for 0.2 s, in which a busy machine may not let us look
        login = node.popen(
            ["pamtester", "sshd", "alice", "acct_mgmt"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        seen = False
        while login.poll() is None and not seen:
            seen = real.read_text() == f"{OURS}\n"
        wait_for(lambda: real.read_text() == "0\n", "the setting to be put back")
        is_waiting = login.poll() is None
        login.kill()
        login.wait()
        if seen and is_waiting:
            break
    else:
        pytest.fail("it was never set, or not put back before the login's end")
    job = node.submit("bob")
    assert is_inside(node, job, "bob")
    wait_for(lambda: real.read_text() == "0\n", "the setting to be put back")


def test_hasten__a_login_that_is_killed_leaves_it_to_the_next_one(node: Node, real: Path) -> None:
    node.pam("sshd", account=[STRICT], session=[STRICT])
    job = node.submit("alice")
    node.run(["python3", "-c", LEAVE], check=False)
    found = json.loads(node.run(["slurm-adopt", "status", "--json"]).stdout)
    if found["grace_periods"]["expedited"] != "off":  # another node's login may have put it right meanwhile
        assert found["grace_periods"] == {"expedited": "left", "not_hastened": None}
    assert is_inside(node, job)
    wait_for(lambda: real.read_text() == "0\n", "the setting to be put back")


@pytest.mark.parametrize("option", ["auto", "no"])
def test_hasten__the_option(node: Node, file: Path, option: str) -> None:
    node.pam("sshd", account=[f"{STRICT} hasten={option}".replace("hasten=yes ", "")])
    job = node.submit("alice")
    before = file.stat().st_mtime_ns
    assert is_inside(node, job)
    assert int(file.read_text()) == 0
    isolated = find_obstacle("auto") == "isolated-processors"
    assert (file.stat().st_mtime_ns != before) == (option == "auto" and not isolated)


def test_hasten__nobody_who_is_refused_hastens(node: Node, file: Path) -> None:
    node.pam("sshd", account=[STRICT])
    before = file.stat().st_mtime_ns
    assert "Access denied" in node.ssh("bob", "true").stderr
    assert file.stat().st_mtime_ns == before


def test_hasten__status_tells_what_was_left(node: Node, file: Path) -> None:
    node.run(["python3", "-c", LEAVE], check=False)
    assert int(file.read_text()) == OURS
    assert f"{SWITCH} is still as a login has set it that was killed" in node.run(["slurm-adopt", "status"]).stdout
    said = node.run(["slurm-adopt", "status", "--json"], user="alice").stdout
    assert json.loads(said)["grace_periods"]["expedited"] == "unknown"  # who else is at it, root alone can see
    node.write(SWITCH, "1\n")
    node.run(["rm", "-f", "/run/slurm-adopt/hasten"])
    assert "is still as a login" not in node.run(["slurm-adopt", "status"]).stdout
    assert json.loads(node.run(["slurm-adopt", "status", "--json"]).stdout)["grace_periods"]["expedited"] == "foreign"
