# SPDX-License-Identifier: Apache-2.0
"""What one login costs the resident service is not paid by the others."""

from __future__ import annotations

import os
import socket
import time
from types import SimpleNamespace

import pytest

from slurm_adopt.login import await_start as starting
from slurm_adopt.login.recent import Recent
from slurm_adopt.observe.metrics import Metrics
from slurm_adopt.resident.clients import Clients
from slurm_adopt.system.host import journal
from slurm_adopt.system.slurm.conf import ConfFault
from slurm_adopt.system.tasks import sockets as sock
from slurm_adopt.system.tasks.loop import Loop
from slurm_adopt.wire.login_exchange import LoginRequest, decode_reply, encode_request


class Broken:
    """A `StepSource` without a slurm.conf."""

    recent = Recent()

    def read_conf(self, deadline_ns: int, place: str | None = None) -> object:  # noqa: ARG002
        yield from ()
        raise ConfFault("slurm-conf-missing", "none")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root is served")
def test_clients__what_cannot_be_written_down_does_not_end_the_service() -> None:
    metrics, loop = Metrics(), Loop()
    clients = Clients(loop, Broken(), metrics)  # type: ignore[arg-type]

    def fail(*_: object) -> None:
        raise OSError("no descriptor left")

    clients.on_answer = fail
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours:
        ours.send(encode_request(LoginRequest("account", time.monotonic_ns() + 10**10, "sshd", "bob", 1502)))
        clients._welcome(sock.Socket(fileno=theirs.detach()))
        loop.call_at(time.monotonic_ns() + 10**9, lambda: None)
        while clients.open:
            loop.turn()
        assert decode_reply(ours.recv(5000)).reason == "slurm-conf-missing"
    assert metrics.value("slurm_adopt_faults_total") == 1


def test_journal__no_descriptor_left_is_a_lost_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def none_left(*_: object) -> None:
        raise OSError("no descriptor left")

    monkeypatch.setattr(journal, "Socket", none_left)
    assert not journal.LogSender("slurm-adopt-audit").send("{}")


def test_starting__many_logins_that_wait_look_once(monkeypatch: pytest.MonkeyPatch) -> None:
    looked: list[int] = []

    def find_prologs(_files: object, _owners: object, uid: int) -> tuple[int, ...]:
        looked.append(uid)
        return (uid,)

    monkeypatch.setattr(starting, "find_prologs", find_prologs)
    monkeypatch.setattr(starting, "running_slurmds", lambda *_: [])
    monkeypatch.setattr(starting, "POLL_NS", 10**10)
    recent = Recent()
    conf = SimpleNamespace(prolog="/etc/slurm/prolog", step_owners=(0,))
    for _ in range(100):
        assert starting.find_starting(recent, conf, "", 1501) == (1501,)  # type: ignore[arg-type]
        assert starting.find_starting(recent, conf, "", 1502) == (1502,)  # type: ignore[arg-type]
    assert looked == [1501, 1502]
