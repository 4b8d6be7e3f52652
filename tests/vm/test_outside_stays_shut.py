# SPDX-License-Identifier: Apache-2.0
"""What a user could try to leave the job with systemd, cgroup v2, and the sockets that systemd opens for sshd."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from lab.machine import wait_for
from lab.matrix_targets import VmTarget

STRICT = "required pam_slurm_adopt.so profile=strict timeout=60"
REFUSE = f"{STRICT} user_manager=refuse"
UNIX_SOCKET = "/run/ssh-unix-local/socket"
MARK = "/run/slurm-adopt/refused/1501"
#: Left behind by a login; when logind has forgotten the user, it has the manager started by lingering.
LINGER = """
exec >/home/alice/linger.log 2>&1 </dev/null
while loginctl list-users --no-legend | grep -q alice; do sleep 1; done
loginctl enable-linger alice
for i in $(seq 20); do
  [ "$(systemctl is-active user@1501.service)" = active ] && XDG_RUNTIME_DIR=/run/user/1501 systemd-run --user -q sleep 77777
  sleep 1
done
echo over
"""


@pytest.fixture
def alice(vm: VmTarget) -> Iterator[VmTarget]:
    yield vm
    vm.run(
        f"loginctl disable-linger alice; rm -f {MARK} /home/alice/linger.log; pkill -KILL -u alice; true", check=False
    )


def where(text: str) -> str:
    return next((line for line in text.splitlines() if line.startswith("/")), "")


def test_outside__a_lingering_manager_does_not_start(alice: VmTarget) -> None:
    alice.pam(account=[STRICT], session=[REFUSE])
    alice.write("/home/alice/linger.sh", LINGER, 0o755)
    job = alice.submit("alice")
    alice.ssh_login("alice", "setsid bash /home/alice/linger.sh > /dev/null 2>&1 < /dev/null &", check=True)
    wait_for(
        lambda: "over" in alice.run("cat /home/alice/linger.log", check=False).stdout, "the attempt to end", 300, 1
    )
    assert alice.run("systemctl is-active user@1501.service", check=False).stdout.strip() != "active"
    assert alice.run("pgrep -u alice -fx 'sleep 77777'", check=False).returncode != 0
    alice.cancel(job)
    left = alice.run("ps -u alice -o args=", check=False).stdout
    assert left.strip() == "", left


def test_outside__nobody_starts_a_refused_manager(alice: VmTarget) -> None:
    """Not cron, su or root by hand either, as long as the mark is there; afterwards it starts as ever."""
    alice.pam(account=[STRICT], session=[REFUSE])
    alice.submit("alice")
    alice.ssh_login("alice", "true", check=True)
    alice.run("systemctl start user@1501.service", check=False)
    assert alice.run("systemctl is-active user@1501.service", check=False).stdout.strip() != "active"
    alice.run(f"rm {MARK}; systemctl start user@1501.service; systemctl is-active user@1501.service")
    alice.run("systemctl stop user@1501.service")


@pytest.mark.parametrize(("session", "admitted"), [([], False), ([STRICT], True)], ids=["account", "both"])
def test_outside__sshd_on_a_unix_socket(alice: VmTarget, session: list[str], admitted: bool) -> None:
    if alice.run(f"test -S {UNIX_SOCKET}", check=False).returncode:
        pytest.skip("this systemd opens no unix socket for sshd")
    alice.pam(account=[STRICT], session=session)
    job = alice.submit("alice")
    alice.write("/root/unix_client.py", UNIX_CLIENT)
    proxy = "-o ProxyCommand='python3 /root/unix_client.py'"
    mark = alice.log_mark()
    done = alice.run(f"ssh -o BatchMode=yes {proxy} alice@vm cut -d: -f3 /proc/self/cgroup", check=False)
    assert (done.returncode == 0) == admitted, done.stderr
    if admitted:
        assert where(done.stdout) == f"/system.slice/vm_slurmstepd.scope/job_{job}/step_extern/user/task_0"
    else:
        assert any("reason=adopt-failed" in line and "session-escapes" in line for line in alice.log_since(mark))


UNIX_CLIENT = f"""
import os, socket, threading
server = socket.socket(socket.AF_UNIX)
server.connect("{UNIX_SOCKET}")
def send():
    while data := os.read(0, 65536):
        server.sendall(data)
    server.shutdown(socket.SHUT_WR)
threading.Thread(target=send, daemon=True).start()
while data := server.recv(65536):
    os.write(1, data)
"""


def test_outside__what_session_modules_have_started_is_taken_along(alice: VmTarget) -> None:
    script = "#!/bin/sh\n[ $PAM_TYPE = open_session ] || exit 0\nsetsid sleep 66666 > /dev/null 2>&1 < /dev/null &\n"
    alice.write("/root/leave.sh", script, 0o755)
    alice.pam(account=[STRICT], session=["optional pam_exec.so quiet /root/leave.sh", STRICT])
    job = alice.submit("alice")
    alice.ssh_login("alice", "true", check=True)
    pid = alice.run("pgrep -fx 'sleep 66666'").stdout.strip()
    found = alice.run(f"cut -d: -f3 /proc/{pid}/cgroup").stdout
    alice.run(f"kill -KILL {pid}")
    assert f"/job_{job}/step_extern/user" in found


@pytest.mark.parametrize("mode", ["oneshot", "service"])
def test_outside__a_suspended_job_takes_no_login(alice: VmTarget, mode: str) -> None:
    """cgroup v2: the step is frozen by cgroup.freeze."""
    if mode == "service":
        alice.run("systemctl start slurm-adopt.socket")
    alice.pam(account=[f"{STRICT} mode={mode}"], session=[f"{STRICT} mode={mode}"])
    job = alice.submit("alice")
    alice.run(f"scontrol suspend {job}")
    try:
        mark = alice.log_mark()
        assert alice.ssh_login("alice", "true").returncode
        # this sshd shows a refused account phase no text with public keys
        assert any("verdict=deny reason=job-suspended user=alice" in line for line in alice.log_since(mark))
        assert "suspended" in alice.run("slurm-adopt jobs", user="alice").stdout
    finally:
        alice.run(f"scontrol resume {job}")
        alice.run("systemctl stop slurm-adopt.socket slurm-adopt.service", check=False)
    alice.pam(account=[STRICT], session=[STRICT])
    alice.ssh_login("alice", "true", check=True)
