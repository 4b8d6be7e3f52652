# SPDX-License-Identifier: Apache-2.0
"""Why a session ended: by itself, or with its job.

Rules of this file:
1. When Slurm ends a job it kills the processes first and the step's slurmstepd goes last: after a kill the step is
   looked at a moment later. Gone or ending then means that the session ended with its job.
2. Every ending is written, at the latest when the service stops.
"""

from __future__ import annotations

import time

from ..model import ENDING
from ..system.loop import Running
from ..system.task import MS, sleep_until
from .audit import stamp
from .sessions import PROCESS_ENDED, UNOBSERVED

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..system.loop import Loop
    from ..system.task import Task
    from .audit import Audit
    from .gather import StepSource
    from .sessions import Session

LOOK_AFTER_NS = 1_000 * MS
LOOK_NS = 2_000 * MS
JOB_ENDED = "job-ended"


class Endings:
    """Writes one line for each session that has ended."""

    def __init__(self, loop: Loop, source: StepSource, audit: Audit) -> None:
        self.waiting: dict[Running, tuple[Session, str, float]] = {}
        self._loop = loop
        self._source = source
        self._audit = audit

    def ended(self, session: Session, why: str) -> None:
        """A session has ended just now."""
        now = time.time()
        if why == UNOBSERVED:
            self._write(session, why, now)
            return
        running = self._loop.spawn(self._has_job_ended(session, why), self._looked)
        self.waiting[running] = (session, why, now)

    def flush(self) -> None:
        """Write what is known now."""
        for session, why, when in self.waiting.values():
            self._write(session, why, when)
        self.waiting.clear()

    def _looked(self, running: Running, outcome: object) -> None:
        session, why, when = self.waiting.pop(running)
        self._write(session, JOB_ENDED if outcome is True else why, when)

    def _has_job_ended(self, session: Session, why: str) -> Task[bool]:
        if why == PROCESS_ENDED:
            yield from sleep_until(time.monotonic_ns() + LOOK_AFTER_NS)
        deadline_ns = time.monotonic_ns() + LOOK_NS
        conf = yield from self._source.read_conf(deadline_ns)
        found = yield from self._source.query_own(conf, session.nodename, session.uid, deadline_ns)
        step = found.of_job(session.job)
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
            }
        )
