# SPDX-License-Identifier: Apache-2.0
"""Calls and programs that may block for as long as they like, in a child process that is killed when the time is up.

libmunge retries a munged that does not answer for some 30 s, and the resolver asks each name server for 5 s and more;
neither takes a deadline. A thread cannot be stopped; a process can.

Rules of this file:
1. The child owns one descriptor, the pipe: no login's connection is kept open by it, none can be misused in it.
2. It ends by SIGKILL, by its own alarm if we are gone, or by itself; it never returns into our code.
3. It is always reaped, and that is never waited for: a child that the kernel holds (a hung file system) dies when the
   kernel lets it, and is reaped by one of the next calls.
4. A `Worker` answers one question after the other. Who is not answered in time ends it: nothing of one question is left
   for the next one.
"""

from __future__ import annotations

import _socket
import gc
import os
import struct
import time

from .sock import receive
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
# a killed process is gone in less than a millisecond, unless the kernel holds it
REAP_TRIES, REAP_PAUSE_S = 25, 0.0002
DYING: list[int] = []


class ChildFault(Exception):
    """The child has ended without an answer."""


def _close_others(keep: int) -> None:
    for name in os.listdir("/proc/self/fd"):
        fd = int(name)
        if fd != keep:
            try:
                os.close(fd)
            except OSError:
                continue  # the listing's own descriptor


def _in_child(work: Callable[[], None], keep: int) -> None:
    try:
        # the parent's handlers are not ours
        for number in (SIGALRM, 15, 2, 1):
            _signal.signal(number, _signal.SIG_DFL)
        # what the parent has lost sight of is not tidied up here: its descriptors' numbers are others' by now
        gc.disable()
        _close_others(keep)
        work()
        os._exit(0)
    finally:
        os._exit(1)


def _set_alarm(seconds: float) -> None:
    """For the day when the parent cannot kill us; 0: none."""
    _signal.setitimer(_signal.ITIMER_REAL, seconds)


def _left_ns(deadline_ns: int) -> int:
    left_ns = deadline_ns - time.monotonic_ns()
    if left_ns <= 0:
        raise DeadlineExceeded
    return left_ns


def _fork(work: Callable[[], None], keep: int) -> int:
    DYING[:] = [pid for pid in DYING if not _reaped(pid)]
    pid = os.fork()
    if pid == 0:
        _in_child(work, keep)
    return pid


def call_in_child(function: Callable[[], bytes], deadline_ns: int) -> Task[bytes]:
    """What `function` returns, computed in a child; it must not depend on any open descriptor.

    `DeadlineExceeded` when the time is up, `ChildFault` if it fails, returns nothing, or returns too much.
    """
    answer = yield from _run(_answering(function), deadline_ns)
    if not answer:
        raise ChildFault("the child ended without an answer")
    return answer


def run_program(argv: tuple[str, ...], environment: dict[str, str], deadline_ns: int) -> Task[bytes]:
    """Run a program by its absolute path until it closes its output, and return what it wrote.

    How it ended is not told: who calls it looks at what has changed. `DeadlineExceeded` when the time is up,
    `ChildFault` if it writes too much. A program that cannot be started writes nothing.
    """
    return (yield from _run(_executing(argv, environment), deadline_ns))


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
        os.execve(argv[0], argv, environment)  # noqa: S606  a fixed program, and no shell wanted

    return work


def _run(work: Callable[[int], None], deadline_ns: int) -> Task[bytes]:
    """What a child writes into the pipe that `work` gets, until it closes it."""
    seconds = _left_ns(deadline_ns) / 1e9 + 1
    ours, theirs = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    os.set_blocking(theirs, True)

    def timed() -> None:
        _set_alarm(seconds)
        work(theirs)

    try:
        pid = _fork(timed, theirs)
    except BaseException:
        os.close(ours)
        os.close(theirs)
        raise
    os.close(theirs)
    try:
        return (yield from _collect(ours, deadline_ns))
    finally:
        os.close(ours)
        _end(pid)


def _collect(pipe: int, deadline_ns: int) -> Task[bytes]:
    answer = b""
    while True:
        yield from wait_for(pipe, POLLIN, deadline_ns)
        piece = os.read(pipe, MAX_ANSWER)
        if not piece:
            break
        answer += piece
        if len(answer) > MAX_ANSWER:
            raise ChildFault(f"more than {MAX_ANSWER} bytes")
    return answer


class Worker:
    """A child that answers questions with `function`, one at a time; `end()` when it is not needed any more.

    `prepare`: what it does first, asked or not.
    """

    def __init__(self, function: Callable[[bytes], bytes], prepare: Callable[[], None] | None = None) -> None:
        self._socket, theirs = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_SEQPACKET)
        self._socket.setblocking(False)
        self.asked = 0
        try:
            self._pid = _fork(lambda: _answer_all(theirs, function, prepare), theirs.fileno())
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
        _end(self._pid)


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


def _end(pid: int) -> None:
    try:
        os.kill(pid, SIGKILL)
    except ProcessLookupError:
        return  # somebody ignores SIGCHLD: the kernel has reaped it
    for _ in range(REAP_TRIES):
        if _reaped(pid):
            return
        time.sleep(REAP_PAUSE_S)
    DYING.append(pid)


def _reaped(pid: int) -> bool:
    try:
        return os.waitpid(pid, os.WNOHANG)[0] == pid
    except ChildProcessError:
        return True
