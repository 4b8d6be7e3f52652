# SPDX-License-Identifier: Apache-2.0
"""`slurm-adopt doctor` on a real node: silent while it is healthy, and for each fault the one finding that names it."""

from __future__ import annotations

import contextlib
import json
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
from tests.releases import SUITES, suite_name

from lab.machine import wait_for
from lab.node import Node
from lab.product import use_product

Breakage = Callable[[Node], AbstractContextManager[object]]
FAKE_STEPD = Path(__file__).parents[1] / "faults/fake_stepd.py"
SSHD, CONF, CGROUP = "/etc/pam.d/sshd", "/etc/slurm/slurm.conf", "/etc/slurm/cgroup.conf"
SSHD_CONFIG = "/etc/ssh/lab-main.conf"
HELPER = "/usr/libexec/slurm-adopt/helper"
STRICT = "required pam_slurm_adopt.so profile=strict"
ACCOUNT, SESSION = f"account\t{STRICT}\n", f"session\t{STRICT}\n"


@pytest.fixture(scope="module")
def machine(request: pytest.FixtureRequest) -> Iterator[Node]:
    with Node(suite=request.config.getoption("--suite")) as node:
        use_product(node)
        node.module = node.run("ls /lib/*/security/pam_slurm_adopt.so").stdout.strip()  # type: ignore[attr-defined]
        yield node


def doctor(node: Node, *args: str) -> tuple[int, list[dict[str, Any]]]:
    """Exit status and findings."""
    done = node.run(["slurm-adopt", "doctor", "--json", *args], check=False)
    assert done.stderr == ""
    return done.returncode, json.loads(done.stdout)["findings"]


# Ways to break a node, each of which puts it back ---------------------------------------------------


def edit(path: str, change: Callable[[str], str]) -> Breakage:
    """Another text in a file, which keeps its owner and mode."""

    @contextlib.contextmanager
    def breakage(node: Node) -> Iterator[None]:
        file = node.path(path)
        before = file.read_bytes()
        after = change(before.decode()).encode()
        assert after != before
        file.write_bytes(after)
        try:
            yield
        finally:
            if file.is_symlink():  # a mend has made it one
                file.unlink()
            file.write_bytes(before)

    return breakage


def swap(path: str, old: str, new: str) -> Breakage:
    return edit(path, lambda text: text.replace(old, new))


def conf(old: str, new: str) -> Breakage:
    """In both places where the rig has slurm.conf."""
    return both(swap(CONF, old, new), swap("/etc/slurm-llnl/slurm.conf", old, new))


def both(*breakages: Breakage) -> Breakage:
    @contextlib.contextmanager
    def breakage(node: Node) -> Iterator[None]:
        with contextlib.ExitStack() as stack:
            for one in breakages:
                stack.enter_context(one(node))
            yield

    return breakage


def pam(change: Callable[[str], str]) -> Breakage:
    return edit(SSHD, change)


def line(old: str, new: str) -> Breakage:
    return swap(SSHD, old, new)


def shell(do: str, undo: str) -> Breakage:
    """Commands on the node; {module} is the module's file."""

    @contextlib.contextmanager
    def breakage(node: Node) -> Iterator[None]:
        node.run(do.replace("{module}", node.module))  # type: ignore[attr-defined]
        try:
            yield
        finally:
            node.run(undo.replace("{module}", node.module))  # type: ignore[attr-defined]

    return breakage


def added(path: str, text: str, mode: int = 0o644) -> Breakage:
    """A file that was not there."""

    @contextlib.contextmanager
    def breakage(node: Node) -> Iterator[None]:
        assert not node.path(path).exists()
        node.write(path, text, mode)
        try:
            yield
        finally:
            node.path(path).unlink(missing_ok=True)  # a mend may have removed it

    return breakage


@contextlib.contextmanager
def listener(node: Node, kind: int, answers: bool) -> Iterator[None]:
    """A socket of root's in the service's place, as a service that hangs, or has died, leaves it."""
    node.path("/run/slurm-adopt").mkdir(exist_ok=True)
    path = node.path("/run/slurm-adopt/login.sock")
    admin = node.path("/run/slurm-adopt/admin.sock")
    with socket.socket(socket.AF_UNIX, kind) as login, socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as other:
        login.bind(str(path))
        other.bind(str(admin))
        path.chmod(0o600)
        if answers:
            login.listen(8)
            other.listen(8)
        try:
            yield
        finally:
            path.unlink()
            admin.unlink()


def hung_service(node: Node) -> AbstractContextManager[object]:
    return listener(node, socket.SOCK_SEQPACKET, answers=True)


def dead_service(node: Node) -> AbstractContextManager[object]:
    return listener(node, socket.SOCK_SEQPACKET, answers=False)


@contextlib.contextmanager
def service(node: Node, *more: str) -> Iterator[None]:
    """A real one."""
    argv = ["slurm-adopt", "serve", "--listen", "/run/slurm-adopt/login.sock", *more]
    with node.popen(argv) as process:
        wait_for(lambda: node.path("/run/slurm-adopt/admin.sock").exists(), "the service")
        try:
            yield
        finally:
            process.kill()
            process.wait()
            node.run("rm -r /run/slurm-adopt")


@contextlib.contextmanager
def outdated_service(node: Node) -> Iterator[None]:
    with service(node):
        began_s = started(node)
        # what an installation over it does to the files
        path = node.path("/usr/lib/slurm-adopt/slurm_adopt/cli/doctor/service.py")
        wait_for(lambda: time.time() > began_s + 1.5, "the clock to go on")
        path.chmod(0o600)
        path.chmod(0o644)
        yield


def started(node: Node) -> float:
    numbers = node.run(["slurm-adopt", "metrics"]).stdout
    return float(next(row for row in numbers.splitlines() if row.startswith("slurm_adopt_start_time")).split()[1])


@contextlib.contextmanager
def open_socket(node: Node) -> Iterator[None]:
    with service(node):
        node.path("/run/slurm-adopt/login.sock").chmod(0o666)
        yield


@contextlib.contextmanager
def stopped(node: Node, name: str) -> Iterator[None]:
    pids = [str(p.pid) for p in node.processes() if p.command.split(" ")[0] == name]
    assert pids
    node.run(["kill", "-STOP", *pids])
    try:
        yield
    finally:
        node.run(["kill", "-CONT", *pids], check=False)  # a mend may have ended it


@contextlib.contextmanager
def no_slurmd(node: Node) -> Iterator[None]:
    node.slurmd.stop()
    try:
        yield
    finally:
        node.slurmd.start()


@contextlib.contextmanager
def slurmd_elsewhere(node: Node) -> Iterator[None]:
    node.slurmd.stop()
    node.run("mkdir -p /opt/slurm && cp -p /etc/slurm/*.conf /opt/slurm/ && /usr/sbin/slurmd -f /opt/slurm/slurm.conf")
    try:
        yield
    finally:
        node.run("kill $(cat /run/slurmd.pid); while [ -e /run/slurmd.pid ]; do sleep 0.1; done")
        # a mend has made it a link
        node.run("cp --remove-destination /opt/slurm/slurm.conf /etc/slurm/slurm.conf; rm -r /opt/slurm")
        node.slurmd.start()


@contextlib.contextmanager
def slurmd_that_starts_anew(node: Node, breakage: Breakage) -> Iterator[None]:
    """With another slurm.conf."""
    node.slurmd.stop()
    try:
        with breakage(node):
            node.slurmd.start()
            yield
            node.slurmd.stop()
    finally:
        node.slurmd.start()


def one_address(node: Node) -> AbstractContextManager[object]:
    return slurmd_that_starts_anew(
        node, conf("InactiveLimit=0", "InactiveLimit=0\nCommunicationParameters=NoInAddrAny")
    )


@contextlib.contextmanager
def slurmd_that_does_not_listen(node: Node) -> Iterator[None]:
    """As one that waits for something before it is up."""
    node.run("cp -p /run/slurmd.pid /root/slurmd.pid && cp /usr/bin/sleep /usr/local/sbin/slurmd")
    with node.popen(["/bin/sh", "-c", "echo $$ >/run/slurmd.pid; exec /usr/local/sbin/slurmd 1000"]) as process:
        wait_for(lambda: node.run("readlink /proc/$(cat /run/slurmd.pid)/exe").stdout.endswith("slurmd\n"), "it")
        try:
            yield
        finally:
            process.kill()
            process.wait()
            node.run("cp -p /root/slurmd.pid /run/slurmd.pid && rm /usr/local/sbin/slurmd")


@contextlib.contextmanager
def no_sshd(node: Node) -> Iterator[None]:
    node.ssh_server.stop()
    try:
        yield
    finally:
        node.ssh_server.start()


@contextlib.contextmanager
def sshd_of_another_name(node: Node) -> Iterator[None]:
    """A link to sshd: another PAM service, in which no line of ours is."""
    node.run("ln -s sshd /usr/sbin/sshd-users && cp /etc/pam.d/common-account /etc/pam.d/sshd-users")
    node.run(
        f"sed 's/^Port .*/Port 2201/; s,^PidFile .*,PidFile /run/sshd-users.pid,' {SSHD_CONFIG} >/etc/ssh/users.conf"
    )
    node.run(["/usr/sbin/sshd-users", "-f", "/etc/ssh/users.conf"])
    wait_for(lambda: node.path("/run/sshd-users.pid").exists(), "the other sshd")
    try:
        yield
    finally:
        node.run("kill $(cat /run/sshd-users.pid); rm /usr/sbin/sshd-users /etc/pam.d/sshd-users /etc/ssh/users.conf")
        wait_for(lambda: not node.path("/run/sshd-users.pid").exists(), "its end")


LISTENS = """
import os, socket, time
os.umask(0o177)
listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
listener.bind("/run/slurm-adopt/login.sock")
os.setresuid(1501, 1501, 0)
listener.listen(8)
print(os.getpid(), flush=True)
time.sleep(1000)
"""


@contextlib.contextmanager
def stranger(node: Node) -> Iterator[None]:
    """A user who listens in the service's place."""
    node.path("/run/slurm-adopt").mkdir(exist_ok=True)
    with node.popen(["python3", "-c", LISTENS], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        number = int(process.stdout.readline())
        try:
            yield
        finally:
            # who changes its user is not ended with the command that has started it
            node.run(["kill", "-KILL", str(number)])
            process.wait()
            node.path("/run/slurm-adopt/login.sock").unlink()


def extra_sshd(*lines: str) -> Breakage:
    """A further sshd with these lines."""

    @contextlib.contextmanager
    def breakage(node: Node) -> Iterator[None]:
        server = node.sshd("doctor", 2200, lines)
        try:
            yield
        finally:
            server.stop()

    return breakage


def before_account(text: str) -> Breakage:
    return pam(lambda stack: stack.replace(ACCOUNT, f"{text}\n{ACCOUNT}"))


#: Our account line where an expired password does not get past it, for rows that are about the session line.
account_first = pam(lambda text: text.replace(ACCOUNT, "").replace("@include common-account", f"{ACCOUNT}@include common-account"))  # fmt: skip

ROWS: list[tuple[str, Breakage]] = [
    # --- the module ---
    ("module-mode", shell("chmod 777 {module}", "chmod 755 {module}")),
    ("module-mode", shell("chown alice {module}", "chown root {module}")),
    ("module-original", shell("mv {module} {module}.ours && cp /usr/local/lib/original/pam_slurm_adopt.so {module}", "mv {module}.ours {module}")),
    ("module-two-copies", shell("mkdir -p /usr/local/lib/security && cp {module} /usr/local/lib/security/", "rm -r /usr/local/lib/security")),
    ("module-architecture", shell("cp -p {module} {module}.ours && printf '\\267' | dd of={module} bs=1 seek=18 conv=notrunc status=none", "mv {module}.ours {module}")),
    ("module-damaged", shell("cp -p {module} {module}.ours && printf nothing | dd of={module} bs=1 conv=notrunc status=none", "mv {module}.ours {module}")),
    ("module-other-build", shell("cp -p {module} {module}.ours && sed -i s,/usr/libexec/slurm-adopt/helper,/usr/libexec/slurm-adOPT/helper,g {module}", "mv {module}.ours {module}")),
    ("module-missing", shell("mv {module} /root/module; mv /lib/security/pam_slurm_adopt.so /root/original", "mv /root/module {module}; mv /root/original /lib/security/pam_slurm_adopt.so")),
    ("module-noexec", shell("mount --bind $(dirname {module}) $(dirname {module}) && mount -o remount,bind,noexec $(dirname {module})", "umount $(dirname {module})")),
    # --- the helper and its Python ---
    ("helper-noexec", shell("mount --bind /usr/libexec /usr/libexec && mount -o remount,bind,noexec /usr/libexec", "umount /usr/libexec")),
    ("check-hung", swap("/usr/lib/slurm-adopt/slurm_adopt/login/reply.py", "annotations\n", "annotations\n\nimport time\n\ntime.sleep(100)\n")),
    ("helper-missing", shell(f"mv {HELPER} {HELPER}.away", f"mv {HELPER}.away {HELPER}")),
    ("helper-mode", shell(f"chmod 775 {HELPER}; chgrp alice {HELPER}", f"chmod 755 {HELPER}; chgrp root {HELPER}")),
    ("helper-mode", shell(f"chmod 644 {HELPER}", f"chmod 755 {HELPER}")),
    ("python-missing", swap(HELPER, "#!/usr/bin/python3", "#!/usr/bin/python3.1")),
    ("python-broken", swap("/usr/lib/slurm-adopt/slurm_adopt/login/reply.py", "from __future__", "from __past__")),
    ("package-writable", shell("chmod o+w /usr/lib/slurm-adopt/slurm_adopt/policy.py", "chmod o-w /usr/lib/slurm-adopt/slurm_adopt/policy.py")),
    # --- the service ---
    ("service-hung", hung_service),
    ("service-gone", dead_service),
    ("service-socket-mode", open_socket),
    ("service-outdated", outdated_service),
    ("service-folder", shell("mkdir -p /run/slurm-adopt && chmod 777 /run/slurm-adopt", "chmod 755 /run/slurm-adopt")),
    ("service-socket", added("/run/slurm-adopt/login.sock", "")),
    ("service-untrusted", stranger),
    ("service-missing", line("profile=strict", "profile=strict mode=service")),
    # --- sshd ---
    ("sshd-use-pam", swap(SSHD_CONFIG, "UsePAM yes", "UsePAM no")),
    ("sshd-use-pam", extra_sshd("UsePAM no")),
    ("sshd-pam-service", sshd_of_another_name),
    ("sshd-not-running", no_sshd),
    ("sshd-config-broken", edit(SSHD_CONFIG, lambda text: text + "NoSuchKeyword yes\n")),
    ("sshd-grace-time", swap(SSHD_CONFIG, "LoginGraceTime 120", "LoginGraceTime 3")),
    ("pam-user-environment", both(swap(SSHD_CONFIG, "KbdInteractiveAuthentication no", "KbdInteractiveAuthentication yes"), line("envfile=/etc/default/locale", "envfile=/etc/default/locale user_readenv=1"))),
    ("pam-user-environment", both(edit(SSHD_CONFIG, lambda text: text + "Match User bob\n  KbdInteractiveAuthentication yes\n"), line("envfile=/etc/default/locale", "envfile=/etc/default/locale user_readenv=1"))),
    # --- PAM ---
    ("pam-no-line", line(ACCOUNT, "")),
    ("pam-session-missing", both(account_first, line(SESSION, ""))),
    ("pam-ends-before", before_account("account sufficient pam_localuser.so")),
    ("pam-ends-before", before_account("account [success=1 default=ignore] pam_unix.so")),
    ("pam-expired-password", before_account("account [default=bad success=ok user_unknown=ignore] pam_unix.so")),
    ("pam-not-binding", line(ACCOUNT, ACCOUNT.replace("required", "optional"))),
    ("pam-not-binding", line(ACCOUNT, ACCOUNT.replace("required", "sufficient"))),
    ("pam-session-not-last", pam(lambda text: text.replace(SESSION, "") .replace("session    required     pam_limits.so", SESSION + "session    required     pam_limits.so"))),
    ("pam-session-too-early", both(shell("cp $(dirname {module})/pam_permit.so $(dirname {module})/pam_systemd.so", "rm $(dirname {module})/pam_systemd.so"), edit(SSHD, lambda text: text + "session optional pam_systemd.so\n"))),
    ("pam-twice", edit(SSHD, lambda text: text + ACCOUNT)),
    ("pam-options", line(ACCOUNT, ACCOUNT.replace("profile=strict", "profile=strict action_unknwon=deny"))),
    ("pam-options", line(SESSION, SESSION.replace("profile=strict", "profile=strikt"))),
    ("pam-unsafe-defaults", line(ACCOUNT, ACCOUNT.replace(" profile=strict", ""))),
    ("pam-original-beside", edit(SSHD, lambda text: text + "account required /usr/local/lib/original/pam_slurm_adopt.so\n")),
    ("pam-slurm-beside", both(shell("cp $(dirname {module})/pam_permit.so $(dirname {module})/pam_slurm.so", "rm $(dirname {module})/pam_slurm.so"), before_account("account required pam_slurm.so"))),
    ("pam-session-lenient", both(account_first, line(SESSION, SESSION.replace("strict", "strict enforce=adopt")))),
    ("pam-line-idle", edit("/etc/pam.d/su", lambda text: text + ACCOUNT)),
    ("pam-file-writable", shell(f"chmod 666 {SSHD}", f"chmod 644 {SSHD}")),
    ("pam-bad-control", line(ACCOUNT, ACCOUNT.replace("required", "requird"))),
    ("pam-module-file", before_account("account required pam_gone.so")),
    ("pam-include-missing", before_account("@include common-gone")),
    ("pam-generated-file", both(line(ACCOUNT, ""), edit("/etc/pam.d/common-account", lambda text: text + ACCOUNT))),
    # --- Slurm ---
    ("slurm-conf-lost", shell("mv /etc/slurm /etc/slurm.away; mv /etc/slurm-llnl /etc/slurm-llnl.away", "mv /etc/slurm.away /etc/slurm; mv /etc/slurm-llnl.away /etc/slurm-llnl")),
    ("slurm-conf-untrusted", shell(f"chmod 666 {CONF}", f"chmod 644 {CONF}")),
    ("slurm-conf-malformed", conf("SlurmdSpoolDir=/var", "SlurmdSpoolDir=var")),
    ("slurm-no-contain", conf("PrologFlags=contain", "PrologFlags=Alloc")),
    ("slurm-proctrack", conf("ProctrackType=proctrack/cgroup", "ProctrackType=proctrack/linuxproc")),
    ("slurm-task-plugin", conf("TaskPlugin=task/cgroup,task/affinity", "TaskPlugin=task/affinity")),
    ("slurm-use-pam", conf("InactiveLimit=0", "InactiveLimit=0\nUsePAM=1")),
    ("slurm-second-conf", swap("/etc/slurm-llnl/slurm.conf", "/var/spool/slurmd", "/var/spool/other")),
    ("slurm-conf-problem", conf("InactiveLimit=0", "InactiveLimit=0\nMessageTimeout=soon")),
    ("slurm-nodename", line("profile=strict", "profile=strict nodename=node99")),
    ("slurm-epilog-kills", both(conf("InactiveLimit=0", "InactiveLimit=0\nEpilog=/etc/slurm/clean.sh"), added("/etc/slurm/clean.sh", "#!/bin/sh\n# pkill -u is bad\npkill -KILL -u $SLURM_JOB_UID\n", 0o755))),
    ("slurm-container", both(added("/etc/slurm/job_container.conf", "BasePath=/tmp\n"), conf("InactiveLimit=0", "InactiveLimit=0\nJobContainerType=job_container/tmpfs"), line(ACCOUNT, ACCOUNT.replace("strict", "strict join_container=false")))),
    ("cgroup-constrains-nothing", swap(CGROUP, "ConstrainCores=yes", "ConstrainCores=no")),
    ("cgroup-mountpoint", swap(CGROUP, "CgroupMountpoint=/sys/fs/cgroup", "CgroupMountpoint=/cgroup")),
    ("spool-dir-untrusted", shell("chmod 777 /var/spool/slurmd", "chmod 755 /var/spool/slurmd")),
    ("spool-dir-untrusted", shell("chown alice /var/spool/slurmd", "chown root /var/spool/slurmd")),
    ("slurmd-down", no_slurmd),
    ("login-node", both(no_slurmd, conf("NodeHostname=lab", "NodeHostname=elsewhere"))),
    ("slurmd-other-conf", both(slurmd_elsewhere, line("profile=strict", "profile=strict slurm_conf=/etc/slurm/slurm.conf"))),
    ("slurmd-not-listening", slurmd_that_does_not_listen),
    ("slurmd-one-address", one_address),
    ("munge-fails", shell("for f in /usr/lib/*/libmunge.so.2; do mv $f $f.away; cp /lib/*/libpam.so.0 $f; done", "for f in /usr/lib/*/libmunge.so.2.away; do mv $f ${f%.away}; done")),
    ("slurmd-pid-file", conf("SlurmdPidFile=/run/slurmd.pid", "SlurmdPidFile=/run/slurmd-2.pid")),
    ("munge-down", shell("mv /run/munge/munge.socket.2 /run/munge/away", "mv -n /run/munge/away /run/munge/munge.socket.2; rm -f /run/munge/away")),
    ("munge-hung", lambda node: stopped(node, "/usr/sbin/munged")),
    ("munge-library", shell("for f in /usr/lib/*/libmunge.so.2; do mv $f $f.away; done", "for f in /usr/lib/*/libmunge.so.2.away; do mv $f ${f%.away}; done")),
    # --- users ---
    ("lingering", shell("mkdir -p /var/lib/systemd/linger && touch /var/lib/systemd/linger/alice", "rm -r /var/lib/systemd/linger")),
    ("user-manager-epilog", line(SESSION, SESSION.replace("strict", "strict user_manager=confine"))),
    ("runtime-dir-prolog", line(SESSION, SESSION.replace("strict", "strict runtime_dir=user"))),
]  # fmt: skip


def names() -> list[str]:
    """The codes, numbered where they come again."""
    seen: dict[str, int] = {}
    for code, _ in ROWS:
        seen[code] = seen.get(code, 0) + 1
    count: dict[str, int] = {}
    shown = []
    for code, _ in ROWS:
        count[code] = count.get(code, 0) + 1
        shown.append(f"{code}-{count[code]}" if seen[code] > 1 else code)
    return shown


@pytest.mark.parametrize(("code", "breakage"), ROWS, ids=names())
def test_doctor__names_the_fault_and_nothing_else(machine: Node, code: str, breakage: Breakage) -> None:
    with breakage(machine):
        status, findings = doctor(machine)
    assert [finding["code"] for finding in findings] == [code], findings
    assert status == {"warning": 1, "error": 2}[findings[0]["severity"]]


def test_doctor__an_account_line_alone_does_not_see_expired_passwords(machine: Node) -> None:
    """With a session line, that one judges (see test_expired_password); so does the account line, if it comes first."""
    for session, first, expected in (
        ([], False, {"pam-expired-password", "pam-session-missing"}),
        ([], True, {"pam-session-missing"}),
        ([f"{STRICT} enforce=no"], False, {"pam-expired-password", "pam-session-lenient"}),
        ([STRICT], False, set()),
        ([STRICT], True, set()),
    ):
        machine.pam("sshd", account=[STRICT], session=session)
        with account_first(machine) if first else contextlib.nullcontext():
            assert {finding["code"] for finding in doctor(machine)[1]} == expected
    machine.pam("sshd", account=[STRICT], session=[STRICT])


def test_doctor__is_silent_on_a_healthy_node(machine: Node) -> None:
    job = machine.submit("alice")
    done = machine.run(["slurm-adopt", "doctor", "--try-job", str(job)], check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    with service(machine):
        assert doctor(machine) == (0, [])
    assert machine.ssh("alice", "echo $SLURM_JOB_ID").stdout == f"{job}\n"
    machine.cancel(job)


@pytest.mark.parametrize("suite", SUITES[1:], ids=suite_name)
def test_doctor__is_silent_on_a_healthy_node_of_other_releases(suite: str) -> None:
    """Another Python (3.9 on Debian 11), Slurm, OpenSSH and libpam; and there it names faults as well."""
    with Node(suite) as node:
        use_product(node)
        job = node.submit("alice")
        done = node.run(["slurm-adopt", "doctor", "--try-job", str(job)], check=False)
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
        with service(node):
            assert doctor(node) == (0, [])
        with before_account("account sufficient pam_localuser.so")(node):
            assert [finding["code"] for finding in doctor(node)[1]] == ["pam-ends-before"]
        if node.path("/usr/lib/openssh/sshd-session").exists():
            with extra_sshd("PerSourcePenalties yes")(node):
                assert [finding["code"] for finding in doctor(node)[1]] == ["sshd-penalties"]


def test_doctor__tries_a_process_in_a_job_and_leaves_nothing(machine: Node) -> None:
    job = machine.submit("alice", "exec sleep 4711")
    machine.process("sleep 4711", "alice")
    before = {process.pid for process in machine.processes()}
    assert doctor(machine, "--try-job", str(job)) == (0, [])
    assert {process.pid for process in machine.processes()} == before
    stepd = next(p for p in machine.processes(0) if p.command.startswith(f"slurmstepd: [{job}.extern"))
    machine.run(["kill", "-STOP", str(stepd.pid)])
    try:
        status, findings = doctor(machine, "--try-job", str(job))
    finally:
        machine.run(["kill", "-CONT", str(stepd.pid)])
    assert (status, [finding["code"] for finding in findings]) == (2, ["trial-no-job"])
    machine.cancel(job)
    assert [finding["code"] for finding in doctor(machine, "--try-job", str(job))[1]] == ["trial-no-job"]


def test_doctor__says_why_a_trial_failed(machine: Node) -> None:
    """A slurmstepd that refuses; and a job that takes no logins."""
    job = machine.submit("alice")
    stepd = next(p for p in machine.processes(0) if p.command.startswith(f"slurmstepd: [{job}.extern"))
    path = f"{machine.spool_dir}/{machine.node_name}_{job}.4294967292"
    machine.install(FAKE_STEPD, "/root/fake_stepd.py")
    machine.run(["mv", path, f"{path}.away"])
    argv = ["python3", "/root/fake_stepd.py", "refuses to add", path, "1501", str(stepd.pid)]
    with machine.popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        status, findings = doctor(machine, "--try-job", str(job))
        process.communicate()
    machine.run(["mv", f"{path}.away", path])
    assert (status, [finding["code"] for finding in findings]) == (2, ["trial-failed"])
    assert doctor(machine, "--try-job", str(job)) == (0, [])
    machine.run(["scontrol", "suspend", str(job)])
    wait_for(lambda: doctor(machine, "--try-job", str(job))[1], "the job to be suspended")
    assert [finding["code"] for finding in doctor(machine, "--try-job", str(job))[1]] == ["trial-not-running"]
    machine.run(["scontrol", "resume", str(job)])
    machine.cancel(job)


def test_doctor__notes_are_said_if_asked_for(machine: Node) -> None:
    usual = {finding["code"] for finding in doctor(machine, "--all")[1]}
    with swap(SSHD_CONFIG, "MaxStartups 1000", "MaxStartups 10:30:100")(machine):
        status, findings = doctor(machine, "--all")
        assert doctor(machine) == (0, [])
    assert status == 0
    assert {finding["code"] for finding in findings} - usual == {"sshd-max-startups"}


def test_doctor__tries_the_job_that_it_runs_in(machine: Node) -> None:
    """An administrator who has logged in as root, with ignore_root=0, or as a user with sudo."""
    job = machine.submit("alice")
    inside = machine.run(
        f"for procs in $(find /sys/fs/cgroup -path '*job_{job}/step_extern/cgroup.procs'); do echo $$ > $procs; done;"
        "slurm-adopt doctor --json"
    )
    assert json.loads(inside.stdout) == {"findings": []}
    machine.cancel(job)


def test_doctor__a_line_that_looks_on_beside_the_original_is_no_fault(machine: Node) -> None:
    observe = "required pam_slurm_adopt.so profile=strict enforce=no"
    machine.pam("sshd", account=[f"required {machine.original_module}", observe], session=[observe])
    try:
        assert doctor(machine) == (0, [])
    finally:
        machine.pam("sshd", account=[STRICT], session=[STRICT])


def test_doctor__needs_root(machine: Node) -> None:
    done = machine.run(["slurm-adopt", "doctor"], user="alice", check=False)
    assert done.returncode == 1
    assert "sudo slurm-adopt doctor" in done.stderr


def test_doctor__text_is_for_people(machine: Node) -> None:
    with line(ACCOUNT, "")(machine):
        done = machine.run(["slurm-adopt", "doctor"], env={"COLUMNS": "80"}, check=False)
    assert done.returncode == 2
    assert done.stdout.startswith("error: pam-no-line\n  seen  /etc/pam.d/sshd has no account line")
    assert "\n  mend  account  required  pam_slurm_adopt.so profile=strict" in done.stdout
    assert "\x1b" not in done.stdout
