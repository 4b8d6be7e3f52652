# SPDX-License-Identifier: Apache-2.0
"""Imports go one way, and the login path imports next to nothing."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[2] / "src" / "slurm_adopt"
#: What a layer may import, itself included. `record`, `places` and `words` belong to `model`.
LAYERS = {
    "bundle": set(),
    "bundling": {"bundle"},
    "places": set(),
    "model": {"model"},
    "options": {"model", "options"},
    "policy": {"model", "options", "policy"},
    "wire": {"model", "wire"},
    "system.tasks": {"model", "wire", "system.tasks"},
    "system.kernel": {"model", "wire", "system.tasks", "system.kernel"},
    "system.slurm": {"model", "places", "wire", "system.tasks", "system.kernel", "system.slurm"},
    "system.rpc": {"model", "wire", "system.tasks", "system.kernel", "system.slurm", "system.rpc"},
    "system.host": {"model", "wire", "system.tasks", "system.kernel", "system.host"},
    "observe": {"model", "wire", "system", "observe"},
    "login": {"model", "options", "policy", "wire", "system", "observe", "login"},
    "resident": {"model", "wire", "system", "observe", "login", "resident"},
    "users": {"model", "options", "policy", "wire", "system", "observe", "login", "users"},
    "cli": {"model", "options", "policy", "wire", "system", "observe", "login", "resident", "users", "cli"},
}
#: Modules that a one-shot login may not load: each costs more than a millisecond of python's 7.
TOO_DEAR = {
    "typing",
    "dataclasses",
    "enum",
    "re",
    "socket",
    "collections",
    "logging",
    "json",
    "subprocess",
    "contextlib",
    "functools",
    "ctypes",
    "hashlib",
    "ssl",
    "site",
    "argparse",
    "threading",
    "asyncio",
    "inspect",
}
#: What `wire` and `policy` may use of the standard library: nothing that does I/O or knows the time.
PURE = {"struct", "__future__"}
MODULES = sorted(SOURCE.rglob("*.py"))


def layer_of(module: tuple[str, ...]) -> str:
    """The room of a module below slurm_adopt, given by its parts."""
    if not module or module[0] in ("record", "places", "words", "__init__", "__version__"):
        return "model"
    if module[0] == "system" and len(module) > 1 and module[1] != "__init__":
        return f"system.{module[1]}"
    return module[0]


def parts_of(path: Path) -> tuple[str, ...]:
    return path.relative_to(SOURCE).with_suffix("").parts


def target_of(path: Path, level: int, module: str) -> tuple[str, ...]:
    """What a relative import of a file means."""
    package = parts_of(path)[:-1]
    return (*package[: len(package) - level + 1], *filter(None, module.split(".")))


def imports_of(path: Path) -> list[tuple[int, str, bool]]:
    """(level of the relative import, module, whether at the top of the file) of every import that really happens."""
    tree = ast.parse(path.read_text())
    found: list[tuple[int, str, bool]] = []

    def visit(node: ast.AST, top: bool) -> None:
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            for child in node.orelse:
                visit(child, top)
            return
        if isinstance(node, ast.Import):
            found.extend((0, alias.name, top) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            names = [node.module] if node.module else [alias.name for alias in node.names]
            found.extend((node.level, name or "", top) for name in names)
        inner = top and not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
        for below in ast.iter_child_nodes(node):
            visit(below, inner)

    visit(tree, True)
    return found


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_imports__one_way(path: Path) -> None:
    layer = layer_of(parts_of(path))
    if layer == "system":
        return  # the package's own __init__
    allowed = LAYERS[layer]
    for level, module, _ in imports_of(path):
        if level == 0:
            assert not module.startswith("slurm_adopt"), f"absolute import of {module}"
            continue
        target = layer_of(target_of(path, level, module))
        known = target in allowed or ("system" in allowed and target.startswith("system."))
        assert known, f"{path.relative_to(SOURCE)} imports {module} of {target}"


@pytest.mark.parametrize("room", sorted({path.parent for path in MODULES} - {SOURCE}), ids=lambda room: room.name)
def test_imports__each_room_says_who_lives_there(room: Path) -> None:
    text = ast.get_docstring(ast.parse((room / "__init__.py").read_text()))
    assert text, f"{room}/__init__.py says nothing"


@pytest.mark.parametrize(
    "path",
    [p for p in MODULES if layer_of(parts_of(p)) in ("wire", "policy", "options")],
    ids=lambda path: str(path.relative_to(SOURCE)),
)
def test_imports__pure_layers_do_no_io(path: Path) -> None:
    """At the top of the file; what a function loads for itself (hashlib, hmac) is named there."""
    for level, module, top in imports_of(path):
        if level == 0 and top:
            assert module in PURE, f"{path.name} imports {module}"
        elif level == 0:
            assert module in PURE | {"hashlib", "hmac", "base64", "json", "binascii"}, f"{path.name} imports {module}"


def test_imports__the_one_shot_login_stays_cheap() -> None:
    code = "import sys; sys.path.insert(0, sys.argv[1]); import slurm_adopt.login.helper; print(*sys.modules)"
    python = "/usr/bin/python3" if Path("/usr/bin/python3").exists() else sys.executable
    done = subprocess.run(
        [python, "-I", "-S", "-c", code, str(SOURCE.parent)], capture_output=True, text=True, check=True
    )
    assert not TOO_DEAR & set(done.stdout.split())
