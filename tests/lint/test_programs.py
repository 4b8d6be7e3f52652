# SPDX-License-Identifier: Apache-2.0
"""Programs are started in one place, and only there; children are forked in few."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[2] / "src" / "slurm_adopt"
MODULES = sorted(path.relative_to(SOURCE).as_posix() for path in SOURCE.rglob("*.py"))
STARTS = {"system", "popen", "posix_spawn", "posix_spawnp", "spawnv", "spawnve", "execv", "execve", "execl", "execvp"}
#: Where a program is started, and why.
STARTERS = {
    "system/tasks/program.py": "a checked file, without rights",
    "cli/history.py": "journalctl, as whoever calls the tool",
    "cli/doctor/nodes/ask.py": "srun, as whoever calls the tool",
}


@pytest.mark.parametrize("path", [path for path in MODULES if path not in STARTERS])
def test_programs__nobody_else_starts_any(path: str) -> None:
    tree = ast.parse((SOURCE / path).read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "os":
            assert node.attr not in STARTS, f"{path}:{node.lineno} starts a program: system/tasks/program.py does that"
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            names = [alias.name for alias in node.names] + [getattr(node, "module", None) or ""]
            assert "subprocess" not in names, (
                f"{path}:{node.lineno} imports subprocess: system/tasks/program.py is for that"
            )
