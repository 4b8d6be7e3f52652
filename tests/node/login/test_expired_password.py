# SPDX-License-Identifier: Apache-2.0
"""Whose password has expired may have the account stack end before our line, and then log in all the same.

Debian's common-account says `new_authtok_reqd=done`, and sshd goes on with that: it has the password changed, and after
keyboard-interactive authentication runs whatever the client has asked for.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from lab.accounts import password
from lab.node import Node

OURS = "required pam_slurm_adopt.so profile=strict"
INCLUDE = "@include common-account"
KEYBOARD = 2202
SHOW = "echo in; cat /proc/self/cgroup"
ASKPASS = f"""#!/bin/sh
case "$1" in
*[Nn]ew*) echo Changed-0-secret ;;
*) echo {password("alice")} ;;
esac
"""


@pytest.fixture
def expired(node: Node) -> Iterator[Node]:
    """Alice's password has."""
    node.sshd("keyboard", KEYBOARD, ["PasswordAuthentication no", "KbdInteractiveAuthentication yes"])
    node.write("/root/askpass", ASKPASS, 0o755)
    shadow = node.path("/etc/shadow")
    before = shadow.read_text()
    node.run("passwd --expire alice")
    yield node
    shadow.write_text(before)


def enter(node: Node) -> tuple[str, list[str]]:
    """Where the session is (`in JOB`, `out`, `refused`) whose password is changed on the way, and the reasons."""
    mark = node.log_mark()
    argv = ["ssh", "-p", str(KEYBOARD), "-o", "PreferredAuthentications=keyboard-interactive", "alice@127.0.0.1", SHOW]
    # an ssh without a terminal asks this program
    done = node.run(["setsid", "-w", *argv], env={"DISPLAY": ":", "SSH_ASKPASS": "/root/askpass"}, check=False)
    told = []
    for line in node.log_since(mark):
        words = dict(word.split("=", 1) for word in line.split() if "=" in word)
        if "reason" in words and "phase" in words:
            told.append(f"{words['phase']}:{words['reason']}")
    if not done.stdout.startswith("in\n"):
        return "refused", told
    inside = [line for line in done.stdout.splitlines() if "/step_extern" in line]
    return f"in {inside[0].partition('/job_')[2].partition('/')[0]}" if inside else "out", told


def put_before_the_include(node: Node) -> None:
    file = node.path("/etc/pam.d/sshd")
    line = f"account\t{OURS}\n"
    before = file.read_text().replace(line, "")
    assert INCLUDE in before
    file.write_text(before.replace(INCLUDE, line + INCLUDE))


def test_expired_password__the_account_line_alone_and_last_is_not_asked(expired: Node) -> None:
    """What `slurm-adopt doctor` warns of."""
    expired.pam(account=[OURS])
    assert enter(expired) == ("out", [])


@pytest.mark.parametrize("session", [[], [OURS]], ids=["account", "both"])
def test_expired_password__before_the_include_it_is_asked(expired: Node, session: list[str]) -> None:
    expired.pam(account=[OURS], session=session)
    put_before_the_include(expired)
    assert enter(expired) == ("refused", ["account:no-job"])
    if session:
        job = expired.submit("alice")
        assert enter(expired) == (f"in {job}", ["account:adopt-deferred", "open_session:session-readopted"])


@pytest.mark.parametrize("mode", ["oneshot", "auto"])
def test_expired_password__the_session_line_judges_where_the_account_line_was_not_asked(
    expired: Node, mode: str
) -> None:
    expired.pam(account=[f"{OURS} mode={mode}"], session=[f"{OURS} mode={mode}"])
    where, told = enter(expired)
    assert (where, told) == ("refused", ["open_session:no-job"])
    expired.run(f"echo alice:{password('alice')} | chpasswd; passwd --expire alice")
    job = expired.submit("alice")
    assert enter(expired)[0] == f"in {job}"


def test_expired_password__with_a_key_the_new_password_is_asked_for_in_the_job(expired: Node) -> None:
    """There sshd runs passwd(1) in place of the command."""
    job = expired.submit("alice")
    mark = expired.log_mark()
    done = expired.ssh("alice", SHOW)
    assert "Password change required" in done.stderr
    assert "in\n" not in done.stdout
    assert any(f"phase=open_session job={job}" in line for line in expired.log_since(mark))
