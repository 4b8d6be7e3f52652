# SPDX-License-Identifier: Apache-2.0
"""The sessions that are open in jobs: when each of them ends, and why.

Rules of this file:
1. A session is the process that lives on for it (sshd's monitor): its pid and its start time.
2. The end is told by the module (a logout), or by the kernel (pidfd) if the process was killed with its job.
3. A restart loses no session: what is open is handed over in a file of root's; what ended meanwhile says so.
"""

from __future__ import annotations

import json
import os
import select
import time

from ..record import record
from ..system.kernel.procfs import has_ended
from ..system.tasks.files import read_if_trusted, remove, replace_file
from ..system.tasks.sockets import descriptor_share
from ..system.tasks.task import MS, POLLIN

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from ..system.kernel.procfs import AnyProcess
    from ..system.tasks.loop import Loop

    Ended = Callable[["Session", str], None]

#: More than any node has processes for; each costs one descriptor, if there is one for it (`descriptor_share`).
SESSION_CAP = 4096
#: SSH_AUTH_INFO_0 is the longest in a session's line.
FILE_CAP = 64 << 20
#: Without pidfds (Linux before 5.3, or too many sessions) the processes are looked at this often.
LOOK_NS = 10_000 * MS
LOGOUT, PROCESS_ENDED, UNOBSERVED = "logout", "process-ended", "unobserved"


@record
class Session:
    """`began` is in seconds since 1970, `started` the process's start in clock ticks since boot.

    `auth` is sshd's SSH_AUTH_INFO_0, which is complete in the session phase only."""

    pid: int
    started: int
    user: str
    uid: int
    job: int
    source: str
    nodename: str
    began: float
    auth: str


class Sessions:
    """All open sessions. `ended` is called once for each, with `logout`, `process-ended` or `unobserved`."""

    def __init__(self, loop: Loop, ended: Ended, before_end: Callable[[], None] = lambda: None) -> None:
        self._loop = loop
        self._before_end = before_end
        self._ended = ended
        self._open: dict[int, Session] = {}
        self._pidfds: dict[int, int] = {}
        # one descriptor in the loop's poll() however many sessions sleep
        self._epoll = select.epoll()
        self._looking = False
        loop.watch(self._epoll.fileno(), POLLIN, self._wake)

    def __len__(self) -> int:
        return len(self._open)

    def __iter__(self) -> Iterator[Session]:
        return iter(list(self._open.values()))

    def opened(self, session: Session) -> None:
        """A login is in a job; a second phase of the same login changes nothing but the job."""
        known = self._open.get(session.pid)
        if known is not None and known.started == session.started:
            self._open[session.pid] = Session(**{**session.__dict__, "began": known.began})
            return
        if known is not None:
            self._end(known, PROCESS_ENDED)
        if len(self._open) < SESSION_CAP:
            self._open[session.pid] = session
            self._watch(session)

    def moved(self, process: AnyProcess, job: int) -> Session | None:
        """A user has moved the session of this process into another job; None if it is not watched."""
        known = self._open.get(process.pid)
        if known is None or known.started != process.started:
            return None
        self._open[process.pid] = session = Session(**{**known.__dict__, "job": job})
        return session

    def closed(self, process: AnyProcess) -> None:
        """The module says that the session of this process is over."""
        known = self._open.get(process.pid)
        if known is not None and known.started == process.started:
            self._end(known, LOGOUT)

    def save(self, path: str) -> None:
        """Hand over to the next service."""
        text = "".join(json.dumps(session.__dict__) + "\n" for session in self._open.values())
        replace_file(path, text.encode("ascii"), 0o600)

    def restore(self, path: str) -> None:
        """Take over from the service before, which may have been gone for a while."""
        try:
            text = read_if_trusted(path, FILE_CAP)
        except OSError:
            return
        remove(path)
        for line in (text or b"").splitlines()[:SESSION_CAP]:
            try:
                session = Session(**json.loads(line))
            except (ValueError, TypeError):
                continue
            if has_ended(session):
                self._ended(session, UNOBSERVED)
            else:
                self.opened(session)

    def _watch(self, session: Session) -> None:
        if len(self._pidfds) >= descriptor_share():
            self._look_later()
            return
        try:
            pidfd = os.pidfd_open(session.pid)
        except ProcessLookupError:
            self._end(session, PROCESS_ENDED)
            return
        except (AttributeError, OSError):
            self._look_later()
            return
        if has_ended(session):
            os.close(pidfd)
            self._end(session, PROCESS_ENDED)
            return
        self._pidfds[session.pid] = pidfd
        self._epoll.register(pidfd, select.EPOLLIN)

    def _wake(self, _events: int) -> None:
        ready = {fd for fd, _ in self._epoll.poll(0)}
        for number in [number for number, fd in self._pidfds.items() if fd in ready]:
            self._end(self._open[number], PROCESS_ENDED)

    def _look_later(self) -> None:
        if not self._looking:
            self._looking = True
            self._loop.call_at(time.monotonic_ns() + LOOK_NS, self._look)

    def _look(self) -> None:
        self._looking = False
        for session in list(self._open.values()):
            if session.pid not in self._pidfds and has_ended(session):
                self._end(session, PROCESS_ENDED)
        if len(self._open) > len(self._pidfds):
            self._look_later()

    def _end(self, session: Session, why: str) -> None:
        self._before_end()
        session = self._open.pop(session.pid)
        pidfd = self._pidfds.pop(session.pid, -1)
        if pidfd >= 0:
            self._epoll.unregister(pidfd)
            os.close(pidfd)
        self._ended(session, why)
