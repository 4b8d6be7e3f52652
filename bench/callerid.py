# SPDX-License-Identifier: Apache-2.0
"""`python -m bench.callerid`: a login from a job on one node to another node, our module beside Debian's C module.

Real ssh, end to end, between two isolated nodes of one cluster; the user has two jobs on both. Three sources: one whose
slurmd answers, one behind a firewall that drops packets, one whose slurmd accepts connections and says nothing.
Writes `bench/results/callerid.md` and `callerid.json`.
"""

from __future__ import annotations

import argparse
import json
import platform
import re
import subprocess
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from bench.rig import start_service
from bench.stats import ratio, summarise
from lab.cluster import Cluster
from lab.product import install_product

RESULTS = Path(__file__).parent / "results"
#: Each as its documentation recommends it: the original has nothing for the session stack.
ORIGINAL = "action_adopt_failure=deny action_generic_failure=deny"
STRICT = "pam_slurm_adopt.so profile=strict"
NAMES = ("none", "original", "oneshot", "resident")
#: Runs in a job on the first node: one ssh per line on stdin; milliseconds and what it said on stdout.
DRIVER = """
import subprocess, sys, time
command = ["ssh", "-o", "BatchMode=yes", "node2", "cat /proc/self/cgroup | tr '\\\\n' ' '"]
for _ in sys.stdin:
    start = time.perf_counter_ns()
    done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)
    print((time.perf_counter_ns() - start) / 1e6, done.returncode, done.stdout, flush=True)
"""


@dataclass
class Situation:
    """What the source does; `sought` is how the right job is called in the report."""

    name: str
    sought: str
    set_up: Callable[[Cluster], AbstractContextManager[None]]
    rounds: int
    times: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    right: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    #: the resident service's first login, before it knows the source
    first_ms: float = 0


@contextmanager
def answering(_: Cluster) -> Iterator[None]:
    yield


@contextmanager
def dropping(cluster: Cluster) -> Iterator[None]:
    chain = "add table inet bench; add chain inet bench in { type filter hook input priority 0; }"
    cluster["node1"].run(["nft", f"{chain}; add rule inet bench in tcp dport 6818 drop"])
    try:
        yield
    finally:
        cluster["node1"].run(["nft", "delete table inet bench"])


@contextmanager
def silent(cluster: Cluster) -> Iterator[None]:
    """Stopped: the kernel accepts for slurmd, up to its backlog."""
    pid = cluster["node1"].read("/run/slurmd.pid").strip()
    cluster["node1"].run(["kill", "-STOP", pid])
    try:
        yield
    finally:
        cluster["node1"].run(["kill", "-CONT", pid])


class Bench:
    """The cluster, alice's two jobs on both nodes, and a driver in the older one."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.target = cluster["node2"]
        install_product(self.target)
        both = ["node1", "node2"]
        self.older, self.newest = cluster.allocate("alice", both), cluster.allocate("alice", both)
        cluster["node1"].write("/run/bench/driver.py", DRIVER)
        argv = ["srun", f"--jobid={self.older}", "--overlap", "-N1", "-n1", "-w", "node1", "python3"]
        self.driver = cluster.login.popen(
            [*argv, "/run/bench/driver.py"], "alice", stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )

    def use(self, name: str) -> None:
        """Put a module into sshd's PAM file, which sshd reads at each login."""
        lines = {
            "none": "required pam_permit.so",
            "original": f"required {self.target.original_module} {ORIGINAL}",
            "oneshot": f"required {STRICT} mode=oneshot",
            "resident": f"required {STRICT} mode=service",
        }
        session = [lines[name]] if name in ("oneshot", "resident") else []
        self.target.pam("sshd", account=[lines[name]], session=session)

    def login(self) -> tuple[float, int]:
        """(milliseconds, job that it landed in or 0) of one ssh from the older job to the other node."""
        assert self.driver.stdin is not None
        assert self.driver.stdout is not None
        self.driver.stdin.write("go\n")
        self.driver.stdin.flush()
        took_ms, code, said = (self.driver.stdout.readline() or "0 1 -").split(" ", 2)
        if code != "0":
            sys.exit(f"a login failed: {said}\n{self.target.diagnose()}")
        job = re.search(r"/job_(\d+)/", said)
        return float(took_ms), int(job[1]) if job else 0

    def measure(self, situation: Situation) -> None:
        """One login of each kind per round, in turn; the resident service starts with an empty memory."""
        sought = self.older if situation.sought == "caller's" else self.newest
        service = start_service(self.target)
        try:
            with situation.set_up(self.cluster):
                self.use("resident")
                situation.first_ms, _ = self.login()
                for _ in range(situation.rounds):
                    for name in NAMES:
                        self.use(name)
                        took_ms, job = self.login()
                        situation.times[name].append(took_ms)
                        situation.right[name] += job == sought
        finally:
            service.terminate()
            service.wait(10)


def added(situation: Situation, name: str) -> list[float]:
    """Milliseconds that a module adds to a login without any."""
    base_ms = summarise(situation.times["none"]).median
    return [took_ms - base_ms for took_ms in situation.times[name]]


def table(situations: list[Situation]) -> str:
    """Added time by situation and module as markdown."""
    head = ["source's slurmd", "rounds", "without a module", "original", "one-shot", "resident"]
    head += ["resident's first", "one-shot / original", "resident / original", "in the right job (o., one-shot, res.)"]
    lines = ["| " + " | ".join(head) + " |", "|" + " --- |" * len(head)]
    for one in situations:
        base = summarise(one.times["none"])
        cells = [one.name, str(one.rounds), str(base)]
        cells += [str(summarise(added(one, name))) for name in NAMES[1:]]
        cells.append(f"{one.first_ms - base.median:.1f}")
        for name in ("oneshot", "resident"):
            cells.append("{:.3f} ({:.3f}-{:.3f})".format(*ratio(one.times[name], one.times["original"], base.median)))
        cells.append(", ".join(str(one.right[name]) for name in NAMES[1:]))
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def report(about: dict[str, str], situations: list[Situation]) -> str:
    """The whole result as a document."""
    what = ", ".join(f"{key} {value}" for key, value in about.items())
    return (
        "# Logins from node to node: caller ID\n\n"
        "A user with two jobs on two nodes goes from within the older job on node1 to node2 with ssh. Milliseconds for\n"
        "the whole ssh command without a module, and what each module adds to that: median (quartiles). All of it was\n"
        "measured in one run on one cluster, the kinds in turn; ratios are of added time, with the 90 % interval. The\n"
        "right job is the one that the login comes from if the source answers, else the newest.\n\n"
        "*Resident's first* is the first login after the service's start. What it adds to later ones does not depend on\n"
        "a source that does not answer: that is not asked again for a minute.\n\n"
        f"{what}\n\n{table(situations)}\n"
    )


def main() -> None:
    parser = argparse.ArgumentParser(prog="bench.callerid", description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--rounds", type=int, default=40, help="logins of each kind, source answering (%(default)s)")
    parser.add_argument("--slow-rounds", type=int, default=5, help="the same, source not answering (%(default)s)")
    parser.add_argument("--suite", default=None, help="Debian release of the nodes")
    args = parser.parse_args()
    situations = [
        Situation("answers", "caller's", answering, args.rounds),
        Situation("drops packets", "newest", dropping, args.slow_rounds),
        Situation("accepts, stays silent", "newest", silent, args.slow_rounds),
    ]
    with Cluster(args.suite) as cluster:
        bench = Bench(cluster)
        for situation in situations:
            bench.measure(situation)
            print(table([situation]).splitlines()[-1], flush=True)
        bench.driver.kill()
        node = bench.target
        about = {
            "slurm": node.slurm_version,
            "openssh": node.run("ssh -V 2>&1").stdout.split(",")[0],
            "python": node.run(["/usr/bin/python3", "-V"]).stdout.split()[1],
            "kernel": platform.release().split("-")[0],
            "cgroup": f"v{node.tree.version}",
        }
    rows = [
        {"source": one.name, "first_ms": one.first_ms, "times_ms": one.times, "right": one.right} for one in situations
    ]
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "callerid.json").write_text(json.dumps({"about": about, "rows": rows}, indent=1) + "\n")
    (RESULTS / "callerid.md").write_text(report(about, situations))
    print(f"written: {RESULTS}/callerid.md, callerid.json")


if __name__ == "__main__":
    main()
