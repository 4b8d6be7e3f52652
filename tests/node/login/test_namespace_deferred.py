# SPDX-License-Identifier: Apache-2.0
"""A job with namespaces and a keyboard-interactive login: sshd asks the account stack in a child that ends, so only the
session line can join them. Without one, that is a failure to adopt, not a login outside of the job's namespaces."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

import pytest
from tests.conformance.groups import ContainerNode

from lab.machine import LabError
from lab.node import Node
from lab.product import install_product

PORT = 2222
SHOWS = "readlink /proc/self/ns/mnt; grep -c step_extern /proc/self/cgroup; true"


@pytest.fixture(scope="module")
def container_node() -> Iterator[Node]:
    if os.geteuid() != 0:
        pytest.skip("an isolated node needs root")
    with contextlib.ExitStack() as stack:
        yield _container_node_with_a_job(stack)


def _container_node_with_a_job(stack: contextlib.ExitStack, attempts: int = 3) -> Node:
    """Slurm's own container plugin does not always get a job up (see ContainerNode): another node does."""
    node = stack.enter_context(ContainerNode())
    install_product(node)
    node.sshd("keyboard", PORT, ["PasswordAuthentication no", "KbdInteractiveAuthentication yes"])
    try:
        node.submit("bob")
    except LabError:
        if attempts == 1:
            raise
        return _container_node_with_a_job(stack, attempts - 1)
    return node


@pytest.mark.parametrize(
    ("account", "session", "reason", "admitted", "joined"),
    [
        ("", None, "adopt-failed-allowed", True, False),
        ("profile=strict", None, "adopt-failed", False, False),
        ("profile=strict join_container=false", None, "adopted", True, False),
        ("profile=strict", "profile=strict", "session-readopted", True, True),
    ],
    ids=["no session line", "no session line, strict", "not to be joined", "session line"],
)
def test_namespace_deferred__keyboard_interactive(
    container_node: Node, account: str, session: str | None, reason: str, admitted: bool, joined: bool
) -> None:
    node = container_node
    line = "required pam_slurm_adopt.so"
    node.pam("sshd", account=[f"{line} {account}"], session=[] if session is None else [f"{line} {session}"])
    mark = node.log_mark()
    done = node.ssh("bob", SHOWS, auth="keyboard-interactive", port=PORT)
    log = "\n".join(entry for entry in node.log_since(mark) if "verdict=" in entry)
    assert f"reason={reason} " in log, log
    assert ("namespace-deferred" in log) == reason.startswith("adopt-failed"), log
    assert ("mnt:" in done.stdout) == admitted, done
    if admitted:
        machine = os.readlink(f"/proc/{node.init_pid}/ns/mnt")
        assert (done.stdout.split()[0] != machine) == joined
        assert int(done.stdout.split()[1]) > 0, "in the job, as the kernel says"
    else:
        assert "could not be put into your job" in done.stderr
