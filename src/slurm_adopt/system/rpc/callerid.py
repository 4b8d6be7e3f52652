# SPDX-License-Identifier: Apache-2.0
"""Network caller ID: which of the user's jobs does this ssh connection come from?

Rules of this file:
1. From this machine: the kernel knows, nobody is asked. From elsewhere: only the slurmd of a configured node is asked.
2. An answer is believed only with a good credential of root's or SlurmdUser's that is bound to it. Refusals prove
   nothing and only end the question.
3. It never costs more than its deadline, whatever the other side does: drop packets, accept and stay silent, drip.
4. There is no negotiation in the protocol. The question goes out in the version of this node's own slurmstepd, then, on
   a closed connection or a refusal that may mean the version, in lower ones, each with a new credential.
5. It never raises for what others do: the outcome is a status. The job is a claim about a number; that it is the user's
   own, the caller of this file knows from its slurmstepd.
"""

from __future__ import annotations

import _socket
import os
import time

from ...model import CallerFact, Fault
from ...record import record
from ...wire import callerid
from ...wire.cgroup_path import job_by_name, same_job
from ...wire.errors import Incomplete, LocalProtocolError, RemoteProtocolError
from ...wire.rpc_hash import BOUND_NOT, check_payload, hash_payload
from ..kernel.local_end import find_local_end, is_here
from ..kernel.procfs import read_cgroups
from ..tasks.sockets import connect_tcp, packed
from ..tasks.task import MS, DeadlineExceeded, HelperNeeded, all_of, raise_own_lack
from .credentials import AuthFault, check_credential, make_credential, speaker
from .munge import MungeWorkers, may_become_others
from .peers import find_nodes_of_peer
from .tls import TlsFault, open_stream

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import NoReturn

    from ...wire.login_exchange import Connection
    from ...wire.slurm_nodes import NodeRecord
    from ..kernel.procfs import AnyProcess
    from ..slurm.conf import SlurmConf
    from ..tasks.sockets import Socket
    from ..tasks.task import Task
    from .memory import CallerMemory
    from .tls import Stream

# a slurmd answers in 8 to 46 ms (41 jobs); who was given this long and says nothing is not asked again for a while
FAIR_NS = 250 * MS
#: A machine that takes the connection is there. Its slurmd may be as busy as the machine is that has started all these
#: logins, and gets so many times what the site grants; dropped packets do not.
BUSY = 4
# a slurmd takes its own release's version and three older ones; four tries meet every supported pair
MAX_TRIES = 4
# the first release whose slurmd's port speaks TLS (25.05)
FIRST_TLS = 43 << 8


class CallerFault(Fault):
    """The question has no believable answer."""


class LowerVersion(CallerFault):
    """This version may be the reason for no answer."""


class Silence(DeadlineExceeded):
    """The other side has said nothing for `waited_ns`, the time that it really had."""

    def __init__(self, waited_ns: int) -> None:
        super().__init__()
        self.waited_ns = waited_ns


@record
class Question:
    """One connection as this end sees it: packed addresses (4 or 16 bytes) and ports."""

    source: bytes
    source_port: int
    target: bytes
    target_port: int


def question_of(connection: Connection) -> Question:
    """The question about a connection; `ValueError` if its addresses are none."""
    return Question(
        packed(connection.peer_address),
        connection.peer_port,
        packed(connection.local_address),
        connection.local_port,
    )


def find_caller(
    conf: SlurmConf,
    connection: Connection | None,
    uid: int,
    own: Sequence[tuple[int, AnyProcess]],
    version: int,
    deadline_ns: int,
    memory: CallerMemory | None = None,
    budget_ns: int = 60_000 * MS,
    silent: Sequence[int] = (),
) -> Task[CallerFact]:
    """The job that a connection comes from, by `deadline_ns`.

    `own`: the user's jobs here, each with its extern step's slurmstepd, both proven. `version`: the highest protocol
    version among them. `memory`: the resident service's. `budget_ns`: what the site grants a machine that gives no
    sign; `deadline_ns` may be earlier because the login has little time left. `silent`: jobs here that may be the
    user's, whose slurmstepds have not answered; one of these is found without a proof that it is the user's. `status`
    of the result is `found`, `unknown`, or a reason code.
    """
    if connection is None:
        return CallerFact("unknown")
    source = connection.peer_address
    try:
        question = question_of(connection)
        if is_here(connection):
            job_id = yield from _find_here(connection, uid, own, silent, deadline_ns)
        else:
            asker = Asker(conf, question, version, uid, memory, min(FAIR_NS, budget_ns * 3 // 4))
            job_id = yield from _find_in_turn(asker, source, deadline_ns, budget_ns)
    except CallerFault as fault:
        return CallerFact(fault.reason, 0, source, fault.detail)
    except DeadlineExceeded:
        return CallerFact("caller-silent", 0, source, "no answer in time")
    except LocalProtocolError as error:
        return CallerFact("unknown", 0, source, str(error))
    except ValueError:
        return CallerFact("unknown", 0, source)
    except BlockingIOError:
        return CallerFact("unknown", 0, source, "too many logins of this user look for where they come from")
    if job_id and job_id not in [job for job, _ in own] and job_id not in silent:
        return CallerFact("caller-foreign", 0, source, f"job {job_id} has no extern step of uid {uid} here")
    return CallerFact("found" if job_id else "unknown", job_id or 0, source)


def _find_here(
    connection: Connection, uid: int, own: Sequence[tuple[int, AnyProcess]], silent: Sequence[int], deadline_ns: int
) -> Task[int | None]:
    end = yield from find_local_end(connection, uid, deadline_ns)
    if end is not None:
        for job_id, stepd in own:
            if same_job(read_cgroups(stepd) or b"", end.cgroups):
                return job_id
        return job_by_name(end.cgroups, silent) or None
    return None


@record
class Asker:
    """The parts that all questions about one login of `uid` share: `version` is the highest one to ask in, `memory` the
    resident service's. Who says nothing for `fair_ns` is not asked again for a while."""

    conf: SlurmConf
    question: Question
    version: int
    uid: int
    memory: CallerMemory | None = None
    fair_ns: int = FAIR_NS


def _find_in_turn(asker: Asker, source: str, deadline_ns: int, budget_ns: int) -> Task[int | None]:
    """slurmd answers fifty questions at once later than four at a time, and a credential is a process of ours each."""
    turns = asker.memory.turns if asker.memory is not None else None
    key = (source, asker.uid)
    if turns is not None:
        yield from turns.wait(key, deadline_ns)
    try:
        return (yield from _find_elsewhere(asker, source, deadline_ns, budget_ns))
    finally:
        if turns is not None:
            turns.leave(key)


def _find_elsewhere(asker: Asker, source: str, deadline_ns: int, budget_ns: int) -> Task[int | None]:
    connect_ns = min(deadline_ns, time.monotonic_ns() + budget_ns)
    deadline_ns = min(deadline_ns, time.monotonic_ns() + BUSY * budget_ns)
    nodes = yield from find_nodes_of_peer(asker.conf, source, connect_ns, asker.memory, asker.uid)
    if not nodes:
        raise CallerFault("caller-not-a-node", f"{source} is no configured node's address")
    tasks = [_ask_remembering(asker, node, deadline_ns, connect_ns) for node in nodes]
    # each ends at the deadline by itself and says then how long it has waited: nobody is to close it just before that
    outcomes = yield from all_of(tasks, deadline_ns + 60_000 * MS)
    answers = [outcome for outcome in outcomes if isinstance(outcome, callerid.CallerReply)]
    for answer in answers:
        if answer.job_id is not None:
            return answer.job_id
    if answers:
        return None
    for outcome in outcomes:
        if isinstance(outcome, Exception):
            raise outcome
    return None


def _ask_remembering(asker: Asker, node: NodeRecord, deadline_ns: int, connect_ns: int) -> Task[callerid.CallerReply]:
    """Call `ask_node`. Skip a slurmd that has timed out recently; remember one that times out now."""
    memory, place = asker.memory, (node.address, node.port)
    silent_ns = memory.silent_ns(place, asker.uid) if memory is not None else 0
    if silent_ns:
        raise CallerFault("caller-skipped", f"{node.name} did not answer; not asked for {silent_ns // 10**9 + 1} s")
    begun_ns = time.monotonic_ns()
    try:
        return (yield from ask_node(asker, node, deadline_ns, connect_ns))
    except Silence as silence:
        if memory is not None and silence.waited_ns >= asker.fair_ns:
            memory.keep_silence(place, asker.uid, begun_ns)
        raise


def ask_node(asker: Asker, node: NodeRecord, deadline_ns: int, connect_ns: int = 0) -> Task[callerid.CallerReply]:
    """The believed answer of one slurmd at `node.address` (a number).

    `connect_ns`: when the machine has to have taken the connection, if that is earlier than `deadline_ns`.
    `CallerFault`; `Silence`, or `DeadlineExceeded` if this end has had no time.
    """
    memory = asker.memory
    workers = memory.workers if memory is not None and memory.workers is not None else MungeWorkers()
    try:
        return (yield from _ask_versions(asker, node, workers, deadline_ns, connect_ns or deadline_ns))
    finally:
        if memory is None or workers is not memory.workers:
            workers.close()


def _ask_versions(
    asker: Asker, node: NodeRecord, workers: MungeWorkers, deadline_ns: int, connect_ns: int
) -> Task[callerid.CallerReply]:
    memory = asker.memory
    place = (node.address, node.port)
    known = memory.version_of(place) if memory is not None else 0
    detail = ""
    for tried in _versions(asker.version, known):
        try:
            reply = yield from _ask_version(asker, node, tried, workers, deadline_ns, connect_ns)
        except LowerVersion as reason:
            detail = reason.detail
        except (AuthFault, TlsFault) as fault:
            raise CallerFault(fault.reason, fault.detail) from None
        except RemoteProtocolError as error:
            raise CallerFault("caller-malformed", str(error)) from None
        except OSError as error:
            raise_own_lack(error)
            raise CallerFault("caller-unreachable", error.strerror or str(error)) from None
        else:
            if memory is not None:
                memory.keep_answer(place, tried, asker.uid)
            return reply
        if memory is not None and tried == known:
            memory.forget_version(place)
    raise CallerFault("caller-refused", detail)


def _versions(version: int, known: int) -> list[int]:
    """Return the versions to try: first the one that worked before, then this node's own and lower ones."""
    highest = min(max(version, callerid.FIRST_VERSION), callerid.LAST_VERSION) & 0xFF00
    lowest = max(callerid.FIRST_VERSION, highest - (MAX_TRIES - 1 << 8))
    usual = [tried for tried in range(highest, lowest - 1, -0x100) if tried != known]
    return [known, *usual] if known else usual


def _ask_version(
    asker: Asker, node: NodeRecord, version: int, workers: MungeWorkers, deadline_ns: int, connect_ns: int
) -> Task[callerid.CallerReply]:
    conf = asker.conf
    as_uid = speaker(conf, version, asker.uid)
    if workers.outlive_logins and as_uid != os.geteuid() and not may_become_others():
        raise HelperNeeded(f"version {version >> 8} is asked as the user, and this service may not become one")
    family = _socket.AF_INET6 if ":" in node.address else _socket.AF_INET
    begun_ns = time.monotonic_ns()
    try:
        sock = yield from connect_tcp(family, (node.address, node.port), min(deadline_ns, connect_ns))
    except DeadlineExceeded:
        raise Silence(time.monotonic_ns() - begun_ns) from None
    try:
        request = yield from _request(conf, workers, asker.question, version, as_uid, deadline_ns)
        data = yield from receive_answer(conf, sock, request, version, deadline_ns)
    finally:
        sock.close()
    message = callerid.decode_message(data)
    if message.msg_type == callerid.RESPONSE_SLURM_RC:
        refused(callerid.decode_return_code(message))
    if message.msg_type != callerid.RESPONSE_NETWORK_CALLERID or message.version != version:
        raise RemoteProtocolError(f"message {message.msg_type} of version {message.version:#x} for an answer")
    yield from _check_sender(conf, workers, message, as_uid, deadline_ns)
    return callerid.decode_caller_reply(message)


def receive_answer(
    conf: SlurmConf, sock: Socket, request: bytes, version: int, deadline_ns: int, cap: int = callerid.MAX_MESSAGE
) -> Task[bytes]:
    """Send a request and receive one whole message; `Silence`, or `LowerVersion` of a peer that closes."""
    begun_ns = time.monotonic_ns()
    tls = conf.tls_type not in ("tls/none", "") and version >= FIRST_TLS
    try:
        stream = yield from open_stream(sock, conf, tls, deadline_ns)
        yield from stream.send(request, deadline_ns)
        return (yield from _receive_message(stream, deadline_ns, cap))
    except ConnectionError as error:
        raise LowerVersion("caller-refused", f"closed: {error}") from None
    except DeadlineExceeded:
        raise Silence(time.monotonic_ns() - begun_ns) from None


def _check_sender(
    conf: SlurmConf, workers: MungeWorkers, message: callerid.Message, as_uid: int, deadline_ns: int
) -> Task[None]:
    plugin, credential = message.plugin, message.credential
    try:
        sender = yield from check_credential(conf, workers, message.version, plugin, credential, as_uid, deadline_ns)
    except DeadlineExceeded:
        raise CallerFault("caller-no-credential", "munged or SACK did not answer in time") from None
    if sender.restricted_to != as_uid:
        # slurmd makes its replies for the asker alone (20.11.4 to 26.05.5); a root's credential for all eyes is what
        # the original module and others send around
        raise CallerFault("caller-untrusted", f"the credential is for uid {sender.restricted_to}")
    bound = check_payload(sender.payload, message.version, message.msg_type, message.body)
    if bound is None or (bound == BOUND_NOT and "block_null_hash" in conf.communication_parameters):
        raise CallerFault("caller-untrusted", f"the credential belongs to another message ({sender.payload[:4].hex()})")


def _request(
    conf: SlurmConf, workers: MungeWorkers, question: Question, version: int, as_uid: int, deadline_ns: int
) -> Task[bytes]:
    kind = callerid.REQUEST_NETWORK_CALLERID
    try:
        body = callerid.encode_request_body(
            question.source, question.source_port, question.target, question.target_port
        )
        payload = hash_payload(version, kind, body)
        plugin, credential = yield from make_credential(conf, workers, version, payload, as_uid, deadline_ns)
        return callerid.encode_message(version, kind, body, plugin, credential)
    except DeadlineExceeded:
        raise CallerFault("caller-no-credential", "munged or SACK did not answer in time") from None


def refused(code: int) -> NoReturn:
    """Raise what a refusal means."""
    if code in (callerid.RC_AUTHENTICATION, callerid.RC_PROTOCOL_VERSION):
        # 25.05 and 25.11 answer a version that they do not know with 1007
        raise LowerVersion("caller-refused", f"return code {code}")
    raise CallerFault("caller-refused", f"return code {code}")


def _receive_message(stream: Stream, deadline_ns: int, cap: int) -> Task[bytes]:
    """One whole message; anything that comes after it is not waited for."""
    data = b""
    while True:
        if data.startswith(b"HTTP"):
            # 25.11 and later listen for HTTP on the same port, and take an unknown version for that (seen on 26.05)
            raise LowerVersion("caller-refused", "answered in HTTP")
        try:
            total = callerid.decode_length(data, cap)
            if len(data) >= total:
                return data
        except Incomplete:
            pass
        try:
            data += yield from stream.receive(deadline_ns)
        except ConnectionResetError:
            if data:
                raise RemoteProtocolError(f"the answer ends after {len(data)} bytes") from None
            raise
