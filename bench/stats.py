# SPDX-License-Identifier: Apache-2.0
"""Medians, spread, and ratios that hold when the machine's speed drifts."""

from __future__ import annotations

import math
import random
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

RESAMPLES = 1000


@dataclass(frozen=True)
class Summary:
    """Milliseconds: median, first and third quartile, 95th percentile, of `count` measurements."""

    median: float
    low: float
    high: float
    p95: float
    count: int

    def __str__(self) -> str:
        return f"{self.median:.2f} ({self.low:.2f}-{self.high:.2f})"


def summarise(values_ms: Sequence[float]) -> Summary:
    """Quartiles of a list of at least two measurements."""
    ordered = sorted(values_ms)
    low, _, high = statistics.quantiles(ordered, n=4)
    return Summary(statistics.median(ordered), low, high, ordered[int(0.95 * (len(ordered) - 1))], len(ordered))


def ratio(ours_ms: Sequence[float], theirs_ms: Sequence[float], base_ms: float) -> tuple[float, float, float]:
    """Added time over added time: median, and the 90 % interval of it by resampling whole rounds.

    The measurements of a round were taken one after the other, so element i of both belongs together; `base_ms` is
    what PAM itself takes.
    """

    def of(rounds: Sequence[int]) -> float:
        ours = statistics.median(ours_ms[i] for i in rounds) - base_ms
        theirs = statistics.median(theirs_ms[i] for i in rounds) - base_ms
        return ours / theirs if theirs > 0 else math.inf  # lost in the noise

    rounds = range(min(len(ours_ms), len(theirs_ms)))
    source = random.Random(1)  # noqa: S311  # the same answer for the same measurements
    samples = sorted(of(source.choices(rounds, k=len(rounds))) for _ in range(RESAMPLES))
    return of(list(rounds)), samples[int(0.05 * RESAMPLES)], samples[int(0.95 * RESAMPLES)]
