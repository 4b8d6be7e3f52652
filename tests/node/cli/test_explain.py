# SPDX-License-Identifier: Apache-2.0
"""`slurm-adopt explain` says what a real login then gets, touches nothing, and decides recorded logins once more."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any

import pytest
from tests.conformance.situations import Rig
from tests.node.faults import breakages
from tests.node.faults.table import FAULTS, Fault

from lab.machine import wait_for
from lab.node import Node
from lab.product import serving

AUDIT = "/run/lab/audit"
#: Rows of the failure table whose fault can be seen before anybody logs in.
FORESEEN = ("conf-missing", "conf-unreadable", "conf-untrusted", "conf-foreign", "conf-own", "conf-of-slurm-user",
            "conf-malformed", "conf-include-loop", "spool-missing", "spool-file", "spool-world-writable",
            "spool-unreadable", "entry-fifo", "socket-stale", "socket-foreign", "listener-foreign", "silent",
            "stopped-own", "stopped-other", "closes-on-accept", "impostor", "uid-foreign", "starting", "ending",
            "state-unknown", "helper-missing", "helper-not-executable", "helper-writable", "helper-foreign")  # fmt: skip


def explain(node: Node, user: str, *args: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(node.run(["slurm-adopt", "explain", user, "--json", *args]).stdout)
    return found


def log_in(node: Node, user: str) -> tuple[str, str, str]:
    """Verdict, reason and job in the log of a real login's account phase, and whether ssh let it in."""
    mark = node.log_mark()
    node.ssh(user)
    for line in node.log_since(mark):
        found = re.search(r"verdict=(\w+) reason=(\S+) .*phase=account", line)
        if found:
            job = re.search(r" job=(\d+)", line)
            return found[1], found[2], job[1] if job else ""
    return "", "", ""


def agrees(node: Node, user: str, *args: str) -> dict[str, Any]:
    """What is explained, which must be what then happens."""
    said = explain(node, user, *args)
    assert (said["verdict"], said["reason"], str(said["job"] or "")) == log_in(node, user)
    return said


def strict(more: str = "") -> str:
    return f"required pam_slurm_adopt.so profile=strict{more}"


def lines(node: Node, more: str) -> None:
    node.pam("sshd", account=[strict(more)], session=[strict(more)])


def test_explain__agrees_with_logins(node: Node) -> None:
    """One after the other on one node: no job, one, several, ending with the options that matter."""
    said = agrees(node, "alice")
    assert (said["reason"], said["result"]) == ("no-job", "perm_denied")
    assert said["text"] in node.ssh("alice").stderr
    job = node.submit("alice")
    assert agrees(node, "alice")["job"] == job
    for more in (" enforce=no", " enforce=adopt"):
        lines(node, more)
        assert agrees(node, "alice")["enforce"] == more.partition("=")[2]
        assert agrees(node, "bob")["result"] == "ignore"
    lines(node, " action_no_jobs=ignore")  # profile=strict is stronger
    assert agrees(node, "bob")["result"] == "perm_denied"
    lines(node, "")
    second = node.submit("alice")
    said = agrees(node, "alice", "--from", "127.0.0.1")
    assert (said["job"], said["chosen"]) == (second, "newest")
    assert f"{second}, {job}" in said["unless"][0] or f"{job}, {second}" in said["unless"][0]
    lines(node, " action_unknown=deny")
    assert agrees(node, "alice")["reason"] == "unknown-denied"
    lines(node, "")
    node.run(["scontrol", "suspend", f"{job},{second}"])
    try:
        # slurmd freezes the steps some time after slurmctld calls the job suspended
        wait_for(lambda: explain(node, "alice")["reason"] == "job-suspended", "the steps to be frozen")
        assert agrees(node, "alice")["reason"] == "job-suspended"
    finally:
        node.run(["scontrol", "resume", f"{job},{second}"])


def test_explain__who_is_not_asked(node: Node) -> None:
    assert explain(node, "root")["reason"] == "root"
    assert explain(node, "mallory")["reason"] == "user-unknown"
    assert explain(node, "alice", "--service", "su")["verdict"] is None
    node.pam("sshd", account=["sufficient pam_localuser.so", strict()], session=[strict()])
    said = explain(node, "alice")
    assert (said["verdict"], said["result"]) == (None, "ignore")
    assert "pam_localuser.so) ends the stack" in said["steps"][-1]["fact"]
    assert node.ssh("alice").returncode == 0
    node.run(["slurm-adopt", "explain"], check=False)
    assert node.run(["slurm-adopt", "explain", "alice"], user="alice", check=False).returncode == 1


def test_explain__touches_nothing(node: Node) -> None:
    job = node.allocate("alice")
    before = {p.pid: p.cgroups for p in node.processes()}
    mark = node.log_mark()
    text = node.run(["slurm-adopt", "explain", "alice"]).stdout
    after = {p.pid: p.cgroups for p in node.processes()}
    # Slurm's own processes come and go; none that was there has been moved
    assert {pid: cgroups for pid, cgroups in after.items() if pid in before and before[pid] != cgroups} == {}
    assert node.log_since(mark) == []
    assert text.endswith(f"=> alice is let in, into job {job}\n")
    assert not node.path("/run/slurm-adopt/login.sock").exists()


@pytest.fixture(scope="module")
def rig() -> Iterator[Rig]:
    with Rig(Node()) as rig:
        breakages.start(rig)
        rig.node.pam("sshd", account=[strict(" timeout=1")], session=[strict()])
        yield rig


@pytest.mark.parametrize("fault", [one for one in FAULTS if one.name in FORESEEN], ids=lambda fault: fault.name)
def test_explain__agrees_with_the_failure_table(fault: Fault, rig: Rig) -> None:
    """What a login with profile=strict gets there, tests/node/faults proves."""
    breakage: Callable[[Rig], AbstractContextManager[object]] = fault.set_up
    rig.node.pam("sshd", account=[strict(fault.args or " timeout=1")], session=[strict()])
    with breakage(rig):
        said = explain(rig.node, fault.user)
    assert (said["reason"], said["result"]) == (fault.reasons[1], fault.results[1]), said
    if fault.in_job:
        assert said["job"] == rig.jobs[fault.in_job]
    assert fault.text() in said["text"] or fault.reasons[1].startswith("helper-")


def test_explain__replays_recorded_logins(node: Node) -> None:
    """From the line alone: by the service and by the one-shot helper, admitted, refused, looked at; changed facts differ."""
    with serving(node, "--audit-file", AUDIT):
        node.submit("alice")
        node.submit("alice")
        for more in ("", " mode=oneshot", " enforce=no"):
            lines(node, more)
            node.ssh("alice")
            node.ssh("bob")
        node.run(["slurm-adopt", "metrics"])
        wait_for(lambda: len(node.read(AUDIT).splitlines()) >= 6, "all logins in the audit stream")
    done = node.run(["slurm-adopt", "explain", "--replay", AUDIT])
    assert done.stdout.count("  verdict   ") >= 6
    assert "would-adopt" in done.stdout
    assert "adopt     into job" in done.stdout
    events = [json.loads(line) for line in node.read(AUDIT).splitlines()]
    adopted = next(event for event in events if event["reason"] == "adopted")
    changes: list[dict[str, Any]] = [{"facts": {}}, {"options": ["action_unknown=deny"]}, {"verdict": "deny"}]
    for change in changes:
        node.write("/run/lab/changed", json.dumps({**adopted, **change}) + "\n")
        assert node.run(["slurm-adopt", "explain", "--replay", "/run/lab/changed"], check=False).returncode == 1
    with contextlib.suppress(FileNotFoundError):
        node.path(AUDIT).unlink()
    node.run("rm -rf /run/slurm-adopt")
