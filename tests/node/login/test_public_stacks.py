# SPDX-License-Identifier: Apache-2.0
"""PAM stacks, sshds, names and hardened mounts as public configuration files have them, on a real node."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pytest
from tests.node.login.test_public_nodes import NO_JOB, doctor, job_of
from tests.node.resident.test_service import AUDIT_FILE, METRICS_FILE, Service
from tests.node.users.test_users import serve_users

from lab.machine import wait_for
from lab.node import Node

ACCOUNT = "account required pam_slurm_adopt.so profile=strict\n"
SESSION = "session required pam_slurm_adopt.so profile=strict\n"
SHOW = "cat /proc/self/cgroup"
ACCESS = "/etc/security/access.conf"


@dataclass(frozen=True)
class Stack:
    """`files` of /etc/pam.d (or with a path), `free`: who gets in without a job, `says`: what the doctor has to say."""

    files: Mapping[str, str]
    free: Sequence[str] = ()
    says: Sequence[str] = ()


RHEL = """
auth required pam_env.so
auth required pam_unix.so
account required pam_faillock.so
account required pam_unix.so
{local}account sufficient pam_usertype.so issystem
account [default=bad success=ok user_unknown=ignore] pam_unix.so
account required pam_permit.so
session optional pam_keyinit.so revoke
session required pam_limits.so
session [success=1 default=ignore] pam_succeed_if.so service in crond quiet use_uid
session required pam_unix.so
"""
SSHD = """
auth substack password-auth
account required pam_nologin.so
{before}account include password-auth
{after}session required pam_loginuid.so
session include password-auth
{session}
"""
LOCAL = "account sufficient pam_localuser.so\n"
DEBIAN = """
@include common-auth
{account}
session required pam_loginuid.so
@include common-session
{session}
"""
STACKS = {
    "rhel-behind-the-include": Stack({"password-auth": RHEL.format(local=""), "sshd": SSHD.format(before="", after=ACCOUNT, session=SESSION)}, says=["pam-expired-password"]),
    "rhel-local-users-pass-by": Stack({"password-auth": RHEL.format(local=LOCAL), "sshd": SSHD.format(before="", after=ACCOUNT, session=SESSION)}, free=["alice", "bob", "carol"], says=["pam-ends-before"]),
    "rhel-ahead-of-the-include": Stack({"password-auth": RHEL.format(local=LOCAL), "sshd": SSHD.format(before=ACCOUNT, after="", session=SESSION)}),
    "sufficient-and-then-access-conf": Stack({"sshd": DEBIAN.format(account=f"@include common-account\n{ACCOUNT.replace('required', 'sufficient')}account required pam_access.so", session=SESSION), ACCESS: "+ : root : cron crond :0 tty1\n+:(ops):ALL\n+:root:ALL\n-:ALL:ALL\n"}, free=["carol"]),
    "access-conf-ahead-by-sed": Stack({"sshd": DEBIAN.format(account=f"account sufficient pam_access.so\naccount required pam_permit.so\n-{ACCOUNT}@include common-account", session=SESSION), ACCESS: "+:(ops):ALL\n+:root:ALL\n-:ALL:ALL\n"}, free=["carol"]),
    "two-lists-and-nologin-behind": Stack({"sshd": DEBIAN.format(account=f"account sufficient pam_listfile.so item=user sense=allow onerr=fail file=/etc/ssh/allowed_users\naccount sufficient pam_listfile.so item=group sense=allow onerr=fail file=/etc/ssh/allowed_groups\n-{ACCOUNT}account required pam_nologin.so\n@include common-account", session=SESSION), "/etc/ssh/allowed_users": "root\n", "/etc/ssh/allowed_groups": "ops\n"}, free=["carol"]),
    "jumps-of-different-lengths": Stack({"sshd": DEBIAN.format(account=f"account [success=2 default=ignore] pam_succeed_if.so quiet user ingroup wheel\naccount [success=1 default=ignore] pam_succeed_if.so quiet user ingroup ops\n{ACCOUNT}@include common-account", session=SESSION)}, free=["carol"]),
    "root-asks": Stack({"sshd": DEBIAN.format(account=f"account [success=1 default=ignore] pam_rootok.so\n{ACCOUNT}@include common-account", session=SESSION)}, free=["alice", "bob", "carol"], says=["pam-exempts-everybody"]),
    "three-files-deep": Stack({"sshd": "auth include system-remote-login\naccount include system-remote-login\nsession include system-remote-login\n", "system-remote-login": "auth include system-login\naccount include system-login\nsession include system-login\n", "system-login": f"auth required pam_unix.so\naccount required pam_nologin.so\n{ACCOUNT}account required pam_unix.so\nsession optional pam_loginuid.so\nsession required pam_unix.so\n-session optional pam_elogind.so\n{SESSION}"}),
    "little-of-pam": Stack({"sshd": f"auth sufficient pam_unix.so\n{ACCOUNT}account sufficient pam_unix.so\nsession optional pam_loginuid.so\n{SESSION}"}),
    "lines-behind-ours": Stack({"sshd": DEBIAN.format(account=f"{ACCOUNT}@include common-account", session=f"{SESSION}-session optional pam_reauthorize.so prepare\nsession required pam_mkhomedir.so umask=0077\nsession required pam_unix.so")}),
}  # fmt: skip


#: With the others all was well from the beginning.
EVERY_TIME = ("rhel-behind-the-include", "root-asks", "three-files-deep", "lines-behind-ours")


def marked(names: Iterable[str], often: Sequence[str]) -> list[Any]:
    return [pytest.param(name, marks=[] if name in often else [pytest.mark.extra]) for name in names]


@contextlib.contextmanager
def files_of(node: Node, stack: Stack) -> Iterator[None]:
    kept: dict[str, bytes | None] = {}
    paths = {name if name.startswith("/") else f"/etc/pam.d/{name}": text for name, text in stack.files.items()}
    for path, text in paths.items():
        kept[path] = node.path(path).read_bytes() if node.path(path).exists() else None
        node.write(path, text)
    try:
        yield
    finally:
        for path, before in kept.items():
            if before is None:
                node.path(path).unlink()
            else:
                node.path(path).write_bytes(before)


@pytest.fixture(scope="module")
def ops(shared_node: Node) -> Iterator[None]:
    """carol is an operator."""
    shared_node.run("groupadd ops; usermod -aG ops carol")
    yield
    shared_node.run("gpasswd -d carol ops; groupdel ops")


@pytest.mark.usefixtures("ops")
@pytest.mark.parametrize("name", marked(STACKS, EVERY_TIME))
def test_public_stacks__who_gets_in_and_what_the_doctor_says(node: Node, name: str) -> None:
    stack = STACKS[name]
    job = node.submit("alice")
    with files_of(node, stack):
        assert job_of(node.ssh("alice", SHOW).stdout) == (job if "alice" not in stack.free else 0), node.log()[-5:]
        for user in ("bob", "carol"):
            done = node.ssh(user, SHOW)
            assert (done.returncode == 0) == (user in stack.free), (user, done)
            assert job_of(done.stdout) == 0
            assert NO_JOB in done.stderr or done.returncode == 0
        assert node.ssh("root").returncode == 0
        findings = doctor(node)
        assert [finding["code"] for finding in findings] == list(stack.says), findings


def test_public_stacks__a_home_that_is_made_behind_ours(node: Node) -> None:
    job = node.submit("alice")
    node.run("mv /home/alice /home/kept")
    try:
        with files_of(node, STACKS["lines-behind-ours"]):
            done = node.ssh("alice", f"{SHOW}; pwd", auth="password")
        assert job_of(done.stdout) == job, done
        assert done.stdout.splitlines()[-1] == "/home/alice"
    finally:
        node.run("rm -rf /home/alice; mv /home/kept /home/alice")


# sshd ------------------------------------------------------------------------------------------------

PORTS = """
Port 2311
Port 2312
PidFile /run/lab/sshd-ports.pid
UsePAM yes
HostKey /etc/ssh/ssh_host_ed25519_key
PermitRootLogin yes
AcceptEnv LANG LC_* SLURM_*
PermitUserEnvironment yes
KbdInteractiveAuthentication no
Subsystem sftp internal-sftp
{more}Match LocalPort 2312 User alice,bob
  ChrootDirectory /srv/jail
  ForceCommand internal-sftp
Match LocalAddress 10.77.0.9 Group nobody
  PermitTTY no
"""


@pytest.fixture
def ports(node: Node) -> Iterator[Node]:
    more = "PerSourcePenalties no\n" if node.path("/usr/lib/openssh/sshd-session").exists() else ""
    node.write("/etc/ssh/lab-ports.conf", PORTS.format(more=more))
    node.run("mkdir -p /srv/jail; /usr/sbin/sshd -f /etc/ssh/lab-ports.conf")
    try:
        yield node
    finally:
        node.run("kill $(cat /run/lab/sshd-ports.pid); rm -r /srv/jail /etc/ssh/lab-ports.conf")


def test_public_stacks__one_sshd_for_shells_and_for_files_in_a_jail(ports: Node) -> None:
    """A port for each, in Match blocks: both are in the job, or refused. The doctor reads the file as sshd does."""
    assert doctor(ports) == []
    job = ports.submit("alice")
    assert job_of(ports.ssh("alice", SHOW, port=2311).stdout) == job
    for user in ("alice", "bob"):
        done = ports.run(f"echo ls | sftp -b - -P 2312 {user}@127.0.0.1", check=False)
        assert (done.returncode == 0) == (user == "alice"), done
    with ports.ssh_popen("alice", "sftp", port=2312, options=["RequestTTY=no", "SessionType=subsystem"]) as files:
        servers = wait_for(
            lambda: [one for one in ports.processes("alice") if one.command.startswith("sshd: alice@")],
            "the jailed sshd",
        )
        assert all(f"/job_{job}/step_extern" in str(server.cgroups) for server in servers)
        files.kill()


def test_public_stacks__what_the_client_and_the_user_say_of_jobs(ports: Node) -> None:
    """AcceptEnv SLURM_* and ~/.ssh/environment: the job's number is the job's."""
    job = ports.submit("alice")
    ports.write("/home/alice/.ssh/environment", "SLURM_JOB_ID=2\nSLURM_JOB_USER=root\n", owner="alice")
    try:
        done = ports.ssh("alice", "echo $SLURM_JOB_ID", port=2311, options=["SetEnv=SLURM_JOB_ID=1"])
        assert done.stdout.split() == [str(job)]
    finally:
        ports.path("/home/alice/.ssh/environment").unlink()


# Names -----------------------------------------------------------------------------------------------

#: As winbind, sssd and student registries give them: the third one is bob's uid, the last one has alice's.
NAMES = {"CORP\\dora": 1511, "dora@corp.example": 1512, "1502": 1513, "alice-admin": 1501}


@pytest.fixture
def named(node: Node) -> Iterator[Node]:
    node.submit("bob")  # before: setpriv takes the number for a name, if there is such a name
    passwd, shadow = node.read("/etc/passwd"), node.read("/etc/shadow")
    for name, uid in NAMES.items():
        passwd += f"{name}:x:{uid}:1501::/home/other-{uid}:/bin/bash\n"
        shadow += f"{name}:*:19000:0:99999:7:::\n"
        home = f"/home/other-{uid}"
        node.run(f"mkdir -p {home}/.ssh; cp /home/alice/.ssh/authorized_keys {home}/.ssh; chown -R {uid} {home}")
    kept = node.read("/etc/passwd"), node.read("/etc/shadow")
    node.path("/etc/passwd").write_text(passwd)
    node.path("/etc/shadow").write_text(shadow)
    try:
        yield node
    finally:
        node.cancel_all()
        node.path("/etc/passwd").write_text(kept[0])
        node.path("/etc/shadow").write_text(kept[1])
        node.run("rm -r /home/other-*")


@pytest.mark.parametrize("way", marked(["helper", "service"], ["service"]))
def test_public_stacks__names_of_directories(named: Node, way: str) -> None:
    service = Service(named)
    if way == "service":
        service.start()
    try:
        for name in [*NAMES][:3]:
            refused = named.ssh(name, SHOW)
            assert refused.returncode != 0
            assert NO_JOB in refused.stderr, refused
            job = named.submit(name)
            mark = named.log_mark()
            assert job_of(named.ssh(name, SHOW).stdout) == job
            assert f" job={job} " in "\n".join(named.log_since(mark))
            said = named.run(["slurm-adopt", "explain", name])
            assert f"job {job}" in said.stdout, said
            named.pam(account=[f"required pam_slurm_adopt.so profile=strict allow_users={name}"])
            assert job_of(named.ssh(name, SHOW).stdout) == 0
            named.pam(account=["required pam_slurm_adopt.so profile=strict"])
        job = named.submit("alice")
        assert job_of(named.ssh("alice-admin", SHOW).stdout) == job
    finally:
        if way == "service":
            service.stop()
            named.run(["rm", "-rf", "/run/slurm-adopt", AUDIT_FILE, METRICS_FILE])


# Hardened --------------------------------------------------------------------------------------------

#: As the unit has it.
LIMITED = ["setpriv", "--bounding-set=-all,+sys_ptrace,+dac_read_search,+sys_resource", "--inh-caps=-all"]


@contextlib.contextmanager
def hidden(node: Node) -> Iterator[None]:
    node.run("mount -o remount,hidepid=2 /proc")
    try:
        yield
    finally:
        node.run("mount -o remount,hidepid=0 /proc")


@pytest.mark.parametrize("way", marked(["helper", "service"], ["service"]))
def test_public_stacks__a_proc_that_hides_processes(node: Node, way: str) -> None:
    service = Service(node, before=LIMITED)
    with hidden(node), contextlib.ExitStack() as stack:
        if way == "service":
            service.start()
            stack.callback(node.run, ["rm", "-rf", "/run/slurm-adopt", AUDIT_FILE, METRICS_FILE])
            stack.callback(service.stop)
        job = node.submit("alice")
        login = node.ssh_popen("alice", "exec sleep 4331")
        assert f"/job_{job}/step_extern" in str(node.process("sleep 4331", "alice").cgroups)
        assert NO_JOB in node.ssh("bob").stderr
        assert (
            f"job {job}" in node.run("slurm-adopt status").stdout or str(job) in node.run("slurm-adopt status").stdout
        )
        with serve_users(node, *[]):
            listed = node.run(["slurm-adopt", "jobs"], user="alice", check=False)
            assert str(job) in listed.stdout, listed
        assert doctor(node) == []
        login.kill()
        login.communicate()


@pytest.mark.parametrize("way", marked(["helper", "service"], ["service"]))
def test_public_stacks__a_umask_that_gives_others_nothing(node: Node, way: str) -> None:
    """Of sshd and of the services: what users have to reach, they reach."""
    service = Service(node, before=["sh", "-c", 'umask 077; exec "$@"', "sh"])
    node.run("rm -rf /run/slurm-adopt")
    node.ssh_server.stop()
    node.run(["sh", "-c", f"umask 077; exec {' '.join(node.ssh_server.argv)}"])
    wait_for(lambda: node.ssh_server.pid, "sshd")
    try:
        if way == "service":
            service.start()
        job = node.submit("alice")
        assert job_of(node.ssh("alice", SHOW).stdout) == job
        assert NO_JOB in node.ssh("bob").stderr
        assert doctor(node) == []
    finally:
        if way == "service":
            service.stop()
            node.run(["rm", "-rf", "/run/slurm-adopt", AUDIT_FILE, METRICS_FILE])
        node.ssh_server.restart()
