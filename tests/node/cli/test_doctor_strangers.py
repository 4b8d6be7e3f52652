# SPDX-License-Identifier: Apache-2.0
"""Misconfigurations that were written down before anybody looked at what the doctor can see, made on a real node.

Each is named, and nothing else; its mend is done to the letter, and the doctor is silent again.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator

import pytest
from tests.node.cli.mending import mend
from tests.node.cli.test_doctor import (
    ACCOUNT,
    CGROUP,
    HELPER,
    SESSION,
    SSHD,
    SSHD_CONFIG,
    STRICT,
    Breakage,
    account_first,
    added,
    both,
    conf,
    doctor,
    edit,
    line,
    machine,
    shell,
    slurmd_that_starts_anew,
    swap,
)
from tests.node.cli.test_doctor import ROWS as FIRST_ROWS
from tests.node.cli.test_doctor_seeded import ACCESS, script, site
from tests.node.cli.test_doctor_seeded import ROWS as SEEDED_ROWS
from tests.releases import SUITES, suite_name

from lab.machine import wait_for
from lab.node import Node
from lab.product import use_product

#: The rows of test_doctor.py are looked at each time.
pytestmark = pytest.mark.releases

__all__ = ["machine"]
TREE = "/usr/lib/slurm-adopt"
UNITS = "/usr/lib/systemd/system"
DROP_IN = "/etc/systemd/system/slurm-adopt.service.d/override.conf"
USERS = "/run/slurm-adopt/user.sock"
KEY = "/etc/munge/munge.key"
IGNORE = "action_no_jobs=ignore action_adopt_failure=deny action_generic_failure=deny"
BINDS = f"python3 -c 'import socket; socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET).bind(\"{USERS}\")'"


def on_both(words: str) -> Breakage:
    return line("profile=strict", f"profile=strict {words}")


def drop_in(text: str) -> Breakage:
    return both(shell("mkdir -p $(dirname " + DROP_IN + ")", "rm -r $(dirname " + DROP_IN + ")"), added(DROP_IN, text))


def health(path: str, *breakages: Breakage) -> Breakage:
    return script("HealthCheckProgram", path, *breakages)


@contextlib.contextmanager
def half_blind_sshd(node: Node) -> Iterator[None]:
    """As a drop-in with TemporaryFileSystem= makes it."""
    node.ssh_server.stop()
    node.ssh_server.write_config()
    argv = " ".join(node.ssh_server.argv)
    node.run(["unshare", "--mount", "sh", "-ec", f"mount -t tmpfs none /usr/libexec/slurm-adopt; exec {argv}"])
    wait_for(lambda: node.ssh_server.pid, "sshd")
    try:
        yield
    finally:
        node.ssh_server.restart()


@contextlib.contextmanager
def another_port(node: Node) -> Iterator[None]:
    with conf("InactiveLimit=0", "InactiveLimit=0\nSlurmdPort=6999")(node):
        yield
    node.slurmd.restart()


@contextlib.contextmanager
def sshd_without_pam(node: Node) -> Iterator[None]:
    """SSHD_OPTS of /etc/default/ssh."""
    before = list(node.ssh_server.argv)
    node.ssh_server.stop()
    node.ssh_server.argv[1:1] = ["-o", "UsePAM=no"]
    node.ssh_server.start()
    try:
        yield
    finally:
        node.ssh_server.stop()
        node.ssh_server.argv = before
        node.ssh_server.start()


@contextlib.contextmanager
def job_from_before(node: Node) -> Iterator[None]:
    """A job that began before PrologFlags=contain."""
    with slurmd_that_starts_anew(node, conf("PrologFlags=contain\n", "")):
        node.slurmctld.restart()
        node.wait_idle()
        job = node.sbatch("alice")
        wait_for(lambda: node.job_state(job) == "RUNNING", "the job")
        wait_for(lambda: node.steps().get(job), "its slurmstepd")
    node.slurmctld.restart()
    node.wait_idle()
    try:
        yield
    finally:
        node.cancel(job)


ROWS: list[tuple[str, str, Breakage]] = [
    # --- PAM's files ---
    ("pam-bad-line", "acount", line(ACCOUNT, ACCOUNT.replace("account", "acount"))),
    ("pam-bad-line", "a blank of a web page", line(ACCOUNT, ACCOUNT.replace("\t", "\u00a0"))),
    ("pam-bad-line", "one between two options", line(ACCOUNT, ACCOUNT.replace("strict", "strict\u00a0greeting=on"))),
    ("pam-bad-line", "edited on another system", edit(SSHD, lambda text: text.replace("\n", "\r\n"))),
    ("pam-bad-line", "a backslash at the end", edit(SSHD, lambda text: f"{text.rstrip()} \\\n")),
    ("pam-bad-line", "a line that is not finished", edit(SSHD, lambda text: f"{text}account required\n")),
    ("pam-options", "a backslash too much", edit(SSHD, lambda text: text.replace(ACCOUNT, "").replace(SESSION, f"{ACCOUNT[:-1]} \\\n{SESSION}"))),
    ("pam-no-line", "in /etc/pam.d/ssh", both(shell(f"cp {SSHD} /etc/pam.d/ssh", "rm /etc/pam.d/ssh"), line(ACCOUNT, ""))),
    ("pam-no-line", "commented out", line(ACCOUNT, f"#{ACCOUNT}")),
    ("pam-module-file", "Red Hat's path", line(ACCOUNT, ACCOUNT.replace("pam_slurm", "/usr/lib64/security/pam_slurm"))),
    ("pam-refuses-everybody", "access.conf for root alone", both(swap(ACCESS, "# User", "+ : root : ALL\n- : ALL : ALL\n# User"), line(ACCOUNT, f"account required pam_access.so\n{ACCOUNT}"))),
    ("pam-twice", "a script at each boot", both(account_first, edit(SSHD, lambda text: text + SESSION))),
    # --- options ---
    ("pam-option-idle", "strict, and its contrary", on_both("action_no_jobs=ignore")),
    ("pam-option-idle", "a wait that is longer than all", on_both("prolog_wait=30")),
    ("pam-option-idle", "limits on the account line alone", line(ACCOUNT, ACCOUNT.replace("strict", "strict rlimits=job"))),
    ("pam-option-idle", "administrators on the session line alone", line(SESSION, SESSION.replace("strict", "strict allow_users=carol"))),
    ("pam-unknown-name", "a group", on_both("allow_groups=whell")),
    ("pam-unknown-name", "a user", on_both("allow_users=amdin")),
    ("pam-unknown-name", "a netgroup", on_both("allow_users=@admins")),
    ("pam-exempts-everybody", "everybody's group", on_both("allow_groups=users")),
    ("pam-no-jobs-ignored", "action_no_jobs=ignore", line(ACCOUNT, ACCOUNT.replace("profile=strict", IGNORE))),
    ("pam-lines-differ", "only the account line looks on", line(ACCOUNT, ACCOUNT.replace("strict", "strict enforce=no"))),
    ("pam-lines-differ", "nodename= on one line", line(SESSION, SESSION.replace("strict", "strict nodename=lab"))),
    ("pam-options", "an option of two words", on_both("hint=Ask us")),
    ("pam-options", "quotes", line(ACCOUNT, ACCOUNT.replace("profile=strict", '"profile=strict"'))),
    ("pam-options", "blanks around =", line(ACCOUNT, ACCOUNT.replace("profile=strict", "profile = strict"))),
    ("pam-options", "capital letters", line(ACCOUNT, ACCOUNT.replace("profile=", "Profile="))),
    ("sshd-grace-time", "a timeout of 200 s", on_both("timeout=200")),
    # --- files of ours ---
    ("module-mode", "chmod -R of its folder", shell("chmod 777 $(dirname {module})", "chmod 755 $(dirname {module})")),
    ("module-mode", "a builder's", shell("chown 1234 {module}", "chown root {module}")),
    ("helper-mode", "its folder", shell(f"chmod 777 $(dirname {HELPER})", f"chmod 755 $(dirname {HELPER})")),
    ("package-writable", "its folder", shell(f"chown alice {TREE}", f"chown root {TREE}")),
    ("python-broken", "a part that few logins need is gone", shell(f"mv {TREE}/slurm_adopt/login/session/greeting.py /root/", f"mv /root/greeting.py {TREE}/slurm_adopt/login/session/")),
    ("python-broken", "a full disk", shell(f"cp -p {TREE}/slurm_adopt/login/ask_caller.py /root/ && truncate -s 700 {TREE}/slurm_adopt/login/ask_caller.py", f"cp -p /root/ask_caller.py {TREE}/slurm_adopt/login/")),
    ("helper-other-build", "of an earlier installation", both(shell(f"cp -a {TREE} /opt/old", "rm -r /opt/old"), swap(HELPER, f'"{TREE}"', '"/opt/old"'))),
    ("command-two-copies", "of an earlier installation", shell("cp -a /usr/lib/slurm-adopt /opt/old && sed s,/usr/lib/slurm-adopt,/opt/old, /usr/bin/slurm-adopt >/usr/local/bin/slurm-adopt && chmod 755 /usr/local/bin/slurm-adopt", "rm -fr /opt/old /usr/local/bin/slurm-adopt")),
    # --- units and services ---
    ("unit-shadowed", "of an earlier installation", shell(f"mkdir -p /etc/systemd/system && sed s,/usr/bin,/usr/local/bin, {UNITS}/slurm-adopt.service >/etc/systemd/system/slurm-adopt.service", "rm -f /etc/systemd/system/slurm-adopt.service")),
    ("unit-command", "a second command", drop_in("[Service]\nExecStart=/usr/bin/slurm-adopt serve --warn-before 5\n")),
    ("unit-file", "a folder that is not there", drop_in("[Service]\nExecStart=\nExecStart=/usr/bin/slurm-adopt serve --audit-file /run/slurm-adopt/audit/x.jsonl\n")),
    ("unit-file", "a folder that it may not write", drop_in("[Service]\nExecStart=\nExecStart=/usr/bin/slurm-adopt serve --metrics-file /var/log/x.prom\n")),
    ("unit-rights", "a user", drop_in("[Service]\nUser=nobody\n")),
    ("unit-writable", "a drop-in", both(drop_in("[Service]\nNice=-5\n"), shell(f"chmod 666 {DROP_IN}", "true"))),
    ("unit-socket", "another socket", on_both("socket=/run/slurm-adopt/other.sock")),
    ("users-missing", "user_move=yes", on_both("user_move=yes")),
    ("users-missing", "action_unknown=preferred", on_both("action_unknown=preferred")),
    ("users-socket-mode", "a mode for nobody", shell(f"mkdir -p /run/slurm-adopt && {BINDS} && chmod 600 {USERS}", f"rm {USERS}")),
    ("users-folder", "everybody's", shell("mkdir -p /run/slurm-adopt/preferences && chmod 777 /run/slurm-adopt/preferences", "rmdir /run/slurm-adopt/preferences")),
    # --- sshd ---
    ("sshd-config-writable", "everybody's", shell(f"chmod 666 {SSHD_CONFIG}", f"chmod 644 {SSHD_CONFIG}")),
    ("sshd-config-writable", "its folder", shell("chmod 777 /etc/ssh", "chmod 755 /etc/ssh")),
    ("sshd-config-writable", "an include of a user's", both(added("/etc/ssh/site.conf", "Banner none\n"), shell("chown alice /etc/ssh/site.conf", "true"), edit(SSHD_CONFIG, lambda text: f"{text}Include /etc/ssh/site.conf\n"))),
    ("sshd-hidden-files", "a unit that hides them", half_blind_sshd),
    # --- Slurm ---
    ("slurm-plugin-missing", "cgroups", conf("proctrack/cgroup", "proctrack/cgroups")),
    ("slurm-plugin-missing", "afinity", conf("task/affinity", "task/afinity")),
    ("slurm-no-extern", "a job from before", job_from_before),
    ("slurm-nodename", "another machine's", both(conf("PartitionName=", "NodeName=node2 NodeHostname=other CPUs=2\nPartitionName="), on_both("nodename=node2"))),
    ("slurm-conf-problem", "a bracket too few", conf("PartitionName=", "NodeName=node[2-9 CPUs=2\nPartitionName=")),
    ("slurmd-other-port", "slurm.conf is newer than slurmd", another_port),
    ("slurm-no-contain", "a slip in the key", conf("PrologFlags=contain", "PrologFlag=contain")),
    ("cgroup-conf-problem", "no =", swap(CGROUP, "ConstrainCores=yes", "ConstrainCores yes")),
    ("cgroup-conf-problem", "a slip in a key beside", swap(CGROUP, "ConstrainRAMSpace=no", "ConstrainRamSpaces=no")),
    ("slurm-script-missing", "the health check", health("/usr/sbin/nhc")),
    ("slurm-script-broken", "the health check", health("/opt/site/x.sh", site(mode=0o644))),
    ("slurm-script-writable", "the health check", health("/opt/site/x.sh", site(mode=0o777))),
    ("slurm-script-missing", "two in one line", both(site(), script("Epilog", "/opt/site/x.sh,/opt/site/x.sh"))),
    ("slurm-script-missing", "a task prolog", script("TaskProlog", "/opt/site/x.sh")),
    ("slurm-container-conf", "tmpfs without its file", conf("InactiveLimit=0", "InactiveLimit=0\nJobContainerType=job_container/tmpfs")),
    ("slurm-health-check-kills", "nhc", health("/opt/site/nhc", site(name="nhc"), shell("mkdir /etc/nhc", "rmdir /etc/nhc"), added("/etc/nhc/nhc.conf", "* || check_ps_userproc_lineage log syslog kill\n"))),
    ("runtime-dir-epilog", "the prolog alone", both(on_both("runtime_dir=user"), script("Prolog", "/usr/libexec/slurm-adopt/hooks/prolog"))),
    ("slurm-use-pam", "a line of ours in its stack", both(conf("InactiveLimit=0", "InactiveLimit=0\nUsePAM=1"), shell("echo 'account required pam_slurm_adopt.so profile=strict service=*' >/etc/pam.d/slurm", "rm /etc/pam.d/slurm"))),
    ("munge-key-mode", "copied as root", shell(f"chown root {KEY}", f"chown munge {KEY}")),
    ("pam-generated-file", "in sshd's file, and in everybody's", edit("/etc/pam.d/common-account", lambda text: text + ACCOUNT)),
    ("sshd-use-pam", "on the command line", sshd_without_pam),
    ("munge-key-newer", "rolled out, and not restarted", shell(f"cp -p {KEY} /root/munge.key && touch {KEY}", f"touch -r /root/munge.key {KEY}")),
]  # fmt: skip

FINE: list[tuple[str, Breakage]] = [
    ("a copy of the PAM file", shell(f"cp {SSHD} {SSHD}.bak && sed s/required/optional/ {SSHD} >{SSHD}.2024-01-01 && cp {SSHD} {SSHD}-old", f"rm {SSHD}.bak {SSHD}.2024-01-01 {SSHD}-old")),
    ("an include by its path", line("@include common-session", "session include /etc/pam.d/common-session")),
    ("a link to the command", shell("ln -s /usr/bin/slurm-adopt /usr/local/bin/slurm-adopt", "rm /usr/local/bin/slurm-adopt")),
    ("a drop-in", both(shell("mkdir -p /var/lib/node", "rmdir /var/lib/node"), drop_in("[Service]\nExecStart=\nExecStart=/usr/bin/slurm-adopt serve --metrics-file /var/lib/node/x.prom\nReadWritePaths=/var/lib/node\n"))),
    ("the units are masked", shell("mkdir -p /etc/systemd/system && ln -s /dev/null /etc/systemd/system/slurm-adopt.socket", "rm /etc/systemd/system/slurm-adopt.socket")),
    ("administrators on both lines", on_both("allow_users=carol,root allow_groups=root,27")),
    ("a longer time", on_both("timeout=20 prolog_wait=15")),
    ("both lines look on", on_both("enforce=no")),
    ("a health check", health("/opt/site/nhc", site(name="nhc"), shell("mkdir /etc/nhc", "rmdir /etc/nhc"), added("/etc/nhc/nhc.conf", "* || check_ps_userproc_lineage log syslog\n# kill\n"))),
    ("both hooks", both(on_both("runtime_dir=user"), script("Prolog", "/usr/libexec/slurm-adopt/hooks/prolog"), script("Epilog", "/usr/libexec/slurm-adopt/hooks/epilog"))),
    ("what Slurm's own plugin is called", conf("TaskPlugin=task/cgroup,task/affinity", "TaskPlugin = task/affinity,task/cgroup")),
]  # fmt: skip

#: What the doctor says about them takes an installation, or knowledge that it has not.
BY_HAND = {
    "pam-unknown-name: a group", "pam-unknown-name: a user", "pam-unknown-name: a netgroup", "pam-options: quotes",
    "pam-options: an option of two words", "pam-options: blanks around =", "pam-options: capital letters",
    "pam-lines-differ: nodename= on one line", "pam-generated-file: in sshd's file, and in everybody's",
    "python-broken: a part that few logins need is gone", "python-broken: a full disk",
    "helper-other-build: of an earlier installation", "unit-socket: another socket", "users-missing: user_move=yes",
    "users-missing: action_unknown=preferred", "slurm-plugin-missing: cgroups", "slurm-plugin-missing: afinity",
    "cgroup-conf-problem: no =", "cgroup-conf-problem: a slip in a key beside", "slurm-conf-problem: a bracket too few",
    "slurm-health-check-kills: nhc", "slurm-no-extern: a job from before", "sshd-hidden-files: a unit that hides them",
    "sshd-use-pam: on the command line", "slurm-script-missing: the health check",
    "slurm-script-missing: two in one line", "slurm-script-missing: a task prolog",
    "slurm-container-conf: tmpfs without its file",
}  # fmt: skip

#: The same, of the other tables' codes.
INSTALLS_OR_KNOWS = {
    "cgroup-conf-problem", "cgroup-mountpoint", "check-hung", "helper-missing", "lingering", "login-node",
    "module-architecture", "module-damaged", "module-missing", "module-original", "module-other-build", "munge-down",
    "munge-fails", "munge-library", "pam-exempts-everybody", "pam-generated-file", "pam-lines-differ", "pam-no-line",
    "pam-options", "python-broken", "python-missing", "service-gone", "service-hung", "service-missing",
    "service-outdated", "service-socket", "service-untrusted", "slurm-conf-lost", "slurm-conf-malformed",
    "slurm-conf-problem", "slurm-conf-unreadable", "slurm-epilog-kills", "slurm-script-broken",
    "slurm-script-missing", "slurmd-not-listening", "slurmd-one-address", "slurmd-pid-file", "spool-dir-unreadable",
    "spool-dir-untrusted", "sshd-config-broken", "sshd-pam-service",
}  # fmt: skip


@pytest.mark.parametrize(("code", "what", "breakage"), ROWS, ids=[f"{code}: {what}" for code, what, _ in ROWS])
def test_doctor_strangers__names_it_and_its_mend_mends(machine: Node, code: str, what: str, breakage: Breakage) -> None:
    with breakage(machine):
        status, findings = doctor(machine)
        assert [finding["code"] for finding in findings] == [code], findings
        assert status == {"warning": 1, "error": 2}[findings[0]["severity"]]
        is_done = mend(machine, findings[0]["mend"])
        assert is_done == (f"{code}: {what}" not in BY_HAND), findings
        if is_done:
            assert doctor(machine) == (0, []), findings


@pytest.mark.parametrize("breakage", [made for _, made in FINE], ids=[what for what, _ in FINE])
def test_doctor_strangers__is_silent_about_what_is_fine(machine: Node, breakage: Breakage) -> None:
    with breakage(machine):
        assert doctor(machine) == (0, [])


OTHERS = [(code, f"{code} {number}", made) for number, (code, made) in enumerate(FIRST_ROWS)]
OTHERS += [(code, f"{code}: {what}", made) for code, what, made in SEEDED_ROWS]


#: Behind the fault there is another one, which was there before, and is said once the first one is gone.
BEHIND = {
    "pam-original-beside": {"pam-expired-password"},
    "pam-no-line": {"pam-expired-password", "pam-session-missing", "pam-original-beside"},
}


@contextlib.contextmanager
def put_back(node: Node) -> Iterator[None]:
    """What a mend has written elsewhere than the fault was, and a slurmd that it has restarted."""
    node.run("tar -C / -cf /root/before.tar etc/pam.d etc/slurm etc/slurm-llnl etc/ssh etc/security")
    slurmd = node.slurmd.pid
    try:
        yield
    finally:
        node.run("tar -C / -pxf /root/before.tar")
        if node.slurmd.pid != slurmd:
            node.slurmd.restart()


@pytest.mark.parametrize(
    ("code", "breakage"), [(code, made) for code, _, made in OTHERS], ids=[row[1] for row in OTHERS]
)
def test_doctor_strangers__the_mends_of_the_other_tables_mend(machine: Node, code: str, breakage: Breakage) -> None:
    with put_back(machine), breakage(machine):
        found = doctor(machine)[1]
        if mend(machine, found[0]["mend"]):
            after = {one["code"] for one in doctor(machine)[1]}
            assert after <= BEHIND.get(code, set()), found
        else:
            assert code in INSTALLS_OR_KNOWS, found


#: What depends on the release of Slurm, OpenSSH, libpam or Python.
BY_RELEASE = ("pam-bad-line", "pam-refuses", "python-broken", "sshd-", "slurm", "cgroup", "munge", "unit-file", "FINE")


def check_several_epilogs(node: Node) -> None:
    """Of two lines some releases of slurmd run one, and others both: the doctor knows which."""
    told = "#!/bin/sh\necho $0 >>/opt/site/told\n"
    first, second = "/opt/site/a.sh", "/opt/site/b.sh"
    lines = conf("InactiveLimit=0", f"InactiveLimit=0\nEpilog={first}\nEpilog={second}")
    with slurmd_that_starts_anew(node, both(site(told, name="a.sh"), added(second, told, 0o755), lines)):
        found = doctor(node)[1]
        node.wait_ended(node.sbatch("alice", "exit 0"))
        file = node.path("/opt/site/told")
        wait_for(lambda: file.exists() and second in file.read_text(), "the epilogs")
        run = file.read_text().split()
        file.unlink()
    assert [one["code"] for one in found] == ([] if len(run) == 2 else ["slurm-conf-problem"]), (found, run)
    assert len(run) == 2 or (run == [second] and f"{first} is never run" in found[0]["why"]), (found, run)


def test_doctor_strangers__several_epilogs_as_this_slurm_runs_them(machine: Node) -> None:
    check_several_epilogs(machine)


@pytest.mark.parametrize("suite", SUITES[1:], ids=suite_name)
def test_doctor_strangers__on_each_release(suite: str) -> None:
    with Node(suite) as node:
        use_product(node)
        node.module = node.run("ls /lib/*/security/pam_slurm_adopt.so").stdout.strip()  # type: ignore[attr-defined]
        check_several_epilogs(node)
        wrong = []
        for code, what, made in [*ROWS, *(("FINE", what, made) for what, made in FINE)]:
            if code.startswith(BY_RELEASE):
                with made(node):
                    found = [finding["code"] for finding in doctor(node)[1]]
                if code == "slurm-container-conf" and node.slurm_release < (21, 8):
                    code = "slurm-plugin-missing"  # it came with 21.08
                if found != ([] if code == "FINE" else [code]):
                    wrong.append((code, what, found))
        assert wrong == []


def test_doctor_strangers__what_it_says_of_a_stack_is_libpams(machine: Node) -> None:
    """Who gets in with a stack that libpam reads otherwise than it looks."""
    by_name = {what: made for _, what, made in ROWS}
    job = machine.submit("alice")
    for what, lets_in, refuses in (
        ("acount", ["bob", "root"], []),
        ("a blank of a web page", ["bob", "root"], []),
        ("edited on another system", [], ["alice", "root"]),
        ("a backslash at the end", [], ["alice", "root"]),
        ("a line that is not finished", [], ["alice", "root"]),
        ("access.conf for root alone", ["root"], ["alice", "bob"]),
        ("action_no_jobs=ignore", ["alice", "bob"], []),
        ("everybody's group", ["bob"], []),
    ):
        more = shell("adduser bob users", "deluser bob users") if what == "everybody's group" else both()
        with by_name[what](machine), more(machine):
            for user in lets_in:
                assert machine.ssh(user, "true").returncode == 0, (what, user)
            for user in refuses:
                assert machine.ssh(user, "true").returncode != 0, (what, user)
    with by_name["only the account line looks on"](machine):
        assert machine.ssh("alice", "echo $SLURM_JOB_ID").stdout == f"{job}\n"
        assert machine.ssh("bob", "true").returncode == 0
    machine.cancel(job)


def test_doctor_strangers__a_change_that_waits(machine: Node) -> None:
    argv = ["slurm-adopt", "enable", "--yes", "--options", "profile=strict greeting=on"]
    machine.run(argv)
    status, [found] = doctor(machine)
    assert (status, found["code"]) == (1, "change-waits")
    assert "is taken back in" in found["seen"]
    machine.run(["slurm-adopt", "disable", "--yes"])
    machine.pam("sshd", account=[STRICT], session=[STRICT])
    assert doctor(machine) == (0, [])
    with added("/var/lib/slurm-adopt/pending", "half a word", 0o600)(machine):
        done = machine.run(["slurm-adopt", "doctor", "--json"], check=False)
        [found] = json.loads(done.stdout)["findings"]
        assert (done.returncode, found["code"]) == (2, "change-unreadable")
        assert mend(machine, found["mend"])
        assert doctor(machine) == (0, [])
        machine.write("/var/lib/slurm-adopt/pending", "")


def test_doctor_strangers__settings_that_sshd_has_not_read(machine: Node) -> None:
    """A note: whoever mends UsePAM and reloads nothing has mended nothing."""

    def notes() -> set[str]:
        return {finding["code"] for finding in doctor(machine, "--all")[1]}

    usual = notes()
    with edit(SSHD_CONFIG, lambda text: f"{text}# later\n")(machine):
        machine.run(["touch", "-d", "+10 seconds", SSHD_CONFIG])
        assert notes() - usual == {"sshd-not-reloaded"}
        assert doctor(machine) == (0, [])
        machine.run(["touch", SSHD_CONFIG])
    machine.ssh_server.restart()
    assert notes() == usual
