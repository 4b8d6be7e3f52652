# SPDX-License-Identifier: Apache-2.0
"""cron and at run what a user has left for later: in the user's job if the PAM line names them, else as ever."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from tests.node.resident.test_service import job_of

from lab.machine import wait_for
from lab.node import Node
from lab.product import install_product

LINE = "required pam_slurm_adopt.so profile=strict service=sshd,cron,atd"
OURS, PLAIN = "both", "neither"

pytestmark = pytest.mark.extra


@pytest.fixture(scope="module")
def node() -> Iterator[Node]:
    with Node(packages=("cron", "at")) as node:
        install_product(node)
        node.run("mkdir -m 1777 /tmp/ran; cron; atd")
        yield node


def ran(node: Node, way: str) -> dict[str, int]:
    """The job that alice's and bob's commands ran in (0: in none), by user; cron's and at's as soon as they have run."""
    node.run("rm -f /tmp/ran/*")
    command = "cat /proc/self/cgroup >/tmp/ran/$LOGNAME.new; mv /tmp/ran/$LOGNAME.new /tmp/ran/$LOGNAME"
    mark = node.log_mark()
    for user in ("alice", "bob"):
        if way == "cron":
            node.run(["crontab", "-u", user, "-"], input=f"* * * * * {command}\n")
        else:
            node.run(["at", "now"], user=user, input=f"{command}\n", env={"HOME": f"/home/{user}", "LOGNAME": user})

    def decided() -> bool:
        # whoever was refused leaves no file
        text = "\n".join(node.log_since(mark))
        return all(
            node.path(f"/tmp/ran/{user}").exists() or f"reason=no-job user={user} " in text for user in ("alice", "bob")
        )

    wait_for(decided, f"{way} to run both", timeout=180, interval=0.2)
    if way == "cron":
        node.run("crontab -u alice -r; crontab -u bob -r")
    found = [user for user in ("alice", "bob") if node.path(f"/tmp/ran/{user}").exists()]
    return {user: job_of(node.read(f"/tmp/ran/{user}")) for user in found}


@pytest.mark.parametrize("way", ["cron", "at"])
def test_cron__what_runs_later(node: Node, way: str) -> None:
    job = node.submit("alice")
    daemon = {"cron": "cron", "at": "atd"}[way]
    service = {"cron": "cron", "at": "atd"}[way]
    assert ran(node, way) == {"alice": 0, "bob": 0}
    node.pam(service, account=[LINE], session=[LINE])
    assert ran(node, way) == {"alice": job}
    (of_roots,) = [process for process in node.processes(0) if process.command == daemon]
    assert "/step_extern" not in str(of_roots.cgroups), "the daemon itself stays out"
    node.cancel(job)
    assert ran(node, way) == {}
    assert [process.command for process in node.processes(0) if process.command == daemon] == [daemon]
