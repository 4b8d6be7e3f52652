# SPDX-License-Identifier: Apache-2.0
"""`make demo`: an isolated node with real Slurm and real sshd tells what slurm-adopt does.

Every sentence is checked while it is told; the exit status is 1 if one of them is not true.
PACE=SECONDS is the pause between two things shown (default 0.7 on a terminal, else 0).
"""

from __future__ import annotations

import argparse
import os
import re
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from lab.machine import LabError, Process, wait_for
from lab.node import Node
from lab.product import STRICT, use_product
from lab.root import RootError

# Forgotten in the background: holds 40 MiB and computes, not so much that the machine notices.
SIMULATE = """\
#!/usr/bin/python3
import time
memory = bytearray(40 << 20)
while True:
    sum(range(100000))
    time.sleep(0.001)
"""


class NotTrue(Exception):
    """A sentence of the story does not hold."""


class Stage:
    """What the audience sees."""

    def __init__(self, pace_s: float) -> None:
        self.pace_s = pace_s
        self.colours = sys.stdout.isatty() and "NO_COLOR" not in os.environ
        self._chapter = 0

    def _paint(self, code: str, text: str) -> str:
        return f"\033[{code}m{text}\033[0m" if self.colours else text

    def chapter(self, title: str) -> None:
        self._chapter += 1
        self._show("\n" + self._paint("1;36", f"{self._chapter}. {title}"))

    def tell(self, text: str) -> None:
        self._show(textwrap.fill(" ".join(text.split()), 100, initial_indent="   ", subsequent_indent="   "))

    def command(self, who: str, line: str) -> None:
        self._show(f"   {self._paint('2', who)} {self._paint('1', line)}")

    def output(self, text: str) -> None:
        for line in text.rstrip("\n").splitlines():
            self._show(f"     {self._paint('33', line)}", 0.15)

    def true(self, condition: object, text: str) -> None:
        if not condition:
            print(f"   {self._paint('1;31', 'NOT TRUE:')} {text}", flush=True)
            raise NotTrue(text)
        self._show(f"   {self._paint('1;32', '✔')} {text}")

    @contextmanager
    def waiting(self, what: str) -> Iterator[None]:
        """Says what it waits for, and how long it took."""
        started = time.monotonic()
        print(f"   … {what}", end=" ", flush=True)
        try:
            yield
        finally:
            print(self._paint("2", f"({time.monotonic() - started:.1f} s)"), flush=True)

    def _show(self, text: str, beats: float = 1.0) -> None:
        print(text, flush=True)
        time.sleep(self.pace_s * beats)


def in_extern_step(cgroups: Mapping[str, str], job: int) -> bool:
    path = str(cgroups.get("freezer") or cgroups.get("unified"))
    return f"/job_{job}/step_extern" in path


def cgroup_lines(text: str) -> str:
    """Of /proc/self/cgroup, the lines that name a job."""
    return "\n".join(line for line in text.splitlines() if "/job_" in line)


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
        with stage.waiting("it computes for a while"):
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
        stage.command("root@node #", " ".join(argv))
        used = node.run(argv).stdout
        stage.output(used)
        memory = re.findall(r"\b(\d+(?:\.\d+)?)([KM])\b", used)
        kib = max((float(value) * (1024 if unit == "M" else 1) for value, unit in memory), default=0)
        stage.true(kib >= 40 * 1024, "its 40 MiB are in the job's accounting")

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
    if sys.stdin.isatty():
        sys.stdin.readline()
    else:
        signal.pause()


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
    parser = argparse.ArgumentParser(description="An isolated node with real Slurm and sshd tells the story.")
    parser.add_argument("--keep", action="store_true", help="leave the node up afterwards, until Enter or Ctrl-C")
    parser.add_argument("--fast", action="store_true", help="no pauses (as PACE=0)")
    parser.add_argument("--suite", help="Debian or Ubuntu release of the node (default: this machine's)")
    arguments = parser.parse_args()
    usual = "0.7" if sys.stdout.isatty() else "0"
    stage = Stage(0 if arguments.fast else float(os.environ.get("PACE") or usual))
    try:
        play(arguments, stage)
    except KeyboardInterrupt:
        print("\nended")
        return 0 if arguments.keep else 130
    except NotTrue:
        return 1
    except (LabError, RootError, subprocess.SubprocessError) as error:
        print(f"demo: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
