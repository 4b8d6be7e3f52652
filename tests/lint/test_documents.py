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


def anchors(document: Path) -> set[str]:
    """What a link may name after `#`: the headings, as GitHub makes anchors of them."""
    headings = re.findall(r"^#+ (.*)$", re.sub(r"(?ms)^```.*?^```", "", document.read_text()), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_documents__links_into_a_page_lead_to_a_heading() -> None:
    for document in [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")]:
        for target, anchor in re.findall(r"\]\(([^)#:]*)#([^)]*)\)", document.read_text()):
            page = document.parent / target if target else document
            assert anchor in anchors(page), f"{document.name} links to {target}#{anchor}"


def test_documents__each_page_is_in_the_index() -> None:
    index = (ROOT / "docs/README.md").read_text()
    pages = [path.relative_to(ROOT / "docs").as_posix() for path in ROOT.glob("docs/**/*.md")]
    assert [page for page in pages if page != "README.md" and f"]({page})" not in index] == []


def test_documents__tests_that_are_named_exist() -> None:
    for document in [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")]:
        for name in re.findall(r"\btests/[\w/]+\.py\b", document.read_text()):
            assert (ROOT / name).exists(), f"{document.name} names {name}"


def test_documents__each_reason_code_has_something_to_look_at() -> None:
    sys.path[:0] = [str(ROOT / "src"), str(ROOT / "tools")]
    from documents.remedies import FINE, LOOK
    from slurm_adopt.model import REASONS

    assert sorted((*FINE, *LOOK)) == sorted(REASONS)
    assert not [code for code, words in LOOK.items() if "|" in words], "it would end the cell of the table"


def test_documents__commands_and_options_in_the_guides_exist() -> None:
    """`slurm-adopt COMMAND --option` in a document is one that the parsers know; so are options of the PAM line."""
    sys.path[:0] = [str(ROOT / "src"), str(ROOT / "tools")]
    from documents.commands import commands
    from slurm_adopt.options.schema import OPTIONS

    known = {command.name: {flag for each in command.arguments for flag in each.flags} for command in commands()}
    options = {spec.name for spec in OPTIONS}
    for document in [ROOT / "README.md", *ROOT.glob("docs/**/*.md")]:
        text = document.read_text()
        for name, rest in re.findall(r"\bslurm-adopt ([a-z][a-z-]+)((?: [^\n`|#]*)?)", text):
            flags = re.findall(r"(?<![\w-])--[a-z][a-z-]*", re.sub(r'"[^"]*"', "", rest))
            if name in known:
                assert set(flags) <= known[name] | {"--help"}, f"{document.name}: slurm-adopt {name}{rest}"
            else:
                assert not flags, f"{document.name}: slurm-adopt {name}{rest}"
        for line in re.findall(r"pam_slurm_adopt\w*\.so((?: +\[?\w+=[^ \n`]*)+)", text):
            named = set(re.findall(r"(\w+)=", re.sub(r"=\S+", "=", line)))
            assert named <= options, f"{document.name}: {line}"


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
