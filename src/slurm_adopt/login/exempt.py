# SPDX-License-Identifier: Apache-2.0
"""Logins that are others' to judge: exempt by the PAM line, or let in without our account line.

Loaded only where that may be.
"""

from __future__ import annotations

import time

from ..model import ASKED, SKIPPED
from ..options.parse import parse_options
from ..system.host.account_marks import read_mark
from ..system.host.membership import MembershipFault, query_memberships
from ..system.host.pam_stack import MODULE
from ..system.tasks.task import DeadlineExceeded

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..model import AccountPhase
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
    now_ns = time.monotonic_ns()
    try:
        found = yield from query_memberships(
            request.user, request.uid, asked, now_ns + (login.deadline_ns - now_ns) // 2
        )
    except (MembershipFault, DeadlineExceeded) as fault:
        login.remark = str(fault) or "the user's groups could not be looked up in time"
        return ""
    return next((name for name in asked if name in found), "")


def find_account_phase(login: Login) -> tuple[AccountPhase, int]:
    """What our account line has answered this login in another process, and the job that it has chosen (0: none).

    `skipped` if it was not asked at all; what the PAM environment says of a job is all there is then.
    Where the account stack has no line of ours, the session line judges alone: it is as if it had been asked.
    """
    mark = read_mark(login.caller, login.request.uid)
    if mark is not None:
        return mark.word, mark.job_id
    service = login.request.service
    stack = login.source.recent.read_stack(service, "account")
    ours = [line for line in stack.lines if line.name == MODULE and line.what == "module"]
    if stack.doubts or not any(parse_options(line.args).works_in(service) for line in ours):
        return ASKED, login.facts.account_job
    return SKIPPED, login.facts.account_job
