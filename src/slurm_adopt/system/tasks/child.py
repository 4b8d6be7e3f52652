# SPDX-License-Identifier: Apache-2.0
"""All children of helper and services: calls and programs that may block for as long as they like.

libmunge retries a munged that does not answer for some 30 s, and the resolver asks each name server for 5 s and more;
neither takes a deadline. A thread cannot be stopped; a process can.

Rules of this file:
1. One place starts children (`start_child`), one ends them (`end_child`), one reaps them (`reap_children`). None of
   them waits: a child that the kernel holds (a hung file system, a frozen cgroup) dies when the kernel lets it.
2. A number is a child's until it was reaped here, so it can be killed without a second look.
3. A child owns the descriptors that it is given: no login's connection is kept open by it, none can be misused in it.
4. It ends by SIGKILL, by its own alarm if we are gone, or by itself; it never returns into our code.
5. Children are counted, in all and for each user: a user whose processes or file systems hang uses up what is that
   user's. Who gets no child gets `OSError` (EAGAIN), as from fork(2).
6. A `Worker` answers one question after the other. Who is not answered in time ends it: nothing of one question is left
   for the next one.
7. One thing outlives us, `start_detached`: it is no child, holds nothing of ours, and is for the command only.
"""

from __future__ import annotations

import _socket
import errno
import gc
import os
import struct
import time

from .program import run_without_rights
from .sockets import receive
from .task import POLLIN, DeadlineExceeded, wait_for

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal as _signal
    from collections.abc import Callable

    from .task import Task
else:
    import _signal  # `signal` imports enum, 3.5 ms

SIGKILL = 9
SIGALRM = 14
SIGPIPE = 13
# a credential has a few hundred bytes, a list of addresses less
MAX_ANSWER = 64 * 1024
#: Below the service's TasksMax=; and as many as one user's logins may have at once.
CHILD_CAP, USER_CAP = 96, 8
#: Children that were not reaped yet: for which user each works (0: for nobody in particular).
_ours: dict[int, int] = {}
#: Those of them that were told to end, and when.
_ending: dict[int, int] = {}
#: A killed child is gone in less than that, unless the kernel holds it: then it counts for its user.
DYING_NS = 500_000_000


class ChildFault(Exception):
    """The child has ended without an answer."""


def start_child(work: Callable[[], None], keep: tuple[int, ...], uid: int = 0, user_cap: int = USER_CAP) -> int:
    """Run `work` in a child that has no descriptors but `keep`; its number. For `uid`, or for nobody in particular.

    `OSError` with EAGAIN if there are too many.
    """
    reap_children()
    held_ns = time.monotonic_ns() - DYING_NS
    mine = [pid for pid, user in _ours.items() if user == uid and _ending.get(pid, 0) < held_ns]
    if len(_ours) >= CHILD_CAP or (uid and len(mine) >= user_cap):
        raise OSError(errno.EAGAIN, "too many children")
    pid = os.fork()
    if pid == 0:
        _be_child(work, keep)
    _ours[pid] = uid
    return pid


def start_detached(work: Callable[[], None]) -> None:
    """Run `work` in a process that lives on when we and our terminal are gone: nobody's child, of no session of ours.

    It has no descriptor but /dev/null, and no folder that could not be unmounted. `OSError`.
    """

    def leave() -> None:
        os.setsid()
        if os.fork():
            return
        _signal.signal(1, _signal.SIG_IGN)
        os.chdir("/")
        for number in (0, 1, 2):
            null = os.open("/dev/null", os.O_RDWR)
            if null != number:
                os.dup2(null, number)
        work()

    pid = start_child(leave, ())
    # it ends at once: it has nothing to do but to fork
    status = os.waitpid(pid, 0)[1]
    _ours.pop(pid, None)
    if status:
        raise OSError(errno.EAGAIN, "no process could be started")


def end_child(pid: int) -> None:
    """Kill a child, whatever it is doing. It is reaped as soon as it is dead; nobody waits for that."""
    if pid not in _ours:
        return
    _ending[pid] = time.monotonic_ns()
    reap_children()
    if pid in _ours:  # it is alive, or a zombie: where somebody ignores SIGCHLD, the kernel has reaped it
        os.kill(pid, SIGKILL)
        reap_children()


def reap_children() -> bool:
    """Take leave of the children that have died; whether any is left that was told to."""
    for pid in list(_ending):
        if _reaped(pid):
            del _ending[pid]
            _ours.pop(pid, None)
    return bool(_ending)


def _reaped(pid: int) -> bool:
    try:
        return os.waitpid(pid, os.WNOHANG)[0] == pid
    except ChildProcessError:
        return True


def _be_child(work: Callable[[], None], keep: tuple[int, ...]) -> None:
    """Never returns."""
    try:
        # the parent's handlers are not ours
        _signal.set_wakeup_fd(-1)
        for number in (SIGALRM, 15, 2, 1, 17):
            _signal.signal(number, _signal.SIG_DFL)
        # what the parent has lost sight of is not tidied up here: its descriptors' numbers are others' by now
        gc.disable()
        _ours.clear()
        _ending.clear()
        _close_others(keep)
        work()
        os._exit(0)
    finally:
        os._exit(1)


def _close_others(keep: tuple[int, ...]) -> None:
    try:
        listed = [int(name) for name in os.listdir("/proc/self/fd")]
    except OSError:  # not even one descriptor is left to list them with
        listed = list(range(os.sysconf("SC_OPEN_MAX")))
    for fd in listed:
        if fd not in keep:
            try:
                os.close(fd)
            except OSError:
                continue  # the listing's own descriptor


def _set_alarm(seconds: float) -> None:
    """For the day when the parent cannot kill us; 0: none."""
    _signal.setitimer(_signal.ITIMER_REAL, seconds)


def _left_ns(deadline_ns: int) -> int:
    left_ns = deadline_ns - time.monotonic_ns()
    if left_ns <= 0:
        raise DeadlineExceeded
    return left_ns


def call_in_child(
    function: Callable[[], bytes], deadline_ns: int, uid: int = 0, user_cap: int = USER_CAP, cap: int = MAX_ANSWER
) -> Task[bytes]:
    """Compute `function` in a child and return its result; it must not depend on any open descriptor.

    `DeadlineExceeded` when the time is up, `ChildFault` if it fails, returns nothing, or more than `cap` bytes;
    `OSError` if there can be no child (for this user) now.
    """
    answer = yield from _run(_answering(function), deadline_ns, uid, user_cap, cap)
    if not answer:
        raise ChildFault("the child ended without an answer")
    return answer


def run_program(argv: tuple[str, ...], environment: dict[str, str], deadline_ns: int, uid: int = 0) -> Task[bytes]:
    """Run a program (`resolve_program`) until it closes its output, and return what it wrote. It has no capability.

    How it ended is not told: who calls it looks at what has changed. `DeadlineExceeded` when the time is up,
    `ChildFault` if it writes too much. A program that cannot be started writes nothing.
    """
    return (yield from _run(_executing(argv, environment), deadline_ns, uid, USER_CAP, MAX_ANSWER))


def _answering(function: Callable[[], bytes]) -> Callable[[int], None]:
    def work(pipe: int) -> None:
        answer = function()
        while answer:
            answer = answer[os.write(pipe, answer) :]

    return work


def _executing(argv: tuple[str, ...], environment: dict[str, str]) -> Callable[[int], None]:
    def work(pipe: int) -> None:
        # Python ignores it, and a program would inherit that; the alarm stays set through execve(2)
        _signal.signal(SIGPIPE, _signal.SIG_DFL)
        # in this order: the pipe may be any of them
        for number, source in ((1, pipe), (2, pipe), (0, os.open("/dev/null", os.O_RDWR))):
            os.dup2(source, number)
            os.set_inheritable(number, True)
        run_without_rights(argv[0], argv, environment)

    return work


def _run(work: Callable[[int], None], deadline_ns: int, uid: int, user_cap: int, cap: int) -> Task[bytes]:
    """Return the bytes that a child writes into the pipe `work` gets, until it closes the pipe."""
    seconds = _left_ns(deadline_ns) / 1e9 + 1
    ours, theirs = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    os.set_blocking(theirs, True)

    def timed() -> None:
        _set_alarm(seconds)
        work(theirs)

    try:
        pid = start_child(timed, (theirs,), uid, user_cap)
    except BaseException:
        os.close(ours)
        os.close(theirs)
        raise
    os.close(theirs)
    try:
        return (yield from _collect(ours, deadline_ns, cap))
    finally:
        os.close(ours)
        end_child(pid)


def _collect(pipe: int, deadline_ns: int, cap: int) -> Task[bytes]:
    pieces, size = [], 0
    while True:
        yield from wait_for(pipe, POLLIN, deadline_ns)
        piece = os.read(pipe, MAX_ANSWER)
        if not piece:
            break
        pieces.append(piece)
        size += len(piece)
        if size > cap:
            raise ChildFault(f"more than {cap} bytes")
    return b"".join(pieces)


class Worker:
    """A child that answers questions with `function`, one at a time; `end()` when it is not needed any more.

    `prepare`: what it does first, asked or not.
    """

    def __init__(self, function: Callable[[bytes], bytes], prepare: Callable[[], None] | None = None) -> None:
        self._socket, theirs = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_SEQPACKET)
        self._socket.setblocking(False)
        self.asked = 0
        try:
            self._pid = start_child(lambda: _answer_all(theirs, function, prepare), (theirs.fileno(),))
        except BaseException:
            self._socket.close()
            raise
        finally:
            theirs.close()

    def ask(self, question: bytes, deadline_ns: int) -> Task[bytes]:
        """The answer, in a packet's size. After an exception, or if the task is closed, only `end` is left to do.

        `DeadlineExceeded`; `ChildFault` if the child is gone or goes.
        """
        _left_ns(deadline_ns)
        self.asked += 1
        try:
            self._socket.send(struct.pack("=q", deadline_ns) + question, _socket.MSG_NOSIGNAL)
            return (yield from receive(self._socket, MAX_ANSWER, deadline_ns))
        except OSError as error:
            raise ChildFault(f"the child has ended: {error}") from None

    def is_alive(self) -> bool:
        """Whether it has not been ended by somebody else (out of memory, an administrator)."""
        return not _readable(self._socket)

    def end(self) -> None:
        """Kill it, whatever it is doing."""
        self._socket.close()
        end_child(self._pid)


def _readable(socket: _socket.socket) -> bool:
    """Whether there is anything to read, be it the end."""
    try:
        socket.recv(1)
    except BlockingIOError:
        return False
    except OSError:
        pass
    return True


def _answer_all(socket: _socket.socket, function: Callable[[bytes], bytes], prepare: Callable[[], None] | None) -> None:
    """In the child, until the other end is closed."""
    if prepare is not None:
        prepare()
    while True:
        packet = socket.recv(MAX_ANSWER)
        if not packet:
            return
        (deadline_ns,) = struct.unpack_from("=q", packet)
        _set_alarm(max(0, deadline_ns - time.monotonic_ns()) / 1e9 + 1)
        socket.send(function(packet[8:]), _socket.MSG_NOSIGNAL)
        _set_alarm(0)
