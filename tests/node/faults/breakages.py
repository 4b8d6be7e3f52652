# SPDX-License-Identifier: Apache-2.0
"""Ways to break a node, each undone afterwards. All take the rig of tests.conformance, with jobs `only` (bob's) and
`carol's`, and are context managers."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

from tests.conformance.situations import Rig, moved_away

from lab.machine import LabError, wait_for
from lab.node import Node

CONF = "/etc/slurm/slurm.conf"
OTHER_CONF = "/etc/slurm-llnl/slurm.conf"
SWITCH = "/sys/kernel/rcu_expedited"
#: As a login sets it that is then killed: `system/kernel/hasten.py`.
LEFT = "75876\n"
HELPER = "/usr/libexec/slurm-adopt/helper"
#: A job that Slurm does not know; alice is its user.
FAKE_JOB = 4711
ALICE = 1501

Breakage = Callable[[Rig], AbstractContextManager[object]]


def start(rig: Rig) -> None:
    """Put the jobs and the fake slurmstepd there."""
    node = rig.node
    node.install(Path(__file__).with_name("fake_stepd.py"), "/run/lab/fake_stepd.py")
    rig.submit("only", "bob")
    rig.submit("carol's", "carol")


def socket_path(rig: Rig, job: int) -> str:
    return f"{rig.node.spool_dir}/{rig.node.node_name}_{job}.4294967292"


def stepd_pid(rig: Rig, job: int) -> int:
    """The job's extern slurmstepd, by its pid in the node."""
    for process in rig.node.processes(0):
        if process.command == f"slurmstepd: [{job}.extern]":
            return process.pid
    raise LabError(f"job {job} has no slurmstepd")


def fake(scenario: str, like: str = "") -> Breakage:
    """A fake slurmstepd for alice; or in the place of a real job's, in its cgroups (`like`)."""

    @contextlib.contextmanager
    def breakage(rig: Rig) -> Iterator[None]:
        with contextlib.ExitStack() as undo:
            job, uid, pid = FAKE_JOB, ALICE, []
            if like:
                job = rig.jobs[like]
                uid, pid = rig.node.account("bob")[0], [str(stepd_pid(rig, job))]
                undo.enter_context(moved_away(rig.node, socket_path(rig, job)))
            argv = ["python3", "/run/lab/fake_stepd.py", scenario, socket_path(rig, job), str(uid), *pid]
            process = rig.node.popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
            try:
                assert process.stdout is not None
                assert process.stdout.readline() == "ready\n", "the fake slurmstepd did not start"
                yield
            finally:
                process.communicate()

    return breakage


def spool_entry(command: str) -> Breakage:
    """An entry with the name of a step's socket, made by a command with {path} and {bobs} in it."""

    @contextlib.contextmanager
    def breakage(rig: Rig) -> Iterator[None]:
        path = socket_path(rig, FAKE_JOB)
        rig.node.run(command.format(path=path, bobs=socket_path(rig, rig.jobs["only"])))
        try:
            yield
        finally:
            rig.node.run(["rm", "-rf", path])

    return breakage


def stop_stepd(job: str) -> Breakage:
    """A job's extern slurmstepd is stopped: its socket takes connections, nobody answers."""

    @contextlib.contextmanager
    def breakage(rig: Rig) -> Iterator[None]:
        pid = stepd_pid(rig, rig.jobs[job])
        rig.node.run(["kill", f"-{signal.SIGSTOP}", str(pid)])
        try:
            wait_for(lambda: ") T " in rig.node.read(f"/proc/{pid}/stat"), "slurmstepd to stop")
            yield
        finally:
            rig.node.run(["kill", f"-{signal.SIGCONT}", str(pid)])

    return breakage


def helper(script: str | None, mode: int = 0o755, owner: str | None = None) -> Breakage:
    """Another script in the helper's place; None: nothing at all."""

    @contextlib.contextmanager
    def breakage(rig: Rig) -> Iterator[None]:
        with moved_away(rig.node, HELPER):
            if script is not None:
                rig.node.write(HELPER, f"#!/bin/sh\n{script}\n", mode, owner)
            yield

    return breakage


@contextlib.contextmanager
def package_broken(rig: Rig) -> Iterator[None]:
    """A file that every login loads is cut off."""
    path = "/usr/lib/slurm-adopt/slurm_adopt/model.py"
    with moved_away(rig.node, path):
        rig.node.run(f"head -c 1000 {path}.away > {path}")
        yield


@contextlib.contextmanager
def package_wrong(rig: Rig) -> Iterator[None]:
    """A function that every login calls fails in a way that nobody thought of."""
    path = "/usr/lib/slurm-adopt/slurm_adopt/login/steps.py"
    with moved_away(rig.node, path):
        rig.node.run(f"(cat {path}.away; echo 'list_steps = None') > {path}")
        yield


# /sys/kernel/rcu_expedited -----------------------------------------------------------------------------------


@contextlib.contextmanager
def stand_in(node: Node, text: str = "0\n") -> Iterator[None]:
    """A file in the place of the kernel's setting, which is the whole machine's."""
    node.write("/run/lab/rcu_expedited", text)
    node.run(["mount", "--bind", "/run/lab/rcu_expedited", SWITCH])
    try:
        yield
    finally:
        node.run(["umount", SWITCH])


def setting(text: str, after: int, wrong: str = "") -> Breakage:
    """What the setting says before a login, and after it; `wrong`: a command that breaks something."""

    @contextlib.contextmanager
    def breakage(rig: Rig) -> Iterator[None]:
        rig.node.run(["rm", "-rf", "/run/slurm-adopt/hasten"])
        with stand_in(rig.node, text):
            if wrong:
                rig.node.run(wrong)
            try:
                yield
                assert int(rig.node.read(SWITCH)) == after, "the setting was not put back"
            finally:
                rig.node.run(["rm", "-rf", "/run/slurm-adopt/hasten"])

    return breakage


# slurm.conf --------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def conf_missing(rig: Rig) -> Iterator[None]:
    with moved_away(rig.node, CONF), moved_away(rig.node, OTHER_CONF):
        yield


@contextlib.contextmanager
def conf_missing_without_slurmd(rig: Rig) -> Iterator[None]:
    rig.node.slurmd.stop()
    # one that it has forked for a job, a moment before it becomes slurmstepd, is a slurmd as well
    wait_for(lambda: not any(_is_slurmd(process.command) for process in rig.node.processes("root")), "slurmd to end")
    try:
        with conf_missing(rig):
            yield
    finally:
        rig.node.slurmd.start()


def _is_slurmd(command: str) -> bool:
    return command.partition(" ")[0].rpartition("/")[2].startswith("slurmd")


def conf_folder(mode: int = 0o755, owner: str = "root", taken_away: bool = False) -> Breakage:
    """/etc/slurm with another mode or owner; `taken_away`: and without slurm.conf."""

    @contextlib.contextmanager
    def breakage(rig: Rig) -> Iterator[None]:
        folder = CONF.rpartition("/")[0]
        rig.node.run(f"chmod {mode:o} {folder}; chown {owner} {folder}")
        try:
            with conf_missing(rig) if taken_away else contextlib.nullcontext():
                yield
        finally:
            rig.node.run(f"chmod 755 {folder}; chown root {folder}")

    return breakage


def conf(text: str | None, mode: int = 0o644, owner: str | None = None, added: str = "") -> Breakage:
    """Another slurm.conf; None: what it was, and `added`."""

    @contextlib.contextmanager
    def breakage(rig: Rig) -> Iterator[None]:
        with moved_away(rig.node, CONF):
            rig.node.write(CONF, (rig.node.read(f"{CONF}.away") if text is None else text) + added, mode, owner)
            yield

    return breakage


@contextlib.contextmanager
def conf_directory(rig: Rig) -> Iterator[None]:
    with moved_away(rig.node, CONF):
        rig.node.path(CONF).mkdir()
        yield


conf_world_writable = conf(None, mode=0o666)
conf_of_user = conf(None, owner="alice")
conf_of_slurm_user = conf(None, owner="bob", added="SlurmUser=bob\n")
conf_malformed = conf(None, added="SlurmdSpoolDir=nowhere\n")
conf_include_loop = conf(None, added=f"Include {CONF}\n")
conf_include_missing = conf(None, added="Include /etc/slurm/gone.conf\n")


# SlurmdSpoolDir ----------------------------------------------------------------------------------------------


def spool_missing(rig: Rig) -> AbstractContextManager[object]:
    return moved_away(rig.node, rig.node.spool_dir)


@contextlib.contextmanager
def spool_file(rig: Rig) -> Iterator[None]:
    with moved_away(rig.node, rig.node.spool_dir):
        rig.node.write(rig.node.spool_dir, "not a directory\n")
        yield


@contextlib.contextmanager
def spool_loop(rig: Rig) -> Iterator[None]:
    with moved_away(rig.node, rig.node.spool_dir):
        rig.node.run(["ln", "-s", rig.node.spool_dir, rig.node.spool_dir])
        yield


@contextlib.contextmanager
def spool_world_writable(rig: Rig) -> Iterator[None]:
    folder = rig.node.path(rig.node.spool_dir)
    mode = folder.stat().st_mode & 0o7777
    folder.chmod(0o777)
    try:
        yield
    finally:
        folder.chmod(mode)


def spool_of(user: str) -> Breakage:
    """SlurmdSpoolDir belongs to this user."""

    @contextlib.contextmanager
    def breakage(rig: Rig) -> Iterator[None]:
        rig.node.run(["chown", user, rig.node.spool_dir])
        try:
            yield
        finally:
            rig.node.run(["chown", "root", rig.node.spool_dir])

    return breakage


spool_of_user = spool_of("alice")


@contextlib.contextmanager
def spool_of_slurm_user(rig: Rig) -> Iterator[None]:
    """Who is an ordinary user here, so that a login of theirs can be tried."""
    with conf(None, added="SlurmUser=bob\n")(rig), spool_of("bob")(rig):
        yield


@contextlib.contextmanager
def spool_group_writable(rig: Rig) -> Iterator[None]:
    folder = rig.node.path(rig.node.spool_dir)
    before = folder.stat()
    os.chown(folder, -1, 4)
    folder.chmod(0o775)
    try:
        yield
    finally:
        os.chown(folder, -1, before.st_gid)
        folder.chmod(before.st_mode & 0o7777)
