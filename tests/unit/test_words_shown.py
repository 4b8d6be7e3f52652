# SPDX-License-Identifier: Apache-2.0
"""Words for people: one format for each thing."""

from __future__ import annotations

import pytest

from slurm_adopt.words import columns, duration, printable


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-5, "0 s"),
        (0.4, "0 s"),
        (89, "89 s"),
        (90, "1 min"),
        (3599, "59 min"),
        (3600, "1 h 0 min"),
        (11_520, "3 h 12 min"),
    ]
    + [(86399, "23 h 59 min"), (90000, "1 d 1 h")],
)
def test_words__a_duration(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_words__nothing_that_a_terminal_acts_upon() -> None:
    assert printable("a\x1b[2J\nb\u202eé") == "a?[2J?b?é"


def test_words__columns_side_by_side_and_no_blanks_at_the_end() -> None:
    assert list(columns([("JOB", "WHAT", ""), ("1", "a", "x"), ("12345", "long", "")])) == [
        "JOB    WHAT",
        "1      a     x",
        "12345  long",
    ]
    assert list(columns([("ONLY", "HEADS")])) == ["ONLY  HEADS"]
