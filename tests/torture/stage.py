# SPDX-License-Identifier: Apache-2.0
"""What faults happen to, and how all of it is put right again.

Rules of this file:
1. A fault is taken back by its own row first. `Stage.mend` then puts right whatever is still wrong, and does not ask why:
   a run is an hour, and one daemon that did not come back would make the rest of it say nothing.
2. What is put right is tried a few times. On a node with a fault a command may fail or take long.
"""

from __future__ import annotations

import random
import signal
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

from tests.node.login.nss_lab import HANGS
from tests.torture.people import TROUBLE, People

from lab.machine import LabError, wait_for
from lab.node import Node

LOGIN_SOCKET = "/run/slurm-adopt/login.sock"
USERS_SOCKET = "/run/slurm-adopt/user.sock"
AUDIT_FILE = "/run/lab/audit/log"
AUDIT_FILL = "/run/lab/audit/fill"
CONF = "/etc/slurm/slurm.conf"
#: In the command line of each helper.
HELPER = "slurm-adopt/helper"

TakeBack = Callable[[], None]


def nothing() -> None:
    """There is nothing to take back."""


def not_now() -> None:
    """There was nothing that it could happen to: it does not count."""


def surely(act: Callable[[], object], tries: int = 3) -> None:
    """Do it, again if it fails. `LabError` if it never works."""
    for left in reversed(range(tries)):
        try:
            act()
            return
        except TROUBLE as error:
            if not left:
                raise LabError(f"after {tries} times: {error}") from error


class Service:
    """`slurm-adopt serve`, in the background of the node: what carries a command into it would stop when that one does.

    `words` are the command's: `serve`, or `serve-users`.
    """

    def __init__(
        self, node: Node, audit_file: str = AUDIT_FILE, socket: str = LOGIN_SOCKET, word: str = "serve"
    ) -> None:
        self.node = node
        self.title = f"python3 -IS /usr/bin/slurm-adopt {word} --listen"
        self._command = f"/usr/bin/slurm-adopt {word} --listen {socket}"
        if audit_file:
            self._command += f" --audit-file {audit_file}"
        self.starts = 0

    def start(self) -> None:
        """Unless it runs; wait until it does. `LabError`."""
        if self.pid:
            return
        self.node.run(f"setsid {self._command} >>/run/lab/service.log 2>&1 &")
        self.starts += 1
        wait_for(lambda: self.pid, "the service to start", 60, 0.05)

    @property
    def pid(self) -> int:
        """In the node; 0 if it does not run."""
        found = [p.pid for p in self.node.processes("root") if self.title in p.command]
        return found[0] if found else 0

    def signal(self, number: int) -> None:
        """To the service itself, not to what carries it into the node."""
        kill_all(self.node, self.title, number)

    def end(self, number: int) -> None:
        """By this signal, and wait."""
        self.signal(number)
        wait_for(lambda: not self.pid, "the service to end", 60, 0.1)

    def restart(self) -> None:
        """As `systemctl restart` does."""
        self.end(signal.SIGTERM)
        self.start()


class Stage:
    """The node with all that may break. `put_right` counts what `mend` had to do."""

    def __init__(self, node: Node, people: People, chance: random.Random) -> None:
        self.node = node
        self.people = people
        self.chance = chance
        self.service = Service(node)
        self.users = Service(node, "", USERS_SOCKET, "serve-users")
        self.conf = node.read(CONF)
        self.put_right: Counter[str] = Counter()

    def start(self) -> None:
        """Both services."""
        self.service.start()
        self.users.start()

    def mend(self) -> None:
        """No fault is left: what was stopped goes on, what runs no more is started, files are what they were."""
        for job in list(self.people.suspended):
            self.people.goes_on(job)
        if stopped := [pid for pid, uid in stopped_processes(self.node.path("/proc")) if uid not in self.people.uids]:
            self.put_right["a process that was stopped"] += len(stopped)
            self.node.run(["kill", "-CONT", *map(str, stopped)], check=False)
        if self.node.read(CONF) != self.conf:
            self.put_right["slurm.conf"] += 1
            self.node.write(CONF, self.conf)
        for left in (AUDIT_FILL, HANGS):
            self.node.path(left).unlink(missing_ok=True)
        for daemon in (self.node.munged, self.node.slurmctld, self.node.slurmd, self.node.ssh_server):
            if not daemon.pid:
                self.put_right[daemon.name] += 1
                daemon.start()
        self.start()


def stopped_processes(proc: Path) -> Iterator[tuple[int, int]]:
    """Number and owner of each process below this /proc that a signal has stopped, but helpers: their module ends them."""
    for entry in proc.iterdir():
        if not entry.name.isdigit():
            continue
        try:
            status = (entry / "status").read_text()
            command = (entry / "cmdline").read_text(errors="replace").replace("\0", " ")
        except OSError:
            continue
        if status.partition("\nState:")[2].split()[:1] == ["T"] and HELPER not in command:
            yield int(entry.name), int(status.partition("\nUid:")[2].split()[0])


def kill_all(node: Node, title: str, number: int) -> int:
    """Signal root's processes whose command line has this in it; how many there were."""
    pids = [process.pid for process in node.processes("root") if title in process.command]
    if pids:
        node.run(["kill", f"-{number}", *map(str, pids)], check=False)
    return len(pids)
