# SPDX-License-Identifier: Apache-2.0
"""A step whose slurmstepd has answered before: what is asked again, and what it says when it ends meanwhile."""

from __future__ import annotations

import contextlib
import os
import socket
import struct
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.process import me

from slurm_adopt.model import STEP_ENDING, STEP_UNTRUSTED
from slurm_adopt.system.slurm.stepd import Identity, StepConnection, StepFault, add_process, connect_step
from slurm_adopt.system.tasks import sockets
from slurm_adopt.system.tasks.task import run
from slurm_adopt.wire import stepd as wire

VERSION, UID = 38 << 8, 1501
RUNNING, ENDING = 2, 3


class Listener:
    """Answers as a slurmstepd in this very process would; `asked` are the opcodes it was sent, `state` what it says."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)
        self.asked: list[int] = []
        self.state = RUNNING
        self.added = 0
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.bind(self.path)
        self._socket.listen()
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            with connection, contextlib.suppress(BrokenPipeError):
                connection.recv(4)
                connection.sendall(struct.pack("=i", VERSION))
                while opcode := connection.recv(4):
                    (number,) = struct.unpack("=i", opcode)
                    self.asked.append(number)
                    if number == wire.ADD_PID:
                        connection.recv(4)
                    answers = {wire.DAEMON_PID: os.getpid(), wire.UID: UID, wire.ADD_PID: self.added}
                    connection.sendall(struct.pack("=i", answers.get(number, self.state)))

    def close(self) -> None:
        self._socket.close()


@pytest.fixture
def listener(tmp_path: Path) -> Iterator[Listener]:
    made = Listener(tmp_path / "step")
    yield made
    made.close()


def connect(listener: Listener, known: Identity | None = None) -> StepConnection:
    return run(connect_step(listener.path, (os.geteuid(),), time.monotonic_ns() + 10**10, known))


def test_known_step__is_asked_for_its_state_alone(listener: Listener) -> None:
    first = connect(listener)
    assert first.identity == Identity(VERSION, os.getpid(), me().started, UID, "running")
    first.close()
    assert listener.asked == [wire.DAEMON_PID, wire.UID, wire.STATE]
    listener.asked.clear()
    listener.state = ENDING
    second = connect(listener, first.identity)
    second.close()
    assert listener.asked == [wire.STATE]
    assert second.identity == Identity(VERSION, os.getpid(), me().started, UID, "ending")


def test_known_step__another_process_is_asked_everything(listener: Listener) -> None:
    """What was known of somebody else is not believed of the one that listens now."""
    other = Identity(VERSION, os.getppid(), 1, 0, "running")
    connection = connect(listener, other)
    connection.close()
    assert listener.asked == [wire.DAEMON_PID, wire.UID, wire.STATE]
    assert connection.identity is not None
    assert connection.identity.uid == UID


def test_known_step__a_listener_of_nobody_we_trust(listener: Listener) -> None:
    known = Identity(VERSION, os.getpid(), me().started, UID, "running")
    with pytest.raises(StepFault) as fault:
        run(connect_step(listener.path, (os.geteuid() + 1,), time.monotonic_ns() + 10**10, known))
    assert fault.value.reason == STEP_UNTRUSTED
    assert listener.asked == []


def test_known_step__in_another_pid_namespace(listener: Listener, monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel names no number for a peer that is not in ours: no impostor, and nothing to believe."""
    monkeypatch.setattr(sockets, "peer_of", lambda _: sockets.Peer(0, 0, 0))
    with pytest.raises(StepFault) as fault:
        connect(listener)
    assert fault.value.reason == "step-elsewhere"


@pytest.mark.parametrize(
    ("added", "state", "reason"),
    [(0, ENDING, STEP_ENDING), (-1, ENDING, STEP_ENDING), (-1, RUNNING, "adopt-refused")],
)
def test_known_step__that_ends_while_it_adopts(listener: Listener, added: int, state: int, reason: str) -> None:
    """Slurm 22.05 answers -1 for a moment when a job has just been cancelled: that is no failure to adopt."""
    connection = connect(listener)
    listener.added, listener.state = added, state
    with pytest.raises(StepFault) as fault:
        run(add_process(connection, me()))
    connection.close()
    assert fault.value.reason == reason
