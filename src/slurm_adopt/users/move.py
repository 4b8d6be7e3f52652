# SPDX-License-Identifier: Apache-2.0
"""Moving a running ssh login, with all it has spawned, into another job of the same user.

Rules of this file:
1. Nothing is moved that is not in one of this user's extern steps at that moment, as the kernel says.
2. The target is a step of the same user, by its slurmstepd's word; what it took in is read back from the kernel.
3. A login forks while it is moved: it is gone through until one whole pass finds nothing outside, a bounded number of
   times. What stays behind is named.
4. slurmstepd moves numbers: those of the login's processes are held (`system/kernel/pin.py`) from before it is asked to
   after its answer. What cannot be held is not moved.
5. Memory, devices and namespaces of the job of before do not come along: a login that has any is not moved, and one
   that has got some meanwhile is moved back.
"""

from __future__ import annotations

import contextlib
import os
import time

from ..login.adoption import missing_namespaces
from ..model import RUNNING
from ..record import record, replace
from ..system.kernel.baggage import find_baggage
from ..system.kernel.login_tree import find_login_sshd, find_members, read_rows
from ..system.kernel.pin import Pins
from ..system.kernel.procfs import Process, is_ending, read_cgroups, read_owner, read_row_of
from ..system.slurm.stepd import StepFault, add_process, is_in_books, query_extras
from ..system.tasks.task import MS, DeadlineExceeded, all_of, run
from ..wire.cgroup_path import between_steps, same_step
from ..wire.stepd import OLDEST_VERSION, decode_int

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TypeVar

    from ..login.steps import OwnStep, OwnSteps
    from ..model import ReasonCode
    from ..system.kernel.procfs import AnyProcess, Row
    from ..system.slurm.stepd import Identity, StepConnection
    from ..system.tasks.task import Task

    T = TypeVar("T")

#: Passes over the login. A shell that starts things settles in two or three; only a fork bomb needs more.
PASS_CAP = 40
#: A process that slurmstepd would not take is tried again once, then it is left.
TRY_CAP = 2


#: Those who hold the numbers of a login in this process. It is a child for one request: they end with it.
PINS: list[tuple[Pins, StepConnection]] = []
#: A slurmstepd that has not answered in time may still do what it was asked for: the numbers are held so long.
HOLD_NS = 20_000 * MS


@record
class Moved:
    """How it went. `reason` is a reason code; `left` names processes that are not in the target, `staying` counts the
    user's processes in `source`, the job of before, that do not hang together with the login, whose sshd is `login`."""

    reason: ReasonCode
    count: int = 0
    left: tuple[str, ...] = ()
    detail: str = ""
    source: int = 0
    staying: int = 0
    login: Process | None = None


def move_login(
    process: AnyProcess, job_id: int, found: OwnSteps, query: Callable[[], Task[OwnSteps]], deadline_ns: int
) -> Task[Moved]:
    """Move the login that the process is part of into `job_id`, one of the user's jobs in `found`.

    `query` looks for these jobs once more.
    """
    target = found.of_job(job_id)
    if target is None:
        return Moved("user-no-such-job")
    if target.fact.state != RUNNING:
        return Moved("user-job-not-running")
    target.connection.deadline_ns = deadline_ns
    top = find_login_sshd(process, read_rows(), lambda candidate: _step_of(candidate, found) is not None)
    if top is None:
        return Moved("user-not-a-login")
    try:
        extras = yield from query_extras(target.connection, x11=False, namespaces=True)
        namespaces = missing_namespaces(extras.namespaces, top)
    except StepFault as fault:
        return Moved("user-move-failed", detail=str(fault))
    if namespaces:
        for namespace in namespaces:
            os.close(namespace.fd)
        return Moved("user-move-namespaces")
    identity = target.connection.identity
    if identity is None or identity.version > OLDEST_VERSION:
        return (yield from _move_login(top, target, found, deadline_ns))
    again = yield from query()  # before 20.11.5 slurmstepd closes when it is asked for namespaces
    try:
        target = again.of_job(job_id)
        if target is None:
            return Moved("user-no-such-job")
        target.connection.deadline_ns = deadline_ns
        return (yield from _move_login(top, target, again, deadline_ns))
    finally:
        again.close()


def _move_login(top: Row, target: OwnStep, found: OwnSteps, deadline_ns: int) -> Task[Moved]:
    source = _step_of(top, found)
    baggage = find_baggage(find_members(top, read_rows()))
    if baggage:
        return Moved("user-move-in-the-way", detail="; ".join(baggage))
    pins = Pins()
    try:
        moved = yield from _move(top, target, found, deadline_ns, pins)
    finally:
        keep_holding(pins, target.connection)
    if moved.reason == "user-moved" and source is not None and source is not target:
        baggage = find_baggage(find_members(top, read_rows()))
        if baggage:
            source.connection.deadline_ns = deadline_ns
            try:
                yield from _move(top, source, found, deadline_ns, pins)
            finally:
                keep_holding(pins, source.connection)
            return Moved("user-move-in-the-way", detail="; ".join(baggage))
    if source is None or source is target:
        return moved
    staying = _count_in(source, found, target.connection.identity)
    return replace(moved, source=source.path.job_id, staying=staying, login=Process(top.pid, top.started))


def _count_in(step: OwnStep, found: OwnSteps, identity: Identity | None) -> int:
    """The user's processes in a step."""
    own = [row for row in read_rows().values() if identity is not None and read_owner(row.pid) == identity.uid]
    return sum(1 for row in own if _step_of(row, found) is step)


def keep_holding(pins: Pins, connection: StepConnection) -> None:
    """If slurmstepd has not answered, its connection is taken over for `hold_until_answered`."""
    if connection.is_waited_for:
        PINS.append((pins, connection.take_over()))


def hold_until_answered() -> None:
    """Called when the user has the answer: a request that slurmstepd has not answered yet still names numbers."""
    with contextlib.ExitStack() as stack:
        for pins, connection in PINS:
            stack.callback(connection.close)
            connection.deadline_ns = time.monotonic_ns() + HOLD_NS
            is_over: list[bool] = []
            with contextlib.suppress(StepFault, DeadlineExceeded):
                run(_held(pins, connection.read(decode_int), connection.deadline_ns, is_over))


def _held(pins: Pins, asking: Task[T], deadline_ns: int, is_over: list[bool]) -> Task[T]:
    """Return the result of `asking`; let the held processes go on meanwhile."""

    def noted() -> Task[T]:
        try:
            return (yield from asking)
        finally:
            is_over.append(True)

    tasks: list[Task[T | None]] = [noted(), pins.turns(deadline_ns, is_over)]
    outcome = (yield from all_of(tasks, deadline_ns))[0]
    if isinstance(outcome, Exception):
        raise outcome
    return outcome  # type: ignore[return-value]


def _move(top: Row, target: OwnStep, found: OwnSteps, deadline_ns: int, pins: Pins) -> Task[Moved]:
    tries: dict[tuple[int, int], int] = {}
    moved: set[tuple[int, int]] = set()
    outside: list[str] = []
    for _ in range(PASS_CAP):
        rows = read_rows()
        if rows.get(top.pid) != top and read_row_of(top) is None:
            return Moved("user-move-failed", len(moved), detail="the login ended while it was moved")
        outside, pending = [], []
        for row in find_members(top, rows):
            step = _step_of(row, found)
            if step is target or (step is None and is_ending(row)):
                continue  # it is there, or nowhere any more
            is_own = step is not None or _is_between(row, found)
            if not is_own or tries.get((row.pid, row.started), 0) >= TRY_CAP:
                outside.append(f"{row.pid} {'refused' if is_own else 'outside of your jobs'}")
            else:
                pending.append(row)
        if not pending or time.monotonic_ns() >= deadline_ns:
            outside += [f"{row.pid} no time left" for row in pending]
            break
        unheld = pins.hold(pending)
        outside += [f"{row.pid} cannot be held (it is traced)" for row in unheld if not _has_ended(row)]
        pending = [row for row in pending if row not in unheld]
        if outside:
            break
        for row in pending:
            tries[row.pid, row.started] = tries.get((row.pid, row.started), 0) + 1
            try:
                if (yield from _move_one(row, target, found, pins, deadline_ns)):
                    moved.add((row.pid, row.started))
            except StepFault as fault:
                return Moved("user-move-failed", len(moved), detail=str(fault))
    else:
        outside.append("it starts processes faster than they can be moved")
    if outside:
        return Moved("user-move-incomplete", len(moved), tuple(outside))
    return Moved("user-moved", len(moved))


def _has_ended(row: AnyProcess) -> bool:
    """Whether it is gone, a zombie, or another process by now."""
    return read_row_of(row) is None


def _move_one(row: Row, target: OwnStep, found: OwnSteps, pins: Pins, deadline_ns: int) -> Task[bool]:
    """Whether the process is in the target now; False also if it has ended. `StepFault` if the target is lost."""
    if _has_ended(row) or (_step_of(row, found) is None and not _is_between(row, found)):
        return False
    try:
        yield from _held(pins, add_process(target.connection, row), deadline_ns, [])
    except StepFault as fault:
        if fault.reason == "adopt-refused":
            return False
        raise
    if _has_ended(row):
        return False
    return _step_of(row, found) is target or (yield from _in_steps_books(row, target))


def _in_steps_books(process: AnyProcess, target: OwnStep) -> Task[bool]:
    """Without cgroups of Slurm's (proctrack/linuxproc) only the step itself knows."""
    identity = target.connection.identity
    reference = read_cgroups(identity) if identity is not None else None
    if reference is None or same_step(reference, reference).step_known:
        return False
    return (yield from is_in_books(target.connection, process))


def _is_between(process: AnyProcess, found: OwnSteps) -> bool:
    """Whether it was forked by one that slurmstepd had moved in half of its cgroups: the user's it is all the same."""
    identities = [step.connection.identity for step in found.own]
    stepds = [read_cgroups(identity) or b"" for identity in identities if identity is not None]
    return between_steps(stepds, read_cgroups(process) or b"")


def _step_of(process: AnyProcess, found: OwnSteps) -> OwnStep | None:
    """The user's extern step that the process is in, as the kernel says."""
    text = read_cgroups(process)
    if text is None:
        return None
    for step in found.own:
        identity = step.connection.identity
        reference = read_cgroups(identity) if identity is not None else None
        if reference is not None and same_step(reference, text).inside:
            return step
    return None
