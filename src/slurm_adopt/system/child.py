# SPDX-License-Identifier: Apache-2.0
"""Calls and programs that may block for as long as they like, in a child process that is killed when the time is up.

libmunge retries a munged that does not answer for some 30 s, and the resolver asks each name server for 5 s and more;
neither takes a deadline. A thread cannot be stopped; a process can.

Rules of this file:
1. The child owns one descriptor, the pipe: no login's connection is kept open by it, none can be misused in it.
2. It ends by SIGKILL, by its own alarm if we are gone, or by itself; it never returns into our code.
3. It is always reaped, and that is never waited for: a child that the kernel holds (a hung file system) dies when the
   kernel lets it, and is reaped by one of the next calls.
"""

from __future__ import annotations

import os
import time

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


def _child(work: Callable[[int], None], pipe: int, seconds: float) -> None:
    try:
        # the parent's handlers are not ours; the alarm is for the day when it cannot kill us
        for number in (SIGALRM, 15, 2, 1):
            _signal.signal(number, _signal.SIG_DFL)
        _signal.setitimer(_signal.ITIMER_REAL, seconds)
        _close_others(pipe)
        work(pipe)
        os._exit(0)
    finally:
        os._exit(1)


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


def _run(work: Callable[[int], None], deadline_ns: int) -> Task[bytes]:
    left_ns = deadline_ns - time.monotonic_ns()
    if left_ns <= 0:
        raise DeadlineExceeded
    DYING[:] = [pid for pid in DYING if not _reaped(pid)]
    ours, theirs = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    os.set_blocking(theirs, True)
    try:
        pid = os.fork()
        if pid == 0:
            _child(work, theirs, left_ns / 1e9 + 1)
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
