# SPDX-License-Identifier: Apache-2.0
"""`enforce=`: a line that looks on beside Slurm's own module, and one that adopts and refuses nobody."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from lab.machine import wait_for
from lab.node import Node
from lab.product import serving

SECOND_NAME = "pam_slurm_adopt_observe.so"
AUDIT = "/run/lab/audit"
LOOKS_ON = f"required {SECOND_NAME} profile=strict enforce=no"


@pytest.fixture
def second(node: Node) -> Iterator[str]:
    """Our module's file under a second name."""
    module = node.run("ls /lib/*/security/pam_slurm_adopt.so").stdout.strip()
    path = module.replace("pam_slurm_adopt.so", SECOND_NAME)
    node.run(["ln", module, path])
    yield path
    node.run(["rm", path])


@pytest.fixture
def events(node: Node) -> Iterator[list[dict[str, Any]]]:
    """The audit stream of a service, as it grows."""
    found: list[dict[str, Any]] = []
    with serving(node, "--audit-file", AUDIT):
        yield found
    node.run(f"rm -rf {AUDIT} /run/slurm-adopt")


def audited(node: Node, count: int) -> list[dict[str, Any]]:
    """The logins in the audit stream, as soon as there are so many."""

    def logins() -> list[dict[str, Any]]:
        events = [json.loads(line) for line in node.read(AUDIT).splitlines()]
        return [event for event in events if event["event"] == "login"]

    wait_for(lambda: len(logins()) >= count, f"{count} logins in the audit stream")
    return logins()


def where(node: Node, user: str) -> tuple[str, str]:
    """SLURM_JOB_ID and the freezer's cgroup of a login."""
    said = node.ssh(user, "echo job=$SLURM_JOB_ID; grep -h freezer /proc/self/cgroup || cat /proc/self/cgroup")
    assert said.returncode == 0, said.stderr
    job, _, cgroup = said.stdout.partition("\n")
    return job.partition("=")[2], cgroup


@pytest.mark.usefixtures("second")
def test_enforce__no_changes_nothing_beside_the_original(node: Node, events: list[dict[str, Any]]) -> None:
    """The original decides as ever; what ours would have done stands in the log and in the audit stream."""
    original = f"required {node.original_module}"
    job = node.submit("alice")
    node.pam("sshd", account=[original], session=[])
    alone = where(node, "alice"), node.ssh("bob").returncode, node.ssh("bob").stderr
    assert f"job_{job}" in alone[0][1]
    node.pam("sshd", account=[LOOKS_ON, original], session=[LOOKS_ON])
    mark = node.log_mark()
    assert (where(node, "alice"), node.ssh("bob").returncode, node.ssh("bob").stderr) == alone
    said = [line for line in node.log_since(mark) if "enforce=no" in line]
    assert any(
        "verdict=allow reason=would-adopt enforce=no user=alice" in line and f"job={job}" in line for line in said
    )
    assert any("verdict=deny reason=no-job enforce=no user=bob" in line for line in said)
    found = [(event["user"], event["verdict"], event["reason"], event["enforce"]) for event in audited(node, 2)]
    assert found[0] == ("alice", "allow", "would-adopt", "no")
    assert set(found[1:]) == {("bob", "deny", "no-job", "no")}
    shown = node.run(["slurm-adopt", "history", "--file", AUDIT, "--would-deny"]).stdout.splitlines()
    assert shown[1].split()[:2] == ["bob", "no-job"]
    assert len(shown) == 2
    numbers = node.run(["slurm-adopt", "metrics"]).stdout
    assert 'slurm_adopt_would_deny_total{reason="no-job",enforce="no"} ' in numbers
    assert not events


def test_enforce__no_lets_everybody_past_and_adopts_nobody(node: Node) -> None:
    line = "required pam_slurm_adopt.so profile=strict enforce=no greeting=on"
    node.pam("sshd", account=[line], session=[line])
    node.submit("alice")
    job, cgroup = where(node, "alice")
    assert job == ""
    assert "job_" not in cgroup
    assert node.ssh("bob").returncode == 0


def test_enforce__adopt_adopts_and_refuses_nobody(node: Node) -> None:
    line = "required pam_slurm_adopt.so profile=strict enforce=adopt"
    node.pam("sshd", account=[line], session=[line])
    job = node.submit("alice")
    found, cgroup = where(node, "alice")
    assert found == str(job)
    assert f"job_{job}" in cgroup
    mark = node.log_mark()
    bob = node.ssh("bob")
    assert (bob.returncode, bob.stderr) == (0, "")
    assert any("verdict=deny reason=no-job enforce=adopt user=bob" in line for line in node.log_since(mark))


@pytest.mark.parametrize("enforce", ["no", "adopt"])
def test_enforce__a_missing_helper_refuses_nobody(node: Node, enforce: str) -> None:
    line = f"required pam_slurm_adopt.so profile=strict enforce={enforce}"
    node.pam("sshd", account=[line], session=[line])
    node.run("mv /usr/libexec/slurm-adopt/helper /usr/libexec/slurm-adopt/away")
    try:
        mark = node.log_mark()
        assert node.ssh("alice").returncode == 0
        said = [line for line in node.log_since(mark) if "reason=helper-unreachable" in line]
    finally:
        node.run("mv /usr/libexec/slurm-adopt/away /usr/libexec/slurm-adopt/helper")
    assert said
    assert all(f"verdict=deny reason=helper-unreachable enforce={enforce} " in line for line in said)
