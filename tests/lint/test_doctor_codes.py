# SPDX-License-Identifier: Apache-2.0
"""Each code of the doctor's table is provoked by a test: a row of a table of faults, or an assertion that expects it."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
GUIDE = ROOT / "docs/guide/doctor.md"
SOURCE = ROOT / "src/slurm_adopt/cli/doctor"
TESTS = ("tests/node/cli", "tests/unit/cli", "tests/node/login")
CODE = re.compile(r"[a-z]+(?:-[a-z]+)*")
#: Not a finding that is expected: `assert code not in ...`, `assert codes != [...]`.
NEGATIVE = (ast.NotIn, ast.NotEq, ast.IsNot)


def table() -> set[str]:
    """The codes of the guide's table. Those of slurm.conf and the spool directory are reason codes, named by the source."""
    found: set[str] = set()
    for row in GUIDE.read_text().splitlines():
        cells = row.split("|")
        if len(cells) == 4 and not row.startswith(("| `", "| ---")):
            found |= {word for word in re.findall(r"`([^`]+)`", cells[2]) if CODE.fullmatch(word)}
    return found


def by_reason() -> set[str]:
    """Codes that are reasons of `slurm_adopt.model`, each with a mend of its own."""
    return set(re.findall(r'^    "((?:slurm-conf|spool-dir)-[a-z]+)": ', (SOURCE / "slurm.py").read_text(), re.M))


def strings(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value


def expected(path: Path) -> Iterator[str]:
    """What a test file expects: the first word of each row of its tables, and the words of its positive assertions.

    What is compared with a parameter stands in the decorator: `@pytest.mark.parametrize(..., [(state, ["code"])])`.
    """
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, (ast.Assign, ast.AnnAssign)) and isinstance(node.value, ast.List):
            for row in node.value.elts:
                if isinstance(row, ast.Tuple) and isinstance(row.elts[0], ast.Constant):
                    yield str(row.elts[0].value)
        elif isinstance(node, ast.Assert):
            compared = [one for one in ast.walk(node.test) if isinstance(one, ast.Compare)]
            if not any(isinstance(operator, NEGATIVE) for one in compared for operator in one.ops):
                yield from strings(node.test)
        elif isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
            for decorator in node.decorator_list:
                yield from strings(decorator)


def provoked() -> set[str]:
    files = [path for folder in TESTS for path in (ROOT / folder).glob("test_*.py")]
    doctors = [path for path in files if "doctor" in path.read_text()]
    return {code for path in doctors for code in expected(path)}


def test_doctor_codes__each_is_provoked_by_a_test() -> None:
    codes = table() | by_reason()
    assert len(codes) > 80
    assert codes - provoked() == set()


def test_doctor_codes__the_table_has_what_the_source_can_say_and_nothing_else() -> None:
    text = "".join(path.read_text() for path in SOURCE.rglob("*.py"))
    said = set(re.findall(r'(?:Finding|_finding)\(\s*"([a-z-]+)"', text))
    said |= set(re.findall(r'"((?:munge|node)-[a-z]+(?:-answer)?)"', text)) & table()
    assert table() - by_reason() == said - by_reason()


def test_doctor_codes__an_assertion_that_expects_nothing_does_not_count(tmp_path: Path) -> None:
    file = tmp_path / "test_x.py"
    file.write_text(
        'x = [f for f in y if f != "a-a"]\nassert "b-b" not in x\nassert x != ["c-c"]\nassert x == ["d-d"]\n'
    )
    assert set(expected(file)) == {"d-d"}
