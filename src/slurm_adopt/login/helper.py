# SPDX-License-Identifier: Apache-2.0
"""The one-shot helper: one request on descriptor 0, one reply, gone.

Rules of this file:
1. It believes a peer with uid 0 only, and takes the caller's pid from the kernel.
2. It holds itself to the module's deadline; should it hang all the same, the module kills it, and the kernel does
   (PR_SET_PDEATHSIG) when the module's process ends.
3. It logs nothing: the log line travels in the reply, the module sends it. A note for the service's numbers is all.
"""

from __future__ import annotations

import os
import time

from ..observe.notes import write_note
from ..system.kernel.procfs import read_process
from ..system.tasks import sockets as sock
from ..system.tasks.task import run
from ..wire.login_exchange import PACKET_CAP, decode_request
from .decide import decide_login
from .decided import decided_of

#: How long a request may take to arrive after we were started: the module has sent it before.
REQUEST_WAIT_NS = 2_000_000_000


def main() -> None:
    """Answer the one request on descriptor 0."""
    began_ns = time.monotonic_ns()
    socket = sock.Socket(fileno=0)
    socket.setblocking(False)
    peer = sock.peer_of(socket)
    caller = read_process(peer.pid)
    # our parent's number is nobody else's: once it has ended, our parent is another process
    if peer.uid != 0 or caller is None or peer.pid != os.getppid():
        os._exit(1)
    task = sock.receive_with_fds(socket, PACKET_CAP + 1, time.monotonic_ns() + REQUEST_WAIT_NS)
    packet, fds, _flags = run(task)
    sock.close_all(fds)
    request = decode_request(packet)
    answer = run(decide_login(request, caller))
    # before the answer: after it the module ends us
    answer.settle()
    write_note(decided_of(answer, (time.monotonic_ns() - began_ns) / 1e9))
    sock.send_with_fds(socket, answer.packet(), answer.fds)
    os._exit(0)  # nothing is left to tidy up that the kernel does not: saves a millisecond
