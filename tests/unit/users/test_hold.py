# SPDX-License-Identifier: Apache-2.0
"""The numbers of a login are held until slurmstepd has answered, also when its user has the answer before."""

from __future__ import annotations

import socket
import struct
import threading
import time
from typing import TYPE_CHECKING

from slurm_adopt.login.steps import OwnStep, OwnSteps
from slurm_adopt.model import StepFact
from slurm_adopt.system.kernel.procfs import Process
from slurm_adopt.system.slurm.spool import StepPath
from slurm_adopt.system.slurm.stepd import StepConnection, request_adoption
from slurm_adopt.system.tasks.task import MS, run, sleep_until
from slurm_adopt.users import move

if TYPE_CHECKING:
    from slurm_adopt.system.tasks.task import Task


class NoPins:
    """Holds nothing, and counts the turns."""

    turned = 0

    def turns(self, until_ns: int, is_over: list[bool]) -> Task[None]:
        while not is_over and time.monotonic_ns() < until_ns:
            self.turned += 1
            yield from sleep_until(time.monotonic_ns() + MS)


def test_hold__lasts_beyond_the_request() -> None:
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    connection = StepConnection(ours, time.monotonic_ns() + 10**9)  # type: ignore[arg-type]
    found = OwnSteps()
    found.own = [OwnStep(StepPath(7, "lab", "", 1, 1), connection, StepFact(7, "running", (1, 1, 7), 38 << 8))]
    run(request_adoption(connection, (Process(4711, 1),), x11=False, namespaces=False))
    pins = NoPins()
    move.keep_holding(pins, connection)  # type: ignore[arg-type]
    found.close()
    held = threading.Thread(target=move.hold_until_answered)
    held.start()
    while pins.turned < 5:
        assert held.is_alive(), "slurmstepd has not answered yet"
    theirs.send(struct.pack("=i", 0))
    held.join(10)
    assert not held.is_alive()
    move.PINS.clear()
    theirs.close()
