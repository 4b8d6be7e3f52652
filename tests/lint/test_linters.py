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
SHELL = re.compile(rb"#! ?/bin/(ba|da)?sh\b")
NOT_PROSE = {"vectors", "corpus", "results"}
#: The last commit before subjects had to say an area.
BEFORE_THE_RULE = "8db0ced"
SUBJECT = re.compile(r"[a-z_][^:]*: \S")
PLANNED = re.compile(r"man:slurm|make record|\bR-[1-9][0-9]?\b")


def check(*argv: str) -> None:
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def program(name: str) -> str:
    """A program of the project's own environment, which brings it in the pinned version."""
    return str(Path(sys.executable).with_name(name))


def tracked() -> list[Path]:
    if shutil.which("git") and (ROOT / ".git").exists():
        out = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
        return [ROOT / line for line in out.splitlines() if (ROOT / line).is_file()]
    return [path for path in ROOT.rglob("*") if path.is_file() and ".venv" not in path.parts]


def test_lint__ruff() -> None:
    check(sys.executable, "-m", "ruff", "check", "src", "tools", "tests", "bench", "fuzz")


def test_lint__ruff_format() -> None:
    check(sys.executable, "-m", "ruff", "format", "--check", "src", "tools", "tests", "bench", "fuzz")


def test_lint__mypy() -> None:
    check(sys.executable, "-m", "mypy", "src/slurm_adopt", "tools", "bench", "tests", "fuzz")


def test_lint__clang_format() -> None:
    sources = [str(path) for path in tracked() if path.suffix in (".c", ".h")]
    check(program("clang-format"), "--dry-run", "--Werror", *sources)


def test_lint__shellcheck() -> None:
    first_lines = {path: path.read_bytes().partition(b"\n")[0] for path in tracked()}
    check(program("shellcheck"), *(str(path) for path, line in first_lines.items() if SHELL.match(line)))


def test_lint__codespell() -> None:
    """What is recorded or generated is not prose."""
    prose = [path for path in tracked() if not any(part in NOT_PROSE for part in path.parts) and path.name != "LICENSE"]
    check(
        sys.executable,
        "-m",
        "codespell_lib",
        "--ignore-words-list=te,notin,sesion,requird,stauts,explian,acount,accout,whell,afinity",
        *map(str, prose),
    )


def test_lint__commit_messages() -> None:
    """`area: what it does`, at most 72 characters, of every commit since this rule."""
    if not (ROOT / ".git").exists() or not shutil.which("git"):
        pytest.skip("not in a git checkout")
    argv = ["git", "log", "--no-merges", "--format=%h %s", f"{BEFORE_THE_RULE}..HEAD"]
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip("a shallow clone: the commit before the rule is not here")
    subjects = [line.partition(" ")[2] for line in done.stdout.splitlines()]
    assert [subject for subject in subjects if len(subject) > 72 or not SUBJECT.match(subject)] == []


def test_lint__nothing_names_what_does_not_exist() -> None:
    """What is planned stands in docs/roadmap.md, and nowhere else."""
    exempt = {Path(__file__), ROOT / "docs/roadmap.md"}
    found = [path for path in tracked() if path not in exempt and PLANNED.search(path.read_text(errors="replace"))]
    assert found == []


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
