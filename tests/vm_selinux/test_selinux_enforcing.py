# SPDX-License-Identifier: Apache-2.0
"""In enforcing mode our policy module is enough, and none of its rules is missing or denied in silence."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from lab import matrix
from lab.machine import wait_for
from lab.matrix import Setup
from lab.matrix_targets import VmTarget

OURS = Setup("ours", session_line=True, systemd=False)


AUDIT = "/var/log/audit/audit.log"
SOCKETS = "slurm-adopt.socket slurm-adopt-users.socket"
BOOLEANS = "slurm_adopt_end_user_manager={0} slurm_adopt_confine_user_manager={0}"
SERVICES = "slurm-adopt.service slurm-adopt-users.service"


@pytest.fixture(autouse=True)
def _put_back(vm: VmTarget) -> Iterator[None]:
    vm.run(f": >{AUDIT}")
    yield
    vm.cancel_all()
    vm.run(f"systemctl stop -q {SOCKETS} {SERVICES}")


def denials(vm: VmTarget) -> list[str]:
    """What the kernel has refused in this test: to our domain, or to sshd where it deals with us."""
    lines = vm.run(f"sleep 1; grep -a 'avc: *denied' {AUDIT}", check=False).stdout.splitlines()
    # pam_keyinit's keys are Debian's business: denied without us, too
    seen = {line.partition("avc:")[2] for line in lines}
    print(*sorted(seen), sep="\n")
    return [line for line in lines if ("slurm_adopt" in line or "sshd_t" in line) and "tclass=key" not in line]


def test_selinux_enforcing__the_machine_is_what_we_believe(vm: VmTarget) -> None:
    assert vm.run("getenforce").stdout.strip() == "Enforcing"
    assert "sshd_t" in vm.run("ps -o label= -C sshd").stdout
    assert "slurm_adopt_exec_t" in vm.run("ls -Z /usr/libexec/slurm-adopt/helper").stdout
    assert "slurm_adopt" in vm.run("semodule -l").stdout


@pytest.mark.parametrize("method", matrix.METHODS)
def test_selinux_enforcing__alice_is_put_into_her_job(vm: VmTarget, method: str) -> None:
    matrix.apply(vm, OURS)
    (outcome,) = matrix.play(vm, [(method, "command")])
    assert outcome.contained, outcome
    assert denials(vm) == []


def test_selinux_enforcing__bob_has_no_job(vm: VmTarget) -> None:
    matrix.apply(vm, OURS)
    mark = vm.log_mark()
    assert vm.ssh_login("bob", "true").returncode != 0
    assert any("reason=no-job user=bob" in line for line in vm.log_since(mark))
    assert denials(vm) == []


def test_selinux_enforcing__the_services(vm: VmTarget) -> None:
    """Two jobs, so that caller ID is asked; then the user's own commands, which stay in the user's domain."""
    line = "required pam_slurm_adopt.so profile=strict timeout=60 user_move=yes"
    vm.pam(account=[line], session=[line], systemd=False)
    vm.run(f"systemctl start {SOCKETS}; setsebool slurm_adopt_user_move on")
    script = "until slurm-adopt jobs >/tmp/from-a-job; do sleep 1; done; sleep 100000"
    first, second = vm.submit("alice", script), vm.submit("alice")
    command = (
        f"cut -d: -f3 /proc/self/cgroup; slurm-adopt jobs; slurm-adopt move {first}; cut -d: -f3 /proc/self/cgroup"
    )
    done = vm.ssh_login("alice", command)
    lines = done.stdout.splitlines()
    assert f"/job_{second}/step_extern/" in lines[0], done
    assert f"/job_{first}/step_extern/" in lines[-1], done
    wait_for(lambda: f"\n{first} " in vm.read("/tmp/from-a-job"), "slurm-adopt jobs in a batch script", 60, 0.5)
    labels = vm.run("ps -eo label=,args= | grep 'slurm-adopt[ ]serve'").stdout
    assert labels.count("system_u:system_r:slurm_adopt_t:s0") == 2, labels
    assert denials(vm) == []
    assert vm.run("systemctl --failed --no-legend --plain").stdout == ""
    vm.run("setsebool slurm_adopt_user_move off")


@pytest.mark.parametrize("mode", ["oneshot", "service"])
def test_selinux_enforcing__rlimits_job(vm: VmTarget, mode: str) -> None:
    vm.write("/etc/security/limits.d/lab.conf", "alice - nofile 1234\n")
    try:
        vm.run(f"systemctl start {SOCKETS}; setsebool slurm_adopt_job_limits on")
        line = f"required pam_slurm_adopt.so profile=strict timeout=60 mode={mode} rlimits=job"
        vm.pam(account=[line], session=[line], systemd=False)
        vm.submit("alice", "exec sleep 54322")
        find = "pgrep -u alice -fx 'sleep 54322'"
        wait_for(lambda: vm.run(find, check=False).stdout, "the job's task", 60, 0.5)
        look = "grep 'open files' /proc/{}/limits"
        job = vm.run(look.format(f"$({find})")).stdout
        assert job.split()[-2] != "1234", "the hard limit"
        assert vm.ssh_login("alice", look.format("self"), check=True).stdout == job
        assert denials(vm) == []
    finally:
        vm.run("rm /etc/security/limits.d/lab.conf; setsebool slurm_adopt_job_limits off")


@pytest.mark.parametrize("mode", ["oneshot", "service"])
def test_selinux_enforcing__user_manager(vm: VmTarget, mode: str) -> None:
    """With the booleans off systemd refuses, and so the session is refused; with them on there is nothing to deny."""
    vm.run(f"systemctl start {SOCKETS}; setsebool {BOOLEANS.format('off')}")
    line = f"required pam_slurm_adopt.so profile=strict timeout=60 mode={mode}"
    vm.submit("alice")
    try:
        for value in ("refuse", "confine"):
            vm.run("systemctl stop user@1501.service; systemctl revert user-1501.slice")
            vm.pam(account=[line], session=[f"{line} user_manager={value}"])
            mark = vm.log_mark()
            assert vm.ssh_login("alice", "true").returncode != 0
            assert any("verdict=deny reason=user-manager-failed" in text for text in vm.log_since(mark))
            vm.run(f": >{AUDIT}; setsebool {BOOLEANS.format('on')}")
            vm.ssh_login("alice", "true", check=True)
            assert denials(vm) == []
            vm.run(f"setsebool {BOOLEANS.format('off')}")
    finally:
        vm.run("systemctl revert user-1501.slice; rm -f /run/slurm-adopt/refused/1501")


@pytest.mark.parametrize("mode", ["oneshot", "service"])
def test_selinux_enforcing__lingering_is_undone(vm: VmTarget, mode: str) -> None:
    """Root's loginctl has switched it on; the manager that it has started ends as well."""
    vm.run(f"systemctl start {SOCKETS}; setsebool {BOOLEANS.format('on')}; loginctl enable-linger alice")
    wait_for(
        lambda: vm.run("systemctl is-active user@1501.service", check=False).stdout.strip() == "active",
        "the manager to start",
        120,
        0.5,
    )
    line = f"required pam_slurm_adopt.so profile=strict timeout=60 mode={mode}"
    vm.pam(account=[line], session=[f"{line} user_manager=refuse"])
    vm.submit("alice")
    vm.run(f": >{AUDIT}")
    try:
        vm.ssh_login("alice", "true", check=True)
        assert vm.run("ls /var/lib/systemd/linger").stdout == ""
        assert vm.run("systemctl is-active user@1501.service", check=False).stdout.strip() != "active"
        assert denials(vm) == []
    finally:
        vm.run(
            f"loginctl disable-linger alice; rm -f /run/slurm-adopt/refused/1501; setsebool {BOOLEANS.format('off')}"
        )


def test_selinux_enforcing__with_pam_systemd(vm: VmTarget) -> None:
    matrix.apply(vm, Setup("ours", session_line=True, systemd=True))
    (outcome,) = matrix.play(vm, [("publickey", "command")])
    assert outcome.contained, outcome
    assert [line for line in denials(vm) if "slurm_adopt" in line] == []


def test_selinux_enforcing__the_original_is_refused(vm: VmTarget) -> None:
    """Not for want of its own policy module: Slurm provides text to paste. This shows that enforcing is in force."""
    matrix.apply(vm, Setup("original", session_line=False, systemd=False))
    vm.submit("alice")
    assert vm.ssh_login("alice", "true").returncode != 0


def test_selinux_enforcing__hastened_moves_are_behind_a_boolean(vm: VmTarget) -> None:
    """The helper is denied in silence, then puts right what a login has left that was killed."""
    matrix.apply(vm, OURS)
    vm.submit("alice")
    for state, after in (("off", "75876\n"), ("on", "0\n")):
        vm.run(f"setsebool slurm_adopt_hasten {state}; echo 75876 >/sys/kernel/rcu_expedited")
        try:
            vm.ssh_login("alice", "true", check=True)
            assert vm.read("/sys/kernel/rcu_expedited") == after
        finally:
            vm.run("setsebool slurm_adopt_hasten off; echo 0 >/sys/kernel/rcu_expedited")
    assert denials(vm) == []


def test_selinux_enforcing__a_change_nobody_confirmed_is_taken_back(vm: VmTarget) -> None:
    """By systemd's timer, and by what runs at the next boot: both may write PAM's files, and the services may not."""
    sshd, armed = "/etc/pam.d/sshd", "systemctl is-enabled -q slurm-adopt-restore.service slurm-adopt-restore.timer"
    vm.pam()
    before, labels = vm.read(sshd), vm.run(f"ls -Z {sshd}").stdout
    enable = "slurm-adopt enable --yes --options 'profile=strict timeout=60' --minutes"
    kill = ["pkill", "-KILL", "-f", "slurm-adopt enable"]
    vm.run(f"{enable} 0.2")
    vm.run(kill)
    assert vm.read(sshd) != before
    wait_for(lambda: vm.read(sshd) == before, "the timer", 180, 1)

    # as after a boot that the change has not seen
    vm.run(f"{enable} 1000")
    vm.run(kill)
    vm.run("systemctl stop slurm-adopt-restore.timer")
    assert vm.read(sshd) != before
    pending = "/var/lib/slurm-adopt/pending"
    vm.run(f"""sed -i 's/"boot": *"[^"]*"/"boot": "another"/' {pending}; systemctl start slurm-adopt-restore.service""")
    assert vm.read(sshd) == before
    assert vm.run(f"ls -Z {sshd}").stdout == labels
    assert vm.run(armed, check=False).returncode != 0
    assert denials(vm) == []
