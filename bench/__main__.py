# SPDX-License-Identifier: Apache-2.0
"""`make bench`: time added to a login, our module beside Debian's C module.

Writes `bench/results/account.md`, `account.json` and `account.svg`.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
from pathlib import Path

from bench.plot import draw
from bench.rig import measure, prepare, start_service
from bench.stats import ratio, summarise
from lab.node import Node

RESULTS = Path(__file__).parent / "results"
NAMES = ["none", "original", "oneshot", "resident"]
PAM_PERM_DENIED = 6


def rows_for(node: Node, jobs: int, rounds: int) -> list[dict[str, object]]:
    """Admission (alice has one job) and refusal (bob has none), with `jobs` jobs on the node."""
    rows: list[dict[str, object]] = []
    for kind, user, code in (("admission", "alice", 0), ("refusal", "bob", PAM_PERM_DENIED)):
        if kind == "admission" and jobs == 0:
            continue
        found = measure(node, user, rounds, NAMES)
        for name in NAMES[1:]:
            wrong = [value for value in found[f"code of {name}"] if value != code]
            if wrong:
                sys.exit(f"{name}: {len(wrong)} of {rounds} calls answered {wrong[0]} instead of {code}")
        base = summarise(found["none"]).median
        row: dict[str, object] = {"kind": kind, "jobs": jobs}
        for name in [*NAMES, "bare-python"]:
            row[name] = summarise(found[name]).__dict__
        for name in ("oneshot", "resident"):
            row[f"{name}/original"] = ratio(found[name], found["original"], base)
        row["oneshot/(2 x python + original)"] = summarise(found["oneshot"]).median / (
            2 * summarise(found["bare-python"]).median + summarise(found["original"]).median
        )
        rows.append(row)
        print(table([row]).splitlines()[-1], flush=True)
    return rows


def table(rows: list[dict[str, object]]) -> str:
    """The rows as markdown: medians with quartiles in ms, ratios with their 90 % interval."""
    head = ["login", "jobs on the node", *NAMES[1:], "resident / original", "one-shot / (2 × bare python + original)"]
    lines = ["| " + " | ".join(head) + " |", "|" + " --- |" * len(head)]
    for row in rows:
        cells = [str(row["kind"]), str(row["jobs"])]
        for name in NAMES[1:]:
            found = row[name]
            assert isinstance(found, dict)
            cells.append(f"{found['median']:.2f} ({found['low']:.2f}-{found['high']:.2f})")
        value = row["resident/original"]
        assert isinstance(value, tuple)
        cells.append("{:.3f} ({:.3f}-{:.3f})".format(*value))
        cells.append(f"{row['oneshot/(2 x python + original)']:.2f}")
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(prog="bench", description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--jobs", default="0,1,10,40,150", help="numbers of jobs on the node (default %(default)s)")
    parser.add_argument("--rounds", type=int, default=100, help="calls of each kind per number (default %(default)s)")
    parser.add_argument("--suite", default=None, help="Debian release of the node")
    args = parser.parse_args()
    counts = sorted({int(word) for word in args.jobs.split(",")})
    with Node(args.suite) as node:
        prepare(node)
        service = start_service(node)
        rows: list[dict[str, object]] = []
        print(table([]))
        running = 0
        for count in counts:
            if count and not running:
                node.submit("alice")
                running = 1
            if count > running:
                node.submit_many("carol", count - running)
                running = count
            rows += rows_for(node, count, args.rounds)
        about = {
            "slurm": node.slurm_version,
            "openssh": node.run("ssh -V 2>&1").stdout.split(",")[0],
            "python": node.run(["/usr/bin/python3", "-V"]).stdout.split()[1],
            "kernel": platform.release().split("-")[0],
            "cgroup": node.tree.version,
            "rounds": args.rounds,
            "service_rss_kib": rss_kib(node, service.pid),
        }
        service.terminate()
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "account.json").write_text(json.dumps({"about": about, "rows": rows}, indent=1) + "\n")
    (RESULTS / "account.md").write_text(report(about, rows))
    draw(rows, RESULTS / "account.svg")
    print(f"written: {RESULTS}/account.md, account.json, account.svg")


def rss_kib(node: Node, _popen_pid: int) -> int:
    """Resident memory of the service in KiB."""
    for process in node.processes("root"):
        if "slurm-adopt serve" in process.command:
            status = node.read(f"/proc/{process.pid}/status")
            return int(status.partition("VmRSS:")[2].split()[0])
    return 0


def report(about: dict[str, object], rows: list[dict[str, object]]) -> str:
    """The whole result as a document."""
    what = ", ".join(f"{key} {value}" for key, value in about.items())
    return (
        "# Time of `pam_acct_mgmt()`\n\n"
        "Milliseconds, median (quartiles). All of a row was measured in one run, in turn, each call in a fresh\n"
        "process; ratios are of the time added to a stack with `pam_permit.so` only, with the 90 % interval.\n\n"
        f"{what}\n\n{table(rows)}\n\n![latency over jobs](account.svg)\n"
    )


main()
