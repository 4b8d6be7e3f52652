# SPDX-License-Identifier: Apache-2.0
"""PAM stacks through real sshd, with both modules."""

from __future__ import annotations

import pytest

from .situations import MODULES, ORIGINAL, OURS
from .stacks import LOCKED_OUT, STACKS, Login, Stack, measure_stacks

Logins = dict[str, dict[str, dict[str, Login]]]


@pytest.fixture(scope="module")
def logins() -> Logins:
    return measure_stacks()


@pytest.mark.parametrize("stack", STACKS, ids=lambda stack: stack.name)
def test_stacks__case(stack: Stack, logins: Logins) -> None:
    for which in MODULES:
        assert logins[stack.name][which] == stack.expected_of(which), which
    if not stack.differs:
        assert logins[stack.name][OURS] == logins[stack.name][ORIGINAL]


def test_stacks__root_always_gets_in(logins: Logins) -> None:
    for stack in STACKS:
        if stack.name not in LOCKED_OUT:
            assert logins[stack.name][OURS]["root"].admitted, stack.name
