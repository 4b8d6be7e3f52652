# SPDX-License-Identifier: Apache-2.0
"""Manuals and completions: they render, and name what there is."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "src"))

from slurm_adopt.cli.main import COMMANDS, build_parser  # noqa: E402
from slurm_adopt.model import REASONS  # noqa: E402
from slurm_adopt.options.schema import BY_NAME, OPTIONS  # noqa: E402

MANUALS = sorted((ROOT / "man").glob("*.[1-8]"))
COMPLETIONS = ROOT / "data/completions"
#: Long lines are what a table's texts are.
MANDOC_ALLOWS = re.compile(r"STYLE: input text line longer than 80 bytes")


def rendered(manual: Path) -> tuple[str, str]:
    """The page as text, and what the renderer complains about."""
    if not shutil.which("man"):
        pytest.skip("needs man-db")
    argv = ["man", "--warnings", "--encoding=UTF-8", "--no-hyphenation", "--local-file", str(manual)]
    environment = {**os.environ, "MANWIDTH": "200", "LC_ALL": "C.UTF-8"}
    done = subprocess.run(argv, env=environment, capture_output=True, text=True, check=True)
    return re.sub(r".\x08", "", done.stdout), done.stderr


def plain(words: str) -> str:
    """A text as a page shows it: no marks, any space is one space."""
    return " ".join(words.replace("`", "").split())


@pytest.mark.parametrize("manual", MANUALS, ids=lambda path: path.name)
def test_manuals__render_without_warnings(manual: Path) -> None:
    page, complaints = rendered(manual)
    assert complaints == ""
    assert "SEE ALSO" in page
    if shutil.which("mandoc"):
        done = subprocess.run(["mandoc", "-T", "lint", str(manual)], stdout=subprocess.PIPE, text=True, check=False)
        assert [line for line in done.stdout.splitlines() if not MANDOC_ALLOWS.search(line)] == []


def test_manuals__of_the_module_show_every_option_and_every_reason() -> None:
    page = plain(rendered(ROOT / "man/pam_slurm_adopt.8")[0])
    for spec in OPTIONS:
        assert f" {spec.name}=" in page
        assert plain(spec.doc) in page
    for code, reason in REASONS.items():
        assert f" {code} {plain(reason.meaning)}" in page


@pytest.mark.parametrize("name", COMMANDS)
def test_manuals__of_the_tool_show_what_help_shows(name: str) -> None:
    """Every option that `slurm-adopt NAME --help` lists stands in the manual and in each shell's completions."""
    page = plain(rendered(ROOT / "man/slurm-adopt.1")[0])
    (commands,) = [action for action in build_parser()._actions if isinstance(action.choices, dict)]
    assert isinstance(commands.choices, dict)
    shown = commands.choices[name].format_help()
    flags = set(re.findall(r"(?<![\w-])--[a-z][a-z-]*", shown.partition("options:")[2])) - {"--help"}
    section = page.partition("COMMANDS")[2].partition(f" {name} ")[2]
    for flag in flags:
        assert flag in section
        for shell in COMPLETIONS.iterdir():
            assert flag[2:] in shell.read_text()
    for shell in COMPLETIONS.iterdir():
        assert re.search(rf"\b{name}\b", shell.read_text())


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        (["slurm-adopt", "stat"], ["status"]),
        (["slurm-adopt", "status", "--ch"], ["--check"]),
        (["slurm-adopt", "metrics", "--file", "/etc/pass"], ["/etc/passwd", "/etc/passwd-"]),
        (["slurm-adopt", "use", ""], ["4705", "4711"]),
    ],
)
def test_completions__of_bash(words: list[str], offered: list[str], tmp_path: Path) -> None:
    tool = tmp_path / "slurm-adopt"
    tool.write_text("#!/bin/sh\nprintf 'JOB  STATE\\n4711 running\\n4705 running\\n'\n")
    tool.chmod(0o755)
    script = (
        f'source {COMPLETIONS}/slurm-adopt.bash; compopt() {{ :; }}; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); '
        '_slurm_adopt slurm-adopt "${@: -1}" "${@: -2:1}"; printf "%s\\n" "${COMPREPLY[@]}"'
    )
    environment = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    argv = ["bash", "--norc", "-c", script, "bash", *words]
    done = subprocess.run(argv, env=environment, capture_output=True, text=True, check=True)
    assert done.stderr == ""
    got = set(done.stdout.split())
    assert offered[0] in got
    assert got <= set(offered)


@pytest.mark.parametrize(("shell", "name"), [("zsh", "_slurm-adopt"), ("fish", "slurm-adopt.fish")])
def test_completions__are_what_the_shell_can_read(shell: str, name: str) -> None:
    if not shutil.which(shell):
        pytest.skip(f"needs {shell}")
    done = subprocess.run([shell, "-n", str(COMPLETIONS / name)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_manuals__the_readme_names_options_that_exist() -> None:
    text = (ROOT / "README.md").read_text()
    named = set(re.findall(r"`([a-z_]+)=\w*`", text))
    assert named
    assert named <= set(BY_NAME)
