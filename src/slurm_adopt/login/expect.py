# SPDX-License-Identifier: Apache-2.0
"""Where a session will be at its end, for one user: what the modules of the stack will answer for this user is asked.

Loaded only if the files alone do not tell.
"""

from __future__ import annotations

from ..system.host.membership import MembershipFault, query_memberships
from ..system.host.pam_known import UserFacts, answers_for, groups_in_question
from ..system.host.pam_outlook import session_outlook

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from ..system.host.pam_stack import PamLine
    from ..system.host.pam_walk import Outlook
    from ..system.tasks.task import Task
    from .state import Login


def outlook_for_user(login: Login, guards: Callable[[PamLine], bool]) -> Task[Outlook]:
    """Whether this user's session stays in its job. `DeadlineExceeded`."""
    request, read_stack = login.request, login.source.recent.read_stack
    asked = groups_in_question(read_stack(request.service, "session").lines)
    groups: frozenset[str] = frozenset()
    if asked:
        try:
            groups = yield from query_memberships(request.user, request.uid, asked, login.deadline_ns)
        except MembershipFault as fault:
            login.remark = str(fault)
            return "unknown"
    answers = answers_for(UserFacts(request.user, request.uid, request.service, groups))
    return session_outlook(request.service, guards, answers, read=read_stack)
