# SPDX-License-Identifier: Apache-2.0
"""What the original C module does on cgroup v2 with systemd: the weaknesses this project is there for.

If one of these fails, the original has changed, and our documentation with it has to.
"""

from __future__ import annotations

import pytest

from lab import matrix
from lab.matrix import Setup
from lab.matrix_targets import VmTarget


def play(vm: VmTarget, setup: Setup, *logins: tuple[str, str]) -> list[matrix.Outcome]:
    matrix.apply(vm, setup)
    return matrix.play(vm, logins)


def test_original__publickey_is_adopted(vm: VmTarget) -> None:
    (outcome,) = play(vm, Setup("original", session_line=False, systemd=False), ("publickey", "command"))
    assert outcome.contained, outcome
    assert outcome.user[0].path() == f"/system.slice/vm_slurmstepd.scope/job_{outcome.job_id}/step_extern/user/task_0"


@pytest.mark.parametrize("systemd", [False, True])
def test_original__keyboard_interactive_stays_outside(vm: VmTarget, systemd: bool) -> None:
    """It says "adopted", and the session is outside and outlives the job."""
    mark = vm.log_mark()
    (outcome,) = play(vm, Setup("original", session_line=False, systemd=systemd), ("keyboard-interactive", "command"))
    assert outcome.opened
    assert not outcome.user_inside
    assert not outcome.sshd_inside
    assert {process.name for process in outcome.left} == {"sleep", "sshd-session"}
    assert any("adopted" in line for line in vm.log_since(mark))


def test_original__pam_systemd_takes_the_session_out(vm: VmTarget) -> None:
    """pam_systemd moves the session out of the job, and nothing puts it back."""
    (outcome,) = play(vm, Setup("original", session_line=False, systemd=True), ("publickey", "command"))
    assert outcome.opened
    assert outcome.user[0].path().startswith("/user.slice/user-1501.slice/session-")
    assert not outcome.sshd_inside
    assert outcome.left
