# SPDX-License-Identifier: Apache-2.0
"""Unit tests leave the machine that they run on as it is."""

from __future__ import annotations

from pathlib import Path

import pytest

from slurm_adopt.record import replace
from slurm_adopt.system.host import account_marks, user_manager
from slurm_adopt.system.kernel import hasten


@pytest.fixture(autouse=True)
def _keep_out_of_run_and_sys(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No file below /run, and no grace period of the kernel's is hastened."""
    monkeypatch.setattr(account_marks, "DIRECTORY", str(tmp_path / "accounts"))
    monkeypatch.setattr(user_manager, "REFUSED", str(tmp_path / "refused"))
    monkeypatch.setattr(hasten, "HASTE", hasten.Haste(replace(hasten.PLACES, switch=str(tmp_path / "no-switch"))))
