# SPDX-License-Identifier: Apache-2.0
"""The table of what happens to the node. Each row begins something and gives back what takes it back."""

from __future__ import annotations

import signal
from collections.abc import Callable
from typing import NamedTuple

from tests.torture.people import People

from lab.daemon import Daemon
from lab.machine import wait_for
from lab.node import Node

LOGIN_SOCKET = "/run/slurm-adopt/login.sock"
AUDIT_FILE = "/run/lab/audit/log"
CONF = "/etc/slurm/slurm.conf"
#: In the command line of the service.
TITLE = "python3 -IS /usr/bin/slurm-adopt serve --listen"

TakeBack = Callable[[], None]


class Service:
    """`slurm-adopt serve`, in the background of the node: what carries a command into it would stop when that one does."""

    def __init__(self, node: Node, audit_file: str = AUDIT_FILE) -> None:
        self.node = node
        self.audit_file = audit_file
        self.starts = 0

    def start(self) -> None:
        """Unless it runs."""
        if self.pid:
            return
        command = f"/usr/bin/slurm-adopt serve --listen {LOGIN_SOCKET} --audit-file {self.audit_file}"
        self.node.run(f"setsid {command} >>/run/lab/service.log 2>&1 &")
        self.starts += 1

    @property
    def pid(self) -> int:
        """In the node; 0 if it does not run."""
        found = [p.pid for p in self.node.processes("root") if TITLE in p.command]
        return found[0] if found else 0

    def signal(self, number: int) -> None:
        """To the service itself, not to what carries it into the node."""
        kill_all(self.node, TITLE, number)

    def end(self, number: int) -> None:
        """By this signal, and wait."""
        self.signal(number)
        wait_for(lambda: not self.pid, "the service to end", 60, 0.1)


class Stage(NamedTuple):
    """What faults happen to."""

    node: Node
    people: People
    service: Service


def kill_all(node: Node, title: str, number: int) -> int:
    """Signal root's processes whose command line has this in it; how many there were."""
    pids = [process.pid for process in node.processes("root") if title in process.command]
    if pids:
        node.run(["kill", f"-{number}", *map(str, pids)], check=False)
    return len(pids)


def _nothing() -> None:
    return


def _signalled(title: str, stop: int, go_on: int = 0) -> Callable[[Stage], TakeBack]:
    def begin(stage: Stage) -> TakeBack:
        kill_all(stage.node, title, stop)

        def take_back() -> None:
            kill_all(stage.node, title, go_on)

        return take_back if go_on else _nothing

    return begin


def _daemon(name: str, how: str) -> Callable[[Stage], TakeBack]:
    def begin(stage: Stage) -> TakeBack:
        daemon: Daemon = getattr(stage.node, name)
        if how == "pause":
            daemon.pause()
            return daemon.resume
        if how == "kill":
            daemon.kill()
        else:
            daemon.stop()
        return daemon.start

    return begin


def _service_kill(stage: Stage) -> TakeBack:
    stage.service.end(signal.SIGKILL)
    return stage.service.start


def _service_stop(stage: Stage) -> TakeBack:
    stage.service.end(signal.SIGTERM)
    return stage.service.start


def _conf(change: Callable[[str], str]) -> Callable[[Stage], TakeBack]:
    def begin(stage: Stage) -> TakeBack:
        text = stage.node.read(CONF)
        stage.node.write(CONF, change(text))
        return lambda: stage.node.write(CONF, text)

    return begin


def _disk_full(stage: Stage) -> TakeBack:
    """The audit file's disk, a tmpfs of one MiB."""
    stage.node.run("dd if=/dev/zero of=/run/lab/audit/fill bs=64k 2>/dev/null; true", check=False)
    return lambda: stage.node.path("/run/lab/audit/fill").unlink(missing_ok=True)


def _job(command: str, kind: str, take_back: str = "") -> Callable[[Stage], TakeBack]:
    def begin(stage: Stage) -> TakeBack:
        job = stage.people.some_job(kind)
        if not job:
            return _nothing

        def run(word: str) -> None:
            stage.node.run(["timeout", "15", "scontrol", word, str(job)], check=False)

        if command == "cancel":
            stage.node.run(["timeout", "15", "scancel", str(job)], check=False)
        else:
            run(command)
        return (lambda: run(take_back)) if take_back else _nothing

    return begin


class Fault(NamedTuple):
    """One row."""

    name: str
    begin: Callable[[Stage], TakeBack]


FAULTS = (
    Fault("service killed", _service_kill),
    Fault("service ended", _service_stop),
    Fault("service stopped (SIGSTOP)", _signalled(TITLE, signal.SIGSTOP, signal.SIGCONT)),
    Fault("helpers killed", _signalled("slurm-adopt/helper", signal.SIGKILL)),
    Fault("helpers stopped (SIGSTOP)", _signalled("slurm-adopt/helper", signal.SIGSTOP)),
    Fault("slurmd killed", _daemon("slurmd", "kill")),
    Fault("slurmd restarted", _daemon("slurmd", "stop")),
    Fault("slurmd stopped (SIGSTOP)", _daemon("slurmd", "pause")),
    Fault("all slurmstepds stopped (SIGSTOP)", _signalled("slurmstepd: [", signal.SIGSTOP, signal.SIGCONT)),
    Fault("munged killed", _daemon("munged", "kill")),
    Fault("munged stopped (SIGSTOP)", _daemon("munged", "pause")),
    Fault("slurmctld killed", _daemon("slurmctld", "kill")),
    Fault("slurmctld stopped (SIGSTOP)", _daemon("slurmctld", "pause")),
    Fault("slurm.conf half written", _conf(lambda text: text[: len(text) // 2])),
    Fault("slurm.conf empty", _conf(lambda _: "")),
    Fault("slurm.conf wrong", _conf(lambda text: text + "SlurmdSpoolDir\n")),
    Fault("disk of the audit file full", _disk_full),
    Fault("job suspended", _job("suspend", "suspended", "resume")),
    Fault("job requeued", _job("requeue", "one")),
    Fault("job cancelled", _job("cancel", "")),
    Fault("job of two cancelled", _job("cancel", "several")),
)
