# SPDX-License-Identifier: Apache-2.0
"""The administrators' socket: one word in, text out.

Rules of this file:
1. Root's alone, by the socket's mode and by SO_PEERCRED.
2. A caller that is slow, silent or talkative costs nothing but its own connection; there are never many.
"""

from __future__ import annotations

import time

from ..system.tasks import sockets as sock
from ..system.tasks.task import MS, POLLIN, DeadlineExceeded

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from ..system.tasks.loop import Loop
    from ..system.tasks.task import Task

WORD_CAP = 64
CALLER_CAP = 8
TIME_NS = 2_000 * MS


class Admin:
    """Answers words (`metrics`, `recent`) on a listening stream socket."""

    def __init__(self, loop: Loop, listener: sock.Socket, answers: dict[bytes, Callable[[], str]]) -> None:
        self._loop = loop
        self._listener = listener
        self._answers = answers
        self._callers = 0
        loop.watch(listener.fileno(), POLLIN, self._accept)

    def _accept(self, _events: int) -> None:
        try:
            fd, _ = self._listener._accept()  # type: ignore[attr-defined]  # what socket.accept() is made of
        except OSError:
            return
        socket = sock.Socket(fileno=fd)
        socket.setblocking(False)
        if self._callers >= CALLER_CAP or sock.peer_of(socket).uid != 0:
            socket.close()
            return
        self._callers += 1
        self._loop.spawn(self._serve(socket), self._served)

    def _served(self, *_: object) -> None:
        self._callers -= 1

    def _serve(self, socket: sock.Socket) -> Task[None]:
        deadline_ns = time.monotonic_ns() + TIME_NS
        try:
            word = b""
            while not word.endswith(b"\n") and len(word) < WORD_CAP:
                word += yield from sock.receive(socket, WORD_CAP, deadline_ns)
            answer = self._answers.get(word.strip())
            if answer is not None:
                yield from sock.send_all(socket, answer().encode(), deadline_ns)
        except (OSError, DeadlineExceeded):
            return
        finally:
            socket.close()
