# SPDX-License-Identifier: Apache-2.0
"""Logins from a job on one node to another node: caller ID, with sources that answer and sources that do not."""

from __future__ import annotations

import re
import subprocess
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any

from bench.report import Goal, Options, Report, describe, table
from bench.rig import NAMES, SSH_PORT, WrongAnswer, install_drivers, measure, resident_service, ssh_server, use_stack
from bench.stats import ratio, summarise
from lab.cluster import Cluster
from lab.node import Node

USER = "alice"
SLURMD_PORT = 6818
#: One of them takes the original module ten seconds.
SLOW_ROUNDS = 5
SSH_ROUNDS = 30
TEXT = """\
alice has two jobs on two nodes of one cluster, and goes from within the older one on node1 to node2. Milliseconds,
median (quartiles); all of a row was measured in turn, both tables in one run. Ratios are of the time added to *none*
(`pam_permit.so` in the module's place), with the 90 % interval.

`pam_acct_mgmt()` alone, the source answering; all of them end in the job that the login comes from:

{calls}

The whole `ssh` command. *Right*: logins that landed in the job they come from if the source answers, else in the newest
(original, one-shot, resident). *First*: the resident service's first login, which finds out that the source does not
answer; it is not asked again for a minute.

{logins}"""
#: In the job, on node1: the other end of a connection that the measured process holds.
LISTENER = """
import socket
server = socket.create_server(("", 0), backlog=64)
print(server.getsockname()[1], flush=True)
held = []
while True:
    held = [*held[-20:], server.accept()]
"""
#: In slurmd's place: accepts and says nothing.
MUTE = f"""
import socket
server = socket.create_server(("", {SLURMD_PORT}), family=socket.AF_INET6, dualstack_ipv6=True, backlog=64)
print("ready", flush=True)
held = []
while True:
    held.append(server.accept())
"""
#: In the job, on node1: one ssh for each line that comes.
DRIVER = """
import subprocess, sys, time
command = ["ssh", "-p", sys.argv[1], "-o", "BatchMode=yes", "node2", "cat /proc/self/cgroup | tr '\\\\n' ' '"]
for _ in sys.stdin:
    start = time.perf_counter_ns()
    done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)
    print((time.perf_counter_ns() - start) / 1e6, done.returncode, done.stdout, flush=True)
"""


@contextmanager
def answers(_: Cluster) -> Iterator[None]:
    yield


@contextmanager
def drops_packets(cluster: Cluster) -> Iterator[None]:
    """Behind a firewall."""
    chain = "add table inet bench; add chain inet bench inbound { type filter hook input priority 0; }"
    cluster["node1"].run(["nft", f"{chain}; add rule inet bench inbound tcp dport {SLURMD_PORT} drop"])
    try:
        yield
    finally:
        cluster["node1"].run(["nft", "delete table inet bench"])


@contextmanager
def stays_silent(cluster: Cluster) -> Iterator[None]:
    """Something else on slurmd's port accepts and says nothing, on IPv4 and IPv6."""
    node = cluster["node1"]
    node.slurmd.stop()
    try:
        with node.popen(["python3", "-c", MUTE], "bob", stdout=subprocess.PIPE) as mute:
            try:
                assert mute.stdout is not None
                assert mute.stdout.readline() == "ready\n"
                yield
            finally:
                mute.kill()
    finally:
        node.slurmd.start()
        cluster.ctl.wait_idle()


@dataclass(frozen=True)
class Situation:
    """What the source's slurmd does, and whether the caller's job can be known."""

    name: str
    set_up: Callable[[Cluster], AbstractContextManager[None]]
    known: bool


SITUATIONS = (
    Situation("answers", answers, True),
    Situation("drops packets", drops_packets, False),
    Situation("accepts, says nothing", stays_silent, False),
)


def run(options: Options) -> Report:
    with Cluster(options.suite) as cluster:
        node = cluster["node2"]
        install_drivers(node)
        ssh_server(node)
        node.write("/etc/ssh/bench_keys", node.read(f"/home/{USER}/.ssh/id_ed25519.pub"))
        both = ["node1", "node2"]
        jobs = (cluster.allocate(USER, both), cluster.allocate(USER, both))
        calls = _calls(cluster, jobs[0], options.rounds)
        print("  ", *_call_cells(calls), sep="  ", flush=True)
        rows = [calls]
        with _in_job(cluster, jobs[0], DRIVER, str(SSH_PORT)) as driver:
            for situation in SITUATIONS:
                rounds = min(options.rounds, SSH_ROUNDS if situation.known else SLOW_ROUNDS)
                rows.append(_logins(cluster, driver, situation, jobs, max(2, rounds)))
                print("  ", *_login_cells(rows[-1]), sep="  ", flush=True)
        about = describe(node, rounds=options.rounds)
    ratios = ["one-shot / original", "resident / original"]
    text = TEXT.format(
        calls=table([*NAMES, *ratios], [_call_cells(calls)]),
        logins=table(["source's slurmd", *NAMES, "first", *ratios, "right"], [_login_cells(row) for row in rows[1:]]),
    )
    return Report("callerid", "Logins from node to node", about, text, rows, _goals(rows))


@contextmanager
def _in_job(cluster: Cluster, job: int, script: str, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """A Python script in a step of the job on node1."""
    argv = ["srun", f"--jobid={job}", "--overlap", "-N1", "-n1", "-w", "node1", "python3", "-u", "-c", script]
    process = cluster.login.popen([*argv, *arguments], USER, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def _calls(cluster: Cluster, job: int, rounds: int) -> dict[str, Any]:
    """pam_acct_mgmt() of a process on node2 whose connection's other end is in the job on node1."""
    node = cluster["node2"]
    with _in_job(cluster, job, LISTENER) as listener, resident_service(node):
        assert listener.stdout is not None
        port = int(listener.stdout.readline())
        found = measure(node, USER, rounds, source=(cluster.address("node1"), port))
    for name in NAMES:
        if any(found[f"code of {name}"]):
            raise WrongAnswer(f"pam_acct_mgmt() with {name} refused")
    return _row({name: found[name] for name in NAMES})


def _logins(
    cluster: Cluster, driver: subprocess.Popen[str], situation: Situation, jobs: tuple[int, int], rounds: int
) -> dict[str, Any]:
    """Real logins with each module in turn; the resident service starts with an empty memory."""
    node = cluster["node2"]
    times: dict[str, list[float]] = defaultdict(list)
    right = dict.fromkeys(NAMES, 0)
    with situation.set_up(cluster), resident_service(node):
        use_stack(node, "resident")
        first_ms, _ = _login(driver, node)
        for _ in range(rounds):
            for name in NAMES:
                use_stack(node, name)
                took_ms, landed = _login(driver, node)
                times[name].append(took_ms)
                right[name] += landed == jobs[0 if situation.known else 1]
    base_ms = summarise(times["none"]).median
    shares = {name: f"{right[name]}/{rounds}" for name in NAMES[1:]}
    return {"source": situation.name, **_row(times), "first_ms": first_ms - base_ms, "right": shares}


def _login(driver: subprocess.Popen[str], node: Node) -> tuple[float, int]:
    """(milliseconds, the job that it landed in or 0)."""
    assert driver.stdin is not None
    assert driver.stdout is not None
    driver.stdin.write("go\n")
    driver.stdin.flush()
    took_ms, code, said = (driver.stdout.readline() or "0 1 -").split(" ", 2)
    if code != "0":
        raise WrongAnswer(f"ssh ended with {code}: {said}\n{node.diagnose()}")
    job = re.search(r"/job_(\d+)/", said)
    return float(took_ms), int(job[1]) if job else 0


def _row(times: dict[str, list[float]]) -> dict[str, Any]:
    row: dict[str, Any] = {name: summarise(values) for name, values in times.items()}
    for name in ("oneshot", "resident"):
        row[f"{name}/original"] = ratio(times[name], times["original"], row["none"].median)
    return row


def _ratios(row: dict[str, Any]) -> list[str]:
    return ["{:.3f} ({:.3f}-{:.3f})".format(*row[f"{name}/original"]) for name in ("oneshot", "resident")]


def _call_cells(row: dict[str, Any]) -> list[str]:
    return [*(str(row[name]) for name in NAMES), *_ratios(row)]


def _login_cells(row: dict[str, Any]) -> list[str]:
    measured = [str(row[name]) for name in NAMES]
    return [row["source"], *measured, f"{row['first_ms']:.0f}", *_ratios(row), ", ".join(row["right"].values())]


def _goals(rows: Sequence[dict[str, Any]]) -> list[Goal]:
    calls, _, drops, silent = rows
    added_ms = [row["resident"].median - row["none"].median for row in (drops, silent)]
    return [
        Goal("Caller ID with a source that answers, resident / original", calls["resident/original"][0], 0.8),
        Goal("A source that drops packets, resident / original", drops["resident/original"][0], 0.05),
        Goal("A source that stays silent, resident / original", silent["resident/original"][0], 0.05),
        Goal("What a source that does not answer adds, once known", max(added_ms), 100, " ms"),
    ]
