# SPDX-License-Identifier: Apache-2.0
"""Processor time that a login takes from the jobs: module, service or helper, and slurmstepd together."""

from __future__ import annotations

import statistics
from collections import defaultdict
from pathlib import Path
from typing import Any

from bench.report import Goal, Options, Report, describe, table
from bench.rig import JOB, NAMES, PLAIN, blocks, call, job_of, measured_node, resident_service
from bench.stats import ratio, summarise
from lab.node import Node

#: Two calls do not share a grace period.
PAUSE_US = 40_000
BLOCK = 10
JOBS = (1, 40, 150)
STACKS = (*NAMES, PLAIN)
TEXT = """\
Milliseconds of processor time per admission, median (quartiles) of blocks of {block} logins, with each module in turn.
The kernel's accounting of the node's cgroup counts every process of it: the caller with the module, service or helper,
slurmstepd, and what Slurm's daemons do meanwhile; *none* (`pam_permit.so` in the module's place) has all but the first
ones, and is subtracted in the ratios, which have a 90 % interval.

{rows}

Kernel threads are in no cgroup. Those of RCU (`rcu_*`), which are the whole machine's, used so many milliseconds per
login beside that (`/proc/PID/schedstat`; what else runs on the machine is in it): {threads}."""


def run(options: Options) -> Report:
    rows: list[dict[str, Any]] = []
    threads: dict[str, list[float]] = defaultdict(list)
    with measured_node(options.suite) as node, resident_service(node):
        others = 0
        for count in sorted(set(options.jobs) & set(JOBS)):
            if count - 1 > others:
                node.submit_many("carol", count - 1 - others, JOB, timeout=600)
                others = count - 1
            rows.append(_row(node, count, options.rounds, threads))
            print("  ", *_cells(rows[-1]), sep="  ", flush=True)
        about = describe(node, rounds=options.rounds, block=BLOCK)
    head = ["jobs on the node", *STACKS, "one-shot / original", "resident / original"]
    said = ", ".join(f"{name} {statistics.median(values):.2f}" for name, values in threads.items())
    text = TEXT.format(rows=table(head, [_cells(row) for row in rows]), threads=said, block=BLOCK)
    return Report("cputime", "Processor time per login", about, text, rows, _goals(rows))


def _row(node: Node, jobs: int, rounds: int, threads: dict[str, list[float]]) -> dict[str, Any]:
    found: dict[str, list[float]] = defaultdict(list)
    for _ in blocks(rounds, max(2, rounds // BLOCK)):
        with job_of(node, "alice"):
            for name in STACKS:
                before, before_threads = used_ms(node), rcu_threads_ms()
                call(node, "alice", BLOCK, [name], pause_us=PAUSE_US)
                found[name].append((used_ms(node) - before) / BLOCK)
                threads[name].append((rcu_threads_ms() - before_threads) / BLOCK)
    row: dict[str, Any] = {"jobs": jobs, **{name: summarise(values) for name, values in found.items()}}
    for name in ("oneshot", "resident"):
        row[f"{name}/original"] = ratio(found[name], found["original"], row["none"].median)
    return row


def used_ms(node: Node) -> float:
    """Processor time of all processes that the node has ever had."""
    for hierarchy, directory in zip(node.tree.hierarchies, node.tree.directories()):
        if "cpuacct" in hierarchy.options.split(","):
            return int(Path(directory, "cpuacct.usage").read_text()) / 1e6
    stat = Path(node.tree.directories()[0], "cpu.stat").read_text().split()
    return int(stat[stat.index("usage_usec") + 1]) / 1e3


def rcu_threads_ms() -> float:
    """Processor time of the kernel's threads for RCU, of the whole machine."""
    total = 0
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if (entry / "comm").read_text().startswith("rcu"):
                total += int((entry / "schedstat").read_text().split()[0])
        except OSError:
            continue  # it has ended
    return total / 1e6


def _cells(row: dict[str, Any]) -> list[str]:
    ratios = ["{:.2f} ({:.2f}-{:.2f})".format(*row[f"{name}/original"]) for name in ("oneshot", "resident")]
    return [str(row["jobs"]), *(str(row[name]) for name in STACKS), *ratios]


def _goals(rows: list[dict[str, Any]]) -> list[Goal]:
    limits = {1: 1.0, 40: 0.25}
    return [
        Goal(f"processor time per login, {row['jobs']} jobs, resident / original", row["resident/original"][0], limit)
        for row in rows
        if (limit := limits.get(row["jobs"]))
    ]
