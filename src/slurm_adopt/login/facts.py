# SPDX-License-Identifier: Apache-2.0
"""The first facts of a login: slurm.conf, the user's steps, the preference, the membership of a session.

Rules of this file:
1. What cannot be found out becomes a fact with a reason code (`Facts.fault`), never an exception.
2. While slurmstepd answers, the login's processes are looked for.
"""

from __future__ import annotations

from ..model import ASKED, OWED
from ..policy import newest_first
from ..record import replace
from ..system.slurm.conf import ConfFault, check_not_own
from ..system.slurm.spool import SpoolFault
from ..system.tasks.task import begin
from .steps import find_membership, find_preferred

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..system.tasks.task import Task
    from .state import Login


def gather(login: Login) -> Task[str]:
    """Fill in the login's facts; the result is a detail for the log."""
    uid, options = login.request.uid, login.options
    if login.facts.phase == "open_session" and not login.request.account:
        from .exempt import find_account_phase  # here, because after an account phase in the same process nobody asks

        account_phase, job_id = find_account_phase(login)
        login.facts = replace(login.facts, account_phase=account_phase, account_job=job_id)
    if login.facts.account_phase not in (ASKED, OWED):
        return ""
    if options.allow_users or options.allow_groups:
        from .exempt import find_exemption

        login.facts = replace(login.facts, exempt=(yield from find_exemption(login)))
        if login.facts.exempt:
            return ""
    try:
        conf = login.conf = yield from login.source.read_conf(login.deadline_ns, options.slurm_conf)
        login.remark = login.source.remark_of(conf)
        check_not_own(conf, uid)
        yield from find_steps(login)
    except (ConfFault, SpoolFault) as fault:
        login.take_fault(fault)
        return "; ".join(filter(None, (str(fault), login.remark)))
    if conf.prolog and login.request.phase == "account" and not newest_first(login.facts):
        from .await_start import find_starting  # most logins find their job and do not pay for loading this

        prologs = find_starting(login.source.recent, conf, options.nodename, uid)
        login.facts = replace(login.facts, prologs=prologs) if prologs else login.facts
    return ""


def find_steps(login: Login, needed: int = 0) -> Task[None]:
    """The user's steps, and what else is to be known of them; `SpoolFault`. `needed` is the job that has to answer."""
    uid, options, conf = login.request.uid, login.options, login.conf
    assert conf is not None, "read before"
    asking = begin(login.source.query_own(conf, options.nodename, uid, login.deadline_ns, needed))
    with asking:
        if not asking.is_over:
            login.find_processes()
        found = yield from asking.result()
    if found.own and "runinjob" in conf.prolog_flags and login.request.phase == "account":
        from .await_start import mark_prologs

        mark_prologs(conf, found, uid)
    login.take_steps(found)
    if options.action_unknown == "preferred" and len(found.own) > 1:
        login.facts = replace(login.facts, preferred=find_preferred(uid, found))
    if login.facts.phase == "open_session" and found.own:
        here = find_membership(login.find_processes(), found, login.source.recent)
        login.facts = replace(login.facts, member_of=here)
