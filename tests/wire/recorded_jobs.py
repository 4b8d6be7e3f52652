# SPDX-License-Identifier: Apache-2.0
"""slurmctld's recorded answers about a user's jobs (tests/vectors/user-jobs-*.json)."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

RECORDED = [
    json.loads(path.read_text()) for path in sorted((Path(__file__).parents[1] / "vectors").glob("user-jobs-*.json"))
]
ANSWERS = [
    pytest.param(vector, int(version), bytes.fromhex(body), id=f"{vector['slurm']}-{version}")
    for vector in RECORDED
    for version, body in vector["answers"].items()
]
