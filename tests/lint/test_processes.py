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
PROC = re.compile(r"/proc/(?!self/|stat\b|cmdline\b|mounts\b|sys/|net/)")


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


#: What procfs reads of a process without waiting for anything that its user can hold.
HARMLESS = {"stat", "status", "cgroup", "limits", "sessionid", "comm", "exe", "ns", "task", "fd", "net", "cwd"}
#: What waits for the process's memory map or for its file systems, and the functions that read it.
MAY_HANG = {"environ", "cmdline", "maps", "root"}
HANGING = {"read_environ", "read_arguments", "read_title", "read_mapped_names", "read_descriptor_stats", "path_seen_by"}
#: Who may call these functions, and why nobody waits for them.
CALLERS = {
    "system/kernel/baggage.py": "the child for one request of a user",
    "system/slurm/job_environment.py": "`query_job_end`, `query_claim`: in a child; `jobs` is the child for one request",
    "cli/job_names.py": "a child of the user's own command",
    "system/slurm/prolog.py": "processes of root's, which slurmd or slurmstepd has started",
    "system/slurm/slurmd.py": "slurmd, a process of root's; the service calls it in a child",
    "login/session/environment.py": "`query_variables` calls it in a child",
    "cli/status_view.py": "the administrator's own process",
    "cli/doctor/sshd.py": "a child with a time limit, for sshds",
    "cli/doctor/sshd_files.py": "the same",
    "cli/doctor/slurm_running.py": "the same, for slurmd",
}


def test_processes__what_may_hang_is_read_by_few() -> None:
    text = (SOURCE / "system/kernel/procfs.py").read_text()
    below = set(re.findall(r'"?/proc/\{(?:process\.)?pid\}/(\w+)', text)) | set(
        re.findall(r'_record\(\S+, "(\w+)"\)', text)
    )
    assert below == HARMLESS | MAY_HANG
    for path in MODULES:
        if path == "system/kernel/procfs.py":
            continue
        tree = ast.parse((SOURCE / path).read_text())
        names = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
        used = names & HANGING
        assert not used or path in CALLERS, f"{path} uses {used}: that can hang, and belongs into a child"
    for path in CALLERS:
        assert HANGING & {
            node.id for node in ast.walk(ast.parse((SOURCE / path).read_text())) if isinstance(node, ast.Name)
        }
