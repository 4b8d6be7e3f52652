# SPDX-License-Identifier: Apache-2.0
"""Whether the resident service's time grows with the number of jobs on the node."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

from bench.report import Goal, Options, Report, describe, table
from bench.rig import JOB, PAM_PERM_DENIED, WrongAnswer, blocks, call, measured_node, resident_service
from bench.stats import ratio, summarise

BLOCKS = 8
TEXT = """\
Two nodes beside each other, each with its own service, called in turn, block by block: what the machine is doing
otherwise meets both. On each node one of the jobs is the user's own. Milliseconds, median (quartiles), with the 90 %
interval of the ratio.

{rows}"""


def run(options: Options) -> Report:
    jobs = max(options.jobs)
    found: dict[tuple[str, int], list[float]] = defaultdict(list)
    with measured_node(options.suite) as few, resident_service(few), measured_node(options.suite) as many:
        with resident_service(many):
            for node in (few, many):
                node.submit("alice", JOB)
            if jobs > 1:
                many.submit_many("carol", jobs - 1, JOB, timeout=600)
            for part in blocks(options.rounds, BLOCKS):
                for user, kind, code in (("alice", "admission", 0), ("bob", "refusal", PAM_PERM_DENIED)):
                    for count, node in ((1, few), (jobs, many)):
                        times = call(node, user, part, ["resident"])
                        if set(times["code of resident"]) != {code}:
                            raise WrongAnswer(f"{kind} with {count} jobs: {set(times['code of resident'])}, not {code}")
                        found[kind, count] += times["resident"]
        about = describe(few, rounds=options.rounds)
    rows = [_row(kind, jobs, found[kind, 1], found[kind, jobs]) for kind in ("admission", "refusal")]
    head = ["login", "1 job on the node", f"{jobs} jobs", f"{jobs} jobs / 1 job"]
    text = TEXT.format(rows=table(head, [_cells(row) for row in rows]))
    goals = [Goal(f"{row['kind']}, resident, {jobs} jobs / 1 job", row["growth"][0], 1.2) for row in rows]
    return Report("flat", "The resident service with one job on the node, and with many", about, text, rows, goals)


def _row(kind: str, jobs: int, few: list[float], many: list[float]) -> dict[str, Any]:
    row = {
        "kind": kind,
        "jobs": jobs,
        "few": summarise(few),
        "many": summarise(many),
        "growth": ratio(many, few, 0),
    }
    print("  ", *_cells(row), sep="  ", flush=True)
    return row


def _cells(row: dict[str, Any]) -> list[str]:
    return [row["kind"], str(row["few"]), str(row["many"]), "{:.3f} ({:.3f}-{:.3f})".format(*row["growth"])]
