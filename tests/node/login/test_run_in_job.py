# SPDX-License-Identifier: Apache-2.0
"""PrologFlags=RunInJob (24.05 and later): the extern step takes logins while the prolog still runs; ours wait."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from lab.machine import wait_for
from lab.node import Node
from lab.product import STRICT, use_product, use_strict_lines

PROLOG = "#!/bin/sh\nwhile [ ! -e /tmp/go ]; do sleep 0.1; done\n"


@pytest.fixture(scope="module", params=["trixie", "forky"])
def node(request: pytest.FixtureRequest) -> Iterator[Node]:
    settings = {"Prolog": "/etc/slurm/prolog.sh", "PrologFlags": "Contain,RunInJob"}
    with Node(suite=request.param, slurm=settings) as node:
        use_product(node)
        node.write("/etc/slurm/prolog.sh", PROLOG, 0o755)
        yield node
        node.run(["touch", "/tmp/go"])


@pytest.mark.releases
def test_run_in_job__a_login_waits_for_the_prolog(node: Node) -> None:
    job = node.sbatch("alice")
    wait_for(lambda: node.extern_socket(job), "the extern step")
    wait_for(lambda: any("prolog.sh" in one.command for one in node.processes(0)), "the prolog")
    use_strict_lines(node, f"{STRICT} prolog_wait=0")
    refused = node.ssh("alice", "true")
    assert refused.returncode
    assert "still starting" in refused.stderr
    use_strict_lines(node, f"{STRICT} prolog_wait=30 timeout=40")
    login = node.ssh_popen("alice", "echo in $SLURM_JOB_ID")
    node.run(["touch", "/tmp/go"])
    said = login.communicate(timeout=60)[0]
    assert f"in {job}" in said
