# SPDX-License-Identifier: Apache-2.0
"""Time of pam_acct_mgmt() over the number of jobs on the node."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Any

from bench.report import Goal, Options, Report, describe, table
from bench.rig import (
    EXCHANGE,
    JOB,
    LEAST,
    NAMES,
    PAM_PERM_DENIED,
    blocks,
    check_codes,
    job_of,
    least_services,
    measure,
    measured_node,
    merge,
    resident_service,
)
from bench.stats import ratio, summarise
from lab.node import Node

COLUMNS = (*NAMES[1:], "bare-python", "floor", "floor-oneshot", EXCHANGE, LEAST)
TIMES = (*NAMES[1:], "bare python", "slurmstepd alone", "the same, later", "exchange alone", "least Python")
HEAD, RATIO = ("login", "jobs on the node"), "resident / original"
LEAST_RATIO = f"{LEAST}/original"
TEXT = """\
Milliseconds, median (quartiles). All of a row was measured in one run, in turn, each call in a fresh process; ratios
are of the time added to a stack with `pam_permit.so` only, with the 90 % interval. *slurmstepd alone* is what no module
can save: connect, handshake, ask for the owner, add the process (`floor.c`). *The same, later* begins 20 ms after the
last one, as one-shot's does. *exchange alone* is what no service can save: our module before a program in C that
refuses everybody and looks at nothing (`answer.c`). *Least Python* is our module before forty lines of Python that look
at nothing either, and that have slurmstepd take the process in for an admission (`least.py`): what no service in Python
can save.

{rows}

![latency over jobs](account.svg)

Calls follow each other by 5 ms here, and so the kernel has nothing to wait for. [A login that comes alone](load.md) is
another matter."""


def run(options: Options) -> Report:
    rows: list[dict[str, Any]] = []
    with measured_node(options.suite) as node, resident_service(node), least_services(node):
        others = 0
        for count in sorted(set(options.jobs)):
            if count - 1 > others:
                node.submit_many("carol", count - 1 - others, JOB, timeout=600)
                others = count - 1
            rows += _rows(node, count, options.rounds)
        about = describe(node, rounds=options.rounds)
    lines = [_cells(row) for row in rows]
    text = TEXT.format(rows=table([*HEAD, *TIMES, RATIO, "least Python / original"], lines))
    return Report("account", "Time of `pam_acct_mgmt()` over the number of jobs", about, text, rows, goals(rows))


def _rows(node: Node, count: int, rounds: int) -> list[dict[str, Any]]:
    """Admission (alice has one job) and refusal (bob has none), with `count` jobs on the node, one of them alice's."""
    rows = []
    if count:
        rows.append({"kind": "admission", "jobs": count, **figures(_admissions(node, rounds), 0)})
    names = (*NAMES, EXCHANGE, LEAST)
    with job_of(node, "alice") if count else contextlib.nullcontext():
        found = merge([measure(node, "bob", part, names=names) for part in blocks(rounds)])
    rows.append({"kind": "refusal", "jobs": count, **figures(found, PAM_PERM_DENIED)})
    for row in rows:
        print("  ", *_cells(row), sep="  ", flush=True)
    return rows


def _admissions(node: Node, rounds: int) -> dict[str, list[float]]:
    """Each block with a job of its own: slurmstepd gets slower with every process that it has ever taken in."""
    found = []
    for part in blocks(rounds):
        with job_of(node, "alice") as job:
            found.append(measure(node, "alice", part, job, names=(*NAMES, LEAST)))
    return merge(found)


def figures(found: dict[str, list[float]], code: int) -> dict[str, Any]:
    """Summaries by name and the ratio of the added times; raises WrongAnswer."""
    check_codes(found, code)
    row: dict[str, Any] = {name: summarise(values) for name, values in found.items() if not name.startswith("code")}
    for name in ("oneshot", "resident", LEAST):
        if name in found:
            row[f"{name}/original"] = ratio(found[name], found["original"], row["none"].median)
    return row


def _cells(row: dict[str, Any]) -> list[str]:
    return [*cells(row, row["jobs"], columns=COLUMNS), _ratio_cell(row[LEAST_RATIO])]


def cells(row: dict[str, Any], *situation: object, columns: Sequence[str] = COLUMNS[:5]) -> list[str]:
    """A row of the table; `situation`: what stands in its second column and on."""
    times = [str(row.get(name, "")) for name in columns]
    return [row["kind"], *map(str, situation), *times, _ratio_cell(row["resident/original"])]


def _ratio_cell(found: tuple[float, float, float]) -> str:
    return "{:.3f} ({:.3f}-{:.3f})".format(*found)


def goals(rows: list[dict[str, Any]]) -> list[Goal]:
    """The aims that the measured numbers of jobs allow to judge."""
    by = {(row["kind"], row["jobs"]): row for row in rows}
    found = []
    for kind, jobs, limit in (
        ("admission", 1, 0.8),
        ("admission", 40, 0.2),
        ("refusal", 1, 0.5),
        ("refusal", 40, 0.07),
    ):
        if row := by.get((kind, jobs)):
            text = f"{kind}, {jobs} job{'s' * (jobs > 1)} on the node, resident / original"
            found.append(Goal(text, row["resident/original"][0], limit))
    if row := by.get(("admission", 1)):
        least = row["bare-python"].median + row["floor-oneshot"].median
        text = "admission, one-shot / (one bare python + slurmstepd alone), the aim is 1.5"
        found.append(Goal(text, row["oneshot"].median / least, 2.0))
    return found
