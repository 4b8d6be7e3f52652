# SPDX-License-Identifier: Apache-2.0
"""Hastened moves: while slurmstepd moves a login, the kernel's grace periods are expedited.

Since Linux 6.0 the kernel waits for a grace period of RCU before it moves a process from one cgroup to another, unless
one was moved a moment ago: 10 to 20 ms, nearly all of a login on a quiet node. Where /sys/kernel/rcu_expedited is not
0, it waits for a fraction of a millisecond, and interrupts each processor that is busy in the kernel or in a program
once (Documentation/RCU, kernel-parameters.txt: rcupdate.rcu_expedited).

Rules of this file:
1. The kernel's value says who has set it: 0 is nobody, `OURS` is a login of ours, anything else is the administrator's
   and stays. The kernel takes every number; nobody else writes this one. Before ours there was 0, so 0 is put back, and
   only if the value is still ours. Nothing else has to be remembered, whoever is killed at whatever moment.
2. Who hastens holds a shared lock (flock) on a file of root's; the last one, whose lock can be made exclusive, puts
   back. The kernel ends the locks of who is killed. The next login that hastens, or the service when it starts, puts
   right what was left.
3. Nobody waits here, and nothing here makes a login fail: what cannot be done is left.
4. Where it does not help nothing is written (`find_obstacle`).
"""

from __future__ import annotations

import fcntl
import os
import time

from ...record import record
from ..tasks.files import open_lock
from ..tasks.task import MS
from .procfs import read_file

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Literal

    from ...model import Hasten

    Obstacle = Literal["", "no-switch", "kernel-does-not-wait", "favordynmods", "rcu-normal", "isolated-processors"]
    SwitchState = Literal["off", "moving", "left", "foreign", "unknown"]

#: SLURM on the keys of a telephone.
OURS = 75876
#: A slurmstepd that takes longer waits for something else than a grace period.
LONGEST_NS = 200 * MS
#: How long the service believes what it has found out about the kernel and its mounts, which hardly ever change.
BELIEVED_NS = 60_000 * MS
#: Kernel parameters that keep processors for programs which want no interrupt.
ISOLATING = (b"nohz_full=", b"isolcpus=")


@record
class Places:
    """Where the kernel has what, and where our lock is."""

    switch: str = "/sys/kernel/rcu_expedited"
    normal: str = "/sys/kernel/rcu_normal"
    features: str = "/sys/kernel/cgroup/features"
    mounts: str = "/proc/self/mounts"
    command_line: str = "/proc/cmdline"
    lock: str = "/run/slurm-adopt/hasten"


PLACES = Places()


def find_obstacle(mode: Hasten, places: Places = PLACES) -> Obstacle:
    """Why moves are not hastened here; empty if they are."""
    if not os.access(places.switch, os.R_OK | os.W_OK, effective_ids=True):
        return "no-switch"  # a container, a unit that does not open it
    # the mount option came with the wait; distributions have brought both to older releases
    if b"favordynmods" not in (read_file(places.features) or b"").split():
        return "kernel-does-not-wait"
    if _favours_moves(read_file(places.mounts) or b""):
        return "favordynmods"
    if (read_file(places.normal) or b"0").strip() != b"0":
        return "rcu-normal"  # the administrator forbids expedited grace periods, or a real-time kernel does
    words = (read_file(places.command_line) or b"").split()
    if mode == "auto" and any(word.startswith(ISOLATING) for word in words):
        return "isolated-processors"
    return ""


def _favours_moves(mounts: bytes) -> bool:
    """Whether any cgroup file system is mounted with `favordynmods`: it is one switch for all of them."""
    if b"favordynmods" not in mounts:
        return False
    rows = [line.split(b" ") for line in mounts.splitlines()]
    return any(
        len(row) > 3 and row[2] in (b"cgroup", b"cgroup2") and b"favordynmods" in row[3].split(b",") for row in rows
    )


class Haste:
    """What this process has hastened: one episode from the first login that wants it to the last that has it."""

    def __init__(self, places: Places = PLACES) -> None:
        self._places = places
        self._holds = 0
        self._switch = self._lock = -1
        self._known: dict[Hasten, tuple[int, Obstacle]] = {}

    def begin(self, mode: Hasten) -> bool:
        """Hasten from now on. True: to be ended with `end()`. False: not possible, or not wanted here."""
        if self._obstacle(mode) or (not self._holds and not self._start()):
            return False
        self._holds += 1
        return True

    def end(self) -> None:
        """One of those that have begun is done; the last one puts back what was there before."""
        self._holds -= 1
        if not self._holds:
            _let_go(self._switch, self._lock)
            self._switch = self._lock = -1

    def _obstacle(self, mode: Hasten) -> Obstacle:
        now_ns = time.monotonic_ns()
        looked_ns, obstacle = self._known.get(mode, (-BELIEVED_NS, ""))
        if now_ns - looked_ns >= BELIEVED_NS:
            obstacle = find_obstacle(mode, self._places)
            self._known[mode] = now_ns, obstacle
        return obstacle

    def _start(self) -> bool:
        opened: list[int] = []
        try:
            opened.append(os.open(self._places.switch, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW))
            opened.append(open_lock(self._places.lock, (os.geteuid(),)))
            switch, lock = opened
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
            value = _read(switch)
            if value == 0:
                _write(switch, OURS)
            elif value != OURS:
                raise ValueError("the administrator's")
        except (OSError, ValueError):
            for fd in opened:
                os.close(fd)
            return False
        self._switch, self._lock = switch, lock
        return True


class Hastened:
    """A context manager: hastened until `until_ns` (CLOCK_MONOTONIC), when it should be left; 0: not hastened."""

    def __init__(self, mode: Hasten, haste: Haste) -> None:
        self._mode: Hasten = mode
        self._haste = haste
        self.until_ns = 0

    def __enter__(self) -> Hastened:
        if self._mode != "no" and self._haste.begin(self._mode):
            self.until_ns = time.monotonic_ns() + LONGEST_NS
        return self

    def __exit__(self, *_: object) -> None:
        if self.until_ns:
            self.until_ns = 0
            self._haste.end()


HASTE = Haste()


def hastened(mode: Hasten, haste: Haste | None = None) -> Hastened:
    """`with hastened(mode):` around what waits for a grace period; it is the whole process's."""
    return Hastened(mode, haste or HASTE)


def put_right(places: Places = PLACES) -> bool:
    """Put back what somebody has left who was killed; whether there was anything."""
    opened: list[int] = []
    try:
        opened.append(os.open(places.switch, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW))
        if _read(opened[0]) != OURS:
            return False
        opened.append(open_lock(places.lock, (os.geteuid(),)))
        fcntl.flock(opened[1], fcntl.LOCK_EX | fcntl.LOCK_NB)
        if _read(opened[0]) != OURS:
            return False
        _write(opened[0], 0)
    except (OSError, ValueError):
        return False
    finally:
        for fd in opened:
            os.close(fd)
    return True


def look(places: Places = PLACES) -> SwitchState:
    """What the kernel's setting says now. `left`: ours, and nobody is moved; to be seen by root only."""
    try:
        value = int(read_file(places.switch) or b"")
    except ValueError:
        return "unknown"
    if value != OURS:
        return "foreign" if value else "off"
    try:
        lock = os.open(places.lock, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        return "left"
    except OSError:
        return "unknown"
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return "moving"
    finally:
        os.close(lock)
    return "left" if read_file(places.switch) == b"%d\n" % OURS else "off"


def _let_go(switch: int, lock: int) -> None:
    try:
        # fails, and gives up the shared lock, while somebody else has one: then that one is the last
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if _read(switch) == OURS:
            _write(switch, 0)
        fcntl.flock(lock, fcntl.LOCK_UN)  # closing is not enough while a child that was just forked has it open as well
    except (OSError, ValueError):
        pass
    finally:
        os.close(lock)
        os.close(switch)


def _read(switch: int) -> int:
    """`ValueError` if there is no number."""
    return int(os.pread(switch, 32, 0))


def _write(switch: int, value: int) -> None:
    # always as long, so that in an ordinary file (a container's stand-in) nothing of what was there before is left
    os.pwrite(switch, b"%05d\n" % value, 0)
