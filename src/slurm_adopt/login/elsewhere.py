# SPDX-License-Identifier: Apache-2.0
"""Where the jobs of a refused user are, in the words of the refusal (`hint_jobs=yes`).

Rules of this file:
1. It comes after the decision and changes nothing but words: whatever goes wrong, the refusal is there without them,
   and the log says why.
2. Only the refused user's own jobs are asked for, and only where the refusal is for want of a job.
3. It costs `LIMIT_NS` at most, and never more than half of what is left of the login's time. In the service, slurmctld
   is asked once for all of a user's logins of some seconds, for few users at a time, and for nobody while it is silent.
4. Nobody can tell who has answered (`system/rpc/controller.py`): names of nodes are letters, digits and `-._`, or there
   are none.
"""

from __future__ import annotations

import os
import time

from ..system.rpc.controller import NoAnswer, query_user_jobs
from ..system.rpc.munge import MungeWorkers
from ..system.tasks.task import MS, halfway
from ..wire.errors import ProtocolError
from ..wire.hostlist import HostList, fold

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..model import ReasonCode
    from ..system.rpc.controller import UserJobs
    from ..system.tasks.task import Task
    from .state import Login

#: Refusals for which another node may be the right one.
REASONS_WITH_PLACES: tuple[ReasonCode, ...] = ("no-job", "job-ending", "spool-dir-missing")
#: slurmctld answers in a few milliseconds; a busy one is not waited for.
LIMIT_NS = 500 * MS
#: A line of a terminal or two.
TEXT_CAP = 160
#: So many nodes are looked at; who has jobs on more is told of the first ones.
NODE_CAP = 8192
#: How many are named one by one where the list is too long.
NAMED = 3
NAME_CHARACTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._"


def find_elsewhere(login: Login, reason: ReasonCode) -> Task[None]:
    """Fill in `login.elsewhere` for a login that is refused for `reason`."""
    if reason not in REASONS_WITH_PLACES or login.conf is None:
        return
    uid, recent = login.request.uid, login.source.recent
    known = recent.elsewhere_of(uid)
    if known is None:
        if not recent.begin_asking(uid):
            login.add_remark("hint_jobs: slurmctld is not asked: it was silent, or is asked for others")
            return
        try:
            known = yield from _ask(login)
        except Exception as error:  # rule 1: a fault here must not become another verdict
            known = ""
            login.add_remark(f"hint_jobs: {type(error).__name__}: {error}")
        finally:
            recent.end_asking()
        recent.keep_elsewhere(uid, known)
    login.elsewhere = known


def _ask(login: Login) -> Task[str]:
    callers = login.source.callers
    if callers is not None and callers.workers is not None:
        return (yield from _ask_with(login, callers.workers))
    workers = MungeWorkers()
    try:
        return (yield from _ask_with(login, workers))
    finally:
        workers.close()


def _ask_with(login: Login, workers: MungeWorkers) -> Task[str]:
    assert login.conf is not None, "looked at before"
    recent = login.source.recent
    now_ns = time.monotonic_ns()
    deadline_ns = max(now_ns, min(now_ns + LIMIT_NS, halfway(login.deadline_ns)))
    version, uid = recent.controller_version, login.request.uid
    try:
        found = yield from query_user_jobs(login.conf, workers, version, uid, deadline_ns)
        recent.controller_version = found.version
        return describe(found, _own_names(login))
    except NoAnswer as fault:
        if fault.is_silent:
            recent.keep_silence()
        login.add_remark(f"hint_jobs: no answer of slurmctld: {fault}")
    except ProtocolError as error:
        login.add_remark(f"hint_jobs: {error}")
    return ""


def describe(found: UserJobs, own: set[str]) -> str:
    """The nodes of jobs that are not over, but for this one, in words; empty if there are none. `ProtocolError`."""
    names: dict[str, None] = {}
    more = False
    for place in found.places:
        if not place.nodes or 0 < place.end_s <= found.now_s:
            continue
        for name in HostList(place.nodes):
            if name.strip(NAME_CHARACTERS):
                raise ProtocolError(f"no name of a node: {name[:40]!r}")
            if len(names) >= NODE_CAP and name not in names:
                more = True
                break
            names[name] = None
    others = sorted(name for name in names if name not in own)
    text = fold(others)
    if len(text) <= TEXT_CAP and not more:
        return text
    first = ", ".join(others[:NAMED])
    if len(first) > TEXT_CAP // 2:
        return f"{len(others)} nodes"
    return f"{first} and {len(others) - NAMED}{' or more' if more else ''} other nodes"


def _own_names(login: Login) -> set[str]:
    """How this node may be called."""
    assert login.conf is not None, "looked at before"
    host = os.uname().nodename
    return {login.options.nodename, host, host.partition(".")[0], *(slurmd.node for slurmd in login.conf.slurmds)}
