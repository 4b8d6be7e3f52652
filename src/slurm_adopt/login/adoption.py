# SPDX-License-Identifier: Apache-2.0
"""Adopting a login's processes into one extern step, and making sure of it.

Rules of this file:
1. The step must belong to the uid that logs in, now, by its own slurmstepd's word; else nothing is sent.
2. After slurmstepd said yes, /proc/PID/cgroup is read back for every process; only that counts.
3. What is received on the way (descriptors) is closed when anything fails.
4. What does not depend on slurmstepd's answer is done while it works.
"""

from __future__ import annotations

import os
import time

from ..model import ENDING, STEP_ENDING, STEP_SUSPENDED
from ..system.kernel.freezer import is_step_frozen
from ..system.kernel.hasten import hastened
from ..system.kernel.procfs import open_cgroups, read_cgroups, read_namespace, read_open_cgroups
from ..system.slurm.stepd import (
    Namespace,
    StepFault,
    is_in_books,
    query_state,
    read_adoption,
    request_adoption,
)
from ..system.tasks.child import ChildFault, call_in_child
from ..system.tasks.sockets import close_all
from ..system.tasks.task import MS, DeadlineExceeded

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from ..model import Hasten
    from ..system.kernel.procfs import AnyProcess, Process
    from ..system.slurm.stepd import Extras, StepConnection
    from ..system.tasks.task import Task
    from ..wire.stepd import X11Display
    from .recent import Recent

#: A state that was asked so long ago is asked again: caller ID may have taken a second meanwhile.
FRESH_NS = 100 * MS
#: What it takes to put a process back, should the login's time be up: a move waits 15 ms for the kernel.
TAKE_OUT_NS = 200 * MS
#: The file below /proc/PID/ns that shows whether a process has joined a namespace of this kind.
NAMESPACE_FILES = {
    "user": "user",
    "pid": "pid_for_children",
    "mount": "mnt",
    "ipc": "ipc",
    "uts": "uts",
    "net": "net",
    "cgroup": "cgroup",
}


def adopt_into(
    connection: StepConnection,
    uid: int,
    find: Callable[[], tuple[Process, ...]],
    x11: bool,
    namespaces: bool,
    recent: Recent,
    mode: Hasten = "no",
) -> Task[Extras]:
    """Put the processes into the step; `StepFault` unless the kernel confirms every one of them.

    `mode`: whether to hasten what the kernel does for it (`hasten=`).

    `find` tells which; it is called last, as slurmstepd moves numbers: a login that ended while an earlier attempt hung
    must not draw another process in.
    Returns what the session gets from the job; the caller owns the descriptors.
    """
    identity = connection.identity
    if identity is None or identity.uid != uid:
        raise StepFault("step-foreign", "the step belongs to another user")
    if time.monotonic_ns() - connection.asked_ns > FRESH_NS and (yield from query_state(connection)) == ENDING:
        raise StepFault(STEP_ENDING, "the step is ending")
    processes = find()
    texts: list[int] = []
    try:
        for process in processes:
            texts.append(open_cgroups(process))
        before = [read_open_cgroups(text) for text in texts]
        with hastened(mode) as haste:
            yield from request_adoption(connection, processes, x11, namespaces)
            reference = read_cgroups(identity)
            if haste.until_ns:  # only the first of several moves waits for the kernel
                yield from connection.await_answer(haste.until_ns)
        try:
            extras = yield from read_adoption(connection, len(processes), x11, namespaces)
        except StepFault:
            if is_step_frozen(reference):
                yield from _take_out(processes, before, connection.deadline_ns)
            raise
        try:
            if is_step_frozen(reference):
                yield from _take_out(processes, before, connection.deadline_ns)
                raise StepFault(STEP_SUSPENDED, "the step was suspended while it adopted")
            for process, text in zip(processes, texts):
                yield from confirm(connection, reference, process, text, recent)
        except BaseException:
            close_all([namespace.fd for namespace in extras.namespaces])
            raise
        return extras
    finally:
        close_all([text for text in texts if text >= 0])


def _take_out(processes: Iterable[Process], before: list[bytes | None], deadline_ns: int) -> Task[None]:
    """Put the processes back where they were: in a frozen step they could not even carry out a refusal."""
    from ..system.kernel.cgroup_move import put_back

    until_ns = max(deadline_ns, time.monotonic_ns() + TAKE_OUT_NS)
    for process, text in zip(processes, before):

        def work(process: Process = process, text: bytes | None = text) -> bytes:
            return b"%d" % put_back(process, text or b"")

        try:
            yield from call_in_child(work, until_ns)
        except (ChildFault, DeadlineExceeded, OSError):
            continue  # the next one may be the one that carries the login


def confirm(
    connection: StepConnection, reference: bytes | None, process: Process, text: int, recent: Recent
) -> Task[None]:
    """Raise `StepFault` unless the kernel shows the process inside the step.

    `reference` is the text of slurmstepd's own /proc/PID/cgroup, `text` what `open_cgroups` gave for the process.
    """
    target = read_open_cgroups(text)
    if target is None:
        raise StepFault("process-changed", f"process {process.pid} ended while it was adopted")
    if reference is None:
        raise StepFault(STEP_ENDING, "slurmstepd ended while it adopted")
    membership = recent.membership_of(reference, target)
    if membership.inside:
        return
    if not membership.step_known and (yield from is_in_books(connection, process)):
        # ProctrackType=proctrack/linuxproc and the like: Slurm itself keeps no cgroup there is to look at
        return
    raise StepFault("adopt-unconfirmed", f"process {process.pid}: {membership.reason}")


def environment_of(job_id: int, x11: X11Display | None = None) -> tuple[tuple[str, str], ...]:
    """The variables of a session in this job."""
    env = [("SLURM_JOB_ID", str(job_id))]
    if x11 is not None and x11.display:
        env.append(("DISPLAY", f"localhost:{x11.display}.0"))
        if x11.xauthority:
            env.append(("XAUTHORITY", x11.xauthority))
    return tuple(env)


def missing_namespaces(namespaces: list[Namespace], process: AnyProcess) -> list[Namespace]:
    """Those of the job's namespaces that the process is not in yet, in the order to join them; the rest is closed."""
    missing = []
    for namespace in namespaces:
        if _is_in(process, namespace):
            os.close(namespace.fd)
        else:
            missing.append(namespace)
    # joining a user namespace gives the rights for the others, joining mount changes the view of /proc: last
    missing.sort(key=lambda namespace: (namespace.kind != "user", namespace.kind == "mount"))
    return missing


def _is_in(process: AnyProcess, namespace: Namespace) -> bool:
    wanted = os.fstat(namespace.fd)
    return (wanted.st_dev, wanted.st_ino) == read_namespace(process, NAMESPACE_FILES[namespace.kind])
