# SPDX-License-Identifier: Apache-2.0
"""The act `HoldManager`: what `user_manager=` says about the user's systemd manager."""

from __future__ import annotations

import time

from ..model import ENDING, HELD
from ..record import replace
from ..system.host.user_manager import ManagerFault, confine_manager, refuse_manager
from ..system.tasks.task import DeadlineExceeded

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Literal

    from ..model import HoldManager, ReasonCode
    from ..system.tasks.task import Task
    from .state import Login


def act_hold_manager(login: Login, _: HoldManager) -> Task[None]:
    """End the manager or confine it, in three quarters of the time that is left."""
    now_ns = time.monotonic_ns()
    until_ns = now_ns + (login.deadline_ns - now_ns) * 3 // 4
    own = [step.connection.identity for step in login.found.own if step.fact.state != ENDING]
    outcome: ReasonCode | Literal["held"] = HELD
    try:
        if login.options.user_manager == "refuse":
            login.remark = yield from refuse_manager(login.request.uid, until_ns)
        else:
            stepds = [identity for identity in own if identity is not None]
            yield from confine_manager(login.request.uid, stepds, until_ns)
    except (ManagerFault, DeadlineExceeded) as fault:
        outcome, login.remark = "user-manager-failed", str(fault) or "systemd did not answer in time"
    login.facts = replace(login.facts, user_manager=outcome)
