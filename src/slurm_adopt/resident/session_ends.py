# SPDX-License-Identifier: Apache-2.0
"""Why a session ended: by itself, or with its job.

Rules of this file:
1. When Slurm ends a job it kills the processes first and the step's slurmstepd goes last: after a kill the step is
   looked at a moment later. Gone or ending then means that the session ended with its job.
2. The sessions of one job that end at about the same time cost one look.
3. Every ending is written, at the latest when the service stops.
"""

from __future__ import annotations

import time

from ..model import ENDING
from ..observe.audit import auth_methods, stamp
from ..system.tasks.task import MS, sleep_until
from .sessions import PROCESS_ENDED, UNOBSERVED

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..login.steps import StepSource
    from ..observe.audit import Audit
    from ..system.tasks.loop import Loop
    from ..system.tasks.task import Task
    from .sessions import Session

    # uid, job, nodename, why
    Key = tuple[int, int, str, str]

LOOK_AFTER_NS = 50 * MS
LOOK_AFTER_KILL_NS = 1_000 * MS
LOOK_NS = 2_000 * MS
JOB_ENDED = "job-ended"


class Endings:
    """Writes one line for each session that has ended."""

    def __init__(self, loop: Loop, source: StepSource, audit: Audit) -> None:
        self.waiting: dict[Key, list[tuple[Session, float]]] = {}
        self._loop = loop
        self._source = source
        self._audit = audit

    def ended(self, session: Session, why: str) -> None:
        """A session has ended just now."""
        now = time.time()
        if why == UNOBSERVED:
            self._write(session, why, now)
            return
        key = (session.uid, session.job, session.nodename, why)
        if key not in self.waiting:
            self._loop.spawn(self._has_job_ended(key), lambda _, outcome: self._looked(key, outcome))
        self.waiting.setdefault(key, []).append((session, now))

    def flush(self) -> None:
        """Write what is known now."""
        for key in list(self.waiting):
            self._looked(key, None)

    def _looked(self, key: Key, outcome: object) -> None:
        for session, when in self.waiting.pop(key, ()):
            self._write(session, JOB_ENDED if outcome is True else key[3], when)

    def _has_job_ended(self, key: Key) -> Task[bool]:
        uid, job, nodename, why = key
        yield from sleep_until(time.monotonic_ns() + (LOOK_AFTER_KILL_NS if why == PROCESS_ENDED else LOOK_AFTER_NS))
        deadline_ns = time.monotonic_ns() + LOOK_NS
        conf = yield from self._source.read_conf(deadline_ns)
        found = yield from self._source.query_own(conf, nodename, uid, deadline_ns)
        step = found.of_job(job)
        found.close()
        return not found.unanswered if step is None else step.fact.state == ENDING

    def _write(self, session: Session, why: str, when: float) -> None:
        self._audit.write(
            {
                "event": "end",
                "time": stamp(when),
                "user": session.user,
                "uid": session.uid,
                "from": session.source,
                "job": session.job,
                "pid": session.pid,
                "start": stamp(session.began),
                "seconds": round(max(0.0, when - session.began), 3),
                "why": why,
                "auth": auth_methods(session.auth),
            }
        )
