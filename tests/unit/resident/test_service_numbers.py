# SPDX-License-Identifier: Apache-2.0
"""The service's numbers when it has no descriptor left to count them with."""

from __future__ import annotations

import builtins

import pytest

from slurm_adopt.observe.metrics import Metrics
from slurm_adopt.resident import service


class Busy:
    """As much of the service as its numbers need."""

    def __init__(self) -> None:
        self.metrics = Metrics()
        self.sessions: tuple[()] = ()
        self.clients = self.memory = self
        self.admission = self
        self.running = self.waiting = 0

    def _take_notes(self) -> None:
        return

    def report(self, _: object) -> None:
        return


def test_service_numbers__without_a_descriptor_left(monkeypatch: pytest.MonkeyPatch) -> None:
    busy = Busy()
    before = service.Service.render(busy)  # type: ignore[arg-type]
    assert "slurm_adopt_memory_bytes" in before

    def none_left(*_: object, **__: object) -> None:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(builtins, "open", none_left)
    assert service.Service.render(busy) == before  # type: ignore[arg-type]
