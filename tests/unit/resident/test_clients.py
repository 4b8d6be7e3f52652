# SPDX-License-Identifier: Apache-2.0
"""Connections of modules: who waits for a place while nobody gets one is sent to the helper."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from slurm_adopt.login.recent import Recent
from slurm_adopt.observe.metrics import Metrics
from slurm_adopt.resident import clients as module
from slurm_adopt.resident.admission import Admission
from slurm_adopt.resident.clients import Clients
from slurm_adopt.system.tasks.loop import Loop
from slurm_adopt.system.tasks.task import sleep_until
from slurm_adopt.wire.login_exchange import LoginRequest, decode_reply, encode_request

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="modules are root's")


class Hanging:
    """A `StepSource` whose first question is never answered."""

    recent = Recent()

    callers = None

    def read_conf(self, deadline_ns: int, place: str | None = None) -> Iterator[Any]:  # noqa: ARG002
        yield from sleep_until(deadline_ns)


def request_of(uid: int) -> bytes:
    deadline_ns = time.monotonic_ns() + 30 * 10**9
    return encode_request(LoginRequest("account", deadline_ns, "sshd", f"user{uid}", uid, args=("profile=strict",)))


def test_clients__who_waits_while_no_place_gets_free_goes_to_the_helper(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PATIENCE_NS", 10_000_000)
    loop = Loop()
    clients = Clients(loop, Hanging(), Metrics())  # type: ignore[arg-type]
    clients.admission = Admission(places=4, waiting_room=16)
    path = str(tmp_path / "login.sock")
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        listener.bind(path)
        listener.listen()
        listener.setblocking(False)
        clients.listen(listener)
        modules = []
        # four users have a place each, and none of them is answered; the fifth one's login waits
        for uid in (1501, 1502, 1503, 1504, 1505):
            modules.append(socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET))
            modules[-1].connect(path)
            modules[-1].send(request_of(uid))
            loop.turn()
        assert (clients.admission.running, clients.admission.waiting) == (4, 1)
        while clients.admission.waiting:
            loop.turn()
        assert decode_reply(modules[-1].recv(4096)).result == "retry"
        assert clients.admission.running == 4
        for one in modules:
            one.close()
        while clients.open:
            loop.turn()
        clients.stop(take_all=False)
