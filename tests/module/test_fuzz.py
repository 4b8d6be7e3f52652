# SPDX-License-Identifier: Apache-2.0
"""Every fuzzing target against its kept corpus, and for a short while against changes of it (`make fuzz` is longer)."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest
from fuzz import targets
from fuzz.__main__ import corpus_of

from .conftest import ROOT

#: For all of them together: a regression test, not a search.
SECONDS = 30
RAN = re.compile(r"^(\w+) +(\d+) runs", re.MULTILINE)


def fuzz(*options: str) -> tuple[int, dict[str, int], str]:
    """The exit status, how often each target ran, and all that was said."""
    argv = [sys.executable, "-m", "fuzz", *options]
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, check=False)
    output = done.stdout + done.stderr
    return done.returncode, {name: int(runs) for name, runs in RAN.findall(output)}, output


def test_fuzz__corpus_and_a_short_run() -> None:
    """Nothing is found, and every target has run its whole corpus; how much more is up to the machine."""
    status, runs, output = fuzz("--seconds", str(SECONDS), "--seed", "1")
    assert status == 0, output
    assert runs.keys() == {"module", "reply", *targets.names()}
    for name, count in runs.items():
        assert count >= len(list(corpus_of(name).iterdir())) > 0, output
    assert sum(runs.values()) > 10 * len(runs), output


@pytest.mark.parametrize("name", targets.names())
def test_fuzz__every_target_says_its_invariant(name: str) -> None:
    """The first paragraph is the invariant; without `check` there would be nothing to run."""
    text = (ROOT / f"fuzz/targets/{name}.py").read_text()
    assert text.count('"""') >= 4
    assert "def check(data: bytes) -> None:" in text
