# SPDX-License-Identifier: Apache-2.0
"""The benchmark runs, its logins get right answers, and its files are written. Never how long anything took."""

from __future__ import annotations

import importlib.util
import json
import os
import sys
from pathlib import Path

import pytest
from bench.__main__ import main
from bench.report import RESULTS

SMALL = ["--rounds", "2", "--jobs", "1", "--connections", "50", "--logins", "4", "--storms", "1", "--users", "2"]
pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="an isolated node needs root")


def bench(monkeypatch: pytest.MonkeyPatch, folder: Path, *parts: str) -> dict[str, dict]:  # type: ignore[type-arg]
    """The JSON that each part wrote; a wrong answer to a login ends in SystemExit."""
    before = sorted(RESULTS.iterdir())
    monkeypatch.setattr(sys, "argv", ["bench", *parts, *SMALL, "--hung-limit", "3", "--results", str(folder)])
    main()
    assert sorted(RESULTS.iterdir()) == before
    overview = (folder / "README.md").read_text()
    assert all(f"({part}.md)" in overview for part in parts)
    return {part: json.loads((folder / f"{part}.json").read_text()) for part in parts}


def test_bench__account_and_plot(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    found = bench(monkeypatch, tmp_path, "account")["account"]
    admission, refusal = found["rows"]
    assert [(row["kind"], row["jobs"]) for row in (admission, refusal)] == [("admission", 1), ("refusal", 1)]
    assert refusal["exchange"]["count"] == 2
    for name in ("none", "original", "oneshot", "resident", "least-python", "bare-python", "floor", "floor-oneshot"):
        assert admission[name]["count"] == 2
        assert admission[name]["median"] > 0
    assert "floor" not in refusal
    # what has to be left out of a few jobs' table is left out of its goals
    assert len(found["goals"]) == 3
    if importlib.util.find_spec("matplotlib") is not None:  # of bench/requirements.txt
        assert "<svg" in (tmp_path / "account.svg").read_text()
        assert "account.svg" in (tmp_path / "README.md").read_text()


@pytest.mark.bench
def test_bench__load_and_plot(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    rows = bench(monkeypatch, tmp_path, "load")["load"]["rows"]
    assert [row["load"] for row in rows] == [0, 1, 2, 4]
    assert all(row[name]["count"] == 2 for row in rows for name in ("original", "resident", "resident, not hastened"))
    if importlib.util.find_spec("matplotlib") is not None:
        assert "load.svg" in (tmp_path / "README.md").read_text()


@pytest.mark.bench
def test_bench__processor_time(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (row,) = bench(monkeypatch, tmp_path, "cputime")["cputime"]["rows"]
    assert row["original"]["median"] > row["none"]["median"] > 0


@pytest.mark.bench
def test_bench__flat(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    rows = bench(monkeypatch, tmp_path, "flat")["flat"]["rows"]
    assert [row["kind"] for row in rows] == ["admission", "refusal"]
    assert all(row["few"]["count"] == row["many"]["count"] == 2 for row in rows)


@pytest.mark.bench
def test_bench__connections(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    rows = bench(monkeypatch, tmp_path, "connections")["connections"]["rows"]
    assert [(row["jobs"], row["connections"]) for row in rows] == [(1, 0), (1, 50), (2, 0), (2, 50)]


@pytest.mark.bench
def test_bench__ssh(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    rows = bench(monkeypatch, tmp_path, "ssh")["ssh"]["rows"]
    assert [(row["node"][:5], row["jobs"]) for row in rows] == [("full:", 1), ("quiet", 1)]
    assert rows[0]["resident"]["count"] == 2


@pytest.mark.bench
def test_bench__memory(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    found = bench(monkeypatch, tmp_path, "memory")["memory"]
    assert [len(row["private"]) for row in found["rows"][:4]] == [2] * 4
    assert found["rows"][0]["private"][0] > 100
    assert found["rows"][4]["service"]["200"][0] > 1000
    assert len(found["goals"]) == 3


@pytest.mark.bench
def test_bench__storm(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    rows = bench(monkeypatch, tmp_path, "storm")["storm"]["rows"]
    outcomes = {(row["hung"], row["stack"]): row["outcomes"] for row in rows}
    for (hung, stack), counted in outcomes.items():
        if (hung, stack) != (5, "original"):
            assert (counted["admitted rightly"], counted["refused rightly"]) == (2, 2)
    assert outcomes[5, "original"]["undecided"] == 4
    assert rows[2]["by service"] == 4
