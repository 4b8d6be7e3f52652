# SPDX-License-Identifier: Apache-2.0
"""The job's variables for a session (`export_env=`).

Rules of this file:
1. Two sources: the file that the shipped prolog hook has written (root's), then the environment that slurmstepd gave
   the processes of the job. A user could have shaped the latter; it is the same user's job and session.
2. Reading /proc/PID/environ waits for the process's memory map, which its owner can lock for ever (and a hung Lustre
   does): that is done in a child with a small share of the time. What it does not yield is left out.
3. The user may mount a file system that hangs over the runtime directory at any moment: a child looks at it, too.
4. Only names that `export_env=` stands for, only printable values, and no more than fits the reply.
"""

from __future__ import annotations

import os
import time

from ...options.export import matches, may_be
from ...system.kernel.procfs import read_environ
from ...system.tasks.child import ChildFault, call_in_child
from ...system.tasks.files import is_private, read_if_trusted
from ...system.tasks.task import MS, DeadlineExceeded

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from ...system.kernel.procfs import AnyProcess
    from ...system.tasks.task import Task

#: Written by data/hooks/prolog.
JOBS_DIRECTORY = "/run/slurm-adopt/jobs"
RUNTIME_DIRECTORIES = "/run/slurm-adopt/user"
#: The reply packet has 4096 bytes and 64 fields, and other things to say.
COUNT_CAP, VALUE_CAP, TOTAL_CAP = 24, 512, 2048
FILE_CAP = 16 * 1024
MOUNTS_CAP = 4 << 20
#: Environments that are looked at: the batch script's has everything, a step's first task nearly.
PROCESS_CAP = 4
SHARE_NS = 200 * MS


def query_variables(
    patterns: tuple[str, ...], job_id: int, sources: Iterable[AnyProcess], deadline_ns: int, uid: int = 0
) -> Task[tuple[tuple[str, str], ...]]:
    """The job's variables of these names; none if its processes cannot be looked at in time."""

    def work() -> bytes:
        # never empty: that would be a child that failed
        found = collect_variables(patterns, job_id, sources)
        return b"\n" + "\n".join([f"{name}={value}" for name, value in found]).encode("ascii")

    try:
        text = yield from call_in_child(work, min(deadline_ns, time.monotonic_ns() + SHARE_NS), uid)
    except (ChildFault, DeadlineExceeded, OSError):
        return ()
    pairs = [line.partition("=") for line in text.decode("ascii").split("\n") if line]
    return tuple([(name, value) for name, _, value in pairs])


def collect_variables(
    patterns: tuple[str, ...], job_id: int, sources: Iterable[AnyProcess]
) -> tuple[tuple[str, str], ...]:
    """The job's variables of these names, each once, by name."""
    found: dict[str, str] = {}
    # the prolog hook's file, if nobody but root can have written it
    texts = [(read_if_trusted(f"{JOBS_DIRECTORY}/{job_id}.env", FILE_CAP) or b"").replace(b"\n", b"\0")]
    texts += [read_environ(process) for process in list(sources)[:PROCESS_CAP]]
    for text in texts:
        for name, value in _decode(text):
            if name not in found and name != "SLURM_JOB_ID" and matches(name, patterns) and may_be(name, value):
                found[name] = value
    return _fitting(found)


def query_runtime_dir(uid: int, deadline_ns: int) -> Task[tuple[tuple[str, str], ...]]:
    """XDG_RUNTIME_DIR, if the prolog hook has made it and it is the user's alone; none if that is not known in time."""

    def work() -> bytes:
        # never empty: that would be a child that failed
        return b"yes" if has_runtime_dir(uid) else b"no"

    try:
        answer = yield from call_in_child(work, min(deadline_ns, time.monotonic_ns() + SHARE_NS), uid)
    except (ChildFault, DeadlineExceeded, OSError):
        return ()
    return (("XDG_RUNTIME_DIR", f"{RUNTIME_DIRECTORIES}/{uid}"),) if answer == b"yes" else ()


def has_runtime_dir(uid: int) -> bool:
    """What `query_runtime_dir` does, in its child: a file system may be mounted between the two looks."""
    path = f"{RUNTIME_DIRECTORIES}/{uid}"
    mounts = [line for line in _read_mounts() if len(line) > 5 and line[4] == path]
    if mounts:
        # the last one is on top; the user may have mounted a file system over it that answers nobody
        kind, source, options = mounts[-1][-3:]
        if kind != "tmpfs" or source != "slurm-adopt" or f"uid={uid}" not in options.split(","):
            return False
    try:
        info = os.lstat(path)
    except OSError:
        return False
    return is_private(info, uid)


def _read_mounts() -> list[list[str]]:
    """The fields of the kernel's mount table (proc_pid_mountinfo(5)); the last three are type, source, options."""
    try:
        with open("/proc/self/mountinfo", encoding="utf-8", errors="replace") as file:
            return [line.split() for line in file.read(MOUNTS_CAP).splitlines()]
    except OSError:
        return []


def _decode(text: bytes) -> Iterable[tuple[str, str]]:
    for entry in text.split(b"\0"):
        raw, mark, value = entry.partition(b"=")
        name = raw.decode("ascii", "replace")
        if mark and name.isidentifier() and value.isascii() and len(value) <= VALUE_CAP:
            word = value.decode("ascii")
            if word.isprintable():
                yield name, word


def _fitting(found: dict[str, str]) -> tuple[tuple[str, str], ...]:
    kept: list[tuple[str, str]] = []
    left = TOTAL_CAP
    # visible GPUs and the like before the many SLURM_ ones
    for name in sorted(found, key=lambda name: (name.startswith("SLURM"), name)):
        size = len(name) + len(found[name]) + 8
        if size <= left and len(kept) < COUNT_CAP:
            kept.append((name, found[name]))
            left -= size
    return tuple(kept)
