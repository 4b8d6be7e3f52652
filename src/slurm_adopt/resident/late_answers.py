# SPDX-License-Identifier: Apache-2.0
"""Adoptions that slurmstepd had not answered when their login was over: what became of the numbers.

slurmstepd moves numbers. A request that it has in its queue cannot be taken back, and it tries a number that is not
there four times, one second apart. The module holds the number of its process meanwhile. Should it all the same be
somebody else's by then, that one is in a job where it does not belong. And a login that another job of the user's has
taken in meanwhile is drawn out of that one.

Rules of this file:
1. The step's connection is kept until slurmstepd answers or closes, at most `WAIT_NS`; then the numbers are looked at.
2. A stranger is a process with another start time that the kernel shows in the step. It is told of (log, audit stream,
   numbers), and put back beside its parent if that is the same user's and elsewhere.
3. A login's own process is put back where it was when its login was decided. What it starts meanwhile is not searched.
4. What is moved is moved in a child.
"""

from __future__ import annotations

import time

from ..record import record
from ..system.kernel.procfs import read_cgroups, read_owned_process, read_process
from ..system.slurm.stepd import StepFault
from ..system.tasks.child import ChildFault, call_in_child
from ..system.tasks.task import MS, DeadlineExceeded
from ..wire.cgroup_path import same_step
from ..wire.stepd import decode_int

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from ..system.kernel.procfs import Process
    from ..system.slurm.stepd import Identity, StepConnection
    from ..system.tasks.loop import Loop
    from ..system.tasks.task import Task

WAIT_NS = 60_000 * MS
PUT_BACK_NS = 2_000 * MS
#: Connections that are kept at once: a step has one for each login that timed out at it.
CAP = 256


@record
class Late:
    """A process that slurmstepd has moved into a step of `uid`'s, too late: it is `owner`'s. `is_back`: undone.

    With another owner than the step's it is a stranger that has its number.
    """

    pid: int
    uid: int
    owner: int
    is_back: bool


class LateAnswers:
    """The adoptions that are waited for beyond their logins. `found` is called for each process that was moved."""

    def __init__(self, loop: Loop, found: Callable[[Late], None]) -> None:
        self.waiting = 0
        #: the processes that are looked at later, each with the /proc/PID/cgroup of where it belongs, if that is known
        self._places: dict[Process, bytes] = {}
        self._loop = loop
        self._found = found

    def watch(self, connection: StepConnection, processes: tuple[Process, ...]) -> None:
        """Take over a connection whose answers are outstanding, one for each of the processes and the state."""
        if self.waiting >= CAP or connection.identity is None:
            connection.close()
            return
        self.waiting += 1
        self._places.update(dict.fromkeys(processes, b""))
        self._loop.spawn(self._look(connection, connection.identity, processes), self._over)

    def settle(self, processes: tuple[Process, ...]) -> None:
        """A job has taken these in: whichever else did so late must not keep them."""
        for process in processes:
            if process in self._places:
                self._places[process] = read_cgroups(process) or b""

    def _over(self, *_: object) -> None:
        self.waiting -= 1

    def _look(self, connection: StepConnection, identity: Identity, processes: tuple[Process, ...]) -> Task[None]:
        connection.deadline_ns = time.monotonic_ns() + WAIT_NS
        try:
            for _ in (*processes, None):
                yield from connection.read(decode_int)
        except StepFault:
            pass  # it has closed, or is still silent: the numbers are looked at all the same
        finally:
            connection.close()
        reference = read_cgroups(identity) or b""
        for process in processes:
            place = self._places.pop(process, b"")
            now = read_process(process.pid)
            if now is None or not same_step(reference, read_cgroups(now) or b"").inside:
                continue
            if now.started == process.started:
                if place and not same_step(reference, place).inside:
                    is_back = yield from _put_back(now, place)
                    self._found(Late(now.pid, identity.uid, identity.uid, is_back))
                continue
            owner = read_owned_process(now.pid)
            is_back = yield from _put_back(now)
            self._found(Late(now.pid, identity.uid, owner.real_uid if owner is not None else -1, is_back))


def _put_back(moved: Process, place: bytes = b"") -> Task[bool]:
    """Move the process to this place, or to where its parent is, if both are one user's."""

    def work() -> bytes:
        from ..system.kernel.cgroup_move import put_back

        if place:
            return b"%d" % put_back(moved, place)
        process = read_owned_process(moved.pid)
        parent = read_owned_process(process.parent) if process is not None else None
        if process is None or parent is None or parent.real_uid != process.real_uid:
            return b"0"
        return b"%d" % put_back(moved, read_cgroups(parent) or b"")

    try:
        return (yield from call_in_child(work, time.monotonic_ns() + PUT_BACK_NS)) == b"1"
    except (ChildFault, DeadlineExceeded, OSError):
        return False
