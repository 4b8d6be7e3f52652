# SPDX-License-Identifier: Apache-2.0
"""Asking slurmctld when a job ends and which jobs a user has, over the wire and with the node's own credential (or,
for `slurm-adopt jobs`, with that of the user who asks). No program is started.

Never before a login is decided: a controller that is busy or gone costs whoever asks its whole time.

Rules of this file:
1. Only the controllers that slurm.conf names are asked, one after the other; each gets a share of the time.
2. A credential of ours is for SlurmUser's eyes only and is bound to its message. Where a version cannot bind it (20.11,
   21.08), nobody is asked: what the node knows has to do.
3. Nobody can tell who has answered (slurmctld sends no credential from 23.02 on). The answer is told to the job's own
   user, and decides nothing.
"""

from __future__ import annotations

import _socket
import os
import time

from ...record import record, replace
from ...wire import job_end_question as question
from ...wire import user_jobs_question as jobs_question
from ...wire.callerid import MAX_MESSAGE, RESPONSE_SLURM_RC, decode_message, decode_return_code, encode_message
from ...wire.errors import ProtocolError
from ...wire.rpc_hash import FIRST_HASHED, hash_payload
from ..slurm.accounts import uid_of_slurm_user
from ..tasks.child import ChildFault, call_in_child
from ..tasks.sockets import connect_tcp, packed
from ..tasks.task import MS, DeadlineExceeded
from .callerid import FIRST_TLS, CallerFault, LowerVersion, receive_answer, refused
from .credentials import AuthFault, make_credential
from .tls import TlsFault

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from ...wire.callerid import Message
    from ...wire.user_jobs_question import JobPlace
    from ..slurm.conf import SlurmConf
    from ..tasks.task import Task
    from .munge import MungeWorkers

    Place = tuple[str, int]

DEFAULT_PORT = 6817
#: A primary and its backups.
CONTROLLER_CAP = 8
RESOLVE_NS = 500 * MS
#: What a question may end with; each costs an answer that nothing depends on.
FAULTS = (DeadlineExceeded, OSError, ProtocolError, AuthFault, CallerFault, TlsFault, ChildFault)


class NoAnswer(Exception):
    """No controller has answered, or none in a way that can be used. `is_silent`: it may be the same for everybody."""

    def __init__(self, detail: str, is_silent: bool) -> None:
        super().__init__(detail)
        self.is_silent = is_silent


@record
class UserJobs:
    """What slurmctld knows of a user's jobs: its own time, and where each job is; the version that it was asked in."""

    now_s: int
    places: tuple[JobPlace, ...]
    version: int


def controllers_of(conf: SlurmConf) -> tuple[tuple[str, int], ...]:
    """(name or address, port) of each controller, the primary first."""
    port, address = DEFAULT_PORT, ""
    hosts: list[str] = []
    old: dict[str, str] = {}
    for key, value, _, _ in conf.statements:
        if key == "slurmctldhost":
            # a record key: its value is the whole line
            name, _, rest = value.split()[0].partition("=")[2].partition("(")
            hosts.append(rest.rstrip(")") or name)
        elif key == "slurmctldaddr":
            address = value
        elif key == "slurmctldport":
            first = value.partition("-")[0]
            port = int(first) if first.isascii() and first.isdigit() and 0 < int(first) < 65536 else DEFAULT_PORT
        elif key in ("controlmachine", "controladdr", "backupcontroller", "backupaddr"):
            old[key] = value
    if address:
        hosts[:1] = [address]
    if not hosts:  # how it was written before 18.08, and still may be in 20.11
        pairs = (("controladdr", "controlmachine"), ("backupaddr", "backupcontroller"))
        hosts = [old.get(one) or old[other] for one, other in pairs if old.get(one) or old.get(other)]
    return tuple((host, port) for host in hosts[:CONTROLLER_CAP])


def query_end(conf: SlurmConf, workers: MungeWorkers, version: int, job_id: int, deadline_ns: int) -> Task[int | None]:
    """When the job ends, in seconds since 1970; 0 if slurmctld does not know the job; None if nobody answered.

    `version` is that of a slurmstepd of this node. It raises nothing, the deadline included.
    """
    version = min(version & 0xFF00, question.LAST_VERSION)
    user = uid_of_slurm_user(conf)
    if user is None or (conf.auth_type == "auth/munge" and version < FIRST_HASHED):
        return None
    for place, until_ns in _shares(conf, deadline_ns):
        try:
            return (yield from _ask_end(_for_eyes_of(conf, user), workers, place, version, job_id, until_ns))
        except FAULTS:
            continue
    return None


def query_user_jobs(conf: SlurmConf, workers: MungeWorkers, known: int, uid: int, deadline_ns: int) -> Task[UserJobs]:
    """The jobs of one user, wherever they are. `NoAnswer`, and nothing else, the deadline included.

    `known` is the version that slurmctld has answered to before (0: none).
    """
    message, version = yield from ask_user_jobs(conf, workers, known, uid, deadline_ns)
    try:
        now_s, places = jobs_question.decode_reply(message, uid)
    except ProtocolError as fault:
        raise NoAnswer(str(fault), is_silent=False) from None
    return UserJobs(now_s, places, version)


def ask_user_jobs(
    conf: SlurmConf, workers: MungeWorkers, known: int, uid: int, deadline_ns: int
) -> Task[tuple[Message, int]]:
    """slurmctld's answer about a user's jobs, and the version that it was asked in; as `query_user_jobs`.

    Root may ask for anybody, and users for themselves.
    """
    user = uid_of_slurm_user(conf)
    if user is None:
        raise NoAnswer("SlurmUser is not known here", is_silent=False)
    fault: Exception = NoAnswer("no controller is configured", is_silent=False)
    for place, until_ns in _shares(conf, deadline_ns):
        for version in _versions(conf, known):
            try:
                return (yield from _ask_jobs(_for_eyes_of(conf, user), workers, place, version, uid, until_ns))
            except LowerVersion as reason:
                fault = reason
            except FAULTS as other:
                fault = other
                break
    is_silent = not isinstance(fault, (ProtocolError, NoAnswer))
    raise NoAnswer(str(fault) or type(fault).__name__, is_silent)


def _shares(conf: SlurmConf, deadline_ns: int) -> Iterator[tuple[Place, int]]:
    """The controllers, and until when each of them may take."""
    controllers = controllers_of(conf)
    for index, place in enumerate(controllers):
        now_ns = time.monotonic_ns()
        yield place, now_ns + (deadline_ns - now_ns) // (len(controllers) - index)


def _for_eyes_of(conf: SlurmConf, user: int) -> SlurmConf:
    """For make_credential(), which makes one for the last of the step owners."""
    return replace(conf, step_owners=(0, user))


def _versions(conf: SlurmConf, known: int) -> list[int]:
    """In which versions slurmctld may be asked for a user's jobs, the likely one first.

    Each slurmctld from 22.05 on takes one of them; the last one is for those that are newer than 26.05. TLS came with
    it, and auth/slurm with 23.11.
    """
    if conf.tls_type not in ("tls/none", ""):
        return [FIRST_TLS]
    least = FIRST_HASHED if conf.auth_type == "auth/munge" else FIRST_HASHED + 0x100
    usual = [version << 8 for version in (42, 40, 38, 43) if version << 8 >= least]
    return sorted(usual, key=lambda version: version != known)


def _ask_end(
    conf: SlurmConf, workers: MungeWorkers, place: Place, version: int, job_id: int, deadline_ns: int
) -> Task[int]:
    kind, body = question.REQUEST_JOB_END_TIME, question.encode_request(job_id)
    message = yield from _ask(conf, workers, place, version, kind, body, deadline_ns)
    if message.msg_type == RESPONSE_SLURM_RC:
        code = decode_return_code(message)
        if code == question.RC_INVALID_JOB_ID:
            return 0
        refused(code)
    return question.decode_reply(message, job_id)


def _ask_jobs(
    conf: SlurmConf, workers: MungeWorkers, place: Place, version: int, uid: int, deadline_ns: int
) -> Task[tuple[Message, int]]:
    kind, body = jobs_question.REQUEST_USER_JOBS, jobs_question.encode_request(uid)
    message = yield from _ask(conf, workers, place, version, kind, body, deadline_ns, jobs_question.ANSWER_CAP)
    if message.msg_type == RESPONSE_SLURM_RC:
        refused(decode_return_code(message))
    return message, version


def _ask(
    conf: SlurmConf,
    workers: MungeWorkers,
    place: Place,
    version: int,
    kind: int,
    body: bytes,
    deadline_ns: int,
    cap: int = MAX_MESSAGE,
) -> Task[Message]:
    address = yield from _address_of(place[0], deadline_ns)
    family = _socket.AF_INET6 if ":" in address else _socket.AF_INET
    payload = hash_payload(version, kind, body)
    plugin, credential = yield from make_credential(conf, workers, version, payload, os.geteuid(), deadline_ns)
    socket = yield from connect_tcp(family, (address, place[1]), deadline_ns)
    try:
        request = encode_message(version, kind, body, plugin, credential)
        return decode_message((yield from receive_answer(conf, socket, request, version, deadline_ns, cap)), cap)
    finally:
        socket.close()


def _address_of(host: str, deadline_ns: int) -> Task[str]:
    try:
        packed(host)
    except ValueError:
        until_ns = min(deadline_ns, time.monotonic_ns() + RESOLVE_NS)
        return (yield from call_in_child(lambda: _resolve(host), until_ns)).decode("ascii")
    return host


def _resolve(host: str) -> bytes:
    """In the child: a resolver may wait for seconds."""
    found = _socket.getaddrinfo(host, None, 0, _socket.SOCK_STREAM)
    return str(found[0][4][0]).encode("ascii")
