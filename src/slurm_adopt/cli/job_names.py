# SPDX-License-Identifier: Apache-2.0
"""What the user who asks calls the jobs on this node, and which one is meant by such a name.

It runs as the user, and asks slurmctld what `squeue --me` asks, with the user's own credential: about jobs of which no
process here says that they are neither an array's task nor a component. Without an answer they are numbers.
"""

from __future__ import annotations

import os
import time

from ..login.steps import FreshLookup
from ..system.kernel.procfs import list_numbers, read_environ, read_owned_process
from ..system.rpc.controller import NoAnswer, ask_user_jobs
from ..system.rpc.munge import MungeWorkers
from ..system.slurm.conf import ConfFault
from ..system.slurm.job_names import claims_of
from ..system.tasks.child import ChildFault, call_in_child
from ..system.tasks.task import MS, DeadlineExceeded
from ..system.tasks.task import run as run_task
from ..users.requests import site_options
from ..wire.errors import ProtocolError
from ..wire.job_names import is_name
from ..wire.job_names_answer import decode_names
from ..wire.user_exchange import UserRequest
from .main import die
from .user_client import ask_ok

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from ..system.tasks.task import Task

    Names = dict[int, str]

LOOK_NS, ASK_NS = 1_000 * MS, 1_000 * MS
#: Of one user on one node.
PROCESS_CAP = 4096


def names_of_jobs(job_ids: Iterable[int]) -> Names:
    """The names of those of the user's jobs that have one besides their number."""
    wanted = tuple(job_ids)
    try:
        plain = run_task(_find_plain(wanted))
    except (ChildFault, DeadlineExceeded, OSError):
        plain = frozenset()  # a process of the user's does not let itself be read
    others = tuple(job_id for job_id in wanted if job_id not in plain)
    found = _from_controller(others) if others else {}
    return {job_id: name for job_id, name in found.items() if is_name(name)}


def job_called(name: str, socket: str) -> int:
    """The number of the user's job on this node that has this name; ends the command if there is none."""
    jobs = ask_ok(UserRequest("jobs"), socket).jobs
    found = [job_id for job_id, one in names_of_jobs(job.job_id for job in jobs).items() if one == name]
    if not found:
        die(f"you have no job {name} on this node, or its name is not known here", "slurm-adopt jobs lists them")
    return found[0]


def _find_plain(wanted: tuple[int, ...]) -> Task[frozenset[int]]:
    """Those of the jobs whose processes all say that their job is called by its number."""

    def work() -> bytes:
        plain: dict[int, bool] = {}
        for number in list_numbers()[-PROCESS_CAP:]:
            process = read_owned_process(number)
            if process is None or process.uid != os.geteuid():
                continue
            for job_id, name in claims_of(read_environ(process)).items():
                plain[job_id] = plain.get(job_id, True) and not is_name(name)
        return " ".join(["0", *(str(job_id) for job_id in wanted if plain.get(job_id))]).encode("ascii")

    text = yield from call_in_child(work, time.monotonic_ns() + LOOK_NS)
    return frozenset(map(int, text.split(b" ")))


def _from_controller(wanted: tuple[int, ...]) -> Names:
    workers = MungeWorkers()
    try:
        return run_task(_ask(workers, wanted))
    except (ConfFault, NoAnswer, ProtocolError, DeadlineExceeded, OSError):
        return {}
    finally:
        workers.close()


def _ask(workers: MungeWorkers, wanted: tuple[int, ...]) -> Task[Names]:
    deadline_ns = time.monotonic_ns() + ASK_NS
    conf = yield from FreshLookup().read_conf(deadline_ns, site_options().slurm_conf)
    message, _ = yield from ask_user_jobs(conf, workers, 0, os.geteuid(), deadline_ns)
    return decode_names(message, os.geteuid(), wanted)
