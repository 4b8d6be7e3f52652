# SPDX-License-Identifier: Apache-2.0
"""What administrators do wrong, made by hand on a node: the doctor names it, and is silent about what only looks wrong."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import pytest
from tests.node.cli.test_doctor import (
    ACCOUNT,
    CGROUP,
    CONF,
    HELPER,
    SESSION,
    SSHD,
    SSHD_CONFIG,
    Breakage,
    account_first,
    added,
    before_account,
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

from lab.machine import wait_for
from lab.node import Node

__all__ = ["machine"]
#: The rows of test_doctor.py are looked at each time.
pytestmark = pytest.mark.releases
ACCESS = "/etc/security/access.conf"
LLNL = "/etc/slurm-llnl"
OPT = "slurm_conf=/opt/slurm/etc/slurm.conf"
NEW = "pam_slurm_adopt_new.so"
BIND = "mount --bind {0} {0} && mount -o remount,bind,noexec {0}"


def epilog(command: str) -> Breakage:
    return both(
        conf("InactiveLimit=0", "InactiveLimit=0\nEpilog=/etc/slurm/clean.sh"),
        added("/etc/slurm/clean.sh", f"#!/bin/sh\n{command}\n", 0o755),
    )


def script(key: str, value: str, *breakages: Breakage) -> Breakage:
    """Another prolog or epilog."""
    return both(*breakages, conf("InactiveLimit=0", f"InactiveLimit=0\n{key}={value}"))


def site(text: str = "#!/bin/sh\nexit 0\n", mode: int = 0o755, name: str = "x.sh") -> Breakage:
    """A script in a folder of the site's."""
    return both(shell("mkdir -p /opt/site", "rmdir /opt/site"), added(f"/opt/site/{name}", text, mode))


def beside(*lines: Breakage) -> Breakage:
    """Slurm's own module has our name, and ours is NEW."""
    return both(
        shell(f"mv {{module}} $(dirname {{module}})/{NEW}", f"mv $(dirname {{module}})/{NEW} {{module}}"), *lines
    )


@contextlib.contextmanager
def no_room_for_a_title(node: Node) -> Iterator[None]:
    """An sshd that a supervisor starts with an empty environment, on a port of its own."""
    node.ssh_server.stop()
    node.run(
        f"sed 's/^Port .*/Port 2299/' {SSHD_CONFIG} >/etc/ssh/bare.conf; env -i /usr/sbin/sshd -f /etc/ssh/bare.conf"
    )
    wait_for(lambda: node.ssh_server.pid, "sshd")
    title = node.read(f"/proc/{node.ssh_server.pid}/cmdline")
    assert "listener" not in title, title
    try:
        yield
    finally:
        node.ssh_server.stop()
        node.run("rm /etc/ssh/bare.conf")
        node.ssh_server.start()


@contextlib.contextmanager
def a_port_of_systemds(node: Node) -> Iterator[None]:
    """As with ssh.socket: another process listens, and starts an sshd for each connection."""
    node.ssh_server.stop()
    listen = ["python3", "-c", "import socket, time; s = socket.create_server(('', 2299)); time.sleep(1000)"]
    with edit("/etc/ssh/sshd_config", lambda text: f"Port 2299\n{text}")(node), node.popen(listen) as listener:
        try:
            wait_for(lambda: ":08FB " in node.read("/proc/1/net/tcp"), "the port")
            yield
        finally:
            listener.kill()
            node.ssh_server.start()


def moved(path: str, other: str) -> Breakage:
    return shell(f"mv {path} {other}", f"rm -rf {path} && mv {other} {path}")


ROWS: list[tuple[str, str, Breakage]] = [
    # --- lines that are not where, or what, they were meant to be ---
    ("pam-no-line", "its file is gone", moved(SSHD, "/root/sshd.pam")),
    ("pam-no-line", "a link that leads nowhere", shell(f"mv {SSHD} /root/sshd.pam && ln -s /nowhere {SSHD}", f"rm {SSHD} && mv /root/sshd.pam {SSHD}")),
    ("pam-no-line", "the path of the original", line(ACCOUNT, ACCOUNT.replace("pam_slurm", "/usr/local/lib/original/pam_slurm"))),
    ("pam-wrong-kind", "auth instead of account", line(ACCOUNT, ACCOUNT.replace("account", "auth"))),
    ("pam-wrong-kind", "auth beside account", edit(SSHD, lambda text: text + ACCOUNT.replace("account", "auth"))),
    ("pam-line-idle", "service=ssh", line(ACCOUNT, ACCOUNT.replace("strict", "strict service=ssh"))),
    ("pam-module-file", "a slip in the name", line(ACCOUNT, ACCOUNT.replace("adopt", "adapt"))),
    ("pam-module-file", "a dash before a line that is required", before_account("-account required pam_gone.so")),
    ("pam-bad-control", "blanks in the brackets' place", line(ACCOUNT, ACCOUNT.replace("required", "[success=ok default=bad"))),
    ("pam-bad-line", "line ends of another system", line(ACCOUNT, ACCOUNT.replace("\n", "\r\n"))),
    ("pam-options", "options with commas", line(ACCOUNT, ACCOUNT.replace("strict", "strict,timeout=3"))),
    ("pam-exempts-everybody", "access.conf without its last line, ahead", before_account("account sufficient pam_access.so")),
    ("pam-exempts-everybody", "access.conf without its last line, behind", line(ACCOUNT, f"{ACCOUNT.replace('required', 'sufficient')}account required pam_access.so\n")),
    ("pam-exempts-everybody", "a list that is not there", before_account("account sufficient pam_listfile.so item=user sense=allow onerr=succeed file=/etc/admins")),
    ("pam-exempts-everybody", "a list of who is refused", both(added("/etc/refused", "carol\n"), before_account("account [success=1 default=ignore] pam_listfile.so item=user sense=deny file=/etc/refused"))),
    ("pam-exempts-everybody", "a condition that all users meet", before_account("account sufficient pam_succeed_if.so quiet uid >= 1000")),
    ("pam-exempts-everybody", "a condition about a group, the wrong way round", before_account("account [success=1 default=ignore] pam_succeed_if.so quiet user notingroup admins")),
    ("pam-session-lenient", "an optional session line", both(account_first, line(SESSION, SESSION.replace("required", "optional")))),
    ("pam-lines-differ", "slurm_conf= on one line only", line(SESSION, SESSION.replace("strict", f"strict {OPT}"))),
    ("pam-unsafe-defaults", "the session line has no profile", line(SESSION, SESSION.replace(" profile=strict", ""))),
    ("pam-file-writable", "the folder", shell("chmod 777 /etc/pam.d", "chmod 755 /etc/pam.d")),
    ("pam-nologin", "maintenance that is over", added("/etc/nologin", "maintenance\n")),
    # --- sshd ---
    ("sshd-use-pam", "an include that comes first", both(added("/etc/ssh/first.conf", "UsePAM no\n"), edit(SSHD_CONFIG, lambda text: f"Include /etc/ssh/first.conf\n{text}"))),
    ("sshd-config-broken", "UsePAM in a Match block", edit(SSHD_CONFIG, lambda text: f"{text}Match User alice\n  UsePAM no\n")),
    # --- module, helper, service ---
    ("module-original", "only the distribution's is left", shell("mv {module} /root/module", "mv /root/module {module}")),
    ("module-damaged", "a file that a full disk left empty", shell("cp -p {module} /root/module && : >{module}", "cat /root/module >{module}")),
    ("module-mode", "nobody may read it", shell("chmod 000 {module}", "chmod 644 {module}")),
    ("module-noexec", "a hardened mount", shell(BIND.format("$(dirname {module})"), "umount $(dirname {module})")),
    ("helper-noexec", "a hardened mount", shell(BIND.format("/usr/libexec"), "umount /usr/libexec")),
    ("helper-mode", "a link", shell(f"mv {HELPER} /usr/local/helper && ln -s /usr/local/helper {HELPER}", f"mv /usr/local/helper {HELPER}")),
    ("python-broken", "another first line", swap(HELPER, "#!/usr/bin/python3 -IS", "#!/usr/bin/env python3")),
    ("service-missing", "another socket than the service's", line("profile=strict", "profile=strict mode=service socket=/run/other.sock")),
    # --- Slurm ---
    ("slurm-conf-lost", "a file that is included is gone", conf("InactiveLimit=0", "InactiveLimit=0\nInclude /etc/slurm/nodes.conf")),
    ("slurm-conf-lost", "a link onto a file system that is away", both(moved(LLNL, "/root/llnl"), shell(f"mv {CONF} /root/slurm.conf && ln -s /nfs/slurm.conf {CONF}", f"rm {CONF} && mv /root/slurm.conf {CONF}"))),
    ("slurm-conf-lost", "slurm_conf= that names nothing", line("profile=strict", f"profile=strict {OPT}")),
    ("slurm-conf-unreadable", "a folder in its place", both(moved(LLNL, "/root/llnl"), shell(f"mv {CONF} /root/slurm.conf && mkdir {CONF}", f"rmdir {CONF} && mv /root/slurm.conf {CONF}"))),
    ("slurm-conf-untrusted", "a user's include", both(conf("InactiveLimit=0", "InactiveLimit=0\nInclude /etc/slurm/nodes.conf"), added("/etc/slurm/nodes.conf", "# none\n"), shell("chown alice /etc/slurm/nodes.conf", "true"))),
    ("slurm-conf-untrusted", "its folder", shell("chmod 777 /etc/slurm", "chmod 755 /etc/slurm")),
    ("slurm-conf-problem", "SlurmUser of another cluster", conf("SlurmUser=slurm", "SlurmUser=hpcslurm")),
    ("slurm-no-contain", "PrologFlags twice", conf("InactiveLimit=0", "InactiveLimit=0\nPrologFlags=Alloc")),
    ("slurm-task-plugin", "task/none", conf("TaskPlugin=task/cgroup,task/affinity", "TaskPlugin=task/none")),
    ("slurm-nodename", "capital letters", line("profile=strict", "profile=strict nodename=LAB")),
    ("slurm-epilog-kills", "kill and pgrep", epilog("kill -KILL $(pgrep -u $SLURM_JOB_UID)")),
    ("slurm-epilog-kills", "pgrep and kill", epilog('pgrep -U "$SLURM_JOB_USER" | xargs kill -9')),
    ("slurm-epilog-kills", "another spelling of the signal", epilog("/usr/bin/pkill -SIGKILL --euid $SLURM_JOB_UID")),
    ("slurm-script-missing", "an epilog that nobody has copied here", script("Epilog", "/opt/site/x.sh")),
    ("slurm-script-missing", "a prolog that is a link to nowhere", script("Prolog", "/root/x.sh", shell("ln -s /nowhere /root/x.sh", "rm /root/x.sh"))),
    ("slurm-script-missing", "a pattern that fits nothing", script("Prolog", "/opt/site/*.sh", site(name="x"))),
    ("slurm-script-broken", "a mode that was lost", script("Epilog", "/opt/site/x.sh", site(mode=0o644))),
    ("slurm-script-broken", "a folder that the pattern fits", script("Epilog", "/opt/site/*", site(), shell("mkdir /opt/site/old", "rmdir /opt/site/old"))),
    ("slurm-script-broken", "line ends of another system", script("Prolog", "/opt/site/x.sh", site("#!/bin/sh\r\nexit 0\r\n"))),
    ("slurm-script-broken", "no first line", script("Epilog", "/opt/site/x.sh", site("exit 0\n"))),
    ("slurm-script-broken", "an interpreter that is not installed", script("Epilog", "/opt/site/x.sh", site("#! /usr/bin/python9 -I\n"))),
    ("slurm-script-broken", "a hardened mount", script("Epilog", "/opt/site/x.sh", site(), shell(BIND.format("/opt/site"), "umount /opt/site"))),
    ("slurm-script-writable", "everybody", script("Epilog", "/opt/site/x.sh", site(mode=0o777))),
    ("slurm-script-writable", "a group", script("Prolog", "/opt/site/x.sh", site(mode=0o775), shell("chgrp slurm /opt/site/x.sh", "true"))),
    ("slurm-script-writable", "its author's, for both", both(script("Epilog", "/opt/site/x.sh", site(), shell("chown alice /opt/site/x.sh", "true")), conf("InactiveLimit=0", "InactiveLimit=0\nProlog=/opt/site/x.sh"))),
    ("slurm-script-writable", "its folder", script("Epilog", "/opt/site/x.sh", site(), shell("chmod 777 /opt/site", "chmod 755 /opt/site"))),
    ("slurm-script-writable", "a link into a home", script("Prolog", "/opt/site/x.sh", shell("mkdir -p /opt/site ~alice/bin && printf '#!/bin/sh\\n' >~alice/bin/x.sh && chmod 755 ~alice/bin/x.sh && ln -s ~alice/bin/x.sh /opt/site", "rm -r /opt/site ~alice/bin"))),
    ("munge-folder-writable", "the socket's", shell("chmod 777 /run/munge", "chmod 755 /run/munge")),
    ("munge-folder-writable", "a user's", shell("chown alice /run/munge", "chown munge /run/munge")),
    ("munge-folder-writable", "the key's", shell("chmod 777 /etc/munge", "chmod 700 /etc/munge")),
    ("pam-original-beside", "the original has our name", beside(line(ACCOUNT, ACCOUNT + ACCOUNT.replace("adopt", "adopt_new")), line(SESSION, SESSION.replace("adopt", "adopt_new")))),
    ("pam-no-line", "the original's line has our name", beside()),
    ("slurm-epilog-kills", "first found, then killed", epilog('found=$(pgrep -U "$SLURM_JOB_USER")\nkill -9 $found')),
    ("slurm-epilog-kills", "a loop", epilog('for pid in `ps -o pid= -u $SLURM_JOB_UID`; do\n  kill -KILL "${pid}"\ndone')),
    ("slurm-epilog-kills", "by the user", epilog("su -s /bin/sh $SLURM_JOB_USER -c 'kill -9 -1'")),
    ("cgroup-constrains-nothing", "cgroup.conf elsewhere", shell(f"mv {CGROUP} /etc/cgroup.conf", f"mv /etc/cgroup.conf {CGROUP}")),
    ("cgroup-conf-problem", "a slip in the key", swap(CGROUP, "ConstrainCores", "ConstrainCore")),
    ("spool-dir-missing", "slurm.conf is newer than slurmd", conf("SlurmdSpoolDir=/var/spool/slurmd", "SlurmdSpoolDir=/var/spool/slurm.d")),
    ("spool-dir-untrusted", "a file in its place", both(conf("SlurmdSpoolDir=/var/spool/slurmd", "SlurmdSpoolDir=/var/spool/file"), added("/var/spool/file", ""))),
    ("spool-dir-untrusted", "a group may write it", shell("chgrp slurm /var/spool/slurmd && chmod 775 /var/spool/slurmd", "chgrp root /var/spool/slurmd && chmod 755 /var/spool/slurmd")),
    ("spool-dir-unreadable", "a link to itself", both(conf("SlurmdSpoolDir=/var/spool/slurmd", "SlurmdSpoolDir=/var/spool/loop"), shell("ln -s /var/spool/loop /var/spool/loop", "rm /var/spool/loop"))),
    ("spool-folder-writable", "on a scratch disk", shell("chmod 777 /var/spool", "chmod 755 /var/spool")),
    ("munge-down", "another socket", conf("AuthType=auth/munge", "AuthType=auth/munge\nAuthInfo=socket=/run/munge/other.socket")),
    ("munge-key-mode", "everybody may read it", shell("chmod 644 /etc/munge/munge.key", "chmod 400 /etc/munge/munge.key")),
    ("auth-none", "from a test cluster", conf("AuthType=auth/munge", "AuthType=auth/none")),
]  # fmt: skip

FINE: list[tuple[str, Breakage]] = [
    ("tabs", line(ACCOUNT, ACCOUNT.replace(" ", "\t"))),
    ("a comment behind the options", line(ACCOUNT, f"{ACCOUNT[:-1]} # strict\n")),
    ("a line that goes on", line(ACCOUNT, "account required \\\n  pam_slurm_adopt.so profile=strict\n")),
    ("capital letters", line(ACCOUNT, ACCOUNT.replace("required", "Required"))),
    ("includes by their paths", edit(SSHD, lambda text: text.replace("@include common-", "@include /etc/pam.d/common-"))),
    ("a file of the vendor's beside", shell(f"mkdir -p /usr/lib/pam.d && cp {SSHD} /usr/lib/pam.d/sshd", "rm -r /usr/lib/pam.d")),
    ("a module that may be missing", before_account("account optional pam_gone.so")),
    ("a closed access.conf", both(swap(ACCESS, "# User", "+ : root (admins) : ALL\n- : ALL : ALL\n# User"), account_first, before_account("account sufficient pam_access.so"))),
    ("a list of who is let in", both(added("/etc/admins", "carol\n"), account_first, before_account("account sufficient pam_listfile.so item=user sense=allow onerr=fail file=/etc/admins"))),
    ("users of their own on the account line", line(ACCOUNT, ACCOUNT.replace("strict", "strict allow_users=bob"))),
    ("UsePAM once more, later", both(added("/etc/ssh/later.conf", "UsePAM no\n"), edit(SSHD_CONFIG, lambda text: f"{text}Include /etc/ssh/later.conf\n"))),
    ("a Match block for a port", edit(SSHD_CONFIG, lambda text: f"{text}Match LocalPort 2222 User alice,!bob\n  PasswordAuthentication no\n")),
    ("Match blocks of all kinds", edit(SSHD_CONFIG, lambda text: f"{text}Match Address 10.0.0.0/8 LocalAddress 10.77.0.1\n  X11Forwarding no\nMatch Group users\n  PermitTTY no\nMatch All\n  PermitTTY yes\n")),
    ("an sshd whose title is cut", no_room_for_a_title),
    ("a port that systemd listens on", a_port_of_systemds),
    ("an include of nothing", edit(SSHD_CONFIG, lambda text: f"Include /etc/ssh/none.d/*.conf\n{text}")),
    ("YES", swap(CGROUP, "ConstrainCores=yes", "ConstrainCores=YES")),
    ("Contain", conf("PrologFlags=contain", "PrologFlags=Alloc,Contain")),
    ("an epilog that asks for other jobs first", epilog("[ -n \"$(squeue -h -u $SLURM_JOB_UID -w $(hostname -s))\" ] || pkill -KILL -U $SLURM_JOB_UID")),
    ("an epilog that only looks", epilog("pgrep -u $SLURM_JOB_UID >>/var/log/left")),
    ("scripts of the site's", script("Prolog", "/opt/site/*", site(), added("/opt/site/program", "\x7fELF", 0o755))),
    ("a script of SlurmUser's", script("Epilog", "/opt/site/x.sh", site(), shell("chown -R slurm /opt/site", "true"))),
    ("a script below a folder like /tmp", script("Epilog", "/opt/site/x.sh", site(), shell("chmod 1777 /opt/site", "chmod 755 /opt/site"))),
    ("a munge folder of root's", shell("chown root /run/munge", "chown munge /run/munge")),
    ("it looks on beside the original of the same name", beside(line(ACCOUNT, ACCOUNT + ACCOUNT.replace("adopt", "adopt_new").replace("strict", "strict enforce=no")), line(SESSION, SESSION.replace("adopt", "adopt_new").replace("strict", "strict enforce=no")))),
    ("it looks on beside the original from a folder of its own", both(shell("mkdir -p /opt/lib && mv {module} /opt/lib/", "mv /opt/lib/pam_slurm_adopt.so {module} && rmdir /opt/lib"), line(ACCOUNT, ACCOUNT + ACCOUNT.replace("pam_slurm", "/opt/lib/pam_slurm").replace("strict", "strict enforce=no")), line(SESSION, SESSION.replace("pam_slurm", "/opt/lib/pam_slurm").replace("strict", "strict enforce=no")))),
    ("a line that may be missing behind ours", edit(SSHD, lambda text: f"{text}-session optional pam_gone.so\n")),
    ("homes that are made behind ours", edit(SSHD, lambda text: f"{text}session required pam_mkhomedir.so umask=0077\n")),
    ("system accounts before ours", both(account_first, before_account("account sufficient pam_usertype.so issystem"))),
    ("a spool folder below one like /tmp", shell("chmod 1777 /var/spool", "chmod 755 /var/spool")),
    ("a store that a group adds to", shell("chgrp 30000 /etc && chmod 1775 /etc", "chgrp 0 /etc && chmod 755 /etc")),
    ("cgroup.conf with true", swap(CGROUP, "ConstrainCores=yes", "ConstrainCores=true")),
    ("the machine's name in full", shell("hostname lab.example.org", "hostname lab")),
    ("another name while slurmd runs", shell("hostname other", "hostname lab")),
]  # fmt: skip


@pytest.mark.parametrize(
    ("code", "breakage"),
    [(code, made) for code, _, made in ROWS],
    ids=[f"{code}: {what}" for code, what, _ in ROWS],
)
def test_doctor_seeded__names_it_and_nothing_else(machine: Node, code: str, breakage: Breakage) -> None:
    with breakage(machine):
        status, findings = doctor(machine)
    assert [finding["code"] for finding in findings] == [code], findings
    assert status == {"warning": 1, "error": 2}[findings[0]["severity"]]


@pytest.mark.parametrize("breakage", [made for _, made in FINE], ids=[what for what, _ in FINE])
def test_doctor_seeded__is_silent_about_what_is_fine(machine: Node, breakage: Breakage) -> None:
    with breakage(machine):
        assert doctor(machine) == (0, [])


def test_doctor_seeded__what_it_says_of_the_originals_line_is_exact(machine: Node) -> None:
    """Which line loads what, and a line to write that loads ours."""
    with beside()(machine):
        _, [found] = doctor(machine)
        assert f"{SSHD}:" in found["seen"]
        assert "loads /lib/security/pam_slurm_adopt.so, Slurm's own" in found["seen"]
        assert found["mend"].startswith(f"account  required  {NEW} profile=strict    # instead of {SSHD}:")
        asked = machine.run(["slurm-adopt", "enable", "--dry-run", "--yes"], check=False).stdout
        assert f"+account  required  {NEW} profile=strict" in asked, asked
        assert "no account line of slurm-adopt" in machine.run(["slurm-adopt", "explain", "alice"], check=False).stdout


def test_doctor_seeded__slurmd_drains_the_node_as_it_says(machine: Node) -> None:
    """What it calls missing or broken, slurmd cannot run; what it is silent about, slurmd runs."""

    def state() -> str:
        return machine.run(["sinfo", "-h", "-o", "%T"]).stdout.strip()

    drains = [(what, made) for code, what, made in ROWS if code in ("slurm-script-missing", "slurm-script-broken")]
    assert len(drains) > 8
    for what, made in drains:
        with slurmd_that_starts_anew(machine, made):
            job = machine.sbatch("alice", "exit 0")
            wait_for(lambda: state().startswith("drain"), f"the node to be drained: {what}")
            machine.run(["scancel", str(job)], check=False)
        machine.wait_ended(job)
        machine.run("scontrol update nodename=$(hostname -s) state=resume")
        machine.wait_idle()
    good = "#!/bin/sh\n: >/opt/site/has-run\n"
    with site(good)(machine):
        with slurmd_that_starts_anew(machine, script("Epilog", "/opt/site/x.sh")):
            machine.wait_ended(machine.sbatch("alice", "exit 0"))
            wait_for(lambda: machine.path("/opt/site/has-run").exists(), "the epilog")
        machine.path("/opt/site/has-run").unlink()
    assert state() == "idle"


def test_doctor_seeded__opinions_about_everybody_are_libpams(machine: Node) -> None:
    """Whom the doctor says a list lets in, gets in; whom a dash before `required` refuses is refused."""

    @contextlib.contextmanager
    def without_job(breakage: Breakage) -> Iterator[int]:
        with breakage(machine):
            yield machine.ssh("bob").returncode

    by_code = {what: made for _, what, made in ROWS}
    for what, made in by_code.items():
        if "access.conf" in what or "a list" in what or "a condition" in what:
            with without_job(made) as status:
                assert status == 0, what
    with without_job(before_account("account required pam_permit.so")) as status:
        assert status != 0
    with by_code["a dash before a line that is required"](machine):
        assert machine.ssh("root").returncode != 0


def test_doctor_seeded__without_its_modules_it_is_no_warning(machine: Node) -> None:
    with moved("/usr/lib/slurm-adopt/slurm_adopt/cli/doctor", "/root/doctor")(machine):
        done = machine.run(["slurm-adopt", "doctor"], check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("slurm-adopt: its modules cannot be loaded: No module named 'slurm_adopt.cli.doctor")
    assert len(done.stderr.splitlines()) == 2
