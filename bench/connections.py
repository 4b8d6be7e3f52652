# SPDX-License-Identifier: Apache-2.0
"""Time of pam_acct_mgmt() on a node with thousands of TCP connections that have nothing to do with the login."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator
from typing import Any

from bench.account import TIMES, cells, figures
from bench.flows import FAR, PORT
from bench.report import Goal, Options, Report, describe, table
from bench.rig import JOB, NAMES, blocks, measure, measured_node, merge, resident_service
from lab.node import Node

HEAD = ("login", "jobs of the user", "connections on the node", *NAMES[1:], *TIMES[3:5])
TEXT = """\
Milliseconds, median (quartiles), as in [account.md](account.md). The logins come from another host without slurmd, over
a connection that the process holds as sshd would. With two jobs both modules look for the process at its other end:
the original reads all of `/proc/net/tcp` and `/proc/net/tcp6` for its own connection and then asks the source host;
ours takes the connection's addresses from the socket itself.

{rows}"""


@contextlib.contextmanager
def flows(node: Node, count: int) -> Iterator[None]:
    """`count` established connections from the node to another host."""
    argv = ["/usr/bin/python3", "/run/bench/flows.py", str(count)]
    process = node.popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        if process.stdout.readline() != "ready\n":
            raise RuntimeError("no connections to the other host")
        yield
    finally:
        process.stdin.close()
        process.wait(30)
        process.stdout.close()


def run(options: Options) -> Report:
    rows: list[dict[str, Any]] = []
    with measured_node(options.suite) as node, resident_service(node):
        for jobs in (1, 2):
            job = node.submit("alice", JOB)
            rows += _rows(node, jobs, job, options)
        about = describe(node, rounds=options.rounds)
    lines = [cells(row, row["jobs"], row["connections"]) for row in rows]
    text = TEXT.format(rows=table([*HEAD, "resident / original"], lines))
    return Report(
        "connections", "Time of `pam_acct_mgmt()` beside unrelated connections", about, text, rows, _goals(rows)
    )


def _rows(node: Node, jobs: int, job: int, options: Options) -> list[dict[str, Any]]:
    """Without and with the connections, in turn from block to block."""
    found: dict[int, list[dict[str, list[float]]]] = {0: [], options.connections: []}
    for part in blocks(options.rounds):
        for count, measured in found.items():
            with flows(node, count):
                established = sum(line.split()[3] == "01" for line in node.read("/proc/1/net/tcp").splitlines())
                if not count <= established <= count + 50:
                    raise RuntimeError(f"{established} connections instead of {count}")
                measured.append(measure(node, "alice", part, job, (FAR, PORT)))
    rows = []
    for count, measured in found.items():
        row = {"kind": "admission", "jobs": jobs, "connections": count, **figures(merge(measured), 0)}
        rows.append(row)
        print("  ", *cells(row, jobs, count), sep="  ", flush=True)
    return rows


def _goals(rows: list[dict[str, Any]]) -> list[Goal]:
    found = []
    for few, many in zip(rows[::2], rows[1::2]):
        text = f"resident, user with {many['jobs']} job(s), {many['connections']} connections / none"
        found.append(Goal(text, many["resident"].median / few["resident"].median, 1.2))
    return found
