# SPDX-License-Identifier: Apache-2.0
"""The table of what happens to the node. Each row begins something and gives back what takes it back."""

from __future__ import annotations

import re
import signal
import time
from collections.abc import Callable, Iterable
from typing import NamedTuple

from tests.node.login.nss_lab import HANGS
from tests.torture.limits import no_descriptors, no_memory, no_processes
from tests.torture.people import FIRST_UID
from tests.torture.stage import (
    AUDIT_FILL,
    CONF,
    HELPER,
    Service,
    Stage,
    TakeBack,
    kill_all,
    not_now,
    nothing,
    stopped_processes,
    surely,
)
from tests.torture.upgrade import upgraded

from lab.daemon import Daemon
from lab.machine import LabError

#: Who waits for a name service that hangs.
WAITING = ":sshd:helper:slurm-adopt:slurmctld:slurmd:slurmstepd:"
EXTERN_STEP = re.compile(r"slurmstepd: \[(\d+)\.extern\]")


def _signalled(title: str, number: int) -> Callable[[Stage], TakeBack]:
    def begin(stage: Stage) -> TakeBack:
        kill_all(stage.node, title, number)
        return nothing

    return begin


def _steps_stopped(stage: Stage) -> TakeBack:
    stage.people.steps_stopped_s = time.monotonic()
    kill_all(stage.node, "slurmstepd: [", signal.SIGSTOP)

    def go_on() -> None:
        stage.people.steps_stopped_s = time.monotonic()
        kill_all(stage.node, "slurmstepd: [", signal.SIGCONT)

    return go_on


def _service_signalled(which: str, stop: int, go_on: int) -> Callable[[Stage], TakeBack]:
    def begin(stage: Stage) -> TakeBack:
        service: Service = getattr(stage, which)
        service.signal(stop)
        return lambda: service.signal(go_on)

    return begin


def _service_ended(which: str, number: int) -> Callable[[Stage], TakeBack]:
    def begin(stage: Stage) -> TakeBack:
        service: Service = getattr(stage, which)
        service.end(number)
        return service.start

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


def _conf(change: Callable[[str], str]) -> Callable[[Stage], TakeBack]:
    def begin(stage: Stage) -> TakeBack:
        stage.node.write(CONF, change(stage.conf))
        return lambda: stage.node.write(CONF, stage.conf)

    return begin


def _disk_full(stage: Stage) -> TakeBack:
    """The audit file's disk, a tmpfs of its own."""
    stage.node.run(f"dd if=/dev/zero of={AUDIT_FILL} bs=64k 2>/dev/null; true", check=False)
    return lambda: stage.node.path(AUDIT_FILL).unlink(missing_ok=True)


def _name_service_hangs(stage: Stage) -> TakeBack:
    stage.node.write(HANGS, WAITING)
    return lambda: stage.node.path(HANGS).unlink(missing_ok=True)


def _job(command: str, kind: str) -> Callable[[Stage], TakeBack]:
    def begin(stage: Stage) -> TakeBack:
        job = stage.people.some_job(stage.chance, kind)
        if not job:
            return not_now
        stage.node.run(["timeout", "15", *command.split(), str(job)], check=False)
        return nothing

    return begin


def _job_suspended(stage: Stage) -> TakeBack:
    """Until it says that it runs: a session in a job that stays suspended would never end."""
    people, node = stage.people, stage.node
    job = people.some_job(stage.chance, "suspended")
    if not job:
        return not_now
    uids = people.owners_of[job]
    people.stops(job)
    node.run(["timeout", "15", "scontrol", "suspend", str(job)], check=False)

    def resume() -> None:
        node.run(["timeout", "15", "scontrol", "resume", str(job)], check=False)
        shown = node.run(["timeout", "15", "squeue", "-h", "-j", str(job), "-o", "%T"], check=False)
        # a job that has ended may be unknown
        if "SUSPENDED" in shown.stdout or (shown.returncode and "Invalid job id" not in shown.stderr):
            raise LabError(f"job {job} does not go on: {shown}")

    def take_back() -> None:
        try:
            surely(resume, 10)
        finally:
            # a slurmd that was just killed may not have heard of it
            left = [pid for pid, uid in stopped_processes(node.path("/proc")) if uid in uids]
            if left:
                node.run(["kill", "-CONT", *map(str, left)], check=False)
            people.goes_on(job)

    return take_back


def _step_killed(stage: Stage) -> TakeBack:
    """The slurmstepd of one extern step; what it leaves behind, and the job, end when it is taken back."""
    node = stage.node
    steps = {int(found[1]): p.pid for p in node.processes("root") if (found := EXTERN_STEP.match(p.command))}
    if not steps:
        return not_now
    job = stage.chance.choice(sorted(steps))
    node.run(["kill", "-KILL", str(steps[job])], check=False)

    def take_back() -> None:
        node.run(["timeout", "15", "scancel", str(job)], check=False)
        left = [p.pid for p in node.processes() if p.uid >= FIRST_UID and is_in_job(p.cgroups.values(), job)]
        if left:
            node.run(["kill", "-KILL", *map(str, left)], check=False)

    return take_back


def is_in_job(paths: Iterable[str], job: int) -> bool:
    """Whether one of these cgroups is the job's, or below it."""
    return any(f"/job_{job}/" in f"{path}/" for path in paths)


class Fault(NamedTuple):
    """One row."""

    name: str
    begin: Callable[[Stage], TakeBack]


FAULTS = (
    Fault("service killed", _service_ended("service", signal.SIGKILL)),
    Fault("service ended", _service_ended("service", signal.SIGTERM)),
    Fault("service stopped (SIGSTOP)", _service_signalled("service", signal.SIGSTOP, signal.SIGCONT)),
    Fault("service without descriptors", no_descriptors),
    Fault("service without memory", no_memory),
    Fault("service without processes", no_processes),
    Fault("service for users killed", _service_ended("users", signal.SIGKILL)),
    Fault("service for users stopped (SIGSTOP)", _service_signalled("users", signal.SIGSTOP, signal.SIGCONT)),
    Fault("package upgraded", upgraded),
    Fault("helpers killed", _signalled(HELPER, signal.SIGKILL)),
    Fault("helpers stopped (SIGSTOP)", _signalled(HELPER, signal.SIGSTOP)),
    Fault("slurmd killed", _daemon("slurmd", "kill")),
    Fault("slurmd restarted", _daemon("slurmd", "stop")),
    Fault("slurmd stopped (SIGSTOP)", _daemon("slurmd", "pause")),
    Fault("all slurmstepds stopped (SIGSTOP)", _steps_stopped),
    Fault("slurmstepd of one extern step killed", _step_killed),
    Fault("munged killed", _daemon("munged", "kill")),
    Fault("munged stopped (SIGSTOP)", _daemon("munged", "pause")),
    Fault("slurmctld killed", _daemon("slurmctld", "kill")),
    Fault("slurmctld stopped (SIGSTOP)", _daemon("slurmctld", "pause")),
    Fault("name service hangs", _name_service_hangs),
    Fault("slurm.conf half written", _conf(lambda text: text[: len(text) // 2])),
    Fault("slurm.conf empty", _conf(lambda _: "")),
    Fault("slurm.conf wrong", _conf(lambda text: text + "SlurmdSpoolDir\n")),
    Fault("disk of the audit file full", _disk_full),
    Fault("job suspended", _job_suspended),
    Fault("job requeued", _job("scontrol requeue", "one")),
    Fault("job cancelled", _job("scancel", "")),
    Fault("job of two cancelled", _job("scancel", "several")),
)
