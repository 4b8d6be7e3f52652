# SPDX-License-Identifier: Apache-2.0
"""An account stack that refuses everybody, users with a job among them: it is another line that does it.

Rules of this file:
1. The stack is played through for a user with a job who is in no list and no group. A line of which it is not known
   what it says to somebody may say anything; it is found only if nobody can get in.
"""

from __future__ import annotations

from ...system.host.pam_walk import NEW_AUTHTOK_REQD, PERM_DENIED, SUCCESS, walk
from .finding import ERROR, Finding
from .node import OUR_NAME
from .pam_exempting import closes_for_all

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from ...system.host.pam_stack import PamLine
    from ...system.host.pam_walk import Answers
    from .node import Node, OurLine

DENY = "pam_deny.so"


def check_refusing(node: Node, account: list[OurLine]) -> Iterator[Finding]:
    """One service."""
    working = [line for line in account if line.works and line.options.enforce != "no"]
    if not working:
        return
    stack = working[-1].stack
    closed = [line for line in stack if line.name == DENY or closes_for_all(node, line)]
    if not closed or _may_get_in(stack, closed) or not _may_get_in(stack, []):
        return
    line = next(line for line in closed if not _may_get_in(stack, [line]) or line is closed[-1])
    yield Finding(
        "pam-refuses-everybody",
        ERROR,
        f"{line.origin} ({line.control} {line.module}) says no to whoever is not on its list",
        "users with a job are refused as well; slurm-adopt is not the one who does it",
        f"remove {line.origin}; or write `sufficient` in {working[-1].line.origin}, if the other line comes after it",
    )


def _may_get_in(stack: tuple[PamLine, ...], closed: list[PamLine]) -> bool:
    def answers(line: PamLine) -> Answers | None:
        if any(line is one for one in closed):
            return [(PERM_DENIED, None)]
        if line.name.startswith(OUR_NAME):
            return [(SUCCESS, None)]
        return None if line.name != DENY else [(PERM_DENIED, None), (SUCCESS, None)]

    return any(state[2] in (SUCCESS, NEW_AUTHTOK_REQD) for state in walk(stack, answers)[-1])
