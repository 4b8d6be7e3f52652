# SPDX-License-Identifier: Apache-2.0
"""Answers one request of a user: list the jobs on this node, store a preference, move the login.

Runs in a process of its own for each request (users/server.py).

Rules of this file:
1. Who asks is what the kernel said of the connection; every job that is named must be that uid's, by its slurmstepd.
2. Nothing is told about anybody else's jobs: another user's job and one that does not exist are the same answer.
3. Each answer has a reason code, and words that a user can act on.
"""

from __future__ import annotations

import functools
import os
import time

from ..login.recent import Recent
from ..login.steps import FreshLookup, find_membership, find_preferred
from ..model import ENDING, REASONS
from ..observe.notes import MoveNote, write_move
from ..options.parse import parse_options
from ..policy import newest_first
from ..record import replace
from ..system.host.pam_stack import MODULE, read_stack
from ..system.host.preferences import Preference, clear_preference, clear_void_preferences, write_preference
from ..system.kernel.procfs import has_ended, read_file
from ..system.slurm.conf import ConfFault, check_not_own
from ..system.slurm.job_end import find_job_end
from ..system.slurm.spool import SpoolFault
from ..wire.user_exchange import UserJob, UserReply
from .move import Moved, move_login

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..login.steps import OwnStep, OwnSteps
    from ..model import ReasonCode
    from ..options.parse import Options
    from ..system.kernel.procfs import Process
    from ..system.tasks.sockets import Peer
    from ..system.tasks.task import Task
    from ..wire.user_exchange import UserRequest


def answer_user(request: UserRequest, peer: Peer, asker: Process, deadline_ns: int) -> Task[UserReply]:
    """The answer to a request of the process `asker`, whose credentials are `peer`; it raises for the deadline only."""
    options = site_options()
    if request.command == "clear":
        return _clear(peer.uid)
    if request.command == "move" and not options.user_move:
        return _reply("refused", "user-move-off")
    try:
        conf = yield from FreshLookup().read_conf(deadline_ns, options.slurm_conf)
        check_not_own(conf, peer.uid)
        found = yield from FreshLookup().query_own(conf, options.nodename, peer.uid, deadline_ns)
    except (ConfFault, SpoolFault) as fault:
        return _reply("failed", fault.reason, text=f"{REASONS[fault.reason].meaning} ({fault})")
    try:
        if request.command == "use":
            return _use(request.job_id, peer.uid, found, options)
        if request.command == "move":
            query = functools.partial(FreshLookup().query_own, conf, options.nodename, peer.uid, deadline_ns)
            moved = yield from move_login(asker, request.job_id, found, query, deadline_ns)
            reply = _moved(moved, request.job_id)
            login = moved.login or asker
            write_move(
                MoveNote(time.time(), peer.uid, login.pid, login.started, request.job_id, reply.result, reply.reason)
            )
            return reply
        return list_jobs(asker, peer.uid, found)
    finally:
        found.close()


def site_options() -> Options:
    """The options of our line for sshd; the defaults if it is not there."""
    lines = [line for line in read_stack("sshd", "account").lines if line.name == MODULE]
    return parse_options(lines[-1].args if lines else ())


def list_jobs(asker: Process, uid: int, found: OwnSteps) -> UserReply:
    """The user's jobs on this node, the newest first."""
    here = find_membership((asker,), found, Recent())
    preferred = find_preferred(uid, found)
    newest = newest_first_id(found)
    steps = sorted(found.own, key=lambda step: step.fact.started, reverse=True)
    jobs = []
    for step in steps:
        job_id = step.path.job_id
        special = (("newest", newest), ("preferred", preferred), ("here", here))
        flags = tuple(name for name, which in special if which == job_id)
        jobs.append(UserJob(job_id, step.fact.state, started_s(step), _end_s(step, uid), flags))
    text = f"{len(found.unanswered)} slurmstepd did not answer: there may be more." if found.unanswered else ""
    return _reply("ok", "user-jobs", text=text, jobs=tuple(jobs))


def newest_first_id(found: OwnSteps) -> int:
    """The job that a login goes into if nothing else says so; 0 without one."""
    from ..model import Facts

    order = newest_first(Facts("account", "", "-", 0, steps=found.steps()))
    return order[0].job_id if order else 0


def started_s(step: OwnStep) -> int:
    """When the job's extern step began, in seconds since 1970."""
    stat = read_file("/proc/stat") or b""
    boot = next((line.split()[1] for line in stat.split(b"\n") if line.startswith(b"btime ")), b"0")
    return int(boot) + step.fact.started[0] // os.sysconf("SC_CLK_TCK")


def _end_s(step: OwnStep, uid: int) -> int:
    identity = step.connection.identity
    return find_job_end(step.path.job_id, identity, uid) if identity is not None else 0


def _use(job_id: int, uid: int, found: OwnSteps, options: Options) -> UserReply:
    step = found.of_job(job_id)
    identity = step.connection.identity if step is not None else None
    if step is None or identity is None:
        return _reply("refused", "user-no-such-job")
    if step.fact.state == ENDING:
        return _reply("refused", "user-job-not-running")
    clear_void_preferences(has_ended)
    try:
        write_preference(uid, Preference(job_id, identity.pid, identity.started))
    except OSError as error:
        return _reply("failed", "user-preference-failed", text=f"the preference could not be stored: {error.strerror}")
    text = f"The next logins to this node go into job {job_id}, until it ends; those from inside a job into that job."
    if options.action_unknown != "preferred":
        text += f" But this node does not ask for preferences (action_unknown={options.action_unknown})."
    return _reply("ok", "user-preference-set", text=text)


def _clear(uid: int) -> UserReply:
    try:
        known = clear_preference(uid)
    except OSError as error:
        return _reply("failed", "user-preference-failed", text=f"the preference could not be removed: {error.strerror}")
    return _reply("ok", "user-preference-cleared", text="" if known else "There was no preference.")


def _moved(moved: Moved, job_id: int) -> UserReply:
    results = {"user-moved": "ok", "user-move-incomplete": "failed", "user-move-failed": "failed"}
    result = results.get(moved.reason, "refused")
    text = ""
    if result == "ok":
        text = f"This login is in job {job_id} now ({moved.count} processes moved)."
        if not moved.count:
            text = f"This login is in job {job_id} already."
        elif moved.staying:
            text += f" {moved.staying} other processes of yours stay in job {moved.source} (other logins, tmux)."
    elif moved.detail:
        text = f"{REASONS[moved.reason].user_text} ({moved.detail})"
    return replace(_reply(result, moved.reason, text=text), moved=moved.count, left=moved.left)


def _reply(result: str, reason: ReasonCode, text: str = "", jobs: tuple[UserJob, ...] = ()) -> UserReply:
    return UserReply(result, reason, text or REASONS[reason].user_text, jobs)


def deadline_after(seconds: float) -> int:
    """A point in time from now on."""
    return time.monotonic_ns() + int(seconds * 1e9)
