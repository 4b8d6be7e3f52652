# SPDX-License-Identifier: Apache-2.0
"""pam_systemd and our session line together. The session is logind's and the job's at once."""

from __future__ import annotations

import pytest

from lab import matrix
from lab.machine import wait_for
from lab.matrix import Setup
from lab.matrix_targets import VmTarget

BOTH = Setup("ours", session_line=True, systemd=True)
UNIT = "/home/alice/.config/systemd/user/lab-unit.service"

LOOK = """
sleep 3
echo "cgroup=$(cut -d: -f3 /proc/self/cgroup)"
echo "runtime_dir=$XDG_RUNTIME_DIR $(stat -c '%U %a' $XDG_RUNTIME_DIR) $(touch $XDG_RUNTIME_DIR/probe && echo writable)"
echo "listed=$(loginctl list-sessions --no-legend | awk -v s=$XDG_SESSION_ID '$1 == s { print $3 }')"
loginctl show-session $XDG_SESSION_ID -p Active -p Remote -p Service
echo "manager=$(systemctl --user is-system-running)"
systemctl --user start lab-unit.service
sleep 1
echo "unit=$(cut -d: -f3 /proc/$(pgrep -u alice -fx '/bin/sleep 54321')/cgroup)"
systemctl --user stop lab-unit.service
"""


@pytest.fixture(autouse=True)
def _unit(vm: VmTarget) -> None:
    vm.write(UNIT, "[Service]\nExecStart=/bin/sleep 54321\n")
    vm.run("chown -R alice: /home/alice/.config")


@pytest.mark.parametrize("method", ["publickey", "keyboard-interactive"])
def test_systemd_session__in_the_job_and_in_logind(vm: VmTarget, method: str) -> None:
    matrix.apply(vm, BOTH)
    job = vm.submit("alice")
    done = vm.ssh_login("alice", LOOK, method=method, check=True)
    facts = dict(line.split("=", 1) for line in done.stdout.splitlines() if "=" in line)
    assert facts["cgroup"] == f"/system.slice/vm_slurmstepd.scope/job_{job}/step_extern/user/task_0"
    assert facts["runtime_dir"] == "/run/user/1501 alice 700 writable"
    assert facts["listed"] == "alice"
    assert (facts["Active"], facts["Remote"], facts["Service"]) == ("yes", "yes", "sshd")
    assert facts["manager"] == "running"
    # what the user's systemd starts is its child, not the login's: outside the job (docs: known limits)
    assert facts["unit"] == "/user.slice/user-1501.slice/user@1501.service/app.slice/lab-unit.service"
    # logind keeps the runtime directory for ten seconds more (UserStopDelaySec=)
    wait_for(lambda: vm.run("loginctl list-sessions --no-legend").stdout == "", "logind to drop the session", 120, 0.5)
    wait_for(lambda: vm.run("test ! -e /run/user/1501", check=False).returncode == 0, "/run/user/1501 to go", 120, 0.5)


def test_systemd_session__units_of_the_user_go_with_the_job(vm: VmTarget) -> None:
    """They are outside the job, but not for longer than logind needs to notice that the session is gone."""
    matrix.apply(vm, BOTH)
    job = vm.submit("alice")
    start = "systemctl --user start lab-unit; exec sleep 12345"
    vm.run(["systemd-run", "-q", "ssh", "-p", str(matrix.PORTS["publickey"]), "alice@127.0.0.1", start])
    wait_for(lambda: vm.run("pgrep -u alice -fx '/bin/sleep 54321'", check=False).stdout, "the user's unit", 120, 0.5)
    vm.cancel(job)
    assert vm.run("pgrep -u alice -fx 'sleep 12345'", check=False).stdout == ""
    wait_for(lambda: not vm.run("pgrep -u alice", check=False).stdout, "the user's processes to go", 120, 0.5)


def test_systemd_session__no_job_no_session(vm: VmTarget) -> None:
    matrix.apply(vm, BOTH)
    done = vm.ssh_login("bob", "true")
    assert done.returncode != 0
    assert "bob" not in vm.run("loginctl list-sessions --no-legend").stdout
    assert vm.run("test ! -e /run/user/1502", check=False).returncode == 0


def test_systemd_session__account_line_alone_never_leaves_a_session_outside(vm: VmTarget) -> None:
    """Either refused or inside, but not outside: for want of a session line nothing can bring it back."""
    matrix.apply(vm, Setup("ours", session_line=False, systemd=True))
    (outcome,) = matrix.play(vm, [("publickey", "command")])
    assert not outcome.opened or outcome.contained, outcome
