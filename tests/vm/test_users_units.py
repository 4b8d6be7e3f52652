# SPDX-License-Identifier: Apache-2.0
"""jobs, use, move and the warnings as systemd runs them, on pure cgroup v2, with all that the units forbid."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from lab.machine import LabError, wait_for
from lab.matrix import PORTS
from lab.matrix_targets import VmTarget

LINE = "required pam_slurm_adopt.so profile=strict action_unknown=preferred greeting=on timeout=60 user_move=yes"
STEP = "/step_extern/user/task_0"
MOVE = """
sleep 1003 & setsid -f sleep 1004
slurm-adopt jobs --json
slurm-adopt move {job}
cat /proc/self/cgroup
echo moved >/tmp/users-moved
sleep 1005
"""


@pytest.fixture
def users(vm: VmTarget) -> Iterator[VmTarget]:
    vm.pam(account=[LINE], session=[LINE])
    vm.run("systemctl daemon-reload; systemctl start slurm-adopt-users.socket")
    yield vm
    vm.run("systemctl stop slurm-adopt-users.socket slurm-adopt-users.service; rm -rf /run/slurm-adopt/preferences")


def job_of(vm: VmTarget, command: str) -> str:
    """The cgroup of a process of alice's, by its command line."""
    return vm.run(f"cut -d: -f3 /proc/$(pgrep -u alice -fx '{command}')/cgroup", check=False).stdout.strip()


def test_users_units__use_and_move(users: VmTarget) -> None:
    first, second = users.submit("alice"), users.submit("alice")
    assert f"job_{second}{STEP}" in users.ssh_login("alice", "cat /proc/self/cgroup", check=True).stdout
    # the first request starts the service, which may take its time where everything is emulated
    use = ["slurm-adopt", "use", str(first)]
    wait_for(lambda: users.run(use, user="alice", check=False).returncode == 0, "the preference", 120, 1)
    assert f"job_{first}{STEP}" in users.ssh_login("alice", "cat /proc/self/cgroup", check=True).stdout
    shown = users.ssh_login("alice", None, kind="pty", input="exit\n").stdout
    assert f"you are in job {first}, the job you have chosen (also here: {second})." in shown

    users.write("/tmp/move.sh", MOVE.format(job=second), 0o755)
    users.run("rm -f /tmp/users-moved; touch /tmp/users-said; chmod 666 /tmp/users-said")
    ssh = f"ssh -p {PORTS['publickey']} alice@127.0.0.1 /tmp/move.sh >/tmp/users-said 2>&1"
    users.run(["systemd-run", "-q", "--unit=users-login", "sh", "-c", ssh])
    wait_for(lambda: users.run("test -e /tmp/users-moved", check=False).returncode == 0, "the move", 60, 0.5)
    said = users.read("/tmp/users-said")
    assert f"This login is in job {second} now" in said, said
    jobs = json.loads(said.splitlines()[0])["jobs"]
    assert {job["job"]: (job["here"], job["preferred"]) for job in jobs} == {
        first: (True, True),
        second: (False, False),
    }
    for command in ("sleep 1003", "sleep 1004", "sleep 1005"):
        assert f"/job_{second}{STEP}" in job_of(users, command), command
    users.cancel(first)
    assert f"/job_{second}{STEP}" in job_of(users, "sleep 1005")
    users.cancel(second)
    assert job_of(users, "sleep 1005") == ""
    assert "denied" not in users.run("journalctl -q -u slurm-adopt-users.service -o cat", check=False).stdout.lower()


def test_users_units__a_line_before_the_end(vm: VmTarget) -> None:
    """The resident service writes to terminals with the group tty alone."""
    drop_in = "[Service]\nExecStart=\nExecStart=/usr/bin/slurm-adopt serve --warn-before 200s\n"
    vm.write("/run/systemd/system/slurm-adopt.service.d/warn.conf", drop_in)
    vm.run("systemctl daemon-reload; systemctl start slurm-adopt.socket")
    try:
        vm.pam(account=[LINE], session=[LINE])
        vm.submit("alice")
        job = int(vm.run("sbatch --parsable -o /dev/null -n1 -t5 --wrap='sleep 1000'", user="alice", cwd="/tmp").stdout)
        wait_for(lambda: vm.run(f"squeue -h -j {job} -o %T").stdout.strip() == "RUNNING", "the job", 60, 0.5)
        vm.run(": >/tmp/warned")  # the unit that writes it may not have begun when we look
        ssh = f"ssh -tt -p {PORTS['publickey']} alice@127.0.0.1 sleep 1006 >/tmp/warned 2>&1"
        vm.run(["systemd-run", "-q", "--unit=warned-login", "sh", "-c", ssh])
        wanted = f"slurm-adopt: job {job} ends in"
        try:
            wait_for(lambda: wanted in vm.read("/tmp/warned"), "the line", 200, 1)
        except LabError as error:
            raise LabError(f"{error}; {vm.read('/tmp/warned')}; {journal(vm)}") from None
        assert vm.run("systemctl show -p User -p NRestarts --value slurm-adopt.service").stdout.split()[-1] == "0"
    finally:
        vm.run("systemctl stop slurm-adopt.socket slurm-adopt.service warned-login", check=False)
        vm.run("rm -r /run/systemd/system/slurm-adopt.service.d; systemctl daemon-reload")


def journal(vm: VmTarget) -> str:
    return vm.run("journalctl -q -u slurm-adopt.service -o cat | tail -5", check=False).stdout
