# SPDX-License-Identifier: Apache-2.0
"""`slurm-adopt enable` where systemd takes back what nobody has confirmed: at the next boot, and by its timer."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from lab.machine import wait_for
from lab.matrix_targets import VmTarget
from lab.sshd import ssh_argv

SSHD, MODULE = "/etc/pam.d/sshd", "/usr/lib/x86_64-linux-gnu/security/pam_slurm_adopt.so"
PENDING, LAST = "/var/lib/slurm-adopt/pending", "/var/lib/slurm-adopt/last"
UNITS = "slurm-adopt-restore.service slurm-adopt-restore.timer"
ENABLE = "slurm-adopt enable --yes --options 'profile=strict timeout=60'"


@pytest.fixture(scope="module")
def machine() -> Iterator[VmTarget]:
    """One of its own: it loses its power. The distribution's own sshd asks PAM, and starts at boot."""
    target = VmTarget(boots_again=True)
    target.up()
    try:
        target.pam()
        target.run("systemctl enable -q --now ssh.service")
        yield target
    finally:
        target.close()


@pytest.fixture
def off(machine: VmTarget) -> Iterator[VmTarget]:
    """Its sshd does not ask the module yet."""
    machine.pam()
    machine.run("sync")
    yield machine
    machine.run("slurm-adopt disable --yes --force", check=False)
    machine.run(f"systemctl disable -q --now {UNITS}; rm -rf /var/lib/slurm-adopt")


def gets_in(vm: VmTarget, user: str) -> bool:
    argv, env = ssh_argv(user, "true")
    return vm.run(argv, env=env, check=False).returncode == 0


def lose_power(vm: VmTarget) -> None:
    vm.lose_power()
    wait_for(lambda: vm.run("systemctl is-active -q ssh.service", check=False).returncode == 0, "sshd", 120, 0.5)


def is_armed(vm: VmTarget) -> bool:
    return vm.run(f"systemctl is-enabled -q {UNITS}", check=False).returncode == 0


def test_enable__power_is_lost_while_everybody_is_locked_out(off: VmTarget) -> None:
    before = off.read(SSHD)
    off.run(f"cp {MODULE} /root/kept.so; sync")
    try:
        off.run(f"echo >{MODULE}")
        off.run(f"{ENABLE} --force --minutes 1000")
        assert "pam_slurm_adopt" in off.read(SSHD)
        assert not gets_in(off, "root")
        assert is_armed(off)
        lose_power(off)
        assert off.read(SSHD) == before
        assert gets_in(off, "root")
        assert gets_in(off, "alice")
        assert "is taken back" in off.read(LAST), off.read(LAST)
        assert off.run(["test", "-e", PENDING], check=False).returncode == 1
        assert not is_armed(off)
    finally:
        off.run(f"cp /root/kept.so {MODULE}; sync")


def test_enable__what_was_confirmed_is_there_after_power_was_lost(off: VmTarget) -> None:
    off.run(f"{ENABLE} --minutes 1000")
    argv, env = ssh_argv("root", "slurm-adopt confirm")
    off.run(argv, env=env)
    after = off.read(SSHD)
    assert "pam_slurm_adopt" in after
    lose_power(off)
    assert off.read(SSHD) == after
    assert gets_in(off, "root")
    assert not gets_in(off, "alice")


def test_enable__the_timer_takes_it_back(off: VmTarget) -> None:
    before = off.read(SSHD)
    off.run(f"{ENABLE} --minutes 0.2")
    assert "pam_slurm_adopt" in off.read(SSHD)
    off.run("pkill -KILL -f 'slurm-adopt enable'")
    mark = off.log_mark()
    wait_for(lambda: off.read(SSHD) == before, "the timer", 180, 1)
    assert any("is taken back" in line for line in off.log_since(mark))
    assert not is_armed(off)
