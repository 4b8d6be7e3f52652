# SPDX-License-Identifier: Apache-2.0
"""Whose session scopes a login takes along: its own user's, and nobody else's."""

from __future__ import annotations

import pytest

from slurm_adopt.login.session.left_behind import scopes_of

OWN = "/user.slice/user-1001.slice/session-3.scope"


def found(*lines: str) -> list[str]:
    return [
        folder.partition("/user.slice")[2]
        for folder in scopes_of("".join(f"{line}\n" for line in lines).encode(), 1001)
    ]


@pytest.mark.parametrize("head", ["0::", "1:name=systemd:", "0::/machine.slice/node7"])
def test_scopes_of__own(head: str) -> None:
    assert found(f"{head}{OWN}") == ["/user-1001.slice/session-3.scope"]


@pytest.mark.parametrize("head", ["0::", "1:name=systemd:", "0::/machine.slice/node7"])
@pytest.mark.parametrize(
    "path",
    [
        "/user.slice/user-0.slice/session-3.scope",
        "/user.slice/user-10010.slice/session-3.scope",
        f"/user.slice/user-1002.slice/user@1002.service{OWN}",
        f"/user.slice/user-1002.slice/session-4.scope{OWN}",
        "/user.slice/user-1001.slice/user@1001.service/session-3.scope",
        "/user.slice/user-1001.slice/user@1001.service",
        "/user-1001.slice/session-3.scope",
        "/session-3.scope",
    ],
)
def test_scopes_of__others(head: str, path: str) -> None:
    assert found(f"{head}{path}") == []


def test_scopes_of__v1_controllers_are_not_logind() -> None:
    assert found(f"4:freezer:{OWN}", f"1:name=systemd:{OWN}") == ["/user-1001.slice/session-3.scope"]
