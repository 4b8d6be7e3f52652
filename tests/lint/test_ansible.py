# SPDX-License-Identifier: Apache-2.0
"""The Ansible role's variables: the defaults, the specification and the documentation name the same ones."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
ROLE = ROOT / "data/ansible/roles/slurm_adopt"
GUIDE = ROOT / "docs/guide/ansible.md"


def defaults() -> dict[str, str]:
    found: list[tuple[str, str]] = re.findall(
        r"^(slurm_adopt_\w+): (.*)$", (ROLE / "defaults/main.yml").read_text(), re.M
    )
    return dict(found)


def test_ansible__variables_are_specified_with_their_defaults() -> None:
    text = (ROLE / "meta/argument_specs.yml").read_text()
    options = re.split(r"^      (?=slurm_adopt_\w+:$)", text, flags=re.M)[1:]
    assert {option.partition(":")[0] for option in options} == set(defaults())
    for option in options:
        name = option.partition(":")[0]
        [default] = re.findall(r"^ {8}default: (.*)$", option, re.M)
        assert default == defaults()[name], name


def test_ansible__variables_stand_in_the_guide_with_their_defaults() -> None:
    rows = re.findall(r"^\| `(slurm_adopt_\w+)` \|(.*?)\|", GUIDE.read_text(), re.M)
    shown = {name: default.strip(" `") for name, default in rows}
    assert shown == {name: "" if value == '""' else value for name, value in defaults().items()}


def test_ansible__tasks_use_no_other_variables_of_the_site() -> None:
    """What is used is a default, or made by the role itself."""
    text = "".join(path.read_text() for path in ROLE.glob("[th]a*/*.yml"))
    made = set(re.findall(r"(?:register: |^ +)(slurm_adopt_\w+)(?::|$)", text, re.M))
    used = set(re.findall(r"\bslurm_adopt_\w+", text))
    assert len(used) > 20
    assert used - made - set(defaults()) == set()
    assert set(defaults()) - used == set()
