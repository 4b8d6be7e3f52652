# SPDX-License-Identifier: Apache-2.0
"""The service's numbers as text, and back."""

from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st

from slurm_adopt.observe.metrics import BUCKETS_S, FAMILIES, Metrics

SAMPLE = re.compile(r'[a-z_]+(\{[a-z]+="[^"\\\n]*"(,[a-z]+="[^"\\\n]*")*\})? [0-9.e+-]+')


def some() -> Metrics:
    metrics = Metrics()
    metrics.count("slurm_adopt_logins_total", phase="account", verdict="allow", reason="adopted", path="resident")
    metrics.count("slurm_adopt_strangers_total", 3)
    metrics.put("slurm_adopt_sessions", 7)
    for seconds in (0.0001, 0.0005, 0.3, 99):
        metrics.observe("slurm_adopt_login_seconds", seconds, verdict="allow", path="resident")
    return metrics


def test_metrics__text_is_what_prometheus_reads() -> None:
    lines = some().render().splitlines()
    assert all(line.startswith("# ") or SAMPLE.fullmatch(line) for line in lines)
    assert 'slurm_adopt_logins_total{phase="account",verdict="allow",reason="adopted",path="resident"} 1' in lines
    assert "# TYPE slurm_adopt_login_seconds histogram" in lines


def test_metrics__buckets_are_cumulative_and_a_bound_belongs_to_its_bucket() -> None:
    text = some().render()
    counts = [int(value) for value in re.findall(r'_bucket\{.*le="[^"]+"\} (\d+)', text)]
    assert counts == sorted(counts)
    assert len(counts) == len(BUCKETS_S) + 1
    assert counts[0] == 2
    assert counts[-1] == 4
    assert 'slurm_adopt_login_seconds_count{verdict="allow",path="resident"} 4' in text


def test_metrics__counters_go_on_after_a_restart_and_gauges_do_not() -> None:
    again = Metrics()
    again.load(some().render())
    assert again.value("slurm_adopt_strangers_total") == 3
    assert again.value("slurm_adopt_sessions") == 0
    without_gauge = "".join(line + "\n" for line in some().render().splitlines() if "slurm_adopt_sessions" not in line)
    assert again.render() == without_gauge
    again.load(some().render())
    assert again.value("slurm_adopt_strangers_total") == 6


@given(st.text())
def test_metrics__any_text_can_be_loaded(text: str) -> None:
    metrics = Metrics()
    metrics.load(text)
    metrics.render()


@given(st.sampled_from(sorted(FAMILIES)), st.text(alphabet='{}",=le inf+-.0123456789_sumbucket', max_size=60))
def test_metrics__any_mangled_sample_can_be_loaded(name: str, rest: str) -> None:
    metrics = Metrics()
    metrics.load(f"{name}{rest}")
    metrics.render()
