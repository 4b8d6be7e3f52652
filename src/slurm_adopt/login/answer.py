# SPDX-License-Identifier: Apache-2.0
"""The answer to one login: the reply for the module, the descriptors that go with it, and what led to it.

Rules of this file:
1. What the verdict does not need is given up here: an answer that refuses carries no namespace and no variable.
2. A reply that does not fit a packet keeps SLURM_JOB_ID alone of its variables.
"""

from __future__ import annotations

import time

from ..record import replace
from ..wire.errors import ProtocolError
from ..wire.login_exchange import encode_reply
from .reply import compose

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from ..model import Verdict
    from ..system.slurm.stepd import Identity
    from ..wire.login_exchange import LoginReply
    from .state import Login

#: Tells the session phase, and the user, how the job was picked.
CHOSEN_VARIABLE = "SLURM_ADOPT_CHOSEN"


class Answer:
    """A reply and its descriptors, which belong to whoever sends it; and what led to it.

    `close()` the answer when it is sent: the steps' connections are open until then, because to close them takes time.
    """

    def __init__(self, reply: LoginReply, fds: list[int], login: Login, verdict: Verdict) -> None:
        self.reply = reply
        self.fds = fds
        self.facts = login.facts
        self.verdict = verdict
        self.processes = login.processes
        self.caller = login.caller
        self.nodename = login.options.nodename
        self.auth = login.request.auth
        self.enforce = login.options.enforce
        self.args = login.request.args
        self.strict = login.request.strict
        self._found = login.found
        #: what nobody has to wait for: done by `settle()`
        self.afterwards: Callable[[], None] | None = None

    def jobs_here(self) -> dict[int, Identity]:
        """The user's jobs on this node, with the slurmstepd of their extern steps."""
        return self._found.stepds()

    def packet(self) -> bytes:
        """The reply as a packet; one that does not fit (an endless XAUTHORITY) keeps only SLURM_JOB_ID."""
        try:
            return encode_reply(self.reply)
        except ProtocolError:
            return encode_reply(replace(self.reply, env=self.reply.env[:1]))

    def settle(self) -> None:
        """Do what was left for after the answer. What cannot be kept is lost: a session line then judges by itself."""
        try:
            if self.afterwards is not None:
                self.afterwards()
        except Exception:  # a fault of ours costs the mark, not the answer
            return

    def close(self) -> None:
        """Give up the connections to the user's steps, and this login's turn at them."""
        self._found.close()


def answer(login: Login, verdict: Verdict, detail: str = "") -> Answer:
    """The answer for a verdict; `detail` is for the log."""
    idle = login.options.enforce == "no"
    if verdict.action != "allow" or not verdict.job_id or idle:
        login.release()
    namespaces, login.namespaces = login.namespaces, []
    env = login.env
    info = ""
    unset: tuple[str, ...] = ()
    if idle:
        pass
    elif login.facts.phase == "open_session":
        info, unset = _greeting(login, verdict), _unset(login)
    elif login.options.greeting and verdict.chosen:
        # the session phase tells it, in a process that knows nothing of this one but the PAM environment
        env += ((CHOSEN_VARIABLE, verdict.chosen),)
    kinds = tuple([namespace.kind for namespace in namespaces])
    detail = detail or login.remark
    reply = compose(login.facts, login.options, verdict, env, kinds, detail, info, unset, login.elsewhere)
    return Answer(reply, [namespace.fd for namespace in namespaces], login, verdict)


def _unset(login: Login) -> tuple[str, ...]:
    """Variables to take out again: set by the account phase for the session phase only."""
    chosen = (CHOSEN_VARIABLE,) if login.options.greeting else ()
    return (*chosen, "SLURM_JOB_ID") if login.options.export_env == "none" else chosen


def _greeting(login: Login, verdict: Verdict) -> str:
    """The line that the session begins with, if the site wants one."""
    if not login.options.greeting:
        return ""
    from .session.greeting import greeting  # here, because few sites want it and every login would pay

    return greeting(login.facts, verdict, login.end_s - time.time() if login.end_s else None, login.names)
