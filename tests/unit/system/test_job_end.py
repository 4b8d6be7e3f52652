# SPDX-License-Identifier: Apache-2.0
"""When a job will end, as far as this node knows it."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from slurm_adopt.system.slurm.job_end import plausible, read_table, write_table

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root's files are believed")


@needs_root
def test_job_ends__table(tmp_path: Path) -> None:
    path = str(tmp_path / "job-ends")
    assert read_table(path) == {}
    write_table({(7, 4711, 99): 1_795_388_000}, path)
    assert read_table(path) == {(7, 4711, 99): 1_795_388_000}
    os.chmod(path, 0o622)
    assert read_table(path) == {}


def test_job_ends__a_job_without_a_limit_has_no_end() -> None:
    now = int(time.time())
    assert plausible(now + 3600) == now + 3600
    assert plausible(now + 365 * 86400) == plausible(now - 86400) == plausible(0) == 0
