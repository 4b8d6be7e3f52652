# SPDX-License-Identifier: Apache-2.0
"""Linters as ordinary tests."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def check(*argv: str) -> None:
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def tracked() -> list[Path]:
    if shutil.which("git") and (ROOT / ".git").exists():
        out = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
        return [ROOT / line for line in out.splitlines() if (ROOT / line).is_file()]
    return [path for path in ROOT.rglob("*") if path.is_file() and ".venv" not in path.parts]


def test_lint__ruff() -> None:
    check(sys.executable, "-m", "ruff", "check", "src", "tools", "tests", "bench")


def test_lint__ruff_format() -> None:
    check(sys.executable, "-m", "ruff", "format", "--check", "src", "tools", "tests", "bench")


def test_lint__mypy() -> None:
    check(sys.executable, "-m", "mypy", "src/slurm_adopt", "tools", "bench")


@pytest.mark.parametrize(
    "path",
    [p for p in tracked() if p.suffix in (".py", ".c", ".h", ".te", ".in")],
    ids=lambda p: str(p.relative_to(ROOT)),
)
def test_lint__spdx(path: Path) -> None:
    assert "SPDX-License-Identifier: Apache-2.0" in path.read_text(errors="replace")[:300]


def test_lint__no_grab_bags() -> None:
    bad = {"utils", "helpers", "common", "manager", "misc"}
    assert [path for path in tracked() if path.stem in bad] == []


def test_lint__no_private_addresses_of_package_mirrors() -> None:
    """The project's commands work anywhere: no source names a mirror."""
    pattern = re.compile(rb"https?://[^\s\"'<>)]*(?:/debian|/ubuntu|/simple)\b")
    found = [path for path in tracked() if path != Path(__file__) and pattern.search(path.read_bytes())]
    assert found == []
