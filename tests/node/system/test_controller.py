# SPDX-License-Identifier: Apache-2.0
"""slurmctld is asked when a job ends, over the wire; real slurmctld and munged."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator

import pytest
from tests.releases import SUITES, suite_name

from lab.node import Node
from lab.product import use_product

#: Runs in the node, with the product as it is installed there.
ASK = """
import json, sys, time
sys.path.insert(0, "/usr/lib/slurm-adopt")
from slurm_adopt.system.rpc.controller import controllers_of, query_end
from slurm_adopt.system.rpc.munge import MungeWorkers
from slurm_adopt.system.slurm.conf import read_slurm_conf
from slurm_adopt.system.tasks.task import run
conf = read_slurm_conf()
version = int(sys.argv[1]) << 8
answers = [run(query_end(conf, MungeWorkers(), version, int(job), time.monotonic_ns() + 4 * 10**9)) for job in sys.argv[2:]]
print(json.dumps([controllers_of(conf), answers]))
"""
#: Protocol versions of the releases: 22.05 is 38.
VERSIONS = {(20, 11): 36, (22, 5): 38, (24, 11): 42, (26, 5): 45}


@pytest.fixture(
    scope="module",
    params=SUITES,
    ids=suite_name,
)
def node(request: pytest.FixtureRequest) -> Iterator[Node]:
    with Node(suite=request.param, slurm={"PrivateData": "jobs"}) as node:
        use_product(node)
        node.write("/etc/lab/ask.py", ASK)
        yield node


def ask(node: Node, *jobs: int) -> tuple[list[list[object]], list[int | None]]:
    version = VERSIONS[node.slurm_release]
    said = node.run(["python3", "-I", "-S", "/etc/lab/ask.py", str(version), *map(str, jobs)], timeout=60).stdout
    controllers, answers = json.loads(said)
    return controllers, answers


def test_controller__when_jobs_end(node: Node) -> None:
    limited, endless = node.submit("alice", time=10), node.submit("bob")
    asked_s = time.time()
    controllers, (end_s, far_s, unknown) = ask(node, limited, endless, 999_999)
    assert controllers == [[node.hostname, 6817]]
    if node.slurm_release < (22, 5):
        # root's credential could be used for another message there: nobody is asked
        assert (end_s, far_s, unknown) == (None, None, None)
        return
    assert end_s is not None
    assert far_s is not None
    assert 0 < end_s - asked_s <= 600
    assert far_s - asked_s > 300 * 86400
    assert unknown == 0


def test_controller__that_is_gone(node: Node) -> None:
    node.slurmctld.stop()
    try:
        assert ask(node, 1)[1] == [None]
    finally:
        node.slurmctld.start()
        node.wait_idle()
