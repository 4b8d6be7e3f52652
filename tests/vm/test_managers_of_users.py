# SPDX-License-Identifier: Apache-2.0
"""User_manager= with systemd's own manager, by the one-shot helper and by the service within its unit."""

from __future__ import annotations

import base64
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab.machine import wait_for
from lab.matrix import PORTS
from lab.matrix_targets import VmTarget

UNIT = "/home/alice/.config/systemd/user/lab-unit.service"
SLICE = "/sys/fs/cgroup/user.slice/user-1501.slice"
HOOKS = "/usr/libexec/slurm-adopt/hooks"
CONF = "/run/lab-slurm-conf"
REAL = "/usr/local/lib/lab-systemctl"

#: For a file: what stands in a unit's command line is systemd's to expand.
TRY = """
systemctl --user is-system-running 2>&1
systemctl --user start lab-unit 2>&1
systemd-run --user --scope true 2>&1
systemctl start user@1501.service 2>&1
busctl call org.freedesktop.systemd1 /org/freedesktop/systemd1 org.freedesktop.systemd1.Manager \\
    AttachProcessesToUnit ssau user@1501.service "" 1 $$ 2>&1
echo "cgroup=$(cut -d: -f3 /proc/self/cgroup)"
echo "session=$(loginctl show-session $XDG_SESSION_ID -p Active --value)"
echo "dir=$(stat -c '%U %a' /run/user/1501) $(touch $XDG_RUNTIME_DIR/probe && echo writable)"
"""


@pytest.fixture(params=["oneshot", "service"])
def mode(vm: VmTarget, request: pytest.FixtureRequest) -> Iterator[str]:
    vm.write(UNIT, "[Service]\nExecStart=/bin/sleep 54321\n[Install]\nWantedBy=default.target\n")
    vm.write("/tmp/try.sh", TRY, 0o755)
    vm.run("mkdir -p /home/alice/.config/systemd/user/default.target.wants; cd /home/alice/.config/systemd/user; "
           "ln -sf ../lab-unit.service default.target.wants; chown -R alice: /home/alice/.config")  # fmt: skip
    if request.param == "service":
        vm.run("systemctl start slurm-adopt.socket")
    yield request.param
    vm.run("systemctl stop slurm-adopt.socket slurm-adopt.service; rm -r /home/alice/.config")
    forget_refusals(vm)


def forget_refusals(vm: VmTarget) -> None:
    """As the epilog hook does it after a user's last job."""
    vm.run("rm -rf /run/slurm-adopt/refused")


def use_lines(vm: VmTarget, mode: str, user_manager: str, timeout_s: int = 60, profile: str = "strict") -> None:
    line = f"required pam_slurm_adopt.so profile={profile} mode={mode} timeout={timeout_s}"
    vm.pam(account=[line], session=[f"{line} user_manager={user_manager}"])


def facts_of(text: str) -> dict[str, str]:
    return dict(line.split("=", 1) for line in text.splitlines() if line.partition("=")[0].isalpha() and "=" in line)


def unit_runs(vm: VmTarget) -> bool:
    return vm.run("pgrep -u alice -fx '/bin/sleep 54321'", check=False).returncode == 0


def test_user_manager__refuse(vm: VmTarget, mode: str) -> None:
    """The session is logind's and has its directory, but nothing can be started through the manager, or moved to it."""
    use_lines(vm, mode, "refuse")
    job = vm.submit("alice")
    mark = vm.log_mark()
    said = vm.ssh_login("alice", "/tmp/try.sh", check=True).stdout
    facts = facts_of(said)
    assert facts["cgroup"] == f"/system.slice/vm_slurmstepd.scope/job_{job}/step_extern/user/task_0", said
    assert (facts["session"], facts["dir"]) == ("yes", "alice 700 writable"), said
    assert vm.run("systemctl is-active user@1501.service", check=False).stdout.strip() == "inactive"
    assert not unit_runs(vm), "what the manager had started by itself"
    assert any("user_manager=held" in line and "phase=open_session" in line for line in vm.log_since(mark))
    vm.cancel_all()
    wait_for(lambda: vm.run("loginctl list-sessions --no-legend").stdout == "", "logind to drop the session", 120, 0.5)
    wait_for(lambda: vm.run("test ! -e /run/user/1501", check=False).returncode == 0, "/run/user/1501 to go", 120, 0.5)


def test_user_manager__refuse_for_several_logins_at_once(vm: VmTarget, mode: str) -> None:
    """The manager that one login ends, another's pam_systemd may just be waiting for."""
    use_lines(vm, mode, "refuse")
    vm.submit("alice")
    ssh = f"ssh -p {PORTS['publickey']} alice@127.0.0.1 'echo session=$XDG_SESSION_ID'"
    said = vm.run(f"for i in 1 2 3 4; do {ssh} & done; wait").stdout.splitlines()
    assert len({line for line in said if line.startswith("session=") and line != "session="}) == 4, said
    assert vm.run("systemctl is-active user@1501.service", check=False).stdout.strip() == "inactive"


def put_systemctl(vm: VmTarget, hangs: int, folder: Path) -> None:
    """Root's systemctl does nothing from now on, or never ends."""
    built = folder / "systemctl"
    flags = ["-static", f'-DREAL="{REAL}"', f"-DHANGS={hangs}"]
    subprocess.run(["cc", *flags, "-o", built, Path(__file__).with_name("systemctl.c")], check=True)
    vm.write(f"{REAL}.text", base64.b64encode(built.read_bytes()).decode())
    vm.run(f"cp /usr/bin/systemctl {REAL}; base64 -d {REAL}.text >{REAL}.stand-in; chmod 755 {REAL}.stand-in")
    vm.run(f"mount --bind {REAL}.stand-in /usr/bin/systemctl")


@pytest.mark.parametrize(("hangs", "said"), [(0, "still runs"), (1, "in time")], ids=["useless", "hung"])
@pytest.mark.parametrize("mode", ["oneshot"], indirect=True)
def test_user_manager__a_manager_that_cannot_be_ended(
    vm: VmTarget, mode: str, hangs: int, said: str, tmp_path: Path
) -> None:
    """Decided, not accidental: with deny the session is refused, else the log says so."""
    vm.submit("alice")
    forget_refusals(vm)
    put_systemctl(vm, hangs, tmp_path)
    try:
        use_lines(vm, mode, "refuse", 20)
        mark = vm.log_mark()
        done = vm.ssh_login("alice", "echo in")
        log = vm.log_since(mark)
        assert (done.returncode != 0, "in" in done.stdout.splitlines()) == (True, False), (
            log,
            vm.run("journalctl --no-pager -o short-precise -n 60 -u user@1501.service -u systemd-logind").stdout,
        )
        verdicts = [line for line in log if "verdict=" in line]
        assert any("verdict=deny reason=user-manager-failed" in line and said in line for line in verdicts), verdicts
        use_lines(vm, mode, "refuse", 20, "compatible")
        forget_refusals(vm)
        mark = vm.log_mark()
        assert vm.ssh_login("alice", "echo in", check=True).stdout == "in\n"
        assert any("user_manager=user-manager-failed" in line for line in vm.log_since(mark))
        # nobody else is concerned
        vm.submit("bob")
        assert vm.ssh_login("bob", "echo in", check=True).stdout == "in\n"
    finally:
        vm.run(f"umount /usr/bin/systemctl; rm {REAL}*")


@pytest.fixture
def with_memory(vm: VmTarget) -> Iterator[None]:
    """Jobs have memory, and the epilog hook runs."""
    vm.run(f"cp -a /etc/slurm {CONF}; cd /etc/slurm; sed -i s/ConstrainRAMSpace=no/ConstrainRAMSpace=yes/ cgroup.conf; "
           "sed -i s/^SelectTypeParameters=.*/SelectTypeParameters=CR_Core_Memory/ slurm.conf; "
           f"printf 'Epilog={HOOKS}/epilog\nProlog={HOOKS}/prolog\n' >>slurm.conf")  # fmt: skip
    restart_slurm(vm)
    yield
    vm.cancel_all()
    vm.run(f"cp -a {CONF}/. /etc/slurm; rm -r {CONF}")
    restart_slurm(vm)


def restart_slurm(vm: VmTarget) -> None:
    vm.run("systemctl restart slurmctld slurmd")
    wait_for(lambda: vm.run("sinfo -h -o %T", check=False).stdout.strip() in ("idle", "mixed"), "slurmd", 120, 0.5)


def submit(vm: VmTarget, memory_mb: int) -> int:
    argv = ["sbatch", "--parsable", "-o", "/dev/null", "-n1", f"--mem={memory_mb}", "--wrap=sleep 100000"]
    job = int(vm.run(argv, user="alice", cwd="/tmp").stdout)
    check = f"squeue -h -j {job} -o %T | grep -qx RUNNING && test -S /var/spool/slurmd/vm_{job}.4294967292"
    wait_for(lambda: vm.run(check, check=False).returncode == 0, f"job {job} to run", 120, 0.3)
    return job


def limits(vm: VmTarget, folder: str) -> tuple[str, str]:
    cpus, memory = vm.run(f"cat {folder}/cpuset.cpus.effective {folder}/memory.max").stdout.split()
    return cpus, memory


def test_user_manager__confine(vm: VmTarget, mode: str, with_memory: None) -> None:
    use_lines(vm, mode, "confine")
    first = submit(vm, 100)
    ssh = [
        "systemd-run",
        "-q",
        "--collect",
        "ssh",
        "-p",
        str(PORTS["publickey"]),
        "alice@127.0.0.1",
        "exec sleep 12346",
    ]
    vm.run(ssh)
    there = "test $(pgrep -u alice -fx 'sleep 12346' | wc -l) = {}"
    wait_for(lambda: vm.run(there.format(1), check=False).returncode == 0, "the session", 120, 0.5)
    folder = f"/sys/fs/cgroup/system.slice/vm_slurmstepd.scope/job_{first}"
    assert limits(vm, folder)[1] == str(100 << 20)
    assert limits(vm, SLICE) == limits(vm, folder)
    assert vm.run("grep -h '=[0-9]' /run/systemd/system.control/user-1501.slice.d/50-MemoryMax.conf").stdout
    assert unit_runs(vm), "the manager and what it starts live on"

    # with a second job there is more, and when that one ends, less again
    second = submit(vm, 50)
    vm.run(ssh)
    wait_for(lambda: vm.run(there.format(2), check=False).returncode == 0, "the second session", 120, 0.5)
    assert limits(vm, SLICE)[1] == str(150 << 20)
    vm.cancel(second)
    wait_for(lambda: limits(vm, SLICE) == limits(vm, folder), "the epilog to take it back", 120, 0.5)
    assert unit_runs(vm)

    # the manager ends with the last job, and nothing is left for those who come later
    vm.cancel(first)
    wait_for(lambda: not vm.run("pgrep -u alice", check=False).stdout, "all of the user's processes to end", 120, 0.5)
    lifted = "! grep -q '=[0-9]' /run/systemd/system.control/user-1501.slice.d/50-*.conf"
    wait_for(lambda: vm.run(lifted, check=False).returncode == 0, "the limits to be lifted", 120, 0.5)
