# SPDX-License-Identifier: Apache-2.0
"""Slurm's configuration for machines, for every release from 20.11 to 26.05."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from lab.cgroups import CgroupTree

Settings = Mapping[str, "str | None"]
"""slurm.conf or cgroup.conf settings by name; None takes a usual one away."""


@dataclass(frozen=True)
class NodeEntry:
    """One NodeName line. `address` None: slurmd is found by the host name."""

    name: str
    hostname: str
    address: str | None = None
    port: int | None = None
    extra: str = ""

    def line(self) -> str:
        # CPUs as the smallest machine has them: task/affinity binds to real ones. Room for many jobs comes
        # from OverSubscribe, not from CPUs that do not exist.
        parts = [f"NodeName={self.name}", f"NodeHostname={self.hostname}", "CPUs=2", "RealMemory=4000"]
        if self.address:
            parts.append(f"NodeAddr={self.address}")
        if self.port:
            parts.append(f"Port={self.port}")
        return " ".join([*parts, self.extra]).rstrip()


@dataclass(frozen=True)
class SlurmConfig:
    """What the machines of one cluster share. settings and cgroup_settings win over the usual ones."""

    controller: str
    nodes: Sequence[NodeEntry]
    settings: Settings = field(default_factory=dict)
    cgroup_settings: Settings = field(default_factory=dict)
    lines: Sequence[str] = ()
    """Further lines of slurm.conf (NodeName=, PartitionName=, ...)."""

    def slurm_conf(self, tree: CgroupTree) -> str:
        usual: dict[str, str | None] = {
            "ClusterName": "lab",
            "SlurmctldHost": self.controller,
            "SlurmUser": "slurm",
            "AuthType": "auth/munge",
            "MpiDefault": "none",
            "ProctrackType": "proctrack/cgroup",
            "TaskPlugin": "task/cgroup,task/affinity",
            "PrologFlags": "contain",
            "ReturnToService": "2",
            "SlurmctldPidFile": "/run/slurmctld.pid",
            "SlurmdPidFile": "/run/slurmd.pid",
            "SlurmdSpoolDir": "/var/spool/slurmd",
            "StateSaveLocation": "/var/spool/slurmctld",
            "SlurmctldLogFile": "/var/log/slurm/slurmctld.log",
            "SlurmdLogFile": "/var/log/slurm/slurmd.log",
            "SlurmctldDebug": "info",
            "SlurmdDebug": "debug",
            "SlurmdParameters": "config_overrides",
            "InactiveLimit": "0",
            "KillWait": "2",
            "MinJobAge": "300",
            "SchedulerType": "sched/backfill",
            # by default a batch job may wait 3 s for company before it is scheduled
            "SchedulerParameters": "batch_sched_delay=0,sched_min_interval=0,bf_interval=1",
            "SelectType": "select/cons_tres",
            "SelectTypeParameters": "CR_Core",
            "JobAcctGatherType": _accounting(tree),
            "JobAcctGatherFrequency": "1",
        }
        nodes = [entry.line() for entry in self.nodes]
        names = ",".join(entry.name for entry in self.nodes)
        # 200 jobs on each of two CPUs
        partition = f"PartitionName=main Nodes={names} Default=YES MaxTime=INFINITE State=UP OverSubscribe=FORCE:200"
        return "\n".join([*_render({**usual, **self.settings}), *nodes, partition, *self.lines]) + "\n"

    def cgroup_conf(self, tree: CgroupTree, release: tuple[int, int]) -> str:
        usual: dict[str, str | None] = {
            "CgroupMountpoint": "/sys/fs/cgroup",
            "ConstrainRAMSpace": "no",
            "ConstrainCores": "yes" if "cpuset" in tree.controllers else "no",
        }
        if release < (23, 11):  # gone later; `no`: the hierarchies are mounted
            usual["CgroupAutomount"] = "no"
        if release >= (21, 8):
            usual["CgroupPlugin"] = f"cgroup/v{tree.version}"
        if tree.version == 2:
            usual["IgnoreSystemd"] = "yes"  # no systemd in the machine to ask for a scope
        return "\n".join(_render({**usual, **self.cgroup_settings})) + "\n"


def _accounting(tree: CgroupTree) -> str:
    needed = {"memory", "cpuacct"} if tree.version == 1 else {"memory", "cpu"}
    return "jobacct_gather/cgroup" if needed <= tree.controllers else "jobacct_gather/linux"


def _render(settings: Settings) -> list[str]:
    return [f"{name}={value}" for name, value in settings.items() if value is not None]
