# SPDX-License-Identifier: Apache-2.0
"""A number is not a process: no function takes a bare process number, and nobody but procfs looks below /proc/PID."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[2] / "src" / "slurm_adopt"
MODULES = sorted(path.relative_to(SOURCE).as_posix() for path in SOURCE.rglob("*.py"))
#: A parameter that is the number of a process, by its name.
NUMBER = re.compile(r"^(pids?|\w+_pids?)$")
#: Where a bare number is right, and why.
DOORS = {
    ("system/kernel/procfs.py", "*"): "makes a process of a number",
    ("system/tasks/sockets.py", "Peer.__init__"): "SO_PEERCRED as the kernel gives it",
    ("system/tasks/child.py", "*"): "a child that was not reaped keeps its number",
    ("wire/stepd.py", "encode_pid_request"): "the wire has nothing but numbers",
}
PROC = re.compile(r"/proc/(?!self/|stat\b|mounts\b|sys/|net/)")


def functions_of(path: str) -> Iterator[tuple[str, list[str]]]:
    """Name (with its class) and parameters of every function."""
    tree = ast.parse((SOURCE / path).read_text())

    def walk(node: ast.AST, prefix: str) -> Iterator[tuple[str, list[str]]]:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, (ast.FunctionDef, ast.ClassDef)):
                name = f"{prefix}{child.name}"
                if isinstance(child, ast.FunctionDef):
                    args = child.args
                    yield name, [arg.arg for arg in (*args.posonlyargs, *args.args, *args.kwonlyargs)]
                yield from walk(child, f"{name}.")
            else:
                yield from walk(child, prefix)

    yield from walk(tree, "")


def strings_of(path: str) -> Iterator[str]:
    """All string literals but docstrings, the constant parts of f-strings among them."""
    tree = ast.parse((SOURCE / path).read_text())
    documents = set()
    for node in ast.walk(tree):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef)) and ast.get_docstring(node) is not None:
            first = node.body[0]
            assert isinstance(first, ast.Expr)
            documents.add(first.value)
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and node not in documents:
            yield node.value


@pytest.mark.parametrize("path", MODULES)
def test_processes__no_function_takes_a_bare_number(path: str) -> None:
    if (path, "*") in DOORS:
        return
    bad = [
        f"{name}({argument})"
        for name, arguments in functions_of(path)
        for argument in arguments
        if NUMBER.match(argument) and (path, name) not in DOORS
    ]
    assert not bad, f"{path}: pass the process (with its start time), not its number: {', '.join(bad)}"


@pytest.mark.parametrize("path", [path for path in MODULES if path != "system/kernel/procfs.py"])
def test_processes__nobody_else_looks_below_proc(path: str) -> None:
    bad = [text for text in strings_of(path) if PROC.search(text)]
    assert not bad, f"{path}: {bad} belongs into system/kernel/procfs.py, which looks at the start time afterwards"


def test_processes__the_rules_find_what_they_forbid() -> None:
    assert NUMBER.match("stepd_pid")
    assert NUMBER.match("pids")
    assert not NUMBER.match("pidfd")
    assert PROC.search("/proc/")
    assert PROC.search("/proc") is None
    assert not PROC.search("/proc/self/fd/3")
    for path, name in DOORS:
        assert name == "*" or name in dict(functions_of(path)), f"{path} has no {name} any more"
