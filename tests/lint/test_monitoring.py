# SPDX-License-Identifier: Apache-2.0
"""The alert rules and the dashboard ask for metrics, labels and documents that exist."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from slurm_adopt.model import REASONS
from slurm_adopt.observe.metrics import FAMILIES, FROM_ZERO

ROOT = Path(__file__).parents[2]
RULES = ROOT / "data/monitoring/slurm-adopt.rules.yml"
DASHBOARD = ROOT / "data/monitoring/slurm-adopt-dashboard.json"
#: Of a family's samples, and of what Prometheus itself adds.
LABELS = {"phase", "verdict", "reason", "path", "status", "result", "owner", "enforce", "undone", "le", "instance"}
METRIC = re.compile(r"\bslurm_adopt_[a-z_]+\b")
MATCHED = re.compile(r"\{([^}]*)\}")


def expressions() -> dict[str, str]:
    """What is asked, by alert or panel."""
    rules = re.findall(r"- alert: (\w+)\n +expr: (?:>-\n)?(.*?)\n +(?:for|labels):", RULES.read_text(), re.DOTALL)
    found = {name: " ".join(text.split()) for name, text in rules}
    for panel in json.loads(DASHBOARD.read_text())["panels"]:
        found[panel["title"]] = " ".join(target["expr"] for target in panel["targets"])
    return found


def test_monitoring__all_were_found() -> None:
    panels = json.loads(DASHBOARD.read_text())["panels"]
    assert len(expressions()) == RULES.read_text().count("- alert:") + len(panels)
    assert len({panel["id"] for panel in panels}) == len(panels)
    assert all(panel["description"] and panel["fieldConfig"]["defaults"]["unit"] for panel in panels)


@pytest.mark.parametrize("name", expressions())
def test_monitoring__metrics_and_labels_exist(name: str) -> None:
    text = expressions()[name]
    for metric in METRIC.findall(text):
        family = re.sub(r"_(bucket|sum|count)$", "", metric)
        assert family in FAMILIES, metric
    for matchers in MATCHED.findall(text):
        assert set(re.findall(r"(\w+) *(?:=~|!=|!~|=)", re.sub(r'"[^"]*"', '""', matchers))) <= LABELS, matchers
    for names in re.findall(r"\bby \(([^)]*)\)", text):
        assert {label.strip() for label in names.split(",")} <= LABELS, names


def test_monitoring__reasons_exist() -> None:
    [pattern] = re.findall(r'reason=~"([^"]+)"', RULES.read_text())
    for part in pattern.split("|"):
        assert any(re.fullmatch(part, reason) for reason in REASONS), part
    assert not re.fullmatch(pattern, "no-job"), "to refuse whoever has no job is what the module is for"


def test_monitoring__what_is_alerted_on_at_once_begins_at_zero() -> None:
    at_once = {
        metric for text in expressions().values() for metric in re.findall(r"^increase\((\w+)\[15m\]\) > 0", text)
    }
    assert at_once
    assert at_once <= {name for name, _ in FROM_ZERO}


def test_monitoring__each_alert_says_what_to_do() -> None:
    text = RULES.read_text()
    for word in ("severity", "summary", "action"):
        assert text.count(f" {word}:") == text.count("- alert:"), word
