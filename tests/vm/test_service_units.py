# SPDX-License-Identifier: Apache-2.0
"""The resident service gives sessions the job's limits with no more rights than its unit leaves it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from lab.machine import wait_for
from lab.matrix_targets import VmTarget

SWITCH = "/sys/kernel/rcu_expedited"
LINE = "required pam_slurm_adopt.so profile=strict mode=service timeout=60"
PAM_LIMITS = "/etc/security/limits.d/lab.conf"
SLURMD_DROP_IN = "/run/systemd/system/slurmd.service.d/lab.conf"
NOFILE, JOB_NOFILE = 1234, 54321


@pytest.fixture
def service(vm: VmTarget) -> Iterator[VmTarget]:
    """slurmd's jobs have a hard limit that is far above what pam_limits leaves a login."""
    vm.write(PAM_LIMITS, f"alice - nofile {NOFILE}\nalice - memlock 64\nalice - core 0\n")
    vm.write(SLURMD_DROP_IN, f"[Service]\nLimitNOFILE={JOB_NOFILE}\nLimitMEMLOCK=infinity\nLimitCORE=infinity\n")
    vm.run("systemctl daemon-reload; systemctl restart slurmd; systemctl start slurm-adopt.socket")
    yield vm
    vm.cancel_all()
    vm.run(f"systemctl stop slurm-adopt.socket slurm-adopt.service; rm -f {PAM_LIMITS} {SLURMD_DROP_IN}")
    vm.run("systemctl daemon-reload; systemctl restart slurmd")


def hard_limits(text: str) -> dict[str, str]:
    """The hard limits in the text of a /proc/PID/limits, by their names."""
    return {line[:26].strip(): line[26:].split()[1] for line in text.splitlines()[1:]}


def test_service_units__rlimits_job_raises_hard_limits(service: VmTarget) -> None:
    service.submit("alice", "exec sleep 54322")
    find = "pgrep -u alice -fx 'sleep 54322'"
    wait_for(lambda: service.run(find, check=False).stdout, "the job's task", 60, 0.5)
    job = hard_limits(service.run(f"cat /proc/$({find})/limits").stdout)
    assert (job["Max open files"], job["Max locked memory"]) == (str(JOB_NOFILE), "unlimited")
    service.pam(account=[LINE], session=[LINE], systemd=False)
    before = hard_limits(service.ssh_login("alice", "cat /proc/self/limits", check=True).stdout)
    assert (before["Max open files"], before["Max locked memory"]) == (str(NOFILE), str(64 * 1024))

    service.pam(account=[f"{LINE} rlimits=job"], session=[f"{LINE} rlimits=job"], systemd=False)
    mark = service.log_mark()
    assert hard_limits(service.ssh_login("alice", "cat /proc/self/limits", check=True).stdout) == job
    log = [line for line in service.log_since(mark) if "reason=" in line]
    assert log
    assert not any("could not be raised" in line for line in log), log
    # the service, not the helper, with the rights of its unit
    rights = service.run("systemctl show -p CapabilityBoundingSet -p NRestarts --value slurm-adopt.service").stdout
    assert rights.split("\n")[:2] in (
        ["cap_dac_read_search cap_sys_ptrace cap_sys_resource", "0"],
        ["0", "cap_dac_read_search cap_sys_ptrace cap_sys_resource"],
    )


def test_service_units__the_units_sandbox_opens_the_kernels_setting(service: VmTarget) -> None:
    """What a login has left that was killed: the service puts it right when it starts, and a hastened login does."""
    left = f"echo 75876 >{SWITCH}"
    service.submit("alice")
    service.pam(account=[f"{LINE} hasten=yes"], session=[], systemd=False)
    service.run(f"systemctl stop slurm-adopt.service; {left}; systemctl start slurm-adopt.service")
    wait_for(lambda: service.read(SWITCH) == "0\n", "the service to put it right", 60, 0.5)
    service.run(left)
    assert service.ssh_login("alice", "true", check=True).returncode == 0
    wait_for(lambda: service.read(SWITCH) == "0\n", "the login to put it right", 60, 0.5)
