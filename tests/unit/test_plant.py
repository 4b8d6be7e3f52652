# SPDX-License-Identifier: Apache-2.0
"""The faults that are put into a copy of the product by hand (tools/plant.py) still fit the product."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import plant

CHECKOUT = Path(__file__).parents[2]


@pytest.mark.parametrize("name", plant.FAULTS)
def test_plant__each_fault_fits(name: str) -> None:
    """It changes the file, and what comes out can be compiled."""
    texts: dict[str, str] = {}
    for file, before, after in plant.FAULTS[name].changes:
        text = texts.get(file) or (CHECKOUT / file).read_text()
        texts[file] = plant.planted(text, before, after, name)
        assert texts[file] != text
    for file, text in texts.items():
        if file.endswith(".py"):
            ast.parse(text)


def test_plant__what_does_not_fit_is_said() -> None:
    with pytest.raises(ValueError, match="here has 2 times"):
        plant.planted("a a", "a", "b", "here")
