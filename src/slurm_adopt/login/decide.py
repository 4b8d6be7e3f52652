# SPDX-License-Identifier: Apache-2.0
"""One login, from the module's request to the answer: facts, decision, act, and again, until there is a verdict.

Used by the one-shot helper and by the resident service alike.

Rules of this file:
1. Whatever goes wrong has a reason code and the action that the site chose for it. It raises nothing; but in the
   resident service, for want of descriptors, processes or a right, which the helper does not lack.
2. Nothing is decided here (`policy.decide` does), and nothing done: each act is a file of its own.
3. The answer leaves before the module's deadline; every wait is bounded by it.
"""

from __future__ import annotations

from ..model import Adopt, AskCaller, AwaitStart, AwaitStep, HoldManager, Verdict
from ..policy import decide, next_step
from ..record import replace
from ..system.slurm.stepd import StepFault
from ..system.tasks.task import OWN_LACK, DeadlineExceeded, HelperNeeded
from .adopt import act_adopt
from .answer import answer
from .facts import gather
from .reply import refuses
from .state import CallerGone, Login
from .steps import FreshLookup

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from ..model import ReasonCode
    from ..system.kernel.procfs import Process
    from ..system.tasks.task import Task
    from ..wire.login_exchange import LoginRequest
    from .answer import Answer
    from .steps import StepSource

    Act = Callable[[Login, Any], Task[None]]


def _ask_caller() -> Act:
    from .ask_caller import act_ask_caller

    return act_ask_caller


def _await_start() -> Act:
    from .await_start import act_await_start

    return act_await_start


def _await_step() -> Act:
    from .await_step import act_await_step

    return act_await_step


def _hold_manager() -> Act:
    from .hold_manager import act_hold_manager

    return act_hold_manager


#: What does each step of a decision. All but an adoption are rare: a login loads what it needs.
ACTS: dict[type, Callable[[], Act]] = {
    Adopt: lambda: act_adopt,
    AskCaller: _ask_caller,
    AwaitStart: _await_start,
    AwaitStep: _await_step,
    HoldManager: _hold_manager,
}


def decide_login(request: LoginRequest, caller: Process, source: StepSource | None = None) -> Task[Answer]:
    """The answer to a request of the process `caller`; `source` is what the resident service knows of the node."""
    login = Login(request, caller, source or FreshLookup())
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


def _failure(login: Login, reason: ReasonCode, detail: str) -> Answer:
    login.release()
    login.facts = replace(login.facts, fault=reason)
    verdict = decide(login.facts, login.options)
    assert isinstance(verdict, Verdict), "a fault always ends the decision"
    try:
        _keep_account(login, verdict)
    except OSError as error:
        detail = detail or f"{type(error).__name__}: {error}"
    return answer(login, verdict, detail)


def _keep_account(login: Login, verdict: Verdict) -> None:
    """Where the session phase will run in another process, it must know that and what this one has answered.

    `OSError` if that cannot be kept: for want of it the session would be left alone.
    """
    _mark(login, verdict, _processes_to_mark(login))


def _processes_to_mark(login: Login) -> list[Process]:
    """Those that a session phase may run in, while the caller is there to be looked at; none with most logins."""
    if login.facts.phase != "account":
        return []
    try:
        processes = login.processes or login.find_processes()
    except (CallerGone, StepFault):
        return []  # nobody is there for a session
    others = [process for process in processes if process.pid != login.caller.pid]
    return others or [process for process in (login.session_parent,) if process is not None]


def _mark(login: Login, verdict: Verdict, processes: list[Process]) -> None:
    if not processes:
        return
    from ..system.host.account_marks import Mark, write_mark

    # a session that follows is others' doing then
    is_left = refuses(verdict, login.options.enforce) or verdict.reason == "exempt"
    mark = Mark("left" if is_left else "asked", verdict.job_id)
    for process in processes:
        write_mark(process, login.request.uid, mark)


def _decide(login: Login) -> Task[Answer]:
    if login.request.phase == "close_session":
        return answer(login, Verdict("ignore", "session-closed"))
    detail = yield from gather(login)
    while True:
        decision = next_step(login.facts, login.options)
        if isinstance(decision, Verdict):
            break
        act = ACTS[type(decision)]()
        yield from act(login, decision)
    if login.facts.phase == "open_session" and login.options.enforce != "no":
        from .finish_session import finish_session

        return (yield from finish_session(login, decision, detail))
    if not refuses(decision, login.options.enforce):
        _keep_account(login, decision)
        return answer(login, decision, detail)
    if login.options.hint_jobs:
        from .elsewhere import find_elsewhere  # here, because few sites want it

        yield from find_elsewhere(login, decision.reason)
    # few sites let a session follow a refusal: nobody waits until it is written down
    processes = _processes_to_mark(login)
    reply = answer(login, decision, detail)
    reply.afterwards = lambda: _mark(login, decision, processes)
    return reply
