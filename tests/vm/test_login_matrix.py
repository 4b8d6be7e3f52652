# SPDX-License-Identifier: Apache-2.0
"""With our module every kind of login is in the job, and gone with it."""

from __future__ import annotations

import functools

import pytest

from lab import matrix
from lab.matrix import LOGINS, Outcome, Setup
from lab.matrix_targets import VmTarget

SETUPS = [
    Setup("ours", session_line=False, systemd=False),
    Setup("ours", session_line=True, systemd=False),
    Setup("ours", session_line=True, systemd=True),
]


@pytest.fixture(scope="package")
def outcomes(shared_vm: VmTarget) -> object:
    """All logins of one set-up at once, into one job; each test then looks at its own."""

    @functools.cache
    def played(setup: Setup) -> dict[tuple[str, str], Outcome]:
        matrix.apply(shared_vm, setup)
        return dict(zip(LOGINS, matrix.play(shared_vm, LOGINS)))

    return played


@pytest.mark.parametrize(("method", "kind"), LOGINS)
@pytest.mark.parametrize("setup", SETUPS, ids=lambda setup: setup.title)
def test_login_matrix__ours(outcomes: object, setup: Setup, method: str, kind: str) -> None:
    assert callable(outcomes)
    outcome = outcomes(setup)[method, kind]
    assert outcome.opened, outcome.said
    assert outcome.contained, outcome
