# SPDX-License-Identifier: Apache-2.0
"""The closed sets of words: what mypy checks and what the tables hold are the same words."""

from __future__ import annotations

import ast
from pathlib import Path

import slurm_adopt.model
from slurm_adopt.model import CHOICES, ENDING, REASONS, RUNNING, STARTING, SUSPENDED
from slurm_adopt.options.schema import BY_NAME


def words_of(name: str) -> set[str]:
    """The words of a `Literal` in model.py, which is there for mypy only."""
    tree = ast.parse(Path(slurm_adopt.model.__file__).read_text())
    (value,) = [
        node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) and node.targets[0].id == name
    ]
    assert isinstance(value, ast.Subscript)
    found: tuple[str, ...] | str = ast.literal_eval(value.slice)
    return set(found) if isinstance(found, tuple) else {found}


def test_words__every_reason_has_its_word() -> None:
    assert words_of("ReasonCode") == {"", *REASONS}


def test_words__of_choices_and_states() -> None:
    assert words_of("Chosen") == {"", *CHOICES}
    assert words_of("Hasten") == set(BY_NAME["hasten"].values)
    assert words_of("State") == {STARTING, RUNNING, SUSPENDED, ENDING}
