# SPDX-License-Identifier: Apache-2.0
"""Holding the numbers of processes while slurmstepd is told to move them.

slurmstepd moves numbers. A user's process may end at any moment, and whoever forks next gets its number; slurmstepd
tries a number that is not there four times, a second apart (cgroup v1). A process that was seized with ptrace(2) is not
stopped by that. When it ends, it stays a zombie with its number until its tracer lets go, whoever its parent is.

Rules of this file:
1. The tracer is a process of its own that ends soon (the child for one request of a user): its end lets everybody go.
2. A process is held only if its start time is the same after it was seized. What cannot be seized is not moved.
3. A traced process stops at each signal until its tracer says to go on: `Pins.turn` does that, again and again.
"""

from __future__ import annotations

import os
import time

from ..tasks.task import MS, sleep_until
from .procfs import is_same

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from ..tasks.task import Task
    from .procfs import AnyProcess

PTRACE_CONT, PTRACE_SEIZE, PTRACE_LISTEN = 7, 0x4206, 0x4208
PTRACE_EVENT_STOP = 128
SIGTRAP = 5
TURN_NS = 10 * MS


class Pins:
    """The processes that this process holds; they are let go when it ends."""

    def __init__(self) -> None:
        import ctypes

        self._ptrace = ctypes.CDLL(None, use_errno=True).ptrace
        self._ptrace.argtypes = [ctypes.c_long] * 4
        self._ptrace.restype = ctypes.c_long
        self._held: set[tuple[int, int]] = set()

    def hold(self, processes: Iterable[AnyProcess]) -> list[AnyProcess]:
        """Hold the processes; those that cannot be held (traced already, ended, forbidden) are the result."""
        return [process for process in processes if not self._hold(process)]

    def _hold(self, process: AnyProcess) -> bool:
        key = (process.pid, process.started)
        if key not in self._held:
            if self._ptrace(PTRACE_SEIZE, process.pid, 0, 0) < 0:
                return False
            self._held.add(key)
        # if the number had changed hands before, it is somebody else's who is held now, and is not moved
        return is_same(process)

    def turn(self) -> None:
        """Let those go on that have stopped at a signal."""
        while True:
            try:
                stopped = os.waitid(os.P_ALL, 0, os.WSTOPPED | os.WNOHANG)
            except ChildProcessError:
                return
            if stopped is None:
                return
            number, event = stopped.si_status & 0xFF, stopped.si_status >> 8
            if event == PTRACE_EVENT_STOP and number != SIGTRAP:
                self._ptrace(PTRACE_LISTEN, stopped.si_pid, 0, 0)  # stopped by a signal (Ctrl-Z): so it stays
            else:
                self._ptrace(PTRACE_CONT, stopped.si_pid, 0, 0 if event else number)

    def turns(self, until_ns: int, is_over: list[bool]) -> Task[None]:
        """Take turns until something is over."""
        while not is_over and time.monotonic_ns() < until_ns:
            self.turn()
            yield from sleep_until(min(until_ns, time.monotonic_ns() + TURN_NS))
