# SPDX-License-Identifier: Apache-2.0
"""R-35: in enforcing mode our policy module is enough, and none of its rules is missing or denied in silence."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from lab import matrix
from lab.matrix import Setup
from lab.matrix_targets import VmTarget

OURS = Setup("ours", session_line=True, systemd=False)


@pytest.fixture(autouse=True)
def _put_back(vm: VmTarget) -> Iterator[None]:
    yield
    vm.cancel_all()


def denials(vm: VmTarget, mark: str) -> list[str]:
    """What the kernel refused to our domain, or to sshd."""
    lines = vm.log_since(mark)
    return [
        line for line in lines if "avc:" in line and "denied" in line and ("slurm_adopt" in line or "sshd_t" in line)
    ]


def test_selinux_enforcing__the_machine_is_what_we_believe(vm: VmTarget) -> None:
    assert vm.run("getenforce").stdout.strip() == "Enforcing"
    assert "sshd_t" in vm.run("ps -o label= -C sshd").stdout
    assert "slurm_adopt_exec_t" in vm.run("ls -Z /usr/libexec/slurm-adopt/helper").stdout
    assert "slurm_adopt" in vm.run("semodule -l").stdout


@pytest.mark.parametrize("method", matrix.METHODS)
def test_selinux_enforcing__alice_is_put_into_her_job(vm: VmTarget, method: str) -> None:
    matrix.apply(vm, OURS)
    mark = vm.log_mark()
    (outcome,) = matrix.play(vm, [(method, "command")])
    assert outcome.contained, outcome
    assert denials(vm, mark) == []


def test_selinux_enforcing__bob_has_no_job_and_is_told(vm: VmTarget) -> None:
    matrix.apply(vm, OURS)
    mark = vm.log_mark()
    done = vm.ssh_login("bob", "true")
    assert done.returncode != 0
    assert "job" in done.stderr + done.stdout
    assert denials(vm, mark) == []


def test_selinux_enforcing__with_pam_systemd(vm: VmTarget) -> None:
    matrix.apply(vm, Setup("ours", session_line=True, systemd=True))
    mark = vm.log_mark()
    (outcome,) = matrix.play(vm, [("publickey", "command")])
    assert outcome.contained, outcome
    assert [line for line in denials(vm, mark) if "slurm_adopt" in line] == []


def test_selinux_enforcing__the_original_is_refused(vm: VmTarget) -> None:
    """Not for want of its own policy module: Slurm provides text to paste. This shows that enforcing is in force."""
    matrix.apply(vm, Setup("original", session_line=False, systemd=False))
    vm.submit("alice")
    assert vm.ssh_login("alice", "true").returncode != 0
