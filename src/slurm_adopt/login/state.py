# SPDX-License-Identifier: Apache-2.0
"""The state of one login while it is decided.

Rules of this file:
1. It holds state, finds the login's processes, and gives up what it holds. Decisions, acts and words are elsewhere.
2. Only the task of this login writes here.
"""

from __future__ import annotations

import os
import time

from ..model import ASKED, CHOICES, LEFT, Facts
from ..record import replace
from ..system.kernel.carrier import choose_connection, find_login_processes, plain_address
from ..system.kernel.procfs import is_same
from ..system.slurm.stepd import StepFault
from ..system.tasks.task import MS
from .steps import OwnSteps

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..system.kernel.procfs import Process
    from ..system.slurm.conf import ConfFault, SlurmConf
    from ..system.slurm.spool import SpoolFault
    from ..system.slurm.stepd import Namespace
    from ..wire.login_exchange import Connection, LoginRequest
    from .steps import StepSource

#: The reply has to reach the module before it gives up.
RESERVE_NS = 50 * MS
#: A process that was there so short a time ago is not looked at again: slurmstepd itself needs a millisecond, in which
#: nobody watches.
FRESH_NS = 5 * MS
STRICT = {"action_no_jobs": "deny", "action_adopt_failure": "deny", "action_generic_failure": "deny"}


class CallerGone(Exception):
    """The processes of the login have ended."""


class Login:
    """The state of one login. `source` is where facts about the node come from; times are of CLOCK_MONOTONIC, in ns."""

    def __init__(self, request: LoginRequest, caller: Process, source: StepSource) -> None:
        self.request = request
        self.source = source
        self.options = source.recent.options_of(request.args)
        if request.strict:  # the account line is: the session line must not be weaker
            self.options = replace(self.options, **STRICT)
        self.caller = caller
        self.deadline_ns = request.deadline_ns - RESERVE_NS
        self.connection: Connection | None = choose_connection(request.connections, request.rhost)
        self.conf: SlurmConf | None = None
        self.found = OwnSteps()
        self.processes: tuple[Process, ...] = ()
        #: known as soon as the processes are
        self.session_parent: Process | None = None
        self.found_ns = 0
        self.env: tuple[tuple[str, str], ...] = ()
        self.remark = ""
        #: the nodes on which a refused user's jobs are, in words
        self.elsewhere = ""
        #: when the job ends, in seconds since 1970, if the greeting is to say it
        self.end_s = 0
        #: what users call those of their jobs that they do not call by number
        self.names: dict[int, str] = {}
        self.namespaces: list[Namespace] = []
        peer = plain_address(self.connection.peer_address) if self.connection else request.rhost
        self.facts = Facts(
            phase=request.phase,
            service=request.service,
            user=request.user,
            uid=request.uid,
            source=peer,
            account_job=int(request.job) if request.job.isascii() and request.job.isdigit() else 0,
            account_phase=LEFT if request.account == LEFT else ASKED,
            account_chosen=request.chosen if request.chosen in CHOICES else "",
        )

    def find_processes(self) -> tuple[Process, ...]:
        """The processes to adopt; looked for once, and only for a login that may be admitted.

        `StepFault` if one of those that were found has ended; `CallerGone` if there are none.
        """
        now_ns = time.monotonic_ns()
        if self.processes and now_ns - self.found_ns <= FRESH_NS:
            return self.processes
        self.found_ns = now_ns
        for process in self.processes:
            if not is_same(process):
                raise StepFault("process-changed", f"process {process.pid} ended before it was adopted")
        if not self.processes:
            found = find_login_processes(self.caller, self.connection)
            self.processes, self.session_parent = found.processes, found.session_parent
        if not self.processes:
            raise CallerGone(f"process {self.caller.pid} has ended")
        return self.processes

    def take_steps(self, found: OwnSteps) -> None:
        """These are the user's steps now."""
        self.found = found
        steps = found.steps()
        if steps != self.facts.steps or found.unanswered or self.facts.unanswered:
            self.facts = replace(
                self.facts,
                steps=steps,
                unanswered=tuple([code for _, code in found.unanswered]),
                unanswered_jobs=tuple([job_id for job_id, _ in found.unanswered]),
            )

    def take_fault(self, fault: ConfFault | SpoolFault) -> None:
        """Nothing is known of the node's jobs, and this is why."""
        self.facts = replace(self.facts, fault=fault.reason, is_own_fault=fault.is_own)

    def add_remark(self, text: str) -> None:
        """One more thing for the log."""
        self.remark = "; ".join(filter(None, (self.remark, text)))

    def release(self) -> None:
        """Give up what an adoption has collected."""
        self.release_namespaces()
        self.env = ()

    def release_namespaces(self) -> None:
        """Close the namespaces' descriptors."""
        for namespace in self.namespaces:
            os.close(namespace.fd)
        self.namespaces = []
