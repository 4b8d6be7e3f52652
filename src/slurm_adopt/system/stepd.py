# SPDX-License-Identifier: Apache-2.0
"""Talking to one slurmstepd.

Rules of this file:
1. One connection per step, closed as soon as it is not needed: an open one delays the step's end by up to 3 s.
2. Before anything is believed: the listener is root's (SO_PEERCRED) and is the very process that calls itself
   slurmstepd (opcode 9). The equality also proves that both see the same pid namespace, which "add" silently needs.
3. "0" for an answer is not an adoption: only /proc/PID/cgroup is (cgroup/v2 answers 0 even if the move failed).
4. Every failure is a `StepFault` with a reason code.
"""

from __future__ import annotations

import _socket
import errno
import os

from ..model import STEP_CLOSED, STEP_ENDING, STEP_GONE, STEP_MALFORMED, STEP_SILENT, STEP_UNTRUSTED
from ..record import record
from ..wire import stepd as wire
from ..wire.cursor import Cursor
from ..wire.errors import Incomplete, RemoteProtocolError
from . import procfs, sock
from .task import DeadlineExceeded

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TypeVar

    from .task import Task

    T = TypeVar("T")

#: The longest reply is the list of pids; whoever sends more without being asked is not a slurmstepd.
BUFFER_CAP = 4 * wire.PIDS_CAP + 64
READ_SIZE = 8192


class StepFault(Exception):
    """This step can't be used; `reason` is the reason code."""

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(detail or reason)
        self.reason = reason


@record
class Identity:
    """Who a step is: slurmstepd's protocol version, pid and start time, the job owner's uid, the step's state."""

    version: int
    pid: int
    started: int
    uid: int
    state: str


@record
class Namespace:
    """A namespace of the job: its kind and a descriptor, which belongs to whoever holds this."""

    kind: str
    fd: int


class StepConnection:
    """An open connection to a slurmstepd. Use `connect_step` to get one, `close()` to give it up."""

    def __init__(self, socket: sock.Socket, deadline_ns: int) -> None:
        self.socket = socket
        self.deadline_ns = deadline_ns
        self.buffer = b""
        self.identity: Identity | None = None

    def close(self) -> None:
        """Give the connection up."""
        self.socket.close()

    def send(self, data: bytes) -> Task[None]:
        """One write, so that an opcode and its arguments arrive together."""
        try:
            yield from sock.send_all(self.socket, data, self.deadline_ns)
        except DeadlineExceeded:
            raise StepFault(STEP_SILENT, "slurmstepd takes no more requests") from None
        except OSError as error:
            raise _fault(error) from None

    def read(self, decode: Callable[[Cursor], T]) -> Task[T]:
        """The next reply."""
        while True:
            cursor = Cursor(self.buffer)
            try:
                value = decode(cursor)
            except Incomplete:
                yield from self._fill()
                continue
            except RemoteProtocolError as error:
                raise StepFault(STEP_MALFORMED, str(error)) from None
            self.buffer = self.buffer[cursor.position :]
            return value

    def ask(self, request: bytes, decode: Callable[[Cursor], T]) -> Task[T]:
        """Send a request and return its reply."""
        yield from self.send(request)
        return (yield from self.read(decode))

    def read_descriptor(self) -> Task[int]:
        """The one descriptor that comes with the next byte. The caller owns it."""
        if self.buffer:
            raise StepFault(STEP_MALFORMED, "bytes where a descriptor should come")
        try:
            data, fds, flags = yield from sock.receive_with_fds(self.socket, 1, self.deadline_ns)
        except DeadlineExceeded:
            raise StepFault(STEP_SILENT, "a namespace's descriptor never came") from None
        except OSError as error:
            raise _fault(error) from None
        if len(fds) != 1 or len(data) != 1 or flags & _socket.MSG_CTRUNC:
            sock.close_all(fds)
            raise StepFault(STEP_CLOSED if not data else STEP_MALFORMED, f"{len(fds)} descriptors instead of one")
        return fds[0]

    def _fill(self) -> Task[None]:
        if len(self.buffer) > BUFFER_CAP:
            raise StepFault(STEP_MALFORMED, "an endless reply")
        try:
            self.buffer += yield from sock.receive(self.socket, READ_SIZE, self.deadline_ns)
        except DeadlineExceeded:
            raise StepFault(STEP_SILENT, "slurmstepd does not answer") from None
        except OSError as error:
            raise _fault(error) from None


def connect_step(path: str, owners: tuple[int, ...], deadline_ns: int) -> Task[StepConnection]:
    """Connect to the extern step at `path` and learn who it is (one round trip)."""
    try:
        socket = yield from sock.connect_unix(path, _socket.SOCK_STREAM, deadline_ns)
    except DeadlineExceeded:
        raise StepFault(STEP_SILENT, "slurmstepd's backlog is full") from None
    except OSError as error:
        raise _fault(error) from None
    connection = StepConnection(socket, deadline_ns)
    try:
        peer = sock.peer_of(socket)
        if peer.uid not in owners:
            raise StepFault(STEP_UNTRUSTED, f"the listener is uid {peer.uid}")
        requests = (wire.DAEMON_PID, wire.UID, wire.STATE)
        yield from connection.send(wire.encode_handshake() + b"".join(map(wire.encode_request, requests)))
        version = yield from connection.read(wire.decode_version)
        pid = yield from connection.read(wire.decode_int)
        uid = yield from connection.read(wire.decode_uid)
        state = yield from connection.read(wire.decode_int)
        started = procfs.read_started(pid)
        if pid != peer.pid or pid <= 1 or not started:
            raise StepFault(STEP_UNTRUSTED, f"the listener is process {peer.pid}, slurmstepd says {pid}")
        connection.identity = Identity(version, pid, started, uid, wire.state_name(state))
        return connection
    except BaseException:
        connection.close()
        raise


def query_state(connection: StepConnection) -> Task[str]:
    """The step's state now."""
    state = yield from connection.ask(wire.encode_request(wire.STATE), wire.decode_int)
    return wire.state_name(state)


def add_process(connection: StepConnection, pid: int) -> Task[None]:
    """Ask the step to take the process in. That it says yes proves nothing yet."""
    try:
        code = yield from connection.ask(wire.encode_pid_request(wire.ADD_PID, pid), wire.decode_int)
    except StepFault as fault:
        if fault.reason == STEP_CLOSED:
            # 24.11.6+, 25.05.1+: a step that is cancelled or later closes without a reply
            raise StepFault(STEP_ENDING, "slurmstepd closed instead of adding: the step is ending") from None
        raise
    if code != 0:
        raise StepFault("adopt-refused", f"slurmstepd answered {code}")


def query_pid_in_step(connection: StepConnection, pid: int) -> Task[bool]:
    """Whether the step's own book-keeping has the process."""
    return (yield from connection.ask(wire.encode_pid_request(wire.PID_IN_STEP, pid), wire.decode_bool))


def query_pids(connection: StepConnection) -> Task[tuple[int, ...]]:
    """The processes of the step, as slurmstepd reads them from its cgroup."""
    return (yield from connection.ask(wire.encode_request(wire.PIDS), wire.decode_pids))


def query_x11(connection: StepConnection) -> Task[wire.X11Display]:
    """The job's X11 tunnel."""
    return (yield from connection.ask(wire.encode_request(wire.X11), wire.decode_x11))


def query_namespaces(connection: StepConnection) -> Task[list[Namespace]]:
    """The job's namespaces, in the order to join them; empty if it has none. The caller owns the descriptors."""
    assert connection.identity is not None
    if connection.identity.version >= wire.VERSION_25_11:
        return (yield from _query_typed_namespaces(connection))
    try:
        yield from connection.send(wire.encode_request(wire.NAMESPACE))
        count = yield from _read_int_alone(connection)
    except StepFault as fault:
        # opcode 26 is unknown before 20.11.5: such a slurmstepd closes
        if fault.reason == STEP_CLOSED and connection.identity.version == wire.OLDEST_VERSION:
            return []
        raise
    if count == 0:
        return []
    if count < 0:
        raise StepFault("namespace-failed", "slurmstepd could not open the job's mount namespace")
    fd = yield from connection.read_descriptor()
    return [Namespace("mount", fd)]


def _query_typed_namespaces(connection: StepConnection) -> Task[list[Namespace]]:
    yield from connection.send(wire.encode_request(wire.NAMESPACES))
    count = yield from _read_int_alone(connection)
    if not 0 <= count <= wire.NAMESPACE_CAP:
        raise StepFault("namespace-failed", f"slurmstepd answered {count} namespaces")
    found: list[Namespace] = []
    try:
        for _ in range(count):
            number = yield from _read_int_alone(connection)
            kind = wire.namespace_kind(number)
            found.append(Namespace(kind, (yield from connection.read_descriptor())))
    except BaseException as error:
        sock.close_all([namespace.fd for namespace in found])
        if isinstance(error, RemoteProtocolError):
            raise StepFault("namespace-failed", str(error)) from None
        raise
    return found


def _read_int_alone(connection: StepConnection) -> Task[int]:
    """Exactly one int: a read-ahead would swallow the byte that carries a descriptor, and lose it."""
    while len(connection.buffer) < 4:
        try:
            more = yield from sock.receive(connection.socket, 4 - len(connection.buffer), connection.deadline_ns)
        except DeadlineExceeded:
            raise StepFault(STEP_SILENT, "slurmstepd stopped in the middle of its namespaces") from None
        except OSError as error:
            raise _fault(error) from None
        connection.buffer += more
    return (yield from connection.read(wire.decode_int))


def _fault(error: OSError) -> StepFault:
    if error.errno in (errno.ENOENT, errno.ECONNREFUSED):
        return StepFault(STEP_GONE, os.strerror(error.errno))
    return StepFault(STEP_CLOSED, error.strerror or str(error))
