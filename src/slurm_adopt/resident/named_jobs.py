# SPDX-License-Identifier: Apache-2.0
"""What users call the jobs that logins go into: for the greetings of later phases, the lines before a job's end, and
once for the audit stream.

Rules of this file:
1. It comes after the answer, beside the logins: none waits for it.
2. slurmctld is asked only about a job of which a process here says that it is an array's task or a component: once,
   at the first login into it, and about one at a time. A job that has only its extern step here, as on the many nodes
   of a program that starts itself by ssh, costs slurmctld nothing.
3. While slurmctld is silent nobody is asked, and jobs have their numbers.
4. Nobody can tell who has answered (`system/rpc/controller.py`): a name is told to the job's own user and to root.
"""

from __future__ import annotations

import contextlib
import time

from ..observe.audit import stamp
from ..system.kernel.procfs import Process
from ..system.rpc.controller import NoAnswer, ask_user_jobs
from ..system.slurm.conf import ConfFault
from ..system.slurm.job_names import query_claim, read_table, write_table
from ..system.tasks.task import MS, DeadlineExceeded, HelperNeeded
from ..wire.errors import ProtocolError
from ..wire.job_names import is_name
from ..wire.job_names_answer import decode_names

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..login.answer import Answer
    from ..login.steps import StepSource
    from ..observe.audit import Audit
    from ..system.slurm.job_table import Key
    from ..system.slurm.stepd import Identity
    from ..system.tasks.loop import Loop
    from ..system.tasks.task import Task

LOOK_NS, ASK_NS = 1_000 * MS, 2_000 * MS
SILENT_NS = 60_000 * MS
#: Jobs that are remembered, and that wait for their question; a node has fewer at a time.
KEPT, WAITING = 1024, 64


class Asked:
    """A login into a job whose name is not known: the job, and the user's jobs here with their slurmstepds."""

    def __init__(self, answer: Answer, stepds: dict[int, Identity]) -> None:
        self.job_id = answer.verdict.job_id
        self.user, self.uid = answer.facts.user, answer.facts.uid
        self.jobs = {job_id: Process(stepd.pid, stepd.started) for job_id, stepd in stepds.items()}


class NamedJobs:
    """Finds the names of jobs."""

    def __init__(self, loop: Loop, source: StepSource, audit: Audit) -> None:
        self._loop = loop
        self._source = source
        self._audit = audit
        self.names: dict[Key, str] = read_table()
        self._seen: dict[Key, None] = dict.fromkeys(self.names)
        self._waiting: list[Asked] = []
        self._is_asking = False
        self._ask_from_ns = 0
        self._version = 0

    def look(self, answer: Answer) -> None:
        """A login has been answered: if it went into a job for the first time, find the job's name."""
        if answer.verdict.action != "allow" or not answer.verdict.job_id:
            return
        stepds = answer.jobs_here()
        stepd = stepds.get(answer.verdict.job_id)
        if stepd is None or len(self._waiting) >= WAITING:
            return
        key = (answer.verdict.job_id, stepd.pid, stepd.started)
        if key in self._seen:
            return
        if len(self._seen) >= KEPT:
            oldest = next(iter(self._seen))
            del self._seen[oldest]
            self.names.pop(oldest, None)
        self._seen[key] = None
        self._waiting.append(Asked(answer, stepds))
        if not self._is_asking:
            self._is_asking = True
            self._loop.spawn(self._work(), self._over)

    def _over(self, *_: object) -> None:
        self._is_asking = False

    def _work(self) -> Task[None]:
        while self._waiting:
            asked = self._waiting.pop(0)
            with contextlib.suppress(OSError, DeadlineExceeded, HelperNeeded, ConfFault, NoAnswer, ProtocolError):
                yield from self._find(asked)

    def _find(self, asked: Asked) -> Task[None]:
        stepd = asked.jobs[asked.job_id]
        is_claimed = yield from query_claim(stepd, asked.uid, time.monotonic_ns() + LOOK_NS)
        if not is_claimed or time.monotonic_ns() < self._ask_from_ns:
            return
        names = yield from self._ask(asked)
        known = len(self.names)
        for job_id, name in names.items():
            if is_name(name):
                self.names[job_id, asked.jobs[job_id].pid, asked.jobs[job_id].started] = name
        if len(self.names) > known:
            write_table(self.names)
        if is_name(names.get(asked.job_id, "")):
            event = {"event": "job-name", "time": stamp(time.time()), "user": asked.user, "uid": asked.uid}
            self._audit.write({**event, "job": asked.job_id, "name": names[asked.job_id]})

    def _ask(self, asked: Asked) -> Task[dict[int, str]]:
        deadline_ns = time.monotonic_ns() + ASK_NS
        callers = self._source.callers
        if callers is None or callers.workers is None:
            return {}
        conf = yield from self._source.read_conf(deadline_ns)
        try:
            known = (conf, callers.workers, self._version, asked.uid)
            message, self._version = yield from ask_user_jobs(*known, deadline_ns)
        except NoAnswer as fault:
            if fault.is_silent:
                self._ask_from_ns = time.monotonic_ns() + SILENT_NS
            return {}
        return decode_names(message, asked.uid, asked.jobs)
