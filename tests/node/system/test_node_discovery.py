# SPDX-License-Identifier: Apache-2.0
"""Which slurm.conf holds is what the running slurmd uses: real slurmds that were told in each of the ways there are.

One node, one job that goes on: slurmd is restarted under it, as on a node that is set up anew.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import pytest
from tests.node.resident.test_service import Service

from lab.machine import wait_for
from lab.node import Node
from lab.product import STRICT, use_product

ALICE = "alice"
DEFAULT = "required pam_slurm_adopt.so"
#: What slurmctld and the commands of Slurm use all the time; no login looks there.
TRUE_CONF = "/opt/ctl/slurm.conf"
USUAL = "/etc/slurm/slurm.conf"
PROLOG = "/opt/ctl/prolog"
LIBRARY = "/usr/lib/x86_64-linux-gnu/slurm-wlm/libslurmfull.so"


class Site(Node):
    """A node whose slurm.conf is where a test wants it."""

    clients_conf = ""

    def enter_command(self, argv, user=None, env=None, cwd=None):  # type: ignore[no-untyped-def]
        conf = {"SLURM_CONF": self.clients_conf} if self.clients_conf else {}
        return super().enter_command(argv, user, {**conf, **(env or {})}, cwd)

    def slurmd_pids(self) -> list[int]:
        return [process.pid for process in self.processes(0) if re.match(r"\S*slurmd( |$)", process.command)]

    def end_slurmd(self) -> None:
        for pid in self.slurmd_pids():
            self.run(["kill", str(pid)], check=False)
        wait_for(lambda: not self.slurmd_pids(), "slurmd to end")

    def begin_slurmd(self, command: str, variables: Mapping[str, str] | None = None, pid_file: bool = True) -> None:
        """Start it anew with this command line and nothing else in its environment; until it answers."""
        self.end_slurmd()
        said = "".join(f"{name}={shlex.quote(value)} " for name, value in (variables or {}).items())
        self.run(f"env -u SLURM_CONF {said}setsid {command} >/run/lab/slurmd.out 2>&1 &")
        wait_for(lambda: len(self.slurmd_pids()) == 1 and self.slurmd.pid, "slurmd to start")
        if not pid_file:
            self.path("/run/slurmd.pid").unlink()

    def place(self, *paths: str, stale: str = "") -> None:
        """slurm.conf lies in these places and in no other; `stale`: one there that says something else."""
        self.run("rm -rf /etc/slurm/slurm.conf /etc/slurm-llnl /opt/slurm/*.conf /opt/site /run/slurm")
        text = self.read(TRUE_CONF)
        for path in paths:
            self.write(path, text)
            self.write(f"{path.rpartition('/')[0]}/cgroup.conf", self.read("/opt/ctl/cgroup.conf"))
        if stale:
            self.write(stale, text.replace("/var/spool/slurmd", "/var/spool/stale").replace("lab", "other", 1))


@dataclass(frozen=True)
class Case:
    """One way to tell slurmd. `differs`: what the log has to say, as a regular expression."""

    name: str
    command: str
    places: tuple[str, ...] = ()
    stale: str = ""
    variables: Mapping[str, str] = field(default_factory=dict)
    pid_file: bool = True
    differs: str = ""


CASES = (
    Case("usual", "slurmd", (USUAL,)),
    Case("usual-no-pid-file", "slurmd -D", (USUAL,), pid_file=False),
    Case("f", "slurmd -f /opt/slurm/etc.conf", ("/opt/slurm/etc.conf",)),
    Case(
        "f-joined-beside-a-stale-file",
        "/usr/sbin/slurmd -Dvf/opt/site/gpu-slurm.conf",
        ("/opt/site/gpu-slurm.conf",),
        stale=USUAL,
        differs="slurmd uses /opt/site/gpu-slurm.conf, not /etc/slurm/slurm.conf",
    ),
    Case("f-no-pid-file", "slurmd -D -f /opt/site/slurm.conf -N lab", ("/opt/site/slurm.conf",), USUAL, pid_file=False, differs="slurmd uses /opt/site"),
    Case("environment", "slurmd -D", ("/opt/site/slurm.conf",), variables={"SLURM_CONF": "/opt/site/slurm.conf"}),
    Case("environment-beside-a-stale-file", "slurmd", ("/opt/site/slurm.conf",), USUAL, {"SLURM_CONF": "/opt/site/slurm.conf"}, differs="slurmd uses /opt/site"),
    Case("configless", "slurmd --conf-server=lab"),
    Case("configless-beside-a-stale-file", "slurmd -D --conf-server lab:6817", stale=USUAL, pid_file=False, differs="slurmd uses /run/slurm/conf/slurm.conf, not /etc"),
    Case("hidden-by-the-unit", "unshare -m sh -c 'mount -t tmpfs none /etc/slurm; cp -r /opt/ctl/* /etc/slurm; exec slurmd -D'", stale=USUAL, differs="slurmd uses /proc/"),
    Case("built-into-a-prefix", "/opt/slurm/sbin/slurmd -D", ("/opt/slurm/slurm.conf",), USUAL, {"LD_LIBRARY_PATH": "/opt/slurm/lib"}, differs="slurmd uses /opt/slurm/slurm.conf"),
)  # fmt: skip


@pytest.fixture(scope="module")
def site(request: pytest.FixtureRequest) -> Iterator[Site]:
    settings = {"SlurmctldParameters": "enable_configless", "Prolog": PROLOG, "SlurmdUser": "root"}
    node = Site(request.config.getoption("--suite"), slurm=settings)
    real_prepare = node.prepare

    def prepare() -> None:
        real_prepare()
        node.write(PROLOG, "#!/bin/sh\nwhile [ -e /run/lab/slow ]; do sleep 0.05; done\n", 0o755)

    node.prepare = prepare  # type: ignore[method-assign]
    with node:
        use_product(node)
        node.slurmctld.stop()
        node.run("cp -r /etc/slurm/* /opt/ctl/; mkdir -p /opt/slurm/sbin /opt/slurm/lib")
        node.clients_conf = TRUE_CONF
        node.slurmctld.start()
        # what a build with another prefix differs in: its place, and the path in its library, here of the same length
        node.run(
            f"cp /usr/sbin/slurmd-wlm /opt/slurm/sbin/slurmd; "
            f"sed 's#/etc/slurm/slurm.conf#/opt/slurm/slurm.conf#g' {LIBRARY} > /opt/slurm/lib/libslurmfull.so"
        )
        node.wait_idle()
        node.submit(ALICE)
        yield node


def assert_in_job(site: Site, line: str, says: str = "", silent: bool = False) -> None:
    site.pam("sshd", account=[line], session=[line])
    mark = site.log_mark()
    done = site.ssh(ALICE, "cat /proc/self/cgroup")
    log = "\n".join(site.log_since(mark))
    assert done.returncode == 0, f"{done.stderr}\n{log}"
    assert "/step_extern" in done.stdout, f"{done.stdout}\n{log}"
    assert " reason=adopted " in log, log
    assert re.search(says, log), log
    if silent:
        assert "slurmd uses" not in log, log


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_node_discovery__what_slurmd_uses_wins(site: Site, case: Case) -> None:
    site.place(*case.places, stale=case.stale)
    site.begin_slurmd(case.command, case.variables, case.pid_file)
    assert_in_job(site, STRICT, case.differs, silent=not case.differs)
    assert_in_job(site, DEFAULT)


def test_node_discovery__the_option_wins_over_all(site: Site) -> None:
    site.place("/opt/site/true.conf", stale=USUAL)
    site.begin_slurmd("slurmd -f /opt/site/true.conf")
    site.write("/opt/site/other.conf", site.read(USUAL))
    site.pam("sshd", account=[f"{STRICT} slurm_conf=/opt/site/other.conf"])
    mark = site.log_mark()
    assert site.ssh(ALICE).returncode != 0
    assert "reason=spool-dir-missing" in "\n".join(site.log_since(mark))
    site.end_slurmd()
    assert_in_job(site, f"{STRICT} slurm_conf=/opt/site/true.conf", silent=True)


def test_node_discovery__a_prolog_is_seen_without_a_pid_file(site: Site) -> None:
    """As under `slurmd --systemd`, which writes none: the login waits for it, and says so."""
    site.place("/opt/site/slurm.conf")
    site.begin_slurmd("slurmd -D -f /opt/site/slurm.conf", pid_file=False)
    site.wait_idle()
    site.pam("sshd", account=[f"{STRICT} prolog_wait=0.3"])
    site.path("/run/lab/slow").touch()
    try:
        job = site.sbatch("bob")
        wait_for(lambda: any(p.command.startswith(f"/bin/sh {PROLOG}") for p in site.processes(0)), "the prolog")
        mark = site.log_mark()
        assert site.ssh("bob").returncode != 0
        assert re.search(r" reason=job-starting .* waited_ms=\d", "\n".join(site.log_since(mark)))
    finally:
        site.path("/run/lab/slow").unlink()
    site.wait_started([job])
    site.cancel(job)


@pytest.mark.parametrize("line", [STRICT, DEFAULT], ids=["strict", "default"])
def test_node_discovery__what_is_lost_lets_nobody_in(site: Site, line: str) -> None:
    """slurmd runs, and its file is gone: by default, too, until the site says otherwise."""
    site.place("/opt/site/slurm.conf")
    site.begin_slurmd("slurmd -f /opt/site/slurm.conf")
    site.run("mv /opt/site/slurm.conf /opt/site/away")
    site.pam("sshd", account=[line])
    mark = site.log_mark()
    assert site.ssh("carol").returncode != 0
    assert site.ssh("root").returncode == 0
    assert " reason=slurm-conf-lost " in "\n".join(site.log_since(mark))
    site.pam("sshd", account=[f"{DEFAULT} action_generic_failure=ignore"])
    assert site.ssh("carol").returncode == 0
    site.end_slurmd()
    site.pam("sshd", account=[DEFAULT])
    mark = site.log_mark()
    assert site.ssh("carol").returncode == 0, "a machine without slurmd and without slurm.conf is no compute node"
    assert " reason=slurm-conf-missing " in "\n".join(site.log_since(mark))


def test_node_discovery__nobody_takes_the_file_away(site: Site) -> None:
    """Everybody may write to /etc/slurm: whoever moves slurm.conf away gains nothing, with or without a slurmd."""
    site.place(USUAL)
    site.begin_slurmd("slurmd")
    site.pam("sshd", account=[DEFAULT])
    site.run("chmod 777 /etc/slurm")
    try:
        mark = site.log_mark()
        assert site.ssh("carol").returncode != 0
        site.run(f"mv {USUAL} /etc/slurm/away", user="carol")
        assert site.ssh("carol").returncode != 0
        site.end_slurmd()
        assert site.ssh("carol").returncode != 0
        reasons = re.findall(r"reason=(\S+) user=carol", "\n".join(site.log_since(mark)))
        assert reasons[0] == reasons[-1] == "slurm-conf-untrusted"
        assert len(reasons) == 3
    finally:
        site.run("chmod 755 /etc/slurm")


def test_node_discovery__a_users_slurmd_is_none(site: Site) -> None:
    """A program of that name, and one that a set-uid program of root's runs, with a command line of the user's."""
    site.place("/opt/site/slurm.conf", stale=USUAL)
    site.write("/home/carol/slurm.conf", site.read(USUAL), owner="carol")
    site.run("cp /bin/sleep /home/carol/slurmd; cp /bin/sleep /opt/slurmd; chmod 4755 /opt/slurmd")
    disguised = [
        site.popen(
            ["bash", "-c", f"exec -a '{program}' {program} 1000"], "carol", {"SLURM_CONF": "/home/carol/slurm.conf"}
        )
        for program in ("/home/carol/slurmd", "/opt/slurmd")
    ]
    try:
        wait_for(lambda: len([p for p in site.processes() if p.command.endswith("slurmd 1000")]) == 2, "the disguises")
        site.begin_slurmd("slurmd -D -f /opt/site/slurm.conf", pid_file=False)
        assert_in_job(site, STRICT, "slurmd uses /opt/site/slurm.conf")
    finally:
        for process in disguised:
            process.kill()
            process.wait()
        site.run("rm /opt/slurmd")


@pytest.mark.parametrize("mode", ["oneshot", "service"])
def test_node_discovery__slurm_user_owns_the_spool_directory(site: Site, mode: str) -> None:
    site.place(USUAL)
    site.begin_slurmd("slurmd")
    service = Service(site)
    if mode == "service":
        service.start()
    try:
        site.run("chown slurm: /var/spool/slurmd")
        assert_in_job(site, f"{STRICT} mode={mode}")
        assert_in_job(site, f"{DEFAULT} mode={mode}")
        site.run("chmod 775 /var/spool/slurmd")
        mark = site.log_mark()
        assert site.ssh(ALICE).returncode != 0, "a group may write to it"
        assert " reason=spool-dir-untrusted " in "\n".join(site.log_since(mark))
    finally:
        site.run("chown root: /var/spool/slurmd; chmod 755 /var/spool/slurmd")
        if service.pid:
            service.stop()


def test_node_discovery__the_service_follows_slurmd(site: Site) -> None:
    """Restarted with another file, gone for a while, and there again."""
    site.place(USUAL)
    site.begin_slurmd("slurmd")
    service = Service(site)
    service.start()
    line = f"{STRICT} mode=service"
    try:
        assert_in_job(site, line, silent=True)
        site.place("/opt/site/slurm.conf", stale=USUAL)
        site.begin_slurmd("slurmd -f /opt/site/slurm.conf")
        mark = site.log_mark()
        assert_in_job(site, line, says="event=slurm-conf .*slurmd uses /opt/site/slurm.conf, not /etc/slurm/slurm.conf")
        assert_in_job(site, line, silent=True)
        site.end_slurmd()
        assert_in_job(site, line, silent=True)
        assert len(re.findall("event=slurm-conf", "\n".join(site.log_since(mark)))) == 1
        site.place(USUAL, stale="/opt/site/slurm.conf")
        site.begin_slurmd("slurmd")
        # no slurmd was there to look at; the service sees this one when it looks again
        site.pam("sshd", account=[line], session=[line])
        wait_for(lambda: site.ssh(ALICE).returncode == 0, "the service to see the other slurmd", interval=0.3)
    finally:
        service.stop()
