# SPDX-License-Identifier: Apache-2.0
"""Nodes set up as public configuration files of other sites have them, by their shapes: on each, whoever has a job gets into
it, whoever has none stays out, root gets in, and the doctor says what is to be said of such a node."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest

from lab.machine import wait_for
from lab.node import Node
from lab.product import install_product, use_product, use_strict_lines
from lab.slurm import Settings

NO_JOB = "you have no active jobs on this node"
CONF = "/etc/slurm/slurm.conf"


@dataclass(frozen=True)
class Setup:
    """`before` runs when the files are there and no daemon does, `conf` is where slurm.conf lies then, `slurmds` are the
    command lines of slurmd, `after` runs once the product is installed,
    instead of what puts its lines into sshd's PAM file. `says`: what the doctor has to say.
    `told`: what a login with a job is told instead of being let in."""

    slurm: Settings = field(default_factory=dict)
    cgroup: Settings = field(default_factory=dict)
    lines: Sequence[str] = ()
    suite: str | None = None
    hostname: str = "lab"
    node_name: str | None = None
    before: str = ""
    conf: str = ""
    slurmds: Sequence[str] = ()
    after: str = ""
    says: Sequence[str] = ()
    told: str = ""


class PublicNode(Node):
    """A node of a set-up."""

    def __init__(self, setup: Setup) -> None:
        super().__init__(
            setup.suite,
            hostname=setup.hostname,
            node_name=setup.node_name,
            slurm=setup.slurm,
            cgroup_conf=setup.cgroup,
            lines=setup.lines,
        )
        self.setup = setup

    def enter_command(self, argv, user=None, env=None, cwd=None):  # type: ignore[no-untyped-def]
        conf = {"SLURM_CONF": self.setup.conf} if self.setup.conf else {}
        return super().enter_command(argv, user, {**conf, **(env or {})}, cwd)

    def start_daemons(self) -> None:
        self.run(self.setup.before or "true")
        if not self.setup.slurmds:
            super().start_daemons()
            return
        self.compute = False
        super().start_daemons()
        for command in self.setup.slurmds:
            self.run(f"setsid {command} >/run/lab/slurmd.out 2>&1 &")
        self.ssh_server.start()
        self.wait_idle()


NIX = """
store=/nix/store; mkdir -p $store/a-slurm.conf $store/b-etc /etc/static; chgrp 30000 $store; chmod 1775 $store
mv /etc/slurm/*.conf $store/a-slurm.conf; rm -r /etc/slurm-llnl; ln -s ../a-slurm.conf $store/b-etc/slurm
ln -s ../..$store/b-etc /etc/static/etc; rm -r /etc/slurm; ln -s static/etc/slurm /etc/slurm
"""
NIX_PAM = """
store=/nix/store; mkdir -p $store/c-pam; cp /lib/*/security/pam_*.so $store/c-pam/
cat >$store/b-etc/sshd <<END
account required $store/c-pam/pam_unix.so # unix (order 10900)
account sufficient $store/c-pam/pam_succeed_if.so quiet user ingroup wheel # wheel (order 11000)
account required $store/c-pam/pam_slurm_adopt.so profile=strict # (order 11001)
auth required $store/c-pam/pam_unix.so
session required $store/c-pam/pam_unix.so
session required $store/c-pam/pam_loginuid.so
session required $store/c-pam/pam_slurm_adopt.so profile=strict
END
rm /etc/pam.d/sshd; ln -s ../static/etc/sshd /etc/pam.d/sshd
"""
OLD_CGROUP = {
    "CgroupMountpoint": '"/sys/fs/cgroup"',
    "ConstrainCores": "no",
    "ConstrainRAMSpace": "no",
    "AllowedRAMSpace": "100",
    "MaxRAMPercent": "100",
    "MinRAMSpace": "30",
}
LINUXPROC = {
    "ProctrackType": "proctrack/linuxproc",
    "TaskPlugin": "task/none",
    "JobAcctGatherType": "jobacct_gather/linux",
}
TREE = {"SlurmdSpoolDir": "/var/spool/slurm/d", "StateSaveLocation": "/var/spool/slurm/ctld"}
NESTED = {"SlurmdSpoolDir": "/var/spool/slurm", "StateSaveLocation": "/var/spool/slurm/slurmctld"}
CLOUD = [
    "NodeName=h4d-set-[0-99] NodeAddr=127.0.0.9 State=CLOUD Feature=nodeset CPUs=1",
    "NodeSet=h4d Nodes=h4d-set-[0-99]",
    "PartitionName=cloud Nodes=h4d SuspendTime=INFINITE ResumeTimeout=600",
]
SETUPS = {
    "all-of-slurms-below-slurms-folder": Setup(TREE, before="mkdir -p /var/spool/slurm/d /var/spool/slurm/ctld; chown -R slurm: /var/spool/slurm"),
    "state-within-the-spool": Setup(NESTED, before="mkdir -p /var/spool/slurm/slurmctld; chown -R slurm: /var/spool/slurm"),
    "a-link-and-slashes": Setup({"SlurmdSpoolDir": "/var//spool/slurmd/"}, before="rmdir /var/spool/slurmd; mkdir -p /local/slurmd; ln -s ../../local/slurmd /var/spool/slurmd"),
    "scratch": Setup({"SlurmdSpoolDir": "/scratch/slurmd"}, before="mkdir -m 1777 /scratch"),
    "scratch-without-a-sticky-bit": Setup({"SlurmdSpoolDir": "/scratch/slurmd"}, before="mkdir -m 777 /scratch", says=["spool-folder-writable"]),
    "slurm-user-is-root": Setup({"SlurmUser": "root"}, before="chown -R root: /var/spool/slurmctld"),
    "everything-is-slurms": Setup(lines=["Include /etc/slurm/a.inc"], before="cd /etc/slurm; echo 'include b.inc' >a.inc; echo 'MessageTimeout=61' >b.inc; cp *.inc /etc/slurm-llnl; chown -R slurm: /etc/slurm /etc/slurm-llnl"),
    "keys-of-old-in-cgroup-conf": Setup(cgroup=OLD_CGROUP, says=["cgroup-constrains-nothing"]),
    "true-in-cgroup-conf": Setup(cgroup={"ConstrainCores": "true"}),
    "one-line-in-cgroup-conf": Setup({"TaskPlugin": "task/affinity"}, dict.fromkeys(("CgroupMountpoint", "CgroupAutomount", "ConstrainCores", "ConstrainRAMSpace")), says=["slurm-task-plugin"]),
    "linuxproc-and-a-mountpoint-of-old": Setup(LINUXPROC, {"CgroupMountpoint": "/cgroup"}, says=["slurm-proctrack"], told="Please tell your administrator"),
    "no-cgroups-at-all": Setup(LINUXPROC, {"CgroupPlugin": "disabled"}, suite="trixie", says=["slurm-proctrack"], told="Please tell your administrator"),
    "plugins-without-their-kinds": Setup({"TaskPlugin": "affinity,cgroup", "AuthType": "munge", "JobContainerType": "none"}, suite="trixie"),
    "a-store": Setup(before=NIX, after=NIX_PAM),
    "a-public-folder-of-slurms": Setup(before="mkdir -p /public/slurm; mv /etc/slurm/*.conf /public/slurm; rm -r /etc/slurm-llnl; chown -R slurm: /public/slurm", conf="/public/slurm/slurm.conf", slurmds=["slurmd -N lab -f /public/slurm/slurm.conf"]),
    "from-the-supervisor": Setup({"SlurmdPidFile": "/run/slurm-of-old/slurmd.pid"}, slurmds=["sh -c 'while :; do /usr/sbin/slurmd -D; sleep 1; done'"], says=["slurmd-pid-file"]),
    "munges-socket-as-of-old": Setup({"AuthInfo": "/var/run/munge/munge.socket.2"}),
    "names-that-no-host-has": Setup({"SlurmdPidFile": "/run/slurmd-%n.pid", "SlurmdLogFile": "/var/log/slurm/%n.log"}, hostname="ci-runner", node_name="c0", slurmds=["slurmd -N c0"]),
    "all-on-localhost": Setup(before="sed -i 's/NodeHostname=lab/NodeHostName=localhost NodeAddr=127.0.0.1/' /etc/slurm*/slurm.conf", slurmds=["slurmd -D -N lab"]),
    "slurmd-with-a-umask": Setup(slurmds=["sh -c 'umask 077; exec slurmd'"]),
    "another-port-and-private-data": Setup({"SlurmdPort": "7003", "PropagateResourceLimitsExcept": "MEMLOCK", "LaunchParameters": "use_interactive_step,enable_nss_slurm,ulimit_pam_adopt", "PrivateData": "jobs,usage,users", "CommunicationParameters": "NoAddrCache"}),
    "slurm-has-its-own-pam": Setup({"UsePAM": "1"}, before="printf 'account required pam_permit.so\\nauth required pam_localuser.so\\nsession required pam_limits.so\\n' >/etc/pam.d/slurm"),
    "flags-and-a-folder-of-prologs": Setup({"PrologFlags": "Alloc,Contain,DeferBatch,Serial", "Prolog": "/etc/slurm/prolog.d/*"}, before="mkdir /etc/slurm/prolog.d; printf '#!/bin/sh\\nexit 0\\n' | tee /etc/slurm/prolog.d/10-a >/etc/slurm/prolog.d/20-b; chmod 755 /etc/slurm/prolog.d/*"),
    "a-hundred-cloud-nodes": Setup({"SuspendProgram": "/bin/true", "ResumeProgram": "/bin/true", "SlurmctldParameters": "cloud_dns", "TreeWidth": "65533"}, lines=CLOUD),
    "whole-nodes": Setup({"SelectType": "select/linear", "SelectTypeParameters": None}),
    "the-cloud-image's-hosts": Setup(before="printf '127.0.1.1 lab.localdomain lab\\n127.0.0.1 localhost\\n' >/etc/hosts"),
}  # fmt: skip

#: A node takes seconds; on the others all was well from the beginning.
EVERY_TIME = ("scratch-without-a-sticky-bit", "linuxproc-and-a-mountpoint-of-old", "a-store")


def doctor(node: Node) -> list[dict[str, Any]]:
    return list(json.loads(node.run(["slurm-adopt", "doctor", "--json"], check=False).stdout)["findings"])


def job_of(text: str) -> int:
    found = re.search(r"/job_(\d+)/step_extern", text)
    return int(found[1]) if found else 0


def marked(name: str) -> Any:
    release = SETUPS[name].suite is not None
    return pytest.param(
        name, marks=[pytest.mark.releases] if release else [] if name in EVERY_TIME else [pytest.mark.extra]
    )


@pytest.mark.parametrize("name", [marked(name) for name in SETUPS])
def test_public_nodes__logins_and_the_doctor(name: str) -> None:
    setup = SETUPS[name]
    with PublicNode(setup) as node:
        install_product(node)
        if setup.after:
            node.run(setup.after)
        else:
            use_strict_lines(node)
        job = node.submit("alice")
        done = node.ssh("alice", "cat /proc/self/cgroup")
        if setup.told:
            assert setup.told in done.stderr, done
        else:
            assert job_of(done.stdout) == job, (done, node.log()[-5:])
        refused = node.ssh("bob")
        assert refused.returncode != 0
        assert NO_JOB in refused.stderr
        assert node.ssh("root").returncode == 0
        findings = doctor(node)
        assert [finding["code"] for finding in findings] == list(setup.says), findings


@pytest.mark.releases
def test_public_nodes__a_pam_service_for_some_users_only() -> None:
    """PAMServiceName in a Match block (OpenSSH 10.0): these users are asked nothing, and the doctor says so."""
    with Node("trixie") as node:
        use_product(node)
        node.run("grep -v slurm_adopt /etc/pam.d/sshd >/etc/pam.d/admins")
        server = node.sshd("some", 2313)
        config = node.path(server.config)
        config.write_text(config.read_text() + "Match User bob\n  PAMServiceName admins\n")
        server.stop()
        node.run(server.argv)
        wait_for(lambda: server.pid, "sshd")
        assert node.ssh("bob", port=2313).returncode == 0
        assert NO_JOB in node.ssh("alice", port=2313).stderr
        [found] = doctor(node)
        assert found["code"] == "sshd-pam-service"
        assert "in a Match block the PAM service admins" in found["seen"]
