# SPDX-License-Identifier: Apache-2.0
"""Whether a user whose password has expired gets past our account line.

`PAM_NEW_AUTHTOK_REQD` is a yes to sshd: it has the password changed, and after keyboard-interactive authentication runs
whatever the client wants. Debian's common-account ends the stack with it. Where a line counts it as a failure
(`default=bad`), it stays the stack's answer whatever ours says afterwards.

Rules of this file:
1. The stack is played through for a user without a job, whom no other line lets in, and with one module that says so.
2. A line of ours that leaves its refusal to a filter behind it (`sufficient`, then pam_access) is as good as that one.
3. Where our line is not asked, a session line of ours judges (`login.exempt`); then there is nothing to find.
"""

from __future__ import annotations

from ...login.exempt import lets_in_unasked
from ...system.host.pam_stack import Stack
from ...system.host.pam_walk import IGNORE, NEW_AUTHTOK_REQD, PERM_DENIED, SUCCESS, actions_of, walk
from .finding import WARNING, Finding
from .node import OUR_NAME, is_binding

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from ...system.host.pam_stack import PamLine
    from ...system.host.pam_walk import Answers, State
    from .node import Node, OurLine

#: They know when a password expires.
TELLERS = {"pam_unix.so", "pam_sss.so", "pam_ldap.so", "pam_krb5.so", "pam_winbind.so", "pam_tcb.so", "pam_unix2.so"}


def check_expiry(
    node: Node, account: list[OurLine], session: list[OurLine], fallback: PamLine | None
) -> Iterator[Finding]:
    """One service. `fallback`: the filter that decides after our line's no, if that refuses nobody."""
    enforcing = [line for line in account if line.works and line.options.enforce != "no"]
    if not enforcing or not (is_binding(enforcing[-1]) or fallback is not None):
        return
    line, ours = enforcing[-1], {one.index for one in enforcing}
    ours.update(index for index, one in enumerate(line.stack) if one is fallback)
    judged = any(one.works and one.options.enforce == "yes" and is_binding(one) for one in session)
    judged = judged and not lets_in_unasked(Stack(line.stack), line.service)
    for index, teller in enumerate(line.stack[: line.index]):
        if teller.name not in TELLERS or (teller.optional and not node.module_path(teller.module)):
            continue
        ways, unasked = (_ways_in(line.stack, index, ours, refusal) for refusal in ([(PERM_DENIED, None)], []))
        if ways - unasked if judged else ways:
            yield Finding(
                "pam-expired-password",
                WARNING,
                f"{teller.origin} ({teller.control} {teller.module}) comes before {line.line.origin}",
                "whose password has expired gets in without a job: to change it, and in the same login to run anything",
                f"move {line.line.origin} above {teller.origin}, or above the line that includes it",
            )
            return


def _ways_in(stack: tuple[PamLine, ...], teller: int, ours: set[int], refusal: list[tuple[int, None]]) -> set[State]:
    """The ends of a stack that lets in a user whose password has expired, as the line `teller` says.

    `refusal`: what our lines answer; without an answer nobody gets past them.
    """

    def answers(line: PamLine) -> Answers:
        index = next(index for index, one in enumerate(stack) if one is line)
        if index == teller:
            return [(NEW_AUTHTOK_REQD, True)]
        if index in ours:
            return refusal
        if line.name.startswith(OUR_NAME):
            return [(IGNORE, None)]
        says_yes = actions_of(line.control)[0][SUCCESS]
        lets_in = says_yes in ("done", "die") or (says_yes.isdigit() and line.name not in TELLERS)
        return [(PERM_DENIED if lets_in or line.name == "pam_deny.so" else SUCCESS, None)]

    ends = walk(stack, answers)[-1]
    return {state for state in ends if state[4] and state[2] in (SUCCESS, NEW_AUTHTOK_REQD)}
