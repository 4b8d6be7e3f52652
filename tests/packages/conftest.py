# SPDX-License-Identifier: Apache-2.0
"""The packages of this checkout, built once for the whole run.

`SLURM_ADOPT_DIST=/path` names a folder of packages that are there already.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def run(*argv: str | Path, check: bool = True, env: Mapping[str, str] | None = None) -> str:
    """A command's output on both streams. env: beside our own."""
    done = subprocess.run(
        [str(word) for word in argv],
        env={**os.environ, **(env or {})},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert not check or done.returncode == 0, done.stdout
    return done.stdout


def build(work: Path, *what: str) -> Path:
    """Packages of this checkout, made below `work`; the folder that has them."""
    out = work / "out"
    run(sys.executable, ROOT / "tools/packages", *what, "--work", work / "work", "--out", out)
    return out


@pytest.fixture(scope="session")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with .deb and .rpm for both machines."""
    if os.geteuid() != 0:
        pytest.skip("needs root (dpkg, rpm, isolated nodes)")
    if there := os.environ.get("SLURM_ADOPT_DIST"):
        return Path(there)
    return build(tmp_path_factory.mktemp("packages"), "deb", "rpm")


@pytest.fixture(scope="session")
def deb(packages: Path) -> Path:
    machine = run("dpkg", "--print-architecture").strip()
    (found,) = packages.glob(f"slurm-adopt_*_{machine}.deb")
    return found
