# SPDX-License-Identifier: Apache-2.0
"""`slurm-adopt confine`: updates the limits that `user_manager=confine` has set, when a job of the user ends.

For the epilog hook. With jobs left here, it confines the user's systemd units to what those have. With none, it ends
the manager and lifts the limits. A user whom no login has confined is left alone.
"""

from __future__ import annotations

import argparse
import os
import time

from ..login.steps import FreshLookup
from ..model import ENDING
from ..system.host.user_manager import ManagerFault, confine_manager, is_confined, lift_bounds, refuse_manager
from ..system.kernel.procfs import Process
from ..system.slurm.conf import ConfFault
from ..system.slurm.spool import SpoolFault
from ..system.tasks.task import DeadlineExceeded
from ..system.tasks.task import run as run_task
from ..users.requests import site_options
from .main import die

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..system.tasks.task import Task

TIME_S = 30
#: A job may start, or end, while we act for those that were there.
ROUNDS = 3


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's arguments."""
    parser.add_argument("uid", type=int, help="the user's uid")
    parser.add_argument(
        "--nodename",
        default=os.environ.get("SLURMD_NODENAME", ""),
        help="this node's NodeName, if it is not `hostname -s`",
    )


def run(args: argparse.Namespace) -> int:
    """Bring the limits up to date."""
    if args.uid <= 0 or not is_confined(args.uid):
        return 0
    if os.geteuid() != 0:
        die("only root may do this", "the epilog hook calls it")
    deadline_ns = time.monotonic_ns() + TIME_S * 10**9
    try:
        run_task(_follow(args.uid, args.nodename, deadline_ns))
    except DeadlineExceeded:
        die("systemd or slurmstepd did not answer in time")
    except (ConfFault, SpoolFault, ManagerFault) as fault:
        die(str(fault))
    return 0


def _follow(uid: int, nodename: str, deadline_ns: int) -> Task[None]:
    before = None
    for _ in range(ROUNDS):
        stepds = yield from _query_stepds(uid, nodename, deadline_ns)
        if stepds == before:
            return
        before = stepds
        if stepds:
            yield from confine_manager(uid, stepds, deadline_ns)
        else:
            yield from refuse_manager(uid, deadline_ns)
            yield from lift_bounds(uid, deadline_ns)


def _query_stepds(uid: int, nodename: str, deadline_ns: int) -> Task[list[Process]]:
    source = FreshLookup()
    conf = yield from source.read_conf(deadline_ns, site_options().slurm_conf)
    found = yield from source.query_own(conf, nodename, uid, deadline_ns)
    try:
        if found.unanswered and not found.own:
            raise ManagerFault("a slurmstepd does not answer: there may be a job left")
        identities = [step.connection.identity for step in found.own if step.fact.state != ENDING]
        found_now = [Process(identity.pid, identity.started) for identity in identities if identity is not None]
        return sorted(found_now, key=lambda stepd: stepd.pid)
    finally:
        found.close()
