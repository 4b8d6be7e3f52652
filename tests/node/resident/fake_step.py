# SPDX-License-Identifier: Apache-2.0
"""Sockets that answer who they are, as slurmstepd does; this very process is the slurmstepd."""

from __future__ import annotations

import os
import socket
import struct
import threading
from pathlib import Path

from slurm_adopt.wire import stepd as wire

RUNNING = 2


class FakeStep:
    """An extern step's socket in `folder`. `asked` counts connections; `hung` ones are neither read nor answered."""

    def __init__(self, folder: Path, job_id: int, uid: int, *, node: str = "lab", hung: bool = False) -> None:
        self.uid = uid
        self.asked = 0
        self.path = folder / f"{node}_{job_id}.{wire.EXTERN_STEP}"
        self.answering = threading.Event()
        if not hung:
            self.answering.set()
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.bind(str(self.path))
        self._listener.listen(64)
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def end(self) -> None:
        """As when the job ends: the socket file goes."""
        self.path.unlink(missing_ok=True)
        self.kill()

    def kill(self) -> None:
        """As when slurmstepd crashes: the socket file stays."""
        if self._listener.fileno() < 0:
            return
        self.answering.set()
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(5)

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self.asked += 1
            self.answering.wait()
            with connection:
                self._answer(connection)

    def _answer(self, connection: socket.socket) -> None:
        connection.settimeout(5)
        answers = {
            wire.DAEMON_PID: struct.pack("=i", os.getpid()),
            wire.UID: struct.pack("=I", self.uid),
            wire.STATE: struct.pack("=i", RUNNING),
        }
        try:
            connection.recv(4)
            connection.sendall(struct.pack("=i", wire.CLIENT_VERSION))
            while opcode := connection.recv(4):
                connection.sendall(answers[struct.unpack("=i", opcode)[0]])
        except OSError:
            return
