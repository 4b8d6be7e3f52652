# SPDX-License-Identifier: Apache-2.0
"""The plots: latency over the number of jobs on the node, and over busy processes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

STYLES = {
    "original": ("C module", "#c0392b"),
    "oneshot": ("ours, one-shot", "#7f8c8d"),
    "resident": ("ours, resident", "#2471a3"),
}
PLAIN_STYLE = {"resident, not hastened": ("ours, resident, hasten=no", "#85c1e9")}


def draw(rows: list[dict[str, Any]], path: Path) -> None:
    """One panel each for admission and refusal; median as a line, quartiles as a band.

    Both axes are logarithmic (0 jobs included): the modules are a hundredfold apart, and so are the numbers of jobs.
    """
    plt = _pyplot()
    from matplotlib.ticker import NullLocator, ScalarFormatter

    figure, panels = plt.subplots(1, 2, figsize=(9, 3.6), sharey=True)
    for panel, kind in zip(panels, ("admission", "refusal")):
        mine = [row for row in rows if row["kind"] == kind]
        jobs = [row["jobs"] for row in mine]
        for name, (label, colour) in STYLES.items():
            found = [row[name] for row in mine]
            panel.plot(jobs, [item.median for item in found], marker="o", color=colour, label=label)
            low, high = [item.low for item in found], [item.high for item in found]
            panel.fill_between(jobs, low, high, color=colour, alpha=0.15)
        panel.set_title(kind)
        panel.set_xlabel("jobs on the node")
        panel.set_xscale("symlog", linthresh=1)
        panel.set_xticks(jobs, [str(count) for count in jobs])
        panel.set_yscale("log")
        panel.yaxis.set_major_formatter(ScalarFormatter())
        panel.xaxis.set_minor_locator(NullLocator())
        panel.grid(alpha=0.3)
    panels[0].set_ylabel("pam_acct_mgmt(), ms")
    panels[0].legend()
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)


def draw_load(rows: list[dict[str, Any]], path: Path) -> None:
    """Busy processes per processor to the right, milliseconds up, from 0: here the modules are of one order."""
    plt = _pyplot()
    figure, panel = plt.subplots(figsize=(6, 3.6))
    loads = [row["load"] for row in rows]
    for name, (label, colour) in {**STYLES, **PLAIN_STYLE}.items():
        found = [row[name] for row in rows]
        panel.plot(loads, [item.median for item in found], marker="o", color=colour, label=label)
        panel.fill_between(loads, [item.low for item in found], [item.high for item in found], color=colour, alpha=0.15)
    panel.set_title("admission of a login that comes alone")
    panel.set_xlabel("busy processes per processor")
    panel.set_xticks(loads)
    panel.set_ylabel("pam_acct_mgmt(), ms")
    panel.set_ylim(bottom=0)
    panel.grid(alpha=0.3)
    panel.legend()
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)


def _pyplot() -> Any:
    import matplotlib as mpl

    mpl.use("svg")
    mpl.rcParams["svg.hashsalt"] = "slurm-adopt"  # the same plot for the same numbers
    from matplotlib import pyplot as plt

    return plt


DRAWN = {"account": draw, "load": draw_load}
