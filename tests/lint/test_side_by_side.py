# SPDX-License-Identifier: Apache-2.0
"""`make test` runs files side by side: each one in one worker, so that what a file builds is built once."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FILES = ("tests/wire/test_hostlist.py", "tests/wire/test_kangaroo12.py")


def test_side_by_side__a_file_has_one_worker() -> None:
    pytest.importorskip("xdist")
    [command] = re.findall(r"\$\(PYTEST\)( -n auto .*)", (ROOT / "Makefile").read_text())
    options = command.replace("auto", "2").split()
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-v", *options, *FILES],
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    ran = set(re.findall(r"^\[(gw\d)\].* PASSED (.*?)::", done.stdout, re.MULTILINE))
    assert sorted(name for _, name in ran) == sorted(FILES)
    assert len({worker for worker, _ in ran}) == len(FILES)
