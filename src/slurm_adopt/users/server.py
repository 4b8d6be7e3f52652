# SPDX-License-Identifier: Apache-2.0
"""The service for users: a socket that everybody may talk to, and a process for each request.

It is not the login service: another socket, another process, another cgroup with its own limits. Whatever users do
to it, logins do not notice. (One process per connection by systemd, Accept=yes, would let one user reach the
trigger limit of the socket unit, which then is dead for all.)

Rules of this file:
1. The parent reads nothing of what users send: it accepts, asks the kernel who it is, counts, forks, and kills in time.
2. Counts are per user first: nobody can keep another out but by many users together.
3. The child reads one packet, answers one, and ends; its alarm ends it even if the parent is gone.
4. The parent is never the last to close a connection. Descriptors that wait in it unread are closed with it, and among
   them may be a TCP socket whose user wants close(2) to wait (SO_LINGER). A process that ends waits for none.
"""

from __future__ import annotations

import _socket
import contextlib
import os
import select
import time

from ..record import record, replace
from ..system.kernel.procfs import read_process
from ..system.tasks import sockets as sock
from ..system.tasks.child import end_child, start_child
from ..system.tasks.task import MS, DeadlineExceeded, run
from ..wire.errors import ProtocolError, RemoteProtocolError
from ..wire.fields import PACKET_CAP
from ..wire.logline import format_line
from ..wire.user_exchange import UserReply, decode_user_request, encode_user_reply
from .move import HOLD_NS, hold_until_answered
from .requests import answer_user

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal as _signal
    from collections.abc import Callable

    from ..wire.user_exchange import UserRequest
else:
    import _signal  # `signal` imports enum, which a process that waits for users has no use for

READ_NS = 2_000 * MS
#: So many refused connections are given to one child; while there can be none, nobody else's is taken.
REFUSED_CAP = 64
RETRY_MS = 100
BUSY = UserReply("busy", "user-busy", "too many requests; please wait a moment")


@record
class Limits:
    """How much users may ask. `burst` requests at once and `per_second` after that, for each user."""

    total: int = 16
    per_user: int = 2
    burst: int = 10
    per_second: float = 1.0
    answer_s: float = 20.0
    idle_s: float = 0.0


class Rate:
    """A bucket of requests for each user that has asked lately."""

    def __init__(self, burst: int, per_second: float) -> None:
        self.burst = burst
        self.per_second = per_second
        self._buckets: dict[int, tuple[float, float]] = {}

    def take(self, uid: int, now_s: float) -> bool:
        """Whether this user may ask once more now."""
        left, since_s = self._buckets.get(uid, (float(self.burst), now_s))
        left = min(float(self.burst), left + (now_s - since_s) * self.per_second)
        allowed = left >= 1
        self._buckets[uid] = (left - 1 if allowed else left, now_s)
        if len(self._buckets) > 4096:
            full_s = self.burst / self.per_second
            self._buckets = {user: one for user, one in self._buckets.items() if now_s - one[1] < full_s}
        return allowed


@record
class Child:
    """A request that is being answered."""

    pid: int
    uid: int
    until_ns: int


class Users:
    """The parent: one listening socket, a child for each request."""

    def __init__(self, listener: sock.Socket, limits: Limits) -> None:
        self.listener = listener
        self.limits = limits
        self.rate = Rate(limits.burst, limits.per_second)
        self.children: dict[int, Child] = {}
        self.refused: list[sock.Socket] = []
        self.refusers: dict[int, int] = {}
        self.active_ns = time.monotonic_ns()

    def serve(self) -> None:
        """Serve until nobody has asked for the idle time, or for ever."""
        while True:
            ready = [fd for fd, _ in self._poll()]
            for fd in ready:
                if fd in self.children:
                    self._reap(fd)
                elif fd in self.refusers:
                    os.close(fd)
                    end_child(self.refusers.pop(fd))
            if self.listener.fileno() in ready:
                self._accept()
            elif self.refused:
                self._refuse()
            now_ns = time.monotonic_ns()
            self._kill_late(now_ns)
            idle_ns = int(self.limits.idle_s * 1e9)
            if idle_ns and not self.children and now_ns - self.active_ns > idle_ns:
                return

    def _kill_late(self, now_ns: int) -> None:
        """End what takes too long, without waiting for it: the kernel may hold it, for one user and not for all."""
        for fd, child in self.children.items():
            if child.until_ns <= now_ns:
                end_child(child.pid)
                self.children[fd] = replace(child, until_ns=now_ns + READ_NS)

    def _poll(self) -> list[tuple[int, int]]:
        poller = select.poll()
        for fd in (*self.children, *self.refusers):
            poller.register(fd, select.POLLIN)
        if len(self.refused) < REFUSED_CAP:
            poller.register(self.listener.fileno(), select.POLLIN)
            if self.refused:
                return poller.poll(0)  # either there are more of them, or these are refused now
        else:
            return poller.poll(RETRY_MS)
        ends = [child.until_ns for child in self.children.values()]
        if self.limits.idle_s:
            ends.append(self.active_ns + int(self.limits.idle_s * 1e9))
        wait = max(0, min(ends) - time.monotonic_ns()) // MS + 1 if ends else None
        return poller.poll(wait)

    def _accept(self) -> None:
        try:
            fd, _ = self.listener._accept()  # type: ignore[attr-defined]  # what socket.accept() is made of
        except OSError:
            return
        client = sock.Socket(_socket.AF_UNIX, _socket.SOCK_SEQPACKET, 0, fd)
        client.setblocking(False)
        self.active_ns = time.monotonic_ns()
        try:
            peer = sock.peer_of(client)
            if self._admits(peer.uid):
                self._serve(client, peer)
                return
        except OSError:
            pass  # the node has no process left for it: refused as soon as there is one
        self.refused.append(client)

    def _admits(self, uid: int) -> bool:
        mine = sum(1 for child in self.children.values() if child.uid == uid)
        if len(self.children) >= self.limits.total or mine >= self.limits.per_user:
            return False
        return self.rate.take(uid, time.monotonic())

    def _serve(self, client: sock.Socket, peer: sock.Peer) -> None:
        until_ns = time.monotonic_ns() + int(self.limits.answer_s * 1e9)
        # a move may have to hold the numbers of processes when its user has the answer already
        alarm_s = self.limits.answer_s + HOLD_NS / 1e9 + 1
        if self.refused:
            self._refuse()  # their connections are not for this child to close
        pid, pipe = _start(lambda: serve_one(client, peer, until_ns - 200 * MS), [client], alarm_s, peer.uid)
        self.children[pipe] = Child(pid, peer.uid, until_ns + HOLD_NS)

    def _refuse(self) -> None:
        """Have a child tell those who are refused, and close their connections by its end."""
        refused = self.refused

        def work() -> None:
            for client in refused:
                with contextlib.suppress(OSError):  # gone already
                    client.send(encode_user_reply(BUSY), _socket.MSG_NOSIGNAL)

        with contextlib.suppress(OSError):
            pid, pipe = _start(work, refused, READ_NS / 1e9)
            self.refusers[pipe] = pid
            self.refused = []

    def _reap(self, fd: int) -> None:
        child = self.children.pop(fd)
        os.close(fd)
        end_child(child.pid)


def _start(work: Callable[[], None], clients: list[sock.Socket], seconds: float, uid: int = 0) -> tuple[int, int]:
    """A child that does this, and has these connections for itself before it begins; `OSError`.

    Its number, and a pipe whose other end closes when it ends, however it ends. After `seconds` its alarm does it.
    """
    ours, theirs = os.pipe2(os.O_CLOEXEC)
    begin, waiting = os.pipe2(os.O_CLOEXEC)

    def begin_and_work() -> None:
        _signal.setitimer(_signal.ITIMER_REAL, seconds)
        os.read(begin, 1)
        work()

    try:
        pid = start_child(begin_and_work, (*[client.fileno() for client in clients], theirs, begin), uid)
        for client in clients:
            client.close()
    except OSError:
        os.close(ours)
        raise
    finally:
        os.close(theirs)
        os.close(begin)
        os.close(waiting)
    return pid, ours


def serve_one(client: sock.Socket, peer: sock.Peer, deadline_ns: int) -> None:
    """Read a request, answer it, write it into the log."""
    started_ns = time.monotonic_ns()
    request = None
    try:
        packet, fds, flags = run(sock.receive_with_fds(client, PACKET_CAP + 1, min(deadline_ns, started_ns + READ_NS)))
        sock.close_all(fds)
        if fds or flags & (_socket.MSG_TRUNC | _socket.MSG_CTRUNC):
            raise RemoteProtocolError("descriptors, or too long")
        request = decode_user_request(packet)
        asker = read_process(peer.pid)
        if asker is None or sock.has_hung_up(client):
            return  # whoever asked is gone, and the number may be somebody else's
        reply = run(answer_user(request, peer, asker, deadline_ns))
    except RemoteProtocolError as error:
        reply = UserReply("refused", "user-bad-request", str(error))
    except DeadlineExceeded:
        reply = UserReply("failed", "user-timeout", "there was no answer in time")
    except Exception as error:  # a fault of ours is an answer too
        reply = UserReply("failed", "internal-error", f"{type(error).__name__}: {error}")
    with contextlib.suppress(OSError, ProtocolError):  # who does not wait for the answer has no use for it
        client.send(encode_user_reply(reply), _socket.MSG_NOSIGNAL)
    client.close()
    _log(request, peer, reply, started_ns)
    if request is not None and request.command == "move":
        hold_until_answered()


def _log(request: UserRequest | None, peer: sock.Peer, reply: UserReply, started_ns: int) -> None:
    if request is not None and request.command == "jobs" and reply.result == "ok":
        return  # changes nothing
    import syslog

    pairs: list[tuple[str, str | int]] = [
        ("event", "user-request"),
        ("command", request.command if request else "-"),
        ("result", reply.result),
        ("reason", reply.reason),
        ("uid", peer.uid),
        ("pid", peer.pid),
        ("job", request.job_id or "-" if request else "-"),
        ("moved", reply.moved or ""),
        ("left", len(reply.left) or ""),
        ("ms", (time.monotonic_ns() - started_ns) // MS),
    ]
    syslog.openlog("slurm-adopt", syslog.LOG_PID, syslog.LOG_AUTHPRIV)
    syslog.syslog(syslog.LOG_INFO if reply.result == "ok" else syslog.LOG_NOTICE, format_line(pairs))
