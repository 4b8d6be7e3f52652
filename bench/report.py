# SPDX-License-Identifier: Apache-2.0
"""What a part of the benchmark found, as markdown and JSON, and the overview of all parts."""

from __future__ import annotations

import json
import platform
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from lab.node import Node

RESULTS = Path(__file__).parent / "results"
PARTS = ("account", "load", "cputime", "flat", "connections", "callerid", "storm", "ssh", "memory")
"""In the order in which they run and are shown."""


@dataclass(frozen=True)
class Options:
    """What the command line says, for all parts."""

    suite: str | None = None
    rounds: int = 100
    jobs: Sequence[int] = (0, 1, 10, 40, 150)
    connections: int = 5000
    logins: int = 200
    storms: int = 3
    users: int = 20
    hung_limit_s: float = 20.0


@dataclass(frozen=True)
class Goal:
    """One of the project's aims and what was measured; never a failure, since the machine may be a busy one."""

    text: str
    measured: float
    limit: float
    unit: str = ""

    @property
    def met(self) -> bool:
        return self.measured <= self.limit

    def __str__(self) -> str:
        verdict = "met" if self.met else "MISSED"
        return f"{verdict}: {self.text}: {self.measured:.3g}{self.unit} (at most {self.limit:g}{self.unit})"


@dataclass(frozen=True)
class Report:
    """A part's result. `rows` are the numbers behind `text`, which is markdown without the title."""

    name: str
    title: str
    about: dict[str, Any]
    text: str
    rows: list[dict[str, Any]]
    goals: list[Goal] = field(default_factory=list)


def kernel_settings() -> dict[str, str]:
    """What of the kernel decides how long a move takes, as it is now."""
    mounts = [line.split() for line in Path("/proc/self/mounts").read_text().splitlines()]
    favours = any("favordynmods" in mount[3].split(",") for mount in mounts if mount[2] in ("cgroup", "cgroup2"))
    read = {name: Path(f"/sys/kernel/{name}").read_text().strip() for name in ("rcu_expedited", "rcu_normal")}
    return {**read, "favordynmods": "yes" if favours else "no"}


def describe(node: Node, **more: object) -> dict[str, object]:
    """What was measured on."""
    return {
        "slurm": node.slurm_version,
        "openssh": node.run("ssh -V 2>&1").stdout.split(",")[0],
        "python": node.run(["/usr/bin/python3", "-V"]).stdout.split()[1],
        "kernel": platform.release().split("-")[0],
        "cgroup": node.tree.version,
        **kernel_settings(),
        "load average": Path("/proc/loadavg").read_text().split()[0],
        **more,
    }


def table(head: Sequence[str], lines: Sequence[Sequence[object]]) -> str:
    """A markdown table."""
    rows = [head, ["---"] * len(head), *lines]
    return "\n".join("| " + " | ".join(str(cell) for cell in row) + " |" for row in rows)


def as_list(goals: Sequence[Goal]) -> str:
    return "\n".join(f"* {goal}" for goal in goals)


def write(report: Report, folder: Path) -> None:
    """NAME.md, NAME.json and the overview README.md."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{report.name}.json").write_text(json.dumps(asdict(report), indent=1, default=str) + "\n")
    what = ", ".join(f"{key} {value}" for key, value in report.about.items())
    parts = [f"# {report.title}", what, as_list(report.goals), report.text]
    (folder / f"{report.name}.md").write_text("\n\n".join(part for part in parts if part) + "\n")
    (folder / "README.md").write_text(overview(folder))


def overview(folder: Path) -> str:
    """Every part's goals, from what lies in the folder."""
    lines: list[str] = [
        "# Measured",
        "",
        "Our module and Debian's C module on the same node, in the same run, in turn.",
    ]
    lines += ["A goal that is missed fails nothing: look at the spread in its table first.", ""]
    if (folder / "account.svg").exists():
        lines += ["![time of pam_acct_mgmt() over the number of jobs](account.svg)", ""]
    if (folder / "load.svg").exists():
        lines += ["![time of pam_acct_mgmt() over busy processes](load.svg)", ""]
    for name in PARTS:
        if not (folder / f"{name}.md").exists():
            continue
        title = (folder / f"{name}.md").read_text().splitlines()[0].lstrip("# ")
        lines += [f"## [{title}]({name}.md)", ""]
        found = json.loads((folder / f"{name}.json").read_text()) if (folder / f"{name}.json").exists() else {}
        goals = [Goal(**goal) for goal in (found.get("goals", []) if isinstance(found, dict) else [])]
        lines += [as_list(goals), ""] if goals else []
    return "\n".join(lines)
