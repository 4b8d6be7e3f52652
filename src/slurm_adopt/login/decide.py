# SPDX-License-Identifier: Apache-2.0
"""One login, from the module's request to the reply: gather, decide, act, answer.

Used by the one-shot helper and by the resident service alike.

Rules of this file:
1. Whatever goes wrong has a reason code and the action that the site chose for it. It raises nothing; but in the
   resident service, for want of descriptors or of a right, which the helper does not lack.
2. Facts first, one decision at a time, then its act; nothing is decided here.
3. The reply leaves before the module's deadline; every wait below is bounded by it.
"""

from __future__ import annotations

import os
import time

from ..model import (
    CHOICES,
    ENDING,
    HELD,
    REASONS,
    Adopt,
    AskCaller,
    Attempt,
    AwaitStart,
    CallerFact,
    Facts,
    HoldManager,
    Verdict,
)
from ..options.parse import parse_options
from ..policy import decide, newest_first
from ..record import replace
from ..system.kernel.carrier import choose_connection, find_login_processes, plain_address
from ..system.kernel.procfs import is_same, read_cgroups
from ..system.slurm.conf import ConfFault, check_not_own
from ..system.slurm.spool import SpoolFault
from ..system.slurm.stepd import StepFault, query_extras
from ..system.tasks.task import MS, OWN_LACK, DeadlineExceeded, HelperNeeded
from ..wire.login_exchange import encode_reply
from .adopt import act_adopt, environment_of, missing_namespaces
from .reply import compose
from .steps import Found, Scan, find_membership, find_preferred

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ..options.parse import Options
    from ..policy import Decision
    from ..system.kernel.procfs import Process
    from ..system.rpc.memory import CallerMemory
    from ..system.slurm.conf import SlurmConf
    from ..system.slurm.stepd import Extras, Namespace
    from ..system.tasks.task import Task
    from ..wire.login_exchange import Connection, LoginReply, LoginRequest
    from .steps import OwnStep, StepSource

#: Tells the session phase, and the user, how the job was picked.
CHOSEN_VARIABLE = "SLURM_ADOPT_CHOSEN"
#: The reply has to reach the module before it gives up.
RESERVE_NS = 50 * MS
#: A process that was there so short a time ago is not looked at again: slurmstepd itself needs a millisecond, in which
#: nobody watches.
FRESH_NS = 5 * MS
#: More failed adoptions than this are not bad luck any more.
ATTEMPT_CAP = 4
#: logind's own sign that it runs (sd_booted(3) tells of systemd only).
LOGIND = "/run/systemd/seats"
#: PAM lines that were parsed already, for the resident service.
KNOWN_LINES: dict[tuple[str, ...], Options] = {}
KNOWN_LINES_CAP = 64


class CallerGone(Exception):
    """Nobody is there any more to be adopted."""


class Answer:
    """A reply and the descriptors that go with it, which belong to whoever sends it; and what led to it.

    `packet` is the reply in bytes if it was foreseen. `close()` the answer when it is sent: the steps' connections are
    open until then, because to close them takes time as well.
    """

    def __init__(self, reply: LoginReply, packet: bytes, fds: list[int], login: Login, verdict: Verdict) -> None:
        self.reply = reply
        self.fds = fds
        self.facts = login.facts
        self.verdict = verdict
        self.processes = login.processes
        self.caller = login.caller
        self.nodename = login.options.nodename
        self.auth = login.request.auth
        self.packet = packet
        self._found = login.found

    def close(self) -> None:
        """Give up the connections to the user's steps, and this login's turn at them."""
        self._found.close()


class Foreseen:
    """What will be, if the step takes the login in and has nothing more to give: `facts`, their verdict, the reply.

    `words` is all that the reply was composed from.
    """

    def __init__(self, facts: Facts, verdict: Verdict, words: tuple[Any, ...]) -> None:
        self.facts = facts
        self.verdict = verdict
        self.words = words
        self.reply = compose(*words)
        self.packet = encode_reply(self.reply)


class Login:
    """The state of one login while it is decided."""

    def __init__(self, request: LoginRequest, caller: Process, source: StepSource) -> None:
        self.request = request
        self.source = source
        self.options = options_of(request.args)
        if request.strict:  # the account line is: the session line must not be weaker
            deny = {"action_no_jobs": "deny", "action_adopt_failure": "deny", "action_generic_failure": "deny"}
            self.options = replace(self.options, **deny)
        self.caller = caller
        self.deadline_ns = request.deadline_ns - RESERVE_NS
        self.connection: Connection | None = choose_connection(request.connections, request.rhost)
        self.conf: SlurmConf | None = None
        self.found = Found()
        self.processes: tuple[Process, ...] = ()
        self.found_ns = 0
        self.env: tuple[tuple[str, str], ...] = ()
        self.remark = ""
        #: when the job ends, in seconds since 1970, if the greeting is to say it
        self.end_s = 0
        self.namespaces: list[Namespace] = []
        self.foreseen: Foreseen | None = None
        peer = plain_address(self.connection.peer_address) if self.connection else request.rhost
        self.facts = Facts(
            phase=request.phase,
            service=request.service,
            user=request.user,
            uid=request.uid,
            source=peer,
            account_job=int(request.job) if request.job.isascii() and request.job.isdigit() else 0,
            account_chosen=request.chosen if request.chosen in CHOICES else "",
        )

    def find_processes(self) -> tuple[Process, ...]:
        """The processes to adopt; looked for once, and only for a login that may be admitted.

        `StepFault` if one of those that were found has ended.
        """
        now_ns = time.monotonic_ns()
        if self.processes and now_ns - self.found_ns <= FRESH_NS:
            return self.processes
        self.found_ns = now_ns
        for process in self.processes:
            if not is_same(process):
                raise StepFault("process-changed", f"process {process.pid} ended before it was adopted")
        if not self.processes:
            self.processes = find_login_processes(self.caller, self.connection)
        if not self.processes:
            raise CallerGone(f"process {self.caller.pid} has ended")
        return self.processes

    def answer(self, verdict: Verdict, detail: str = "") -> Answer:
        """The reply for a verdict; what the verdict does not need is given up."""
        if verdict.action != "allow" or not verdict.job_id:
            self.release()
        kinds: tuple[str, ...] = ()
        fds: list[int] = []
        if self.namespaces:
            kinds = tuple([namespace.kind for namespace in self.namespaces])
            fds = [namespace.fd for namespace in self.namespaces]
            self.namespaces = []
        words = self.words(self.facts, verdict, self.env, kinds, detail)
        ahead = self.foreseen
        if ahead is not None and ahead.words == words:
            return Answer(ahead.reply, ahead.packet, fds, self, verdict)
        return Answer(compose(*words), b"", fds, self, verdict)

    def words(
        self,
        facts: Facts,
        verdict: Verdict,
        env: tuple[tuple[str, str], ...],
        kinds: tuple[str, ...] = (),
        detail: str = "",
    ) -> tuple[Any, ...]:
        """What a reply is composed from."""
        detail = detail or self.remark
        if facts.phase == "open_session":
            return (facts, self.options, verdict, env, kinds, detail, self.greeting(verdict), self.unset())
        if self.options.greeting and verdict.chosen:
            # the session phase tells it, in a process that knows nothing of this one but the PAM environment
            env += ((CHOSEN_VARIABLE, verdict.chosen),)
        return (facts, self.options, verdict, env, kinds, detail)

    def foresee(self, decision: Adopt) -> None:
        """Prepare the answer to the login that slurmstepd is just taking in."""
        self.foreseen = None
        if self.facts.phase != "account":
            return
        facts = _attempted(self.facts, Attempt(decision.job_id, decision.chosen))
        verdict = decide(facts, self.options)
        if isinstance(verdict, Verdict):
            words = self.words(facts, verdict, environment_of(decision.job_id))
            self.foreseen = Foreseen(facts, verdict, words)

    def decide(self) -> Decision:
        """The next step, or the verdict."""
        ahead = self.foreseen
        if ahead is not None and ahead.facts is self.facts:
            return ahead.verdict  # the same facts give the same answer
        return decide(self.facts, self.options)

    def unset(self) -> tuple[str, ...]:
        """What the account phase has left for the session phase, and the session is not to see."""
        chosen = (CHOSEN_VARIABLE,) if self.options.greeting else ()
        return (*chosen, "SLURM_JOB_ID") if self.options.export_env == "none" else chosen

    def greeting(self, verdict: Verdict) -> str:
        """The line that the session begins with, if the site wants one."""
        if not self.options.greeting:
            return ""
        from .session.greeting import greeting  # here, because few sites want it and every login would pay

        return greeting(self.facts, verdict, self.end_s - time.time() if self.end_s else None)

    def release(self) -> None:
        """Give up what an adoption has collected."""
        self.release_namespaces()
        self.env = ()

    def release_namespaces(self) -> None:
        """Close the namespaces' descriptors."""
        for namespace in self.namespaces:
            os.close(namespace.fd)
        self.namespaces = []


def options_of(args: tuple[str, ...]) -> Options:
    """The options of a PAM line; a node has one or two of them."""
    if args not in KNOWN_LINES:
        if len(KNOWN_LINES) >= KNOWN_LINES_CAP:
            KNOWN_LINES.clear()
        KNOWN_LINES[args] = parse_options(args)
    return KNOWN_LINES[args]


def decide_login(request: LoginRequest, caller: Process, source: StepSource | None = None) -> Task[Answer]:
    """The answer to a request of the process `caller`; `source` is the resident service's memory."""
    login = Login(request, caller, source or Scan())
    try:
        return (yield from _decide_or_fail(login, resident=source is not None))
    except BaseException:
        login.found.close()
        raise


def _decide_or_fail(login: Login, resident: bool) -> Task[Answer]:
    try:
        return (yield from _decide(login))
    except DeadlineExceeded:
        return _failure(login, "deadline", "")
    except OSError as error:
        if resident and error.errno in OWN_LACK:
            login.release()
            raise  # somebody's many logins may hold all of the service's; the one-shot helper has its own
        return _failure(login, "internal-error", f"{type(error).__name__}: {error}")
    except HelperNeeded:
        login.release()
        raise
    except Exception as error:  # rule 1: a fault of ours is one more reason code, not a lost login
        return _failure(login, "internal-error", f"{type(error).__name__}: {error}")


def _failure(login: Login, reason: str, detail: str) -> Answer:
    login.release()
    login.facts = replace(login.facts, fault=reason)
    verdict = decide(login.facts, login.options)
    assert isinstance(verdict, Verdict), "a fault always ends the decision"
    return login.answer(verdict, detail)


def _decide(login: Login) -> Task[Answer]:
    if login.request.phase == "close_session":
        return login.answer(Verdict("ignore", "session-closed"))
    detail = yield from _gather(login)
    if login.facts.phase == "open_session" and login.found.own:
        login.facts = replace(login.facts, member_of=find_membership(login.find_processes(), login.found))
    while True:
        decision = login.decide()
        if isinstance(decision, Verdict):
            if login.facts.phase == "open_session":
                return (yield from _finish_session(login, decision, detail))
            return login.answer(decision, detail)
        if isinstance(decision, AskCaller):
            login.facts = replace(login.facts, caller=(yield from _ask_caller(login)))
        elif isinstance(decision, AwaitStart):
            yield from _await_start(login)
        elif isinstance(decision, HoldManager):
            yield from _hold_manager(login)
        else:
            attempt = yield from _attempt(login, decision)
            if attempt.failure or login.foreseen is None:
                login.facts = _attempted(login.facts, attempt)
            else:
                login.facts = login.foreseen.facts
            if len(login.facts.attempts) >= ATTEMPT_CAP and attempt.failure:
                login.facts = _give_up(login.facts)


def _gather(login: Login) -> Task[str]:
    """Fill in steps or fault; the return value is a detail for the log."""
    try:
        conf = login.conf = yield from login.source.read_conf(login.deadline_ns)
        check_not_own(conf, login.request.uid)
        who = (login.options.nodename, login.request.uid)
        found = yield from login.source.query_own(conf, *who, login.deadline_ns, login.find_processes)
    except (ConfFault, SpoolFault) as fault:
        login.facts = replace(login.facts, fault=fault.reason)
        return str(fault)
    login.found = found
    if found.own and "runinjob" in conf.prolog_flags and login.request.phase == "account":
        from .await_start import mark_prologs

        mark_prologs(conf, found, login.request.uid)
    if found.own or found.unanswered:
        login.facts = replace(login.facts, steps=found.steps(), unanswered=tuple(found.unanswered))
    if conf.prolog and login.request.phase == "account" and not newest_first(login.facts):
        from .await_start import find_starting  # most logins find their job and do not pay for loading this

        prologs = find_starting(conf, login.options.nodename, login.request.uid)
        login.facts = replace(login.facts, prologs=prologs) if prologs else login.facts
    if login.options.action_unknown == "preferred" and len(found.own) > 1:
        login.facts = replace(login.facts, preferred=find_preferred(login.request.uid, found))
    return ""


def _await_start(login: Login) -> Task[None]:
    """Wait for the user's job to start; what is found then takes the place of what was found before."""
    from .await_start import await_start, find_starting

    conf, options, uid = login.conf, login.options, login.request.uid
    assert conf is not None, "steps or prologs were found"
    begun_ns = time.monotonic_ns()
    wait_ns = int(options.prolog_wait_s * 1000) * MS
    try:
        login.found = yield from await_start(
            login.source, conf, options.nodename, uid, login.found, wait_ns, login.deadline_ns
        )
    except SpoolFault as fault:
        login.facts = replace(login.facts, fault=fault.reason)
        return
    login.facts = replace(
        login.facts,
        steps=login.found.steps(),
        unanswered=tuple(login.found.unanswered),
        prologs=find_starting(conf, options.nodename, uid),
        waited_ms=(time.monotonic_ns() - begun_ns) // MS,
    )


def _hold_manager(login: Login) -> Task[None]:
    """What `user_manager=` says, in three quarters of the time that is left."""
    from ..system.host.user_manager import (  # for the few sites that want it
        ManagerFault,
        confine_manager,
        refuse_manager,
    )

    now_ns = time.monotonic_ns()
    until_ns = now_ns + (login.deadline_ns - now_ns) * 3 // 4
    own = [step.connection.identity for step in login.found.own if step.fact.state != ENDING]
    outcome = HELD
    try:
        if login.options.user_manager == "refuse":
            login.remark = yield from refuse_manager(login.request.uid, until_ns)
        else:
            stepds = [identity for identity in own if identity is not None]
            yield from confine_manager(login.request.uid, stepds, until_ns)
    except (ManagerFault, DeadlineExceeded) as fault:
        outcome, login.remark = "user-manager-failed", str(fault) or "systemd did not answer in time"
    login.facts = replace(login.facts, user_manager=outcome)


def _ask_caller(login: Login) -> Task[CallerFact]:
    """Network caller ID, with `caller_timeout=` and at most half of what is left: the adoption is still to come."""
    assert login.conf is not None, "there are steps, so there is a configuration"
    memory = login.source.callers or _own_memory(login.conf)
    # most logins have one job and never ask: they do not pay for loading this
    from ..system.rpc.callerid import find_caller

    own = [(step.path.job_id, step.connection.identity) for step in login.found.own]
    stepds = tuple((job_id, identity) for job_id, identity in own if identity is not None)
    version = max([step.version for step in login.facts.steps], default=0)
    now_ns = time.monotonic_ns()
    budget_ns = int(login.options.caller_timeout_s * 1000) * MS
    deadline_ns = now_ns + min(budget_ns, (login.deadline_ns - now_ns) // 2)
    uid = login.request.uid
    login.found.pause()
    who = (login.conf, login.connection, uid, stepds, version)
    try:
        return (yield from find_caller(*who, deadline_ns, memory, budget_ns))
    finally:
        if memory is not login.source.callers and memory.workers is not None:
            memory.workers.close()


def _own_memory(conf: SlurmConf) -> CallerMemory:
    """Of a login without the service: nothing is known yet. A child loads libmunge while we load what asks it."""
    from ..system.rpc.memory import CallerMemory
    from ..system.rpc.munge import MungeWorkers

    memory = CallerMemory()
    memory.workers = MungeWorkers()
    if conf.auth_type == "auth/munge":
        memory.workers.prepare()
    return memory


def _attempt(login: Login, decision: Adopt) -> Task[Attempt]:
    step = login.found.of_job(decision.job_id)
    assert step is not None, "the decision names one of the user's own steps"
    connection = step.connection
    yield from login.found.resume(login.deadline_ns)
    connection.deadline_ns = _attempt_deadline(login)
    try:
        _expect_to_stay(login)
        before = read_cgroups(login.find_processes()[0]) if login.request.phase == "open_session" else None
        extras = yield from act_adopt(
            connection,
            login.request.uid,
            login.find_processes,
            *_wanted(login),
            meanwhile=lambda: login.foresee(decision),
        )
        if before is not None and b".scope" in before:
            from .session.left_behind import adopt_left_behind

            yield from adopt_left_behind(connection, before)
        yield from _collect(login, decision.job_id, login.processes, extras)
    except StepFault as fault:
        login.release()
        return Attempt(decision.job_id, decision.chosen, fault.reason, str(fault))
    return Attempt(decision.job_id, decision.chosen)


def _expect_to_stay(login: Login) -> None:
    """Raise `StepFault` if pam_systemd will take the session out of any job again."""
    # without logind nobody does: most compute nodes need not read their PAM files for each login
    if login.request.phase != "account" or not os.path.isdir(LOGIND):
        return
    from ..system.host.pam_stack import moves_sessions

    service = login.request.service
    if moves_sessions(service) and not _is_guarded(service, login.options):
        raise StepFault("session-escapes", REASONS["session-escapes"].meaning)


def _is_guarded(service: str, options: Options) -> bool:
    """Whether a session line of ours comes last, works for this service, and is as strict as this one."""
    from ..system.host.pam_stack import find_guard

    line = find_guard(service)
    if line is None:
        return False
    later = options_of(line.args)
    strict_enough = later.action_adopt_failure == "deny" or options.action_adopt_failure != "deny"
    return later.service in ("*", service) and strict_enough


def _attempt_deadline(login: Login) -> int:
    """Half of what is left, if another job could be tried afterwards; else all of it."""
    untried = len(login.found.own) - len(login.facts.attempts)
    now_ns = time.monotonic_ns()
    return now_ns + (login.deadline_ns - now_ns) // 2 if untried > 1 else login.deadline_ns


def _wanted(login: Login) -> tuple[bool, bool]:
    """Whether to ask the step for its X11 tunnel, and for its namespaces."""
    return not login.options.disable_x11, login.options.join_container


def _collect(login: Login, job_id: int, processes: tuple[Process, ...], extras: Extras) -> Task[None]:
    """What the session gets from the job it is in: variables and namespaces."""
    if extras.namespaces:
        login.namespaces = missing_namespaces(extras.namespaces, login.caller)
    login.env = environment_of(job_id, extras.x11)
    if login.options.takes_over:
        step = login.found.of_job(job_id)
        assert step is not None
        yield from _take_over(login, step, processes)
    if login.namespaces and login.request.phase == "account":
        if _is_guarded(login.request.service, login.options):
            # the session phase joins them, in the process that lives on: from within the job's pid namespace that phase
            # could see neither slurmstepd nor itself
            login.release_namespaces()
        elif processes[0].pid != login.caller.pid:
            login.release_namespaces()  # this process ends after the account stack
            raise StepFault("namespace-deferred", REASONS["namespace-deferred"].meaning)


def _take_over(login: Login, step: OwnStep, processes: tuple[Process, ...]) -> Task[None]:
    """The job's limits and variables."""
    from .session.inherit import take_over

    conf, identity, options = login.conf, step.connection.identity, login.options
    assert conf is not None, "a step was found, so the configuration was read"
    assert identity is not None
    who = (step.path.job_id, login.request.uid, identity, processes)
    extra, remark = yield from take_over(conf, options, login.request.phase, *who, login.deadline_ns)
    login.remark = "; ".join([text for text in (login.remark, remark) if text])
    named = {name for name, _ in login.env}
    login.env += tuple((name, value) for name, value in extra if name not in named)


def _attempted(facts: Facts, attempt: Attempt) -> Facts:
    return replace(facts, attempts=(*facts.attempts, attempt))


def _give_up(facts: Facts) -> Facts:
    """Count every job as tried: the decision then ends with what the attempts have shown."""
    last = facts.attempts[-1]
    tried = {attempt.job_id for attempt in facts.attempts}
    rest = tuple(
        Attempt(step.job_id, last.chosen, last.failure, "not tried any more")
        for step in facts.steps
        if step.job_id not in tried
    )
    return replace(facts, attempts=facts.attempts + rest)


def _finish_session(login: Login, verdict: Verdict, detail: str) -> Task[Answer]:
    if verdict.reason == "session-verified":
        step = login.found.of_job(verdict.job_id)
        assert step is not None, "the session was found in one of the user's own steps"
        step.connection.deadline_ns = login.deadline_ns  # until now it was the grace of the search
        try:
            extras = yield from query_extras(step.connection, *_wanted(login))
            yield from _collect(login, verdict.job_id, login.find_processes(), extras)
        except StepFault as fault:
            login.release()
            attempt = Attempt(verdict.job_id, verdict.chosen, fault.reason, str(fault))
            login.facts = replace(login.facts, attempts=(*login.facts.attempts, attempt), member_of=0)
            again = decide(login.facts, login.options)
            assert isinstance(again, Verdict), "the only job of a verified session was tried"
            return login.answer(again, detail)
    if login.options.greeting:
        login.end_s = yield from _find_end(login, verdict)
    return login.answer(verdict, detail)


def _find_end(login: Login, verdict: Verdict) -> Task[int]:
    from ..system.slurm.job_end import query_job_end

    step = login.found.of_job(verdict.job_id)
    identity = step.connection.identity if step is not None else None
    if identity is None:
        return 0
    return (yield from query_job_end(verdict.job_id, identity, login.request.uid, login.deadline_ns))
