# SPDX-License-Identifier: Apache-2.0
"""A key and a one-time code: a real second factor (pam_oath), asked for by keyboard-interactive authentication."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator

import pytest

from lab.machine import wait_for
from lab.node import Node
from lab.product import STRICT, use_product

pytestmark = pytest.mark.extra
SECRET = "3132333435363738393031323334353637383930"
USERS = "/etc/users.oath"
PORT = 2230
SHOW = (
    "cat /proc/self/cgroup /proc/$PPID/cgroup; echo job=$SLURM_JOB_ID; setsid sleep 1009 >/dev/null 2>&1 </dev/null &"
)


@pytest.fixture(scope="module")
def machine() -> Iterator[Node]:
    with Node(packages=("libpam-oath", "oathtool")) as node:
        use_product(node)
        methods = ["AuthenticationMethods publickey,keyboard-interactive", "KbdInteractiveAuthentication yes"]
        node.sshd("codes", PORT, [*methods, "PasswordAuthentication no"])
        yield node


@pytest.fixture(params=["account-and-session", "account-alone"])
def node(machine: Node, request: pytest.FixtureRequest) -> Iterator[Node]:
    """The stack of docs/guide/mfa.md: the code in place of the password, our account line before the include."""
    session = [STRICT] if request.param == "account-and-session" else []
    machine.pam("sshd", session=session)
    before = machine.read("/etc/pam.d/sshd")
    code = f"auth required pam_oath.so usersfile={USERS} window=20 digits=6"
    lines = before.replace("@include common-auth", code)
    lines = lines.replace("@include common-account", f"account {STRICT}\n@include common-account")
    assert lines.count("pam_oath") == 1
    machine.write("/etc/pam.d/sshd", lines)
    machine.write(USERS, f"HOTP alice - {SECRET}\nHOTP bob - {SECRET}\n", 0o600)
    yield machine
    machine.cancel_all()


def log_in(node: Node, user: str, count: int) -> subprocess.CompletedProcess[str]:
    """With the code of this number."""
    code = node.run(["oathtool", "-c", str(count), SECRET]).stdout.strip()
    ssh = ["ssh", "-p", str(PORT), "-o", "NumberOfPasswordPrompts=1", f"{user}@127.0.0.1", SHOW]
    return node.run(["sshpass", "-P", "One-time", "-p", code, *ssh], check=False)


def test_second_factor__is_in_the_job_and_ends_with_it(node: Node) -> None:
    job = node.submit("alice")
    done = log_in(node, "alice", 0)
    assert f"job={job}" in done.stdout.splitlines(), done
    assert done.stdout.count(f"/job_{job}/step_extern") >= 2
    node.cancel(job)
    wait_for(lambda: not node.processes("alice"), "everything of the login to be gone")


def test_second_factor__without_a_job_the_code_is_used_up(node: Node) -> None:
    """sshd authenticates first, and asks the account stack then."""
    done = log_in(node, "bob", 0)
    assert "job=" not in done.stdout
    assert "you have no active jobs on this node" in done.stderr
    job = node.submit("bob")
    assert log_in(node, "bob", 0).returncode != 0
    assert f"job={job}" in log_in(node, "bob", 1).stdout.splitlines()
