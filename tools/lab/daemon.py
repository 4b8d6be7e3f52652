# SPDX-License-Identifier: Apache-2.0
"""Daemons of a machine that put themselves in the background and write a pid file."""

from __future__ import annotations

import os
import signal
from collections.abc import Sequence

from lab.machine import Machine, wait_for


class Daemon:
    """One daemon. `pid` is its pid inside the machine."""

    def __init__(
        self, machine: Machine, name: str, argv: Sequence[str], pid_file: str, user: str | None = None
    ) -> None:
        self.machine = machine
        self.name = name
        self.argv = list(argv)
        self.pid_file = pid_file
        self.user = user

    @property
    def pid(self) -> int | None:
        """None if it does not run (a zombie does not)."""
        try:
            pid = int(self.machine.read(self.pid_file))
            stat = self.machine.read(f"/proc/{pid}/stat")
        except (OSError, ValueError):
            return None
        return None if stat.rpartition(")")[2].split()[0] == "Z" else pid

    def start(self, timeout: float = 60.0) -> None:
        """Start it and wait for its pid file. Raises CommandError, LabError."""
        self.machine.run(self.argv, user=self.user)
        wait_for(lambda: self.pid, f"{self.name} to start", timeout)

    def signal(self, number: int) -> None:
        pid = self.pid
        if pid is not None:
            self.machine.run(["kill", f"-{number}", str(pid)], check=False)

    def stop(self, timeout: float = 60.0) -> None:
        """SIGTERM, and wait until it is gone."""
        self._end(signal.SIGTERM, timeout)

    def kill(self, timeout: float = 60.0) -> None:
        """SIGKILL: as a crash, its sockets and pid file stay behind."""
        self._end(signal.SIGKILL, timeout)

    def restart(self) -> None:
        self.stop()
        self.start()

    def pause(self) -> None:
        """SIGSTOP: its sockets accept and stay silent."""
        self.signal(signal.SIGSTOP)

    def resume(self) -> None:
        self.signal(signal.SIGCONT)

    def _end(self, number: int, timeout: float) -> None:
        pid = self.pid
        if pid is None:
            return
        self.signal(number)
        proc = self.machine.path(f"/proc/{pid}")
        wait_for(lambda: not os.path.exists(proc) or self.pid is None, f"{self.name} to end", timeout)
