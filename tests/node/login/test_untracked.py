# SPDX-License-Identifier: Apache-2.0
"""proctrack/linuxproc: slurmstepd takes a login in and can hold nothing of it. Nobody is told that it could."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from lab.node import Node
from lab.product import STRICT, use_product

DEFAULT = "required pam_slurm_adopt.so"
SETTINGS = {
    "ProctrackType": "proctrack/linuxproc",
    "TaskPlugin": "task/affinity",
    "JobAcctGatherType": "jobacct_gather/linux",
}


@pytest.fixture(scope="module")
def untracked(request: pytest.FixtureRequest) -> Iterator[Node]:
    with Node(request.config.getoption("--suite"), slurm=SETTINGS) as node:
        use_product(node)
        node.submit("alice")
        yield node


@pytest.mark.parametrize(("line", "verdict"), [(STRICT, "deny"), (DEFAULT, "allow")], ids=["strict", "default"])
def test_untracked__strict_refuses_and_says_why(untracked: Node, line: str, verdict: str) -> None:
    untracked.pam("sshd", account=[line])
    mark = untracked.log_mark()
    done = untracked.ssh("alice", "cat /proc/self/cgroup")
    log = "\n".join(untracked.log_since(mark))
    assert (done.returncode == 0) == (verdict == "allow"), log
    assert "step_extern" not in done.stdout
    assert re.search(rf"verdict={verdict} .*failed=\d+:step-untracked .*ProctrackType=proctrack/linuxproc", log), log
