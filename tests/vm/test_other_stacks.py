# SPDX-License-Identifier: Apache-2.0
"""Where logind is masked, and where sshd's stack is the vendor's: a login is in its job as it is with Debian's files."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from lab.matrix_targets import VmTarget

STRICT = "required pam_slurm_adopt.so profile=strict timeout=60"
SHOW = "cut -d: -f3 /proc/self/cgroup"
VENDORS = "/usr/lib/pam.d"


def folder_of(job: int) -> str:
    return f"/system.slice/vm_slurmstepd.scope/job_{job}/step_extern/user/task_0\n"


@pytest.fixture
def without_logind(vm: VmTarget) -> Iterator[VmTarget]:
    vm.run("systemctl mask systemd-logind; systemctl stop systemd-logind")
    yield vm
    vm.run("systemctl unmask systemd-logind; systemctl start systemd-logind")


@pytest.mark.parametrize("method", ["publickey", "keyboard-interactive"])
@pytest.mark.parametrize("session", [[], [STRICT]], ids=["account", "both"])
def test_other_stacks__logind_is_masked(without_logind: VmTarget, session: list[str], method: str) -> None:
    """pam_systemd is in the stack and moves nothing, so that the account line alone is enough."""
    vm = without_logind
    vm.pam(account=[STRICT], session=session)
    job = vm.submit("alice")
    assert vm.ssh_login("alice", SHOW, method, check=True).stdout == folder_of(job)
    vm.cancel(job)
    assert vm.run("pgrep -u alice", check=False).stdout == ""


def test_other_stacks__logind_that_runs_counts_although_it_is_masked(vm: VmTarget) -> None:
    vm.pam(account=[STRICT])
    vm.submit("alice")
    vm.run("systemctl mask systemd-logind")
    try:
        mark = vm.log_mark()
        assert vm.ssh_login("alice", "true").returncode != 0
        assert any("reason=adopt-failed" in line and "session-escapes" in line for line in vm.log_since(mark))
    finally:
        vm.run("systemctl unmask systemd-logind")


@pytest.mark.parametrize("systemd", [True, False])
def test_other_stacks__the_vendors_file(vm: VmTarget, systemd: bool) -> None:
    """libpam looks there where /etc has no file of the service; with pam_systemd the session line is needed, too."""
    vm.pam(account=[STRICT], session=[STRICT] if systemd else [], systemd=systemd)
    vm.run(f"mkdir -p {VENDORS}; mv /etc/pam.d/sshd {VENDORS}/sshd")
    try:
        job = vm.submit("alice")
        assert vm.ssh_login("alice", SHOW, check=True).stdout == folder_of(job)
        assert vm.ssh_login("bob", "true").returncode != 0
        assert vm.run("slurm-adopt doctor --json | grep -c pam-no-line", check=False).stdout == "0\n"
    finally:
        vm.run(f"rm {VENDORS}/sshd")
