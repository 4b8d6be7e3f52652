# SPDX-License-Identifier: Apache-2.0
"""Many real ssh logins at the same time, with and without hung steps of somebody else."""

from __future__ import annotations

import json
import re
import statistics
import time
from collections import Counter
from typing import Any

from bench.report import Goal, Options, Report, describe, table
from bench.rig import JOB, SSH_PORT, measured_node, module_lines, resident_service, ssh_server, use_stack
from bench.stats import ratio, summarise
from lab.node import Node

STACKS = ("original", "oneshot", "resident")
HUNG = 5
FEW = 4
OUTCOMES = ("admitted rightly", "refused rightly", "wrong", "undecided", "connection failed")
HEAD = (
    "hung steps",
    "module",
    "logins",
    *OUTCOMES,
    "by the service",
    "wall time, s",
    "p50, ms",
    "p95, ms",
    "p50 / original",
    "our reasons to deny",
)
TEXT = """\
Logins of {users} users at once, half of whom have a job on the node, beside {hung} jobs of another user. Rightly
admitted: the session is in the extern step of the user's own job. Wall time: median over the storms
(lowest-highest); p50 and p95 of a login from the client's start to its end. Most of it is `sshd` and `ssh` themselves,
on the node's CPUs.
*Wrong* may be a lack of time: our module denies a login that is not decided within `timeout=` (5 s), the original lets
it wait; the reasons tell. *Resident* is the service as installed: should it be busy, the one-shot helper answers.

With five `slurmstepd`s of the other user stopped (SIGSTOP) the original module waits for them for ever: it gets {few}
logins and {limit:g} s; *undecided* are the ones that still waited then.

{rows}"""


def run(options: Options) -> Report:
    """Storms with each module in turn, `options.storms` times; then the same with hung steps."""
    rows: list[dict[str, Any]] = []
    with measured_node(options.suite) as node, resident_service(node):
        resident = module_lines(node)["resident"].replace("mode=service", "mode=auto")
        ssh_server(node, resident=resident)
        jobs = _prepare(node, options.users)
        stopped = _extern_steps(node, node.submit_many("bob", HUNG, JOB))
        rows += _storms(node, jobs, 0, options)
        node.run(["kill", "-STOP", *map(str, stopped)])
        rows += _storms(node, jobs, HUNG, options)
        node.run(["kill", "-CONT", *map(str, stopped)])
        about = describe(node, storms=options.storms)
    cells = table(HEAD, [_cells(row) for row in rows])
    text = TEXT.format(users=options.users, hung=HUNG, few=FEW, limit=options.hung_limit_s, rows=cells)
    title = f"A storm of {options.logins} real logins"
    return Report("storm", title, about, text, rows, _goals(rows))


def _prepare(node: Node, count: int) -> dict[str, int]:
    """The users, and the job of every second one (0: none)."""
    names = [f"storm{number}" for number in range(count)]
    node.run("".join(f"useradd -M -s /bin/sh -u {2000 + number} {name}\n" for number, name in enumerate(names)))
    return {name: node.submit(name, JOB) if number % 2 == 0 else 0 for number, name in enumerate(names)}


def _extern_steps(node: Node, jobs: list[int]) -> list[int]:
    titles = tuple(f"slurmstepd: [{job}.extern]" for job in jobs)
    return [process.pid for process in node.processes(0) if process.command.startswith(titles)]


def _storms(node: Node, jobs: dict[str, int], hung: int, options: Options) -> list[dict[str, Any]]:
    found: dict[str, list[dict[str, Any]]] = {stack: [] for stack in STACKS}
    for _ in range(options.storms):
        for stack, storms in found.items():
            few = hung and stack == "original"
            if few and storms:
                continue  # once is enough to see that it hangs
            storms.append(
                _storm(node, stack, jobs, FEW if few else options.logins, options.hung_limit_s if few else 300)
            )
    rows = []
    latencies: dict[str, list[float]] = {}
    for stack, storms in found.items():
        latencies[stack] = [value for storm in storms for value in storm["latencies"]]
        walls = [storm["wall"] for storm in storms]
        outcomes: Counter[str] = sum((storm["outcomes"] for storm in storms), Counter())
        by_service = sum(storm["by service"] for storm in storms)
        counts = {name: outcomes[name] for name in OUTCOMES}
        rows.append({"hung": hung, "stack": stack, "outcomes": counts, "by service": by_service, "wall": walls})
        denials: Counter[str] = sum((storm["denials"] for storm in storms), Counter())
        rows[-1]["denials"] = dict(denials.most_common())
        rows[-1]["latency"] = summarise(latencies[stack])
        if stack != "original" and not hung:
            rows[-1]["ratio"] = ratio(latencies[stack], latencies["original"], 0)
        print("  ", *_cells(rows[-1]), sep="  ", flush=True)
    return rows


def _storm(node: Node, stack: str, jobs: dict[str, int], logins: int, limit_s: float) -> dict[str, Any]:
    use_stack(node, stack)
    users = [list(jobs)[number % len(jobs)] for number in range(logins)]
    before = _decided_by_service(node)
    argv = ["/usr/bin/python3", "/run/bench/logins.py", "storm", str(SSH_PORT), str(limit_s), *users]
    mark = node.log_mark()
    begin = time.monotonic()
    logged_in = json.loads(node.run(argv, timeout=limit_s + 60).stdout)
    wall = time.monotonic() - begin
    reasons = re.findall(r"verdict=deny reason=([a-z-]+)", "\n".join(node.log_since(mark)))
    return {
        "wall": wall,
        "denials": Counter(reasons),
        "latencies": [elapsed for _, elapsed, _, _ in logged_in],
        "outcomes": Counter(_outcome(jobs[user], code, text) for user, _, code, text in logged_in),
        "by service": _decided_by_service(node) - before,
    }


def _outcome(job: int, code: int | None, text: str) -> str:
    if code is None:
        return "undecided"
    if code == 0:
        inside = re.search(r"/job_(\d+)/step_extern", text)
        return "admitted rightly" if job and inside and int(inside[1]) == job else "wrong"
    if "Access denied" not in text:
        return "connection failed"
    return "wrong" if job else "refused rightly"


def _decided_by_service(node: Node) -> int:
    """Logins so far, without those of the one-shot helper."""
    found = 0
    for line in node.run(["slurm-adopt", "metrics"]).stdout.splitlines():
        if line.startswith("slurm_adopt_logins_total{") and 'phase="account"' in line and 'path="resident"' in line:
            found += int(float(line.split()[-1]))
    return found


def _cells(row: dict[str, Any]) -> list[str]:
    latency, outcomes = row["latency"], row["outcomes"]
    counts = [outcomes[name] for name in OUTCOMES]
    walls = f"{statistics.median(row['wall']):.1f} ({min(row['wall']):.1f}-{max(row['wall']):.1f})"
    times = [
        walls,
        f"{latency.median:.0f}",
        f"{latency.p95:.0f}",
        "{:.2f} ({:.2f}-{:.2f})".format(*row["ratio"]) if "ratio" in row else "",
    ]
    times.append(", ".join(f"{reason} {count}" for reason, count in row["denials"].items()))
    return list(map(str, [row["hung"], row["stack"], sum(counts), *counts, row["by service"], *times]))


def _goals(rows: list[dict[str, Any]]) -> list[Goal]:
    found = []
    for row in rows:
        if row["stack"] != "original":
            right = row["outcomes"]["admitted rightly"] + row["outcomes"]["refused rightly"]
            text = f"{row['stack']}, {row['hung']} hung steps: logins not decided, or wrongly"
            found.append(Goal(text, sum(row["outcomes"].values()) - right, 0))
    return found
