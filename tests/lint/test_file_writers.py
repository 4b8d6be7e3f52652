# SPDX-License-Identifier: Apache-2.0
"""Files are made, replaced and judged by who may write them in one place, system/tasks/files.py."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[2] / "src" / "slurm_adopt"
DOOR = "system/tasks/files.py"
#: The command tells people what it sees; no login depends on what it makes of that.
LOOKS_ON = "cli/"
MODULES = sorted(path.relative_to(SOURCE).as_posix() for path in SOURCE.rglob("*.py"))
#: Calls of os that make, replace or change what lies under a name.
MAKING = {"rename", "renames", "replace", "link", "symlink", "mkdir", "makedirs", "mkfifo", "mknod", "truncate",
          "ftruncate", "chmod", "fchmod", "chown", "fchown", "lchown"}  # fmt: skip
FLAGS = {"O_CREAT", "O_EXCL", "O_TRUNC", "O_APPEND", "O_TMPFILE", "O_WRONLY", "O_RDWR"}
#: Of the module `stat`: who may read, write, enter.
RIGHTS = {"S_IRWXG", "S_IRWXO", "S_IWGRP", "S_IWOTH", "S_IWUSR", "S_IRGRP", "S_IROTH", "S_IXGRP", "S_IXOTH", "S_IMODE"}
WRITERS = {"write_text", "write_bytes", "touch"}
#: Of shutil: it makes nothing.
HARMLESS = {"get_terminal_size", "which"}
LOOKING = {"st_mode &", *(f"stat.{name}" for name in RIGHTS)}
#: What is right elsewhere, and why.
ALLOWED = {
    ("bundling.py", "open(..., 'wb')"): "made when the package is installed, before anything of it can be imported",
    ("bundling.py", "os.fchmod"): "the same",
    ("bundling.py", "os.replace"): "the same",
    ("system/host/listener.py", "os.replace"): "a socket is bound under its draft's name",
    ("system/kernel/cgroup_move.py", "O_WRONLY"): "cgroup.procs, a file of the kernel's",
    ("system/kernel/hasten.py", "O_RDWR"): "a setting of the kernel's",
    ("system/kernel/terminals.py", "O_WRONLY"): "a terminal",
    ("system/tasks/child.py", "O_RDWR"): "/dev/null for a child",
    ("cli/main.py", "O_WRONLY"): "/dev/null for a reader that has gone away",
}


def findings(path: str, text: str) -> Iterator[tuple[str, int]]:
    """What a module does to files, and in which line."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            where, name = node.value.id, node.attr
            if where == "os" and name in MAKING:
                yield f"os.{name}", node.lineno
            if where == "os" and name in FLAGS:
                yield name, node.lineno
            if where == "stat" and name in RIGHTS:
                yield f"stat.{name}", node.lineno
        if isinstance(node, ast.Attribute) and node.attr in WRITERS:
            yield node.attr, node.lineno
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitAnd):
            sides = (node.left, node.right)
            if any(isinstance(side, ast.Attribute) and side.attr == "st_mode" for side in sides):
                yield "st_mode &", node.lineno
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "open":
            given = [*node.args[1:2], *[word.value for word in node.keywords if word.arg == "mode"]]
            for mode in given:
                plain = mode.value if isinstance(mode, ast.Constant) else "?"
                if set(str(plain)) & set("wax+?"):
                    yield f"open(..., {plain!r})", node.lineno
        if isinstance(node, ast.Import) and "tempfile" in {alias.name for alias in node.names}:
            yield "import tempfile", node.lineno
        if isinstance(node, ast.ImportFrom) and node.module in ("shutil", "tempfile"):
            for name in {alias.name for alias in node.names} - HARMLESS:
                yield f"{node.module}.{name}", node.lineno
        if isinstance(node, ast.Attribute) and ast.unparse(node.value) == "shutil" and node.attr not in HARMLESS:
            yield f"shutil.{node.attr}", node.lineno


@pytest.mark.parametrize("path", [path for path in MODULES if path != DOOR])
def test_file_writers__nobody_else_makes_or_judges_files(path: str) -> None:
    bad = [
        f"{path}:{line} {what}"
        for what, line in findings(path, (SOURCE / path).read_text())
        if (path, what) not in ALLOWED and not (path.startswith(LOOKS_ON) and what in LOOKING)
    ]
    assert not bad, f"{bad}: {DOOR} does that"


def test_file_writers__what_is_allowed_is_still_there() -> None:
    found = {
        (path, what)
        for path in {path for path, _ in ALLOWED}
        for what, _ in findings(path, (SOURCE / path).read_text())
    }
    assert set(ALLOWED) <= found


@pytest.mark.parametrize(
    "text",
    [
        "os.open(p, os.O_RDONLY | os.O_CREAT)",
        "os.rename(a, b)",
        "found.st_mode & 0o022",
        "0o002 & info.st_mode",
        "stat.S_IWOTH",
        "open(p, 'w')",
        "open(p, mode='ab')",
        "open(p, mode)",
        "Path(p).write_text('')",
        "import tempfile",
        "from shutil import move",
        "import shutil; shutil.copy(a, b)",
        "from tempfile import mkstemp",
    ],
)
def test_file_writers__the_rules_find_what_they_forbid(text: str) -> None:
    assert list(findings("x", text))


def test_file_writers__the_rules_leave_readers_alone() -> None:
    text = "open(p)\nopen(p, 'rb')\nos.open(p, os.O_RDONLY | os.O_NOFOLLOW)\nstat.S_ISREG(found.st_mode)\nos.unlink(p)\nshutil.which(p)"
    assert not list(findings("x", text))
