# SPDX-License-Identifier: Apache-2.0
"""Documents that are generated, or that name things, agree with the code."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_documents__options_are_current() -> None:
    """Tables, manuals and completions are what the tables and the parsers of the code say."""
    argv = [sys.executable, "tools/generate-docs", "--check"]
    done = subprocess.run(argv, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 0, f"run tools/generate-docs\n{done.stdout}"


def test_documents__links_lead_somewhere() -> None:
    for document in [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")]:
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", document.read_text()):
            assert (document.parent / target).exists(), f"{document.name} links to {target}"


def test_documents__the_module_and_the_exchange_name_known_reasons() -> None:
    sys.path.insert(0, str(ROOT / "src"))
    from slurm_adopt.model import REASONS

    code = "".join(path.read_text() for path in (ROOT / "src/pam").glob("*.[ch]"))
    named = set(re.findall(r'"((?:helper|request|join|user|internal)-[a-z-]+)[" ]', code))
    assert named
    assert named <= set(REASONS)


def test_ci__runs_the_readmes_test_command() -> None:
    assert "make test" in (ROOT / "README.md").read_text()
    assert (ROOT / ".ci/run").read_text().rstrip().endswith("exec make test")
