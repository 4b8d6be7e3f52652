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
import time

from ...model import (
    ENDING,
    STEP_CLOSED,
    STEP_ENDING,
    STEP_GONE,
    STEP_MALFORMED,
    STEP_SILENT,
    STEP_UNTRUSTED,
    Fault,
)
from ...record import record
from ...wire import stepd as wire
from ...wire.cursor import Cursor
from ...wire.errors import Incomplete, RemoteProtocolError
from ..kernel.procfs import has_ended, read_process
from ..tasks import sockets as sock
from ..tasks.task import POLLIN, DeadlineExceeded, raise_own_lack, wait_for

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import TypeVar

    from ...model import State
    from ..kernel.procfs import AnyProcess
    from ..tasks.task import Task

    T = TypeVar("T")

#: The longest reply is the list of pids; whoever sends more without being asked is not a slurmstepd.
BUFFER_CAP = 4 * wire.PIDS_CAP + 64
READ_SIZE = 8192


class StepFault(Fault):
    """This step can't be used."""


@record
class Identity:
    """The identity of a step: slurmstepd's protocol version, pid and start time, the job owner's uid, its state."""

    version: int
    pid: int
    started: int
    uid: int
    state: State


@record
class Namespace:
    """A namespace of the job: its kind and a descriptor, which belongs to whoever holds this."""

    kind: str
    fd: int


@record
class Extras:
    """What slurmstepd hands to a session in the job: the X11 tunnel (display 0: none), the namespaces to join."""

    x11: wire.X11Display
    namespaces: list[Namespace]


class StepConnection:
    """An open connection to a slurmstepd. Use `connect_step` to get one, `close()` to give it up."""

    def __init__(self, socket: sock.Socket, deadline_ns: int) -> None:
        self.socket = socket
        self._is_taken = False
        self.deadline_ns = deadline_ns
        self.buffer = b""
        #: what was asked for was not answered yet, not even too late
        self.is_waited_for = False
        #: received and not asked for yet, in the order of the bytes they came with
        self.descriptors: list[int] = []
        self.identity: Identity | None = None
        #: when `identity.state` was asked
        self.asked_ns = time.monotonic_ns()

    def take_over(self) -> StepConnection:
        """The same connection for somebody else, who closes it: this one is closed, and its socket lives on."""
        taken = StepConnection(self.socket, self.deadline_ns)
        taken.buffer, taken.descriptors, taken.identity = self.buffer, self.descriptors, self.identity
        self._is_taken, self.descriptors = True, []
        return taken

    def close(self) -> None:
        """Give the connection up."""
        if not self._is_taken:
            self.socket.close()
        sock.close_all(self.descriptors)
        self.descriptors = []

    def send(self, data: bytes) -> Task[None]:
        """One write, so that an opcode and its arguments arrive together."""
        try:
            self.is_waited_for = True
            yield from sock.send_all(self.socket, data, self.deadline_ns)
        except DeadlineExceeded:
            raise StepFault(STEP_SILENT, "slurmstepd takes no more requests") from None
        except OSError as error:
            raise _fault(error) from None

    def read(self, decode: Callable[[Cursor], T]) -> Task[T]:
        """The next reply."""
        while True:
            if not self.buffer:
                yield from self._fill()
            cursor = Cursor(self.buffer)
            try:
                value = decode(cursor)
            except Incomplete:
                yield from self._fill()
                continue
            except RemoteProtocolError as error:
                raise StepFault(STEP_MALFORMED, str(error)) from None
            self.buffer = self.buffer[cursor.position :]
            self.is_waited_for = False
            return value

    def ask(self, request: bytes, decode: Callable[[Cursor], T]) -> Task[T]:
        """Send a request and return its reply."""
        yield from self.send(request)
        return (yield from self.read(decode))

    def await_answer(self, until_ns: int) -> Task[None]:
        """Wait until slurmstepd has begun to answer what was sent, or the time has come."""
        try:
            yield from wait_for(self.socket.fileno(), POLLIN, min(until_ns, self.deadline_ns))
        except DeadlineExceeded:
            return

    def read_descriptor(self) -> Task[int]:
        """The one descriptor that comes with the next byte. The caller owns it."""
        yield from self.read(wire.decode_descriptor_byte)
        # recvmsg() ends with the message that brings descriptors: if the byte is here, so is its descriptor
        if not self.descriptors:
            raise StepFault(STEP_MALFORMED, "a namespace came without its descriptor")
        return self.descriptors.pop(0)

    def _fill(self) -> Task[None]:
        if len(self.buffer) > BUFFER_CAP or len(self.descriptors) > wire.NAMESPACE_CAP:
            raise StepFault(STEP_MALFORMED, "an endless reply")
        try:
            data, fds, flags = yield from sock.receive_with_fds(self.socket, READ_SIZE, self.deadline_ns)
        except DeadlineExceeded:
            raise StepFault(STEP_SILENT, "slurmstepd does not answer") from None
        except OSError as error:
            raise _fault(error) from None
        self.descriptors += fds
        if flags & _socket.MSG_CTRUNC:
            raise StepFault(STEP_MALFORMED, "more descriptors than a step has namespaces")
        if not data:
            raise StepFault(STEP_CLOSED, "slurmstepd closed the connection")
        self.buffer += data


def connect_step(
    path: str, owners: tuple[int, ...], deadline_ns: int, known: Identity | None = None
) -> Task[StepConnection]:
    """Connect to the extern step at `path` and learn who it is (one round trip).

    `known`: who answered on this very socket file (inode) before. Nobody else ever can: if the kernel names the same
    process, only the state is asked, as the rest cannot have changed. (slurmstepd writes each answer by itself, and
    each one wakes us.)
    """
    try:
        socket = yield from sock.connect_unix(path, _socket.SOCK_STREAM, deadline_ns)
    except DeadlineExceeded:
        raise StepFault(STEP_SILENT, "slurmstepd's backlog is full") from None
    except OSError as error:
        raise_own_lack(error)
        raise _fault(error) from None
    connection = StepConnection(socket, deadline_ns)
    try:
        peer = sock.peer_of(socket)
        if not peer.pid:
            raise StepFault("step-elsewhere", "this process is in another pid namespace than slurmstepd")
        if peer.uid not in owners:
            raise StepFault(STEP_UNTRUSTED, f"the listener is uid {peer.uid}")
        if known is not None and known.pid == peer.pid:
            connection.identity = yield from _ask_state(connection, known)
        else:
            connection.identity = yield from _ask_identity(connection, peer)
        return connection
    except BaseException:
        connection.close()
        raise


def _ask_identity(connection: StepConnection, peer: sock.Peer) -> Task[Identity]:
    requests = (wire.DAEMON_PID, wire.UID, wire.STATE)
    yield from connection.send(wire.encode_handshake() + b"".join(map(wire.encode_request, requests)))
    version = yield from connection.read(wire.decode_version)
    pid = yield from connection.read(wire.decode_int)
    uid = yield from connection.read(wire.decode_uid)
    state = yield from connection.read(wire.decode_int)
    if pid != peer.pid or pid <= 1:
        raise StepFault(STEP_UNTRUSTED, f"the listener is process {peer.pid}, slurmstepd says {pid}")
    # the number is slurmstepd's still: it has just answered, and `_fill` tells when it has closed
    process = read_process(pid)
    if process is None:
        raise StepFault(STEP_UNTRUSTED, f"slurmstepd says that it is process {pid}, which is not there")
    return Identity(version, pid, process.started, uid, wire.state_name(state))


def _ask_state(connection: StepConnection, known: Identity) -> Task[Identity]:
    yield from connection.send(wire.encode_handshake() + wire.encode_request(wire.STATE))
    version = yield from connection.read(wire.decode_version)
    state = yield from connection.read(wire.decode_int)
    return Identity(version, known.pid, known.started, known.uid, wire.state_name(state))


def query_state(connection: StepConnection) -> Task[str]:
    """The step's state now."""
    state = yield from connection.ask(wire.encode_request(wire.STATE), wire.decode_int)
    return wire.state_name(state)


def request_adoption(
    connection: StepConnection, processes: Iterable[AnyProcess], x11: bool, namespaces: bool
) -> Task[None]:
    """Ask the step to take the processes in, how it is after that, and for what goes with it: one write.

    slurmstepd knows numbers only: whoever calls this has just looked at the start times, and looks again afterwards.
    `read_adoption` has the answers.
    """
    requests = [wire.encode_pid_request(wire.ADD_PID, process.pid) for process in processes]
    extras = _extra_requests(connection, x11, namespaces)
    yield from connection.send(b"".join(requests) + wire.encode_request(wire.STATE) + extras)


def read_adoption(connection: StepConnection, count: int, x11: bool, namespaces: bool) -> Task[Extras]:
    """The answers to `request_adoption` for `count` processes. That it says yes proves nothing yet.

    The caller owns the descriptors. `StepFault`: an ending step that refuses is no failure of the step, but its end.
    """
    codes = []
    try:
        for _ in range(count):
            codes.append((yield from connection.read(wire.decode_int)))
        state = wire.state_name((yield from connection.read(wire.decode_int)))
    except StepFault as fault:
        if fault.reason == STEP_CLOSED and len(codes) < count:
            # 24.11.6+, 25.05.1+: a step that is cancelled or later closes without a reply
            raise StepFault(STEP_ENDING, "slurmstepd closed instead of adding: the step is ending") from None
        raise
    if state == ENDING:
        # whether it said yes (it kills what it has taken in) or no (its cgroups are gone already)
        raise StepFault(STEP_ENDING, "the step was ending when it answered")
    refused = [code for code in codes if code != 0]
    if refused:
        raise StepFault("adopt-refused", f"slurmstepd answered {refused[0]}")
    return (yield from _read_extras(connection, x11, namespaces))


def add_process(connection: StepConnection, process: AnyProcess) -> Task[None]:
    """Ask the step to take one process in, and nothing else."""
    yield from request_adoption(connection, (process,), x11=False, namespaces=False)
    yield from read_adoption(connection, 1, x11=False, namespaces=False)


def query_extras(connection: StepConnection, x11: bool, namespaces: bool) -> Task[Extras]:
    """The job's X11 tunnel and namespaces, in one round trip. The caller owns the descriptors."""
    yield from connection.send(_extra_requests(connection, x11, namespaces))
    return (yield from _read_extras(connection, x11, namespaces))


def _extra_requests(connection: StepConnection, x11: bool, namespaces: bool) -> bytes:
    # namespaces last: a slurmstepd before 20.11.5 closes on that question
    return (wire.encode_request(wire.X11) if x11 else b"") + (
        wire.encode_request(_namespace_opcode(connection)) if namespaces else b""
    )


def _read_extras(connection: StepConnection, x11: bool, namespaces: bool) -> Task[Extras]:
    display = (yield from connection.read(wire.decode_x11)) if x11 else wire.X11Display(0, "")
    return Extras(display, (yield from _read_namespaces(connection)) if namespaces else [])


def is_in_books(connection: StepConnection, process: AnyProcess) -> Task[bool]:
    """Whether the step's own book-keeping has the process."""
    known = yield from connection.ask(wire.encode_pid_request(wire.PID_IN_STEP, process.pid), wire.decode_bool)
    return known and not has_ended(process)


def query_numbers(connection: StepConnection) -> Task[tuple[int, ...]]:
    """The numbers of the step's processes, as slurmstepd reads them from its cgroup."""
    return (yield from connection.ask(wire.encode_request(wire.PIDS), wire.decode_pids))


def _namespace_opcode(connection: StepConnection) -> int:
    assert connection.identity is not None
    return wire.NAMESPACES if connection.identity.version >= wire.VERSION_25_11 else wire.NAMESPACE


def _read_namespaces(connection: StepConnection) -> Task[list[Namespace]]:
    """The job's namespaces; empty if it has none."""
    assert connection.identity is not None
    if connection.identity.version >= wire.VERSION_25_11:
        return (yield from _read_typed_namespaces(connection))
    try:
        count = yield from connection.read(wire.decode_int)
    except StepFault as fault:
        # opcode 26 is unknown before 20.11.5: such a slurmstepd closes
        if fault.reason == STEP_CLOSED and connection.identity.version == wire.OLDEST_VERSION:
            return []
        raise
    if count == 0:
        return []
    if count < 0:
        raise StepFault("namespace-failed", "slurmstepd could not open the job's mount namespace")
    return [Namespace("mount", (yield from connection.read_descriptor()))]


def _read_typed_namespaces(connection: StepConnection) -> Task[list[Namespace]]:
    count = yield from connection.read(wire.decode_int)
    if not 0 <= count <= wire.NAMESPACE_CAP:
        raise StepFault("namespace-failed", f"slurmstepd answered {count} namespaces")
    found: list[Namespace] = []
    try:
        for _ in range(count):
            kind = wire.namespace_kind((yield from connection.read(wire.decode_int)))
            found.append(Namespace(kind, (yield from connection.read_descriptor())))
    except BaseException as error:
        sock.close_all([namespace.fd for namespace in found])
        if isinstance(error, RemoteProtocolError):
            raise StepFault("namespace-failed", str(error)) from None
        raise
    return found


def _fault(error: OSError) -> StepFault:
    if error.errno in (errno.ENOENT, errno.ECONNREFUSED):
        return StepFault(STEP_GONE, os.strerror(error.errno))
    return StepFault(STEP_CLOSED, error.strerror or str(error))
