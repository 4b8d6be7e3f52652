# SPDX-License-Identifier: Apache-2.0
"""check_reply_corpus.py RUNNER CORPUS: the module's reply parser accepts what begins with `good-`, and refuses all else."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path


def main(runner: str, corpus: str) -> int:
    """The exit status: 0 if every sample was judged rightly."""
    samples = sorted(Path(corpus).iterdir())
    done = subprocess.run([runner, "20000", *map(str, samples)], stdout=subprocess.PIPE, text=True, check=True)
    verdicts = dict(line.split("\t") for line in done.stdout.splitlines())
    wrong = [s.name for s in samples if (verdicts[str(s)] == "good") != s.name.startswith("good-")]
    print(f"{len(samples)} samples, {len(wrong)} judged wrongly: {wrong}")
    return 1 if wrong or len(samples) < 30 else 0


sys.exit(main(*sys.argv[1:]))
