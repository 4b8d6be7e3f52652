# SPDX-License-Identifier: Apache-2.0
"""`ssh node true`, end to end."""

from __future__ import annotations

import os
from collections import defaultdict
from typing import Any

from bench.report import Options, Report, describe, table
from bench.rig import (
    JOB,
    NAMES,
    QUIET_FLOOR,
    SSH_PORT,
    WrongAnswer,
    busy_processes,
    measured_node,
    quiet_floor,
    resident_service,
    ssh_server,
)
from bench.stats import ratio, summarise
from lab.node import Node

BUSY = 4
TEXT = """\
Milliseconds from the start of the client to its end, median (quartiles), on the node itself; none: `pam_permit.so` in
the module's place. All of a row was measured in turn. Ratios are of the time added to *none*, with the 90 % interval.
A login with our module runs it twice, in the account and in the session stack; the original is in the account stack.
*None* is what sshd and the client take themselves. What slurmstepd alone takes on a quiet node is part of the original
and of ours with `hasten=no`: where the kernel waits before it moves a process, that is 10 ms and more.

{rows}"""


def run(options: Options) -> Report:
    rows: list[dict[str, Any]] = []
    with measured_node(options.suite) as node, resident_service(node):
        ssh_server(node)
        node.submit("alice", JOB)
        processors = len(os.sched_getaffinity(0))
        with busy_processes(node, BUSY * processors):
            rows.append({"node": f"full: {BUSY} busy processes per processor", "jobs": 1, **_row(node, options.rounds)})
            print("  ", *_cells(rows[-1]), sep="  ", flush=True)
        running = 1
        for jobs in sorted({1, 40} & {*options.jobs, 1}):
            if jobs > running:
                node.submit_many("carol", jobs - running, JOB, timeout=600)
                running = jobs
            rows.append({"node": "quiet" if jobs == 1 else "crowded", "jobs": jobs, **_row(node, options.rounds)})
            print("  ", *_cells(rows[-1]), sep="  ", flush=True)
        about = describe(node, rounds=options.rounds, **{QUIET_FLOOR: quiet_floor(node)})
    head = ["node", "jobs on the node", *NAMES, "one-shot / original", "resident / original"]
    text = TEXT.format(rows=table(head, [_cells(row) for row in rows]))
    return Report("ssh", "Real logins: `ssh node true`", about, text, rows)


def _row(node: Node, rounds: int) -> dict[str, Any]:
    found: dict[str, list[float]] = defaultdict(list)
    argv = ["/usr/bin/python3", "/run/bench/logins.py", "turns", str(SSH_PORT), str(rounds), "alice", *NAMES]
    for line in node.run(argv, timeout=30 + 20 * rounds).stdout.splitlines():
        name, microseconds, code = line.split()
        if code != "0":
            raise WrongAnswer(f"ssh with {name} ended with {code}")
        found[name].append(int(microseconds) / 1000)
    row: dict[str, Any] = {name: summarise(values) for name, values in found.items()}
    for name in ("oneshot", "resident"):
        row[f"{name}/original"] = ratio(found[name], found["original"], row["none"].median)
    return row


def _cells(row: dict[str, Any]) -> list[str]:
    ratios = ["{:.3f} ({:.3f}-{:.3f})".format(*row[f"{name}/original"]) for name in ("oneshot", "resident")]
    return [row["node"], str(row["jobs"]), *(str(row[name]) for name in NAMES), *ratios]
