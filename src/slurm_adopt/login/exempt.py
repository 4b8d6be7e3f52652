# SPDX-License-Identifier: Apache-2.0
"""Logins that are others' to judge: exempt by the PAM line, or let in without our account line.

Loaded only where that may be.
"""

from __future__ import annotations

from ..model import ASKED, OWED, SKIPPED
from ..options.parse import parse_options
from ..system.host.account_marks import read_mark
from ..system.host.membership import MembershipFault, query_memberships
from ..system.host.pam_stack import MODULE
from ..system.host.pam_walk import CODES, STAYS, judge
from ..system.kernel.login_tree import runs_sshd
from ..system.tasks.task import DeadlineExceeded, halfway

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..model import AccountPhase
    from ..system.host.pam_stack import PamLine, Stack
    from ..system.host.pam_walk import Answers
    from ..system.tasks.task import Task
    from .state import Login


def find_exemption(login: Login) -> Task[str]:
    """The word of `allow_users=` or `allow_groups=` that the user is under; empty if there is none.

    Groups and netgroups are looked up within half of the time that is left. Without an answer nobody is exempt.
    """
    options, request = login.options, login.request
    if request.user in options.allow_users:
        return request.user
    asked = [name for name in options.allow_users if name.startswith("@")] + list(options.allow_groups)
    if not asked:
        return ""
    try:
        found = yield from query_memberships(request.user, request.uid, asked, halfway(login.deadline_ns))
    except (MembershipFault, DeadlineExceeded) as fault:
        login.remark = str(fault) or "the user's groups could not be looked up in time"
        return ""
    return next((name for name in asked if name in found), "")


def find_account_phase(login: Login) -> tuple[AccountPhase, int]:
    """What our account line has answered this login in another process, and the job that it has chosen (0: none).

    `skipped` if it was not asked at all; what the PAM environment says of a job is all there is then. `owed` if the
    stack says yes to nobody without it, so that only an expired password can have brought sshd here. Other programs
    open sessions without asking any account stack (runuser).
    Where the account stack has no line of ours, the session line judges alone: it is as if it had been asked.
    """
    mark = read_mark(login.caller, login.request.uid)
    if mark is not None:
        return mark.word, mark.job_id
    service = login.request.service
    stack = login.source.recent.read_stack(service, "account")
    ours = [line for line in stack.lines if line.name == MODULE and line.what == "module"]
    if stack.doubts or not any(login.source.recent.options_of(line.args).works_in(service) for line in ours):
        return ASKED, login.facts.account_job
    if runs_sshd(login.caller) and not lets_in_unasked(stack, service):
        return OWED, 0
    return SKIPPED, login.facts.account_job


def lets_in_unasked(stack: Stack, service: str) -> bool:
    """Whether an account stack may say yes without asking a line of ours.

    "Yes, after a new password" (PAM_NEW_AUTHTOK_REQD) is no such yes: it is about the password. Debian's common-account
    ends the stack with it, and sshd goes on, after keyboard-interactive authentication with whatever the client wants
    (seen with Linux-PAM 1.5.2 and OpenSSH 9.2).
    """

    def answers(line: PamLine) -> Answers | None:
        ours = line.name == MODULE and parse_options(line.args).works_in(service)
        return [(code, False) for code in range(len(CODES))] if ours else None

    return judge(stack, answers, outside=True) != STAYS
