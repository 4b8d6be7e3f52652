# SPDX-License-Identifier: Apache-2.0
"""The plot: latency over the number of jobs on the node."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def draw(rows: list[dict[str, Any]], path: Path) -> None:
    """One panel each for admission and refusal; median as a line, quartiles as a band; both axes linear in jobs."""
    import matplotlib as mpl

    mpl.use("svg")
    mpl.rcParams["svg.hashsalt"] = "slurm-adopt"  # the same plot for the same numbers
    from matplotlib import pyplot as plt

    figure, panels = plt.subplots(1, 2, figsize=(9, 3.6), sharey=True)
    for panel, kind in zip(panels, ("admission", "refusal")):
        mine = [row for row in rows if row["kind"] == kind]
        for name, colour in (("original", "#c0392b"), ("oneshot", "#7f8c8d"), ("resident", "#2471a3")):
            jobs = [row["jobs"] for row in mine]
            panel.plot(jobs, [row[name]["median"] for row in mine], marker="o", color=colour, label=name)
            panel.fill_between(
                jobs, [row[name]["low"] for row in mine], [row[name]["high"] for row in mine], color=colour, alpha=0.15
            )
        panel.set_title(kind)
        panel.set_xlabel("jobs on the node")
        panel.grid(alpha=0.3)
    panels[0].set_ylabel("pam_acct_mgmt(), ms")
    panels[0].legend()
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})
