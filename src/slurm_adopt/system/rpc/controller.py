# SPDX-License-Identifier: Apache-2.0
"""Asking slurmctld when a job ends, over the wire and with the node's own credential. No program is started.

Never in a login: a controller that is busy or gone costs whoever asks its whole time.

Rules of this file:
1. Only the controllers that slurm.conf names are asked, one after the other; each gets a share of the time.
2. A credential of ours is for SlurmUser's eyes only and is bound to its message. Where a version cannot bind it (20.11,
   21.08), nobody is asked: what the node knows has to do.
3. Nobody can tell who has answered (slurmctld sends no credential from 23.02 on). The answer is told to the job's own
   user, and decides nothing.
"""

from __future__ import annotations

import _socket
import time

from ...record import replace
from ...wire import job_end_question as question
from ...wire.callerid import RESPONSE_SLURM_RC, decode_message, decode_return_code, encode_message
from ...wire.errors import ProtocolError
from ...wire.rpc_hash import FIRST_HASHED, hash_payload
from ..slurm.accounts import uid_of_slurm_user
from ..tasks.child import ChildFault, call_in_child
from ..tasks.sockets import connect_tcp, packed
from ..tasks.task import MS, DeadlineExceeded
from .callerid import CallerFault, receive_answer
from .credentials import AuthFault, make_credential
from .tls import TlsFault

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..slurm.conf import SlurmConf
    from ..tasks.task import Task
    from .munge import MungeWorkers

DEFAULT_PORT = 6817
#: A primary and its backups.
CONTROLLER_CAP = 8
RESOLVE_NS = 500 * MS


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
    controllers = controllers_of(conf)
    if user is None or (conf.auth_type == "auth/munge" and version < FIRST_HASHED):
        return None
    # make_credential() makes it for the last of them
    conf = replace(conf, step_owners=(0, user))
    for index, (host, port) in enumerate(controllers):
        now_ns = time.monotonic_ns()
        until_ns = now_ns + (deadline_ns - now_ns) // (len(controllers) - index)
        try:
            return (yield from _ask(conf, workers, (host, port), version, job_id, until_ns))
        except (DeadlineExceeded, OSError, ProtocolError, AuthFault, CallerFault, TlsFault, ChildFault):
            continue
    return None


def _ask(
    conf: SlurmConf, workers: MungeWorkers, place: tuple[str, int], version: int, job_id: int, deadline_ns: int
) -> Task[int]:
    address = yield from _address_of(place[0], deadline_ns)
    family = _socket.AF_INET6 if ":" in address else _socket.AF_INET
    body = question.encode_request(job_id)
    kind = question.REQUEST_JOB_END_TIME
    payload = hash_payload(version, kind, body)
    plugin, credential = yield from make_credential(conf, workers, version, payload, 0, deadline_ns)
    socket = yield from connect_tcp(family, (address, place[1]), deadline_ns)
    try:
        request = encode_message(version, kind, body, plugin, credential)
        message = decode_message((yield from receive_answer(conf, socket, request, version, deadline_ns)))
    finally:
        socket.close()
    if message.msg_type == RESPONSE_SLURM_RC:
        code = decode_return_code(message)
        if code == question.RC_INVALID_JOB_ID:
            return 0
        raise CallerFault("caller-refused", f"return code {code}")
    return question.decode_reply(message, job_id)


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
