# SPDX-License-Identifier: Apache-2.0
"""`make demo`: an isolated node with real Slurm and real sshd tells what slurm-adopt does.

Every sentence is checked while it is told; the exit status is 1 if one of them is not true.
PACE=SECONDS is the pause between two things shown (see lab.stage).
"""

from __future__ import annotations

import argparse
import contextlib
import re
import subprocess
import sys
import time
from collections.abc import Mapping

from lab.machine import LabError, Process, wait_for
from lab.node import Node
from lab.product import STRICT, use_product
from lab.stage import NotTrue, Stage, perform, wait_for_enter

# Forgotten in the background: holds 40 MiB and computes, not so much that the machine notices.
SIMULATE = """\
#!/usr/bin/python3
import time
memory = bytearray(40 << 20)
while True:
    sum(range(100000))
    time.sleep(0.001)
"""


def in_extern_step(cgroups: Mapping[str, str], job: int) -> bool:
    path = str(cgroups.get("freezer") or cgroups.get("unified"))
    return f"/job_{job}/step_extern" in path


def cgroup_lines(text: str) -> str:
    """Of /proc/self/cgroup, the lines that name a job."""
    return "\n".join(line for line in text.splitlines() if "/job_" in line)


def memory_kib(sstat: str) -> float:
    """The largest amount of memory in sstat's output."""
    found = re.findall(r"\b(\d+(?:\.\d+)?)([KM])\b", sstat)
    return max((float(value) * (1024 if unit == "M" else 1) for value, unit in found), default=0)


class Story:
    def __init__(self, node: Node, stage: Stage) -> None:
        self.node = node
        self.stage = stage
        self.job = 0

    def refused(self) -> None:
        stage = self.stage
        stage.chapter("alice has no job on this node")
        stage.command("alice@login $", "ssh node echo I am in")
        done = self.node.ssh("alice", "echo I am in")
        stage.output(done.stderr)
        stage.true(done.returncode != 0 and not done.stdout, "refused, before anything of hers ran on the node")
        stage.true("no active jobs on this node" in done.stderr, "and she is told why")

    def admitted(self) -> None:
        stage, node = self.stage, self.node
        stage.chapter("alice submits a job and tries again")
        stage.command("alice@login $", "sbatch --wrap 'sleep 1000'")
        with stage.waiting("the job starts"):
            self.job = node.submit("alice")
        stage.output(node.run(["squeue", "-o", "%.7i %.9P %.8u %.2t %.6M %R"]).stdout)
        look = "echo SLURM_JOB_ID=$SLURM_JOB_ID; cat /proc/self/cgroup"
        stage.command("alice@login $", f"ssh node '{look}'")
        done = node.ssh("alice", look)
        job_id, _, cgroups = done.stdout.partition("\n")
        stage.output(job_id + "\n" + cgroup_lines(cgroups) + done.stderr)
        stage.true(done.returncode == 0, "admitted")
        stage.true(job_id == f"SLURM_JOB_ID={self.job}", "her shell knows its job")
        stage.true(f"/job_{self.job}/step_extern" in cgroups, "and is in that job's cgroups, as the kernel says")
        bob = node.ssh("bob", "true")
        stage.true(bob.returncode != 0, "bob, who has no job here, is still refused")

    def leave_something_behind(self) -> Process:
        stage, node = self.stage, self.node
        stage.chapter("a login leaves a process behind")
        node.write("/home/alice/simulate", SIMULATE, 0o755, "alice")
        start = "setsid nohup ./simulate </dev/null >/dev/null 2>&1 &"
        stage.command("alice@login $", f"ssh node '{start}'")
        node.ssh("alice", start, check=True)
        left: Process = wait_for(lambda: self._process("./simulate"), "the process left behind")
        stage.output(f"pid {left.pid}: {left.cgroups.get('freezer') or left.cgroups.get('unified')}")
        stage.true(in_extern_step(left.cgroups, self.job), "the login is over; what it started is still in the job")
        return left

    def _process(self, command: str) -> Process | None:
        found = [process for process in self.node.processes("alice") if process.command.endswith(command)]
        return found[0] if len(found) == 1 else None

    def account(self, left: Process) -> None:
        stage, node = self.stage, self.node
        stage.chapter("what it uses is accounted to the job")
        with stage.waiting("it computes, and Slurm looks at it once a second"):
            time.sleep(3)
        stage.command("root@node #", f"scontrol listpids {self.job}")
        pids = node.run(["scontrol", "listpids", str(self.job)]).stdout
        extern = [line for line in pids.splitlines() if " extern " in line or line.startswith("PID")]
        stage.output("\n".join(line.rstrip() for line in extern))
        stage.true(
            any(line.split()[0] == str(left.pid) for line in extern), f"Slurm counts process {left.pid} among the job's"
        )
        if node.slurm_release < (21, 8):
            self._account_by_cgroup(left)
            return
        argv = ["sstat", "-a", "-j", f"{self.job}.extern", "-o", "JobID,NTasks,AveCPU,MaxRSS,Pids%30"]
        with contextlib.suppress(LabError):  # a busy machine is late
            wait_for(lambda: memory_kib(node.run(argv).stdout) >= 40 * 1024, "sstat", 15, 0.5)
        stage.command("root@node #", " ".join(argv))
        used = node.run(argv).stdout
        stage.output(used)
        stage.true(memory_kib(used) >= 40 * 1024, "its 40 MiB are in the job's accounting")

    def _account_by_cgroup(self, left: Process) -> None:
        """What Slurm's accounting reads: sstat of 20.11 shows nothing of an extern step."""
        counter = f"/sys/fs/cgroup/memory{left.cgroups['memory']}/memory.max_usage_in_bytes"
        self.stage.command("root@node #", f"cat {counter}")
        used = self.node.run(["cat", counter]).stdout
        self.stage.output(used)
        self.stage.true(int(used) >= 40 << 20, "its 40 MiB count for the job's step")

    def cancel(self, left: Process) -> None:
        stage, node = self.stage, self.node
        stage.chapter("the job ends")
        stage.tell("alice also has a login open, in another window.")
        login = node.ssh_popen("alice", "echo open; exec sleep 1000")
        assert login.stdout is not None
        stage.true(login.stdout.readline() == "open\n", "it is open")
        stage.command("alice@login $", f"scancel {self.job}")
        with stage.waiting("Slurm ends the job"):
            node.cancel(self.job)
        stage.true(login.wait(10) != 0, "her open login is closed")
        gone = node.run(["kill", "-0", str(left.pid)], check=False)
        stage.command("root@node #", f"kill -0 {left.pid}")
        stage.output(gone.stderr)
        stage.true(gone.returncode != 0 and node.cgroups_of(left.pid) == {}, f"process {left.pid} is gone")
        stage.true(node.processes("alice") == [], "the kernel knows no process of alice on this node any more")
        stage.true(node.ssh("alice", "true").returncode != 0, "and the next login is refused again")

    def run(self) -> None:
        self.refused()
        self.admitted()
        left = self.leave_something_behind()
        self.account(left)
        self.cancel(left)


def keep(node: Node) -> None:
    """Leave the node up until Enter or Ctrl-C."""
    job = node.submit("alice")
    enter = f"tools/node --name {node.name}"
    print(
        f"\nThe node is up. alice has job {job} on it, bob and carol have none. In another terminal, as root:\n\n"
        f"    {enter} ssh alice         an ssh login of alice's (or bob's)\n"
        f"    {enter} shell             a root shell on the node\n"
        f"    {enter} shell alice       a shell of alice's outside any job, for sbatch and scancel\n"
        f"    {enter} log               what was logged\n\n"
        "Enter or Ctrl-C here ends it, and nothing stays behind.",
        flush=True,
    )
    wait_for_enter()


def play(arguments: argparse.Namespace, stage: Stage) -> None:
    print("slurm-adopt: who may ssh into a compute node, and into which job such a login goes.")
    stage.tell(
        "Everything below really happens, on a node of its own: munged, slurmctld, slurmd and sshd run in "
        "namespaces on a private root. The machine itself stays as it is."
    )
    with Node(arguments.suite) as node:
        with stage.waiting("building the module and installing it on the node"):
            use_product(node)
        release = node.run(["ssh", "-V"]).stderr.split(",")[0]
        stage.tell(f"Slurm {node.slurm_version}, {release}; in /etc/pam.d/sshd, last in their stacks:")
        stage.output(f"account  {STRICT}\nsession  {STRICT}")
        try:
            Story(node, stage).run()
        except (NotTrue, LabError, subprocess.SubprocessError):
            print(f"\nThe node's logs:\n{node.diagnose()}", file=sys.stderr)
            raise
        print("\nAll of it was true.", flush=True)
        if arguments.keep:
            keep(node)


def main() -> int:
    return perform("An isolated node with real Slurm and real sshd tells the story.", play)


if __name__ == "__main__":
    sys.exit(main())
