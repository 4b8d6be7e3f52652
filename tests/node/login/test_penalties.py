# SPDX-License-Identifier: Apache-2.0
"""OpenSSH 9.8 and later shut out for a while whole machines from which logins fail, and a refusal by PAM is one.

The node's sshds have that switched off; those of this test have what sshd does by itself, and what the guide advises.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from lab.node import Node
from lab.product import use_product

pytestmark = pytest.mark.releases
#: From where all logins of this test come.
HERE = "127.0.0.0/8"
PLAIN, EXEMPT, NO_PENALTY, OTHERS = 2211, 2212, 2213, 2214
SETTINGS = {
    PLAIN: ["PerSourcePenalties yes"],
    EXEMPT: ["PerSourcePenalties yes", f"PerSourcePenaltyExemptList {HERE},::1/128"],
    NO_PENALTY: ["PerSourcePenalties authfail:0s"],
    OTHERS: ["PerSourcePenalties yes", "PerSourcePenaltyExemptList 192.0.2.0/24"],
}
#: An authentication that failed counts five seconds, and from fifteen on sshd turns the machine away.
LOOP = 5


@pytest.fixture(scope="module", params=["trixie"])
def machine(request: pytest.FixtureRequest) -> Iterator[Node]:
    with Node(suite=request.param) as node:
        use_product(node)
        node.submit("alice")
        yield node


@pytest.mark.parametrize(("port", "shut_out"), [(PLAIN, True), (OTHERS, True), (EXEMPT, False), (NO_PENALTY, False)])
def test_penalties__one_users_loop_and_another_users_login(machine: Node, port: int, shut_out: bool) -> None:
    """bob has no job and tries it again and again; alice has one, and comes from the same login node."""
    machine.sshd(f"penalties-{port}", port, SETTINGS[port])
    assert machine.ssh("alice", "echo in", port=port).stdout == "in\n"
    for _ in range(LOOP):
        assert machine.ssh("bob", "echo in", port=port).returncode != 0
    done = machine.ssh("alice", "echo in", port=port)
    assert (done.stdout != "in\n") == shut_out, done
    if shut_out:
        assert "penalty: failed authentication" in machine.read(f"/run/lab/sshd-penalties-{port}.log")
