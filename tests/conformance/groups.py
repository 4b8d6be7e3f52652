# SPDX-License-Identifier: Apache-2.0
"""The situations one after the other, each set up once, on two nodes."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from lab.machine import wait_for
from lab.node import Node

from . import cases
from .cases import Case, Situation, expand
from .situations import ENDING, Measured, Rig, moved_away, start_jobs


@dataclass(frozen=True)
class Group:
    """Cases that share a situation. `parallel`: all calls at once, where a situation lasts a moment or a call seconds."""

    set_up: Callable[[Rig], contextlib.AbstractContextManager[object]]
    cases: tuple[Case, ...]
    parallel: bool = False


def _cases(*situations: Situation) -> tuple[Case, ...]:
    return tuple(case for situation in situations for case in expand(situation))


def steady(rig: Rig) -> contextlib.AbstractContextManager[object]:
    start_jobs(rig)
    return contextlib.nullcontext()


@contextlib.contextmanager
def roots_job(rig: Rig) -> Iterator[None]:
    rig.submit("root's", "root")
    yield
    rig.node.cancel(rig.jobs["root's"])


@contextlib.contextmanager
def slurmd_down(rig: Rig) -> Iterator[None]:
    rig.node.slurmd.stop()
    try:
        yield
    finally:
        rig.node.slurmd.start()


def spool_missing(rig: Rig) -> contextlib.AbstractContextManager[object]:
    return moved_away(rig.node, rig.node.spool_dir)


@contextlib.contextmanager
def spool_a_file(rig: Rig) -> Iterator[None]:
    with moved_away(rig.node, rig.node.spool_dir):
        rig.node.write(rig.node.spool_dir, "not a directory\n")
        yield


@contextlib.contextmanager
def conf_missing(rig: Rig) -> Iterator[None]:
    with moved_away(rig.node, "/etc/slurm/slurm.conf"), moved_away(rig.node, "/etc/slurm-llnl/slurm.conf"):
        yield


#: Puts processes into a step's cgroup until it is told to stop.
FEEDER = """
trap '' TERM HUP
file=$(find /sys/fs/cgroup -path "*/job_$1/step_extern*" -name cgroup.procs | grep -E 'freezer|/user/task_' | head -1)
while [ ! -e /run/lab/enough ]; do setsid sleep 60 & echo $! > $file; echo; sleep .1; done
"""


@contextlib.contextmanager
def ending(rig: Rig) -> Iterator[None]:
    """Two jobs are cancelled while something starts in them that ignores SIGTERM, and again and again.

    slurmstepd kills all of it, and looks again after a second, then after two, and so on: meanwhile its socket is there and
    the step says that it is ending (seen on 22.05). Any job that is left with sessions open ends like that, if faster.
    """
    node = rig.node
    for uid, user in ((1504, "erin"), (1505, "dora")):
        node.run(["useradd", "-m", "-u", str(uid), "-s", "/bin/bash", user])
    feeders = []
    for user, job in (("erin", "ending"), ("dora", "ending too")):
        rig.submit(job, user, "sleep 1000")  # the batch step, too, takes its time to end
        argv = ["bash", "-c", FEEDER, "feeder", str(rig.jobs[job])]
        feeders.append(node.popen(argv, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL))
        assert feeders[-1].stdout is not None
        assert feeders[-1].stdout.readline() == "\n"
    rig.submit("running", "dora")
    node.run(["scancel", str(rig.jobs["ending"]), str(rig.jobs["ending too"])])
    for job in ("ending", "ending too"):
        wait_for(lambda job=job: rig.step_state(job) >= ENDING, f"{job} to end")
    try:
        yield
    finally:
        node.write("/run/lab/enough", "")
        for feeder in feeders:
            feeder.communicate()


def adoption_fails(rig: Rig) -> contextlib.AbstractContextManager[object]:
    """slurmstepd answers -1, after 4 s: the step's freezer (v1) or its cgroup (v2) is not there any more."""
    script = """
    for step in $(find /sys/fs/cgroup/freezer /sys/fs/cgroup/unified -type d -path '*job_%d/step_extern' 2>/dev/null); do
        for process in $(cat $step/cgroup.procs); do echo $process > ${step%%/slurm*}/cgroup.procs; done
        rmdir $step
    done
    """
    rig.node.run(script % rig.jobs["only"])
    return contextlib.nullcontext()


GROUPS = (
    Group(steady, (*_cases(*cases.STEADY), *cases.MISSPELT)),
    Group(roots_job, _cases(*cases.ROOTS_JOB)),
    Group(slurmd_down, _cases(*cases.SLURMD_DOWN)),
    Group(spool_missing, _cases(*cases.SPOOL_MISSING)),
    Group(spool_a_file, _cases(*cases.SPOOL_A_FILE)),
    Group(conf_missing, _cases(*cases.CONF_MISSING)),
    Group(ending, cases.ENDING, parallel=True),
    Group(adoption_fails, cases.FAILS, parallel=True),
)


class ContainerNode(Node):
    """A node with job_container/tmpfs: every job has a /tmp and /dev/shm of its own, in a mount namespace."""

    def __init__(self) -> None:
        super().__init__(slurm={"JobContainerType": "job_container/tmpfs"})

    def prepare(self) -> None:
        super().prepare()
        for folder in ("/etc/slurm", "/etc/slurm-llnl"):
            self.write(f"{folder}/job_container.conf", "AutoBasePath=true\nBasePath=/var/lib/job_container\n")


CONTAINERS = (Group(steady, _cases(*cases.CONTAINERS)),)
#: Seen: 20.11.4 has no job_container/tmpfs, 22.05.8 has it. Its documentation says 21.08.
FIRST_WITH_CONTAINERS = (21, 8)
#: Processes per processor: the suite alone makes about two.
LOADED = 2
CASES_WITH_CONTAINERS = tuple(case for group in CONTAINERS for case in group.cases)
CASES = (*(case for group in GROUPS for case in group.cases), *CASES_WITH_CONTAINERS)


def measure_all() -> dict[str, Measured]:
    """What both modules do in every case, by the case's name. Without containers where this Slurm has none."""
    measured, release = _measure_patiently(Node, GROUPS)
    if release >= FIRST_WITH_CONTAINERS:
        measured.update(_measure_patiently(ContainerNode, CONTAINERS)[0])
    return measured


def _measure_patiently(
    make_node: Callable[[], Node], groups: tuple[Group, ...]
) -> tuple[dict[str, Measured], tuple[int, int]]:
    """The groups on a node of their own, and its Slurm's release; on a busy machine once more if that fails."""
    found, release = _measure_on(make_node, groups)
    if _is_busy() and not all(_fits(case, found[case.name]) for group in groups for case in group.cases):
        # a login whose second was taken by others is decided otherwise, and a job ends before anybody looks
        found, release = _measure_on(make_node, groups)
    return found, release


def _is_busy() -> bool:
    """Whether more wants to run than the machine has processors for: on a free one nothing is measured twice."""
    return os.getloadavg()[0] > len(os.sched_getaffinity(0)) * LOADED


def _fits(case: Case, got: Measured) -> bool:
    """Whether both modules did what the table says."""
    return case.explains_original(got.original) and got.ours == case.ours


def _measure_on(
    make_node: Callable[[], Node], groups: tuple[Group, ...]
) -> tuple[dict[str, Measured], tuple[int, int]]:
    measured: dict[str, Measured] = {}
    with Rig(make_node()) as rig:
        for group in groups:
            with group.set_up(rig):
                results = rig.measure([case.call for case in group.cases], group.parallel)
            measured.update((case.name, result) for case, result in zip(group.cases, results))
        return measured, rig.node.slurm_release
