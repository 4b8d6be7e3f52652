# SPDX-License-Identifier: Apache-2.0
"""Slurm's spool directory: whoever else may write to it makes it useless, and the log says what to do about it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from slurm_adopt.system.slurm.spool import SpoolDirectory, SpoolFault

ME = os.geteuid()


@pytest.mark.skipif(ME != 0, reason="gives folders to others")
@pytest.mark.parametrize(
    ("mode", "uid", "gid", "hint"),
    [(0o775, 0, 4, "chmod g-w"), (0o777, 0, 0, "chmod go-w"), (0o755, 1501, 0, "chown root")],
)
def test_spool__somebody_else_may_write(tmp_path: Path, mode: int, uid: int, gid: int, hint: str) -> None:
    os.chown(tmp_path, uid, gid)
    tmp_path.chmod(mode)
    with pytest.raises(SpoolFault, match=f"^{tmp_path}: .*: {hint} {tmp_path}$") as caught:
        SpoolDirectory(str(tmp_path), (0,))
    assert caught.value.reason == "spool-dir-untrusted"


@pytest.mark.parametrize("mode", [0o755, 0o775])
def test_spool__owners_and_their_group_0(tmp_path: Path, mode: int) -> None:
    if mode & 0o020:
        if ME != 0:
            pytest.skip("group 0 is root's")
        os.chown(tmp_path, -1, 0)
    tmp_path.chmod(mode)
    with SpoolDirectory(str(tmp_path), (0, ME)) as directory:
        assert directory.extern_steps() == []
