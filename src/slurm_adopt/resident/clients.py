# SPDX-License-Identifier: Apache-2.0
"""The connections of PAM modules: accept, read the one packet, decide, answer, close.

Rules of this file:
1. A peer that is not uid 0 is closed unread. A peer that says nothing is closed after a moment.
2. A login whose module has gone, or whose time is up, is given up and its task closed: nobody carries its answer out.
3. Whatever goes wrong with one connection ends that connection only, and the module falls back to the helper.
4. What is written about a login is written after its answer has left.
"""

from __future__ import annotations

import _socket
import contextlib
import time

from ..login.answer import Answer
from ..login.decide import decide_login
from ..system.kernel.procfs import read_process
from ..system.tasks import sockets as sock
from ..system.tasks.task import MS, POLLIN
from ..wire.errors import ProtocolError, RemoteProtocolError
from ..wire.login_exchange import PACKET_CAP, LoginReply, decode_request, encode_reply
from .admission import RUN, SEND_AWAY, WAIT, Admission

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from ..login.steps import StepSource
    from ..observe.metrics import Metrics
    from ..system.kernel.procfs import Process
    from ..system.tasks.loop import Loop, OnEnd, Running, Timer
    from ..system.tasks.task import Task
    from ..wire.login_exchange import LoginRequest

#: The module sends its packet right after connect().
FIRST_PACKET_NS = 2_000 * MS
#: No PAM line can ask for more than 300 s.
LONGEST_NS = 300_000 * MS
#: Connections that are open at once: the places, the waiting room, and those just reading.
CLIENT_CAP = 3072
#: No descriptor left: the listener is looked at again after this.
EXHAUSTED_NS = 50 * MS
#: Who waits for a place is sent to the helper when none has got free for so long.
PATIENCE_NS = 300 * MS


class Client:
    """One connection. `place` is `RUN`, `WAIT`, or empty while it holds neither."""

    __slots__ = ("accepted_ns", "caller", "place", "request", "running", "socket", "timers")

    def __init__(self, socket: sock.Socket, caller: Process | None) -> None:
        self.socket = socket
        #: the module's process; None if it is not in our pid namespace
        self.caller = caller
        self.accepted_ns = time.monotonic_ns()
        self.place = ""
        self.request: LoginRequest | None = None
        self.running: Running | None = None
        self.timers: list[Timer] = []


class Clients:
    """All connections of the service."""

    def __init__(self, loop: Loop, source: StepSource, metrics: Metrics) -> None:
        self.admission = Admission()
        self.open: set[Client] = set()
        self.cap = min(CLIENT_CAP, sock.descriptor_share())
        #: called with each answer, after it was sent, and the seconds it took
        self.on_answer: Callable[[Answer, float], None] = lambda *_: None
        self.last_active_ns = time.monotonic_ns()
        self._loop = loop
        self._source = source
        self._metrics = metrics
        self._listeners: list[sock.Socket] = []
        self._paused = False
        self._last_left_ns = 0

    # Coming ----------------------------------------------------------------------------------------

    def listen(self, listener: sock.Socket) -> None:
        """Take connections from this socket."""
        self._listeners.append(listener)
        self._watch(listener)

    def stop(self, take_all: bool) -> None:
        """Take no more connections; those that were accepted are still answered.

        `take_all`: those that wait in the sockets as well, because no successor will.
        """
        for listener in self._listeners:
            while take_all and self._accept(listener):
                pass
            self._loop.unwatch(listener.fileno())
        self._listeners.clear()

    def _watch(self, listener: sock.Socket) -> None:
        self._loop.watch(listener.fileno(), POLLIN, lambda _: self._accept(listener))

    def _accept(self, listener: sock.Socket) -> bool:
        """Take the one that has waited longest; whether there was any. (poll() tells of the next one.)"""
        if len(self.open) >= self.cap:
            self._pause()
            return False
        try:
            fd, _ = listener._accept()  # type: ignore[attr-defined]  # what socket.accept() is made of
        except BlockingIOError:
            return False
        except OSError:
            self._metrics.count("slurm_adopt_dropped_total", reason="no-descriptors")
            self._pause()
            self._loop.call_at(time.monotonic_ns() + EXHAUSTED_NS, self._go_on)
            return False
        self._welcome(sock.Socket(_socket.AF_UNIX, _socket.SOCK_SEQPACKET, 0, fd))
        return True

    def _pause(self) -> None:
        self._paused = True
        for listener in self._listeners:
            self._loop.unwatch(listener.fileno())

    def _go_on(self) -> None:
        if self._paused:
            self._paused = False
            for listener in self._listeners:
                self._watch(listener)

    def _welcome(self, socket: sock.Socket) -> None:
        """Read what somebody wants, unless it is nobody whom we serve."""
        peer = sock.peer_of(socket)
        if peer.uid != 0:
            self._metrics.count("slurm_adopt_strangers_total")
            socket.close()
            return
        try:
            caller = read_process(peer.pid) if peer.pid else None
        except OSError:  # no descriptor left: the module asks the helper, which has its own
            self._metrics.count("slurm_adopt_dropped_total", reason="no-descriptors")
            socket.close()
            return
        if sock.has_hung_up(socket):
            # the number may be somebody else's by now
            self._metrics.count("slurm_adopt_dropped_total", reason="client-gone")
            socket.close()
            return
        client = Client(socket, caller)
        self.last_active_ns = client.accepted_ns
        self.open.add(client)
        if not self._read(client):
            self._loop.watch(client.socket.fileno(), POLLIN, lambda _: self._read_again(client))
            self._call_at(client.accepted_ns + FIRST_PACKET_NS, client, self._expect_request)

    def _call_at(self, when_ns: int, client: Client, call: Callable[[Client], None]) -> None:
        """Once, unless the connection is closed before: a deadline must not keep what has long been answered."""
        client.timers.append(self._loop.call_at(when_ns, lambda: call(client)))

    def _expect_request(self, client: Client) -> None:
        if client.request is None:
            self._drop(client, "silent")

    def _read_again(self, client: Client) -> None:
        self._read(client)

    def _read(self, client: Client) -> bool:
        """Take the packet; False if it is not there yet."""
        try:
            packet, ancillary, flags, _ = client.socket.recvmsg(
                PACKET_CAP + 1, sock.FDS_SPACE, _socket.MSG_CMSG_CLOEXEC | _socket.MSG_DONTWAIT
            )
        except BlockingIOError:
            return False
        except OSError:
            self._drop(client, "client-gone")
            return True
        if ancillary:
            sock.close_all(sock.descriptors_of(ancillary))
        if not packet:
            self._drop(client, "client-gone")
            return True
        try:
            if ancillary or flags & (_socket.MSG_TRUNC | _socket.MSG_CTRUNC):
                raise RemoteProtocolError("descriptors, or too long")
            client.request = decode_request(packet)
        except RemoteProtocolError:
            self._metrics.count("slurm_adopt_bad_requests_total")
            self._close(client)
            return True
        self._admit(client, client.request)
        return True

    # Being decided ---------------------------------------------------------------------------------

    def _admit(self, client: Client, request: LoginRequest) -> None:
        now_ns = time.monotonic_ns()
        if request.deadline_ns <= now_ns:
            self._drop(client, "too-late")
            return
        client.place = self.admission.offer(request.uid, client)
        if client.place == SEND_AWAY or client.caller is None:
            # a peer without a number here lives in another pid namespace, where only a helper of its own can judge
            self._send_away(client)
            return
        if client.place == RUN:
            running = self._loop.start(*self._login_of(client, request))
            if running.ended:
                return  # most refusals need not wait for anything
            client.running = running
        else:
            self._call_at(now_ns + PATIENCE_NS, client, self._look_after)
        # the module closes when it gives up; nothing else is expected from it
        self._loop.watch(client.socket.fileno(), 0, lambda _: self._drop(client, "client-gone"))
        self._call_at(min(request.deadline_ns, now_ns + LONGEST_NS), client, self._expire)

    def _look_after(self, client: Client) -> None:
        """A login waits for a place. If none gets free, those who have one hang, and the helper decides this one."""
        if client.place != WAIT:
            return
        now_ns = time.monotonic_ns()
        if now_ns - self._last_left_ns < PATIENCE_NS:
            self._call_at(self._last_left_ns + PATIENCE_NS, client, self._look_after)
        else:
            self._send_away(client)

    def _login_of(self, client: Client, request: LoginRequest) -> tuple[Task[Answer], OnEnd]:
        assert client.caller is not None, "who has none was sent away"
        task = decide_login(request, client.caller, self._source)
        return task, lambda _, outcome: self._answer(client, outcome)

    def _answer(self, client: Client, outcome: Answer | Exception) -> None:
        client.running = None
        if not isinstance(outcome, Answer):
            self._metrics.count("slurm_adopt_faults_total")
            self._send_away(client)
            return
        try:
            sock.send_with_fds(client.socket, outcome.packet(), outcome.fds)
        except (OSError, ProtocolError):
            self._metrics.count("slurm_adopt_dropped_total", reason="unsent")
        finally:
            sock.close_all(outcome.fds)
            outcome.close()
        seconds = (time.monotonic_ns() - client.accepted_ns) / 1e9
        self._close(client)
        outcome.settle()
        try:
            self.on_answer(outcome, seconds)
        except Exception:  # rule 4: what cannot be written down must not end the service for all
            self._metrics.count("slurm_adopt_faults_total")

    def _send_away(self, client: Client) -> None:
        self._metrics.count("slurm_adopt_sent_away_total")
        with contextlib.suppress(OSError):
            sock.send_with_fds(client.socket, encode_reply(LoginReply("retry", "service-busy")), [])
        self._close(client)

    # Going -----------------------------------------------------------------------------------------

    def _expire(self, client: Client) -> None:
        self._drop(client, "too-late")

    def _drop(self, client: Client, reason: str) -> None:
        self._metrics.count("slurm_adopt_dropped_total", reason=reason)
        self._close(client)

    def _close(self, client: Client) -> None:
        if client not in self.open:
            return
        self.open.discard(client)
        for timer in client.timers:
            self._loop.call_off(timer)
        self.last_active_ns = time.monotonic_ns()
        self._loop.unwatch(client.socket.fileno())
        if client.running is not None:
            self._loop.cancel(client.running)
            client.running = None
        client.socket.close()
        self._leave(client)
        if len(self.open) < self.cap // 2 or not self.open:
            self._go_on()

    def _leave(self, client: Client) -> None:
        place, client.place = client.place, ""
        if client.request is None or place == SEND_AWAY or not place:
            return
        if place == WAIT:
            self.admission.give_up(client.request.uid, client)
            return
        self._last_left_ns = time.monotonic_ns()
        for waiting in self.admission.leave(client.request.uid):
            assert waiting.request is not None
            waiting.place = RUN
            waiting.running = self._loop.spawn(*self._login_of(waiting, waiting.request))
