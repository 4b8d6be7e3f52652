# SPDX-License-Identifier: Apache-2.0
"""Memory: what a session's sshd grows by, and what the resident service takes."""

from __future__ import annotations

import re
import statistics
from collections import defaultdict
from typing import Any

from bench.report import Goal, Options, Report, describe, table
from bench.rig import JOB, NAMES, PAUSE_US, SSH_PORT, measured_node, resident_service, ssh_server, use_stack
from lab.machine import wait_for
from lab.node import Node

LOGINS = 200
MAX_SESSIONS = 20
TEXT = """\
Of open sessions, in turn, {sessions} with each module: private memory (Private_*) of the privileged sshd that ran the
PAM stack, and the proportional share (PSS) of both its processes. Median (lowest-highest), KiB.

{sessions_table}

The resident service with {jobs} jobs on the node, KiB:

{service_table}"""


def run(options: Options) -> Report:
    with measured_node(options.suite) as node, resident_service(node) as pid:
        ssh_server(node)
        node.submit("alice", JOB)
        sessions = min(options.rounds, MAX_SESSIONS)
        found = _sessions(node, sessions)
        jobs = max(options.jobs)
        if jobs > 1:
            node.submit_many("carol", jobs - 1, JOB, timeout=600)
        _log_in(node, 1)  # the index knows every step from now on
        service = {0: _service_kib(node, pid)}
        _log_in(node, LOGINS // 2)
        service[LOGINS] = _service_kib(node, pid)
        about = describe(node, sessions=sessions)
    rows: list[dict[str, Any]] = [
        {"stack": name, **{key: sorted(values) for key, values in of.items()}} for name, of in found.items()
    ]
    head = ["module", "privileged sshd, private", "more than without", "both processes, PSS"]
    service_head = ["logins before", "resident (VmRSS)", "proportional (PSS)"]
    text = TEXT.format(
        sessions=sessions,
        sessions_table=table(head, _cells(rows)),
        jobs=jobs,
        service_table=table(service_head, [[logins, *kib] for logins, kib in service.items()]),
    )
    goals = [Goal(f"sshd's growth per session, {row['stack']}", _growth(rows, row), 100, " KiB") for row in rows[2:]]
    goals.append(Goal(f"service after {LOGINS} logins, {jobs} jobs", service[LOGINS][0] / 1024, 25, " MiB"))
    rows.append({"service": service})
    return Report("memory", "Memory of sshd and of the service", about, text, rows, goals)


def _sessions(node: Node, count: int) -> dict[str, dict[str, list[int]]]:
    found: dict[str, dict[str, list[int]]] = {name: defaultdict(list) for name in NAMES}
    for _ in range(count):
        for name, kib in found.items():
            use_stack(node, name)
            client = node.ssh_popen("alice", "cat", port=SSH_PORT)
            wait_for(lambda: any(p.command == "cat" for p in node.processes("alice")), "the session", 30)
            privileged, both = _sshds(node)
            kib["private"].append(_smaps(node, privileged, "Private_Clean", "Private_Dirty"))
            kib["pss"].append(sum(_smaps(node, pid, "Pss") for pid in both))
            client.communicate()  # the end of its input ends cat
            wait_for(lambda: not any("sshd" in p.command for p in node.processes("alice")), "the logout", 30)
    return found


def _sshds(node: Node) -> tuple[int, list[int]]:
    """The privileged process of alice's session, and it with the one that runs as her."""
    found = {
        process.command.endswith("[priv]"): process.pid
        for process in node.processes()
        if re.match(r"sshd(-session)?: alice", process.command)
    }
    return found[True], list(found.values())


def _smaps(node: Node, pid: int, *names: str) -> int:
    """KiB in the named lines of smaps_rollup."""
    total = 0
    for line in node.read(f"/proc/{pid}/smaps_rollup").splitlines():
        name, _, value = line.partition(":")
        total += int(value.split()[0]) if name in names else 0
    return total


def _log_in(node: Node, rounds: int) -> None:
    """As often one who is admitted and one who is refused, by the service."""
    for user in ("alice", "bob"):
        node.run(
            ["/run/bench/pamtime", str(rounds), str(PAUSE_US), user, "127.0.0.1", "0", "bench-resident"], timeout=600
        )


def _service_kib(node: Node, pid: int) -> tuple[int, int]:
    status = node.read(f"/proc/{pid}/status")
    return int(status.partition("VmRSS:")[2].split()[0]), _smaps(node, pid, "Pss")


def _growth(rows: list[dict[str, Any]], row: dict[str, Any]) -> float:
    return float(statistics.median(row["private"]) - statistics.median(rows[0]["private"]))


def _cells(rows: list[dict[str, Any]]) -> list[list[object]]:
    def shown(values: list[int]) -> str:
        return f"{statistics.median(values):.0f} ({values[0]}-{values[-1]})"

    return [[row["stack"], shown(row["private"]), f"{_growth(rows, row):.0f}", shown(row["pss"])] for row in rows]
