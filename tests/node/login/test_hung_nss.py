# SPDX-License-Identifier: Apache-2.0
"""An NSS module that hangs, as nss_slurm does with a slurmstepd that is stopped: what waits for it, and what does not."""

from __future__ import annotations

import shutil
from collections.abc import Iterator

import pytest
from tests.node.login.nss_lab import HANGS, WAITS, install
from tests.node.resident.test_service import AUDIT_FILE, METRICS_FILE, Service, job_of

from lab.machine import wait_for
from lab.node import Node

OURS = "required pam_slurm_adopt.so profile=strict"
SHOW = "cat /proc/self/cgroup"

pytestmark = pytest.mark.skipif(not shutil.which("cc"), reason="needs a C compiler")


@pytest.fixture
def directory(node: Node) -> Iterator[Node]:
    """A node with it."""
    take_away = install(node)
    yield node
    take_away()


def waiting(node: Node) -> set[str]:
    """The programs that have waited."""
    return set(node.read(WAITS).split()) if node.path(WAITS).exists() else set()


@pytest.fixture
def service(node: Node) -> Iterator[Service]:
    service = Service(node)
    service.start()
    yield service
    service.stop()
    node.run(["rm", "-rf", "/run/slurm-adopt", AUDIT_FILE, METRICS_FILE])


def test_hung_nss__a_childs_question_holds_its_login_alone(directory: Node, service: Service) -> None:
    """The groups of `allow_groups=` are looked up in a child. Meanwhile the service decides other logins."""
    node = directory
    job = node.submit("alice")
    node.pam(account=[f"{OURS} mode=service timeout=60 allow_groups=ops"], session=[OURS])
    node.pam("second", account=[f"{OURS} mode=service service=second"])
    node.write(HANGS, ":slurm-adopt:")
    login = node.ssh_popen("alice", f"{SHOW}; sleep 1000")
    try:
        wait_for(lambda: "slurm-adopt" in waiting(node), "the child to wait")
        refused = node.run("pamtester second bob acct_mgmt", check=False)
        assert "you have no active jobs on this node" in refused.stdout + refused.stderr
        assert service.value("slurm_adopt_logins_total", path="resident") == 1
        node.path(HANGS).unlink()
        assert login.stdout is not None
        assert job_of(next(line for line in login.stdout if "/job_" in line)) == job
    finally:
        login.kill()
        login.communicate()
        # made after sshd's: what puts PAM files back would make it anew, and doctors of later tests would look at it
        node.run(["rm", "-f", "/etc/pam.d/second", "/run/lab/pam-second.dist"])


def test_hung_nss__sshd_waits_and_the_service_does_not(directory: Node, service: Service) -> None:
    """sshd looks the user up before it asks PAM: nobody gets in until that is over, and then everybody does."""
    node = directory
    job = node.submit("alice")
    node.pam(account=[f"{OURS} mode=service"], session=[f"{OURS} mode=service"])
    node.write(HANGS, ":sshd:")
    login = node.ssh_popen("alice", f"{SHOW}; sleep 1000")
    wait_for(lambda: "sshd" in waiting(node), "sshd to wait")
    assert service.value("slurm_adopt_logins_total") == 0
    node.path(HANGS).unlink()
    assert login.stdout is not None
    assert job_of(next(line for line in login.stdout if "/job_" in line)) == job
    login.kill()
    login.communicate()
    assert service.value("slurm_adopt_logins_total", phase="account", path="resident") == 1
