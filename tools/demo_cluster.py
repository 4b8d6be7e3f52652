# SPDX-License-Identifier: Apache-2.0
"""`make demo-cluster`: logins from node to node, and the jobs they go to.

Four machines, each in namespaces of its own: slurmctld, two compute nodes, a login node. Every sentence is
checked while it is told; the exit status is 1 if one of them is not true.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys

from lab.cluster import Cluster
from lab.machine import LabError
from lab.product import STRICT, use_product
from lab.stage import NotTrue, Stage, perform, wait_for_enter

WHERE = "hostname; echo SLURM_JOB_ID=$SLURM_JOB_ID; cat /proc/self/cgroup"


def where(text: str) -> tuple[str, str, str]:
    """From WHERE's output: (host, the job of its environment, the job of its cgroups); "" for what is not there."""
    host, _, rest = text.partition("\n")
    variable = re.search(r"SLURM_JOB_ID=(\d+)", rest)
    cgroup = re.search(r"/job_(\d+)/step_extern", rest)
    return host, variable[1] if variable else "", cgroup[1] if cgroup else ""


class Story:
    def __init__(self, cluster: Cluster, stage: Stage) -> None:
        self.cluster = cluster
        self.stage = stage
        self.first = self.second = 0

    def two_jobs(self) -> None:
        stage, cluster = self.stage, self.cluster
        stage.chapter("alice has two jobs on node2")
        stage.command("alice@login $", "salloc --no-shell -N2 -w node1,node2")
        self.first = cluster.allocate("alice", ["node1", "node2"])
        stage.command("alice@login $", "salloc --no-shell -w node2")
        self.second = cluster.allocate("alice", ["node2"])
        stage.output(cluster.login.run(["squeue", "-o", "%.7i %.8u %.2t %.12N"]).stdout)

    def _arrives(self, text: str, errors: str, host: str, job: int, why: str) -> None:
        stage = self.stage
        at, variable, cgroup = where(text)
        stage.output(f"{at}: SLURM_JOB_ID={variable}, cgroup of job {cgroup}" if at else errors)
        stage.true((at, variable, cgroup) == (host, str(job), str(job)), why)

    def from_the_login_node(self) -> None:
        stage, cluster = self.stage, self.cluster
        stage.chapter("a login from outside any job")
        stage.command("alice@login $", "ssh node2")
        done = cluster.login.ssh("alice", WHERE, client="alice", host="node2")
        self._arrives(done.stdout, done.stderr, "node2", self.second, f"it goes to job {self.second}, the newest one")

    def from_inside_a_job(self, version: int) -> None:
        stage, cluster = self.stage, self.cluster
        stage.chapter(f"a login from inside job {self.first}, over IPv{version}")
        to = cluster.address("node2", version)
        stage.command("alice@login $", f"ssh node1 'ssh {to}'")
        done = cluster.ssh("alice", "node1", "node2", WHERE, version=version)
        why = f"it goes to job {self.first}, which it comes from, though job {self.second} is newer"
        self._arrives(done.stdout, done.stderr, "node2", self.first, why)

    def with_somebody_elses_key(self) -> None:
        stage, cluster = self.stage, self.cluster
        stage.chapter("bob holds alice's key, and has a job on both nodes")
        bobs = cluster.allocate("bob", ["node1", "node2"])
        key = cluster.ctl.read("/home/alice/.ssh/id_ed25519")
        cluster["node1"].write("/home/bob/alice_key", key, 0o600, "bob")
        to = f"alice@{cluster.address('node2')}"
        stage.command("bob@login $", f"ssh node1 'ssh -i alice_key {to}'")
        inner = f"ssh -o BatchMode=yes -o IdentitiesOnly=yes -i alice_key {to} '{WHERE}'"
        done = cluster.login.ssh("bob", inner, client="bob", host="node1")
        host, _, job = where(done.stdout)
        stage.output(f"{host}: cgroup of job {job}" if host else done.stderr)
        stage.tell("Slurm on node1 says, and rightly, that this login comes from bob's job. But it is alice's login.")
        stage.true(job != str(bobs), f"it is not in bob's job {bobs}")
        stage.true(not host or job in (str(self.first), str(self.second)), "and in one of alice's, if it is let in")
        cluster.cancel(bobs)

    def end(self) -> None:
        stage, cluster = self.stage, self.cluster
        stage.chapter("both jobs end")
        with stage.waiting("Slurm ends them"):
            for job in (self.first, self.second):
                cluster.cancel(job)
        for node in cluster.nodes:
            stage.true(node.processes("alice") == [], f"{node.hostname} has no process of alice's")
        done = cluster.login.ssh("alice", client="alice", host="node2")
        stage.output(done.stderr)
        stage.true(done.returncode != 0, "and her next login is refused")

    def run(self) -> None:
        self.two_jobs()
        self.from_the_login_node()
        self.from_inside_a_job(4)
        self.with_somebody_elses_key()
        self.end()


def keep(cluster: Cluster) -> None:
    job = cluster.allocate("alice", [node.hostname for node in cluster.nodes])
    print(f"\nThe cluster is up; alice has job {job} on every node. In other terminals, as root:\n")
    for name, machine in cluster.machines.items():
        print(f"    tools/node --name {machine.name} shell alice       alice's shell on {name}")
    print("\nEnter or Ctrl-C here ends it, and nothing stays behind.", flush=True)
    wait_for_enter()


def play(arguments: argparse.Namespace, stage: Stage) -> None:
    print("slurm-adopt: which of a user's jobs a login goes to.")
    with Cluster(arguments.suite) as cluster:
        with stage.waiting("building the module and installing it on the nodes"):
            for node in cluster.nodes:
                use_product(node)
        stage.tell(f"Slurm {cluster.nodes[0].slurm_version}; on node1 and node2, last in both of sshd's stacks:")
        stage.output(STRICT)
        try:
            Story(cluster, stage).run()
        except (NotTrue, LabError, subprocess.SubprocessError):
            print(f"\nThe logs:\n{cluster.diagnose()}", file=sys.stderr)
            raise
        print("\nAll of it was true.", flush=True)
        if arguments.keep:
            keep(cluster)


def main() -> int:
    return perform("Logins from node to node in an isolated cluster.", play)


if __name__ == "__main__":
    sys.exit(main())
