# SPDX-License-Identifier: Apache-2.0
"""The runtime directory is looked at in a child: the look may hang, and the service goes on."""

from __future__ import annotations

import os
import signal
import time

import pytest

from slurm_adopt.login.session import environment
from slurm_adopt.system.tasks.task import run

FAR_NS = 60_000_000_000


def test_query_runtime_dir__found(monkeypatch: pytest.MonkeyPatch) -> None:
    here = os.getpid()
    monkeypatch.setattr(environment, "SHARE_NS", FAR_NS)
    monkeypatch.setattr(environment, "has_runtime_dir", lambda _: os.getpid() != here)
    found = run(environment.query_runtime_dir(1501, time.monotonic_ns() + FAR_NS))
    assert found == (("XDG_RUNTIME_DIR", "/run/slurm-adopt/user/1501"),)


def test_query_runtime_dir__not_the_users(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environment, "has_runtime_dir", lambda _: False)
    assert run(environment.query_runtime_dir(1501, time.monotonic_ns() + FAR_NS)) == ()


def test_query_runtime_dir__a_look_that_hangs_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environment, "has_runtime_dir", lambda _: signal.pause())
    assert run(environment.query_runtime_dir(1501, time.monotonic_ns() + FAR_NS)) == ()
