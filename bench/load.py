# SPDX-License-Identifier: Apache-2.0
"""A login that comes alone, on a quiet node and on one whose processors are busy."""

from __future__ import annotations

import os
from typing import Any

from bench.account import cells, figures
from bench.report import Goal, Options, Report, describe, table
from bench.rig import (
    BLOCKS,
    NAMES,
    PLAIN,
    QUIET_US,
    blocks,
    busy_processes,
    job_of,
    least_services,
    measure,
    measured_node,
    merge,
    resident_service,
)

#: Busy processes per processor.
LOADS = (0, 1, 2, 4)
COLUMNS = (*NAMES[1:], PLAIN, "bare-python", "floor")
TEXT = """\
Milliseconds of `pam_acct_mgmt()`, median (quartiles), with {quiet_ms} ms between two calls and one job of the user on
the node; ratios are of the time added to a stack with `pam_permit.so` only, with the 90 % interval. The busy processes
are in a job of another user, on {processors} processors. All of a row was measured in turn. *Not hastened* is our
module and the service with `hasten=no`; *slurmstepd alone* (`floor.c`) waits for the kernel as the original does.

{rows}

![latency over load](load.svg)"""


def run(options: Options) -> Report:
    processors = len(os.sched_getaffinity(0))
    rows: list[dict[str, Any]] = []
    with measured_node(options.suite) as node, resident_service(node), least_services(node):
        for load in LOADS:
            found = []
            with busy_processes(node, load * processors):
                for part in blocks(options.rounds, BLOCKS):
                    with job_of(node, "alice") as job:
                        found.append(measure(node, "alice", part, job, names=(*NAMES, PLAIN), pause_us=QUIET_US))
            row = {"kind": "full" if load else "quiet", "load": load, **figures(merge(found), 0)}
            rows.append(row)
            print("  ", *cells(row, load, columns=COLUMNS), sep="  ", flush=True)
        about = describe(node, rounds=options.rounds, processors=processors)
    head = ["node", "busy processes per processor", *NAMES[1:], PLAIN, "bare python", "slurmstepd alone"]
    lines = [[*cells(row, row["load"], columns=COLUMNS)] for row in rows]
    text = TEXT.format(
        rows=table([*head, "resident / original"], lines), quiet_ms=QUIET_US // 1000, processors=processors
    )
    return Report("load", "A login that comes alone, on a quiet and on a full node", about, text, rows, _goals(rows))


def _goals(rows: list[dict[str, Any]]) -> list[Goal]:
    by = {row["load"]: row for row in rows}
    quiet, full = by[0], by[LOADS[-1]]
    return [
        Goal("a login that comes alone, 1 job, resident / original", quiet["resident/original"][0], 0.25),
        Goal("four busy processes per processor, resident / original", full["resident/original"][0], 0.4),
    ]
