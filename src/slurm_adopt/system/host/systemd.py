# SPDX-License-Identifier: Apache-2.0
"""Takes sockets from systemd and reports to it: sd_listen_fds(3), sd_notify(3), sd_watchdog_enabled(3).

Rules of this file:
1. The variables are read once and removed, so that no child takes them for its own.
2. Without systemd all of this is nothing: no socket, no word, no watchdog.
"""

from __future__ import annotations

import _socket
import os

from ..tasks.sockets import Socket

FIRST_FD = 3
FD_CAP = 16


def take_listeners() -> list[Socket]:
    """The sockets of socket activation; close-on-exec, non-blocking."""
    own = os.environ.pop("LISTEN_PID", "") == str(os.getpid())
    count = os.environ.pop("LISTEN_FDS", "")
    os.environ.pop("LISTEN_FDNAMES", None)
    sockets = []
    if own and count.isascii() and count.isdigit():
        for fd in range(FIRST_FD, FIRST_FD + min(int(count), FD_CAP)):
            os.set_inheritable(fd, False)
            socket = Socket(fileno=fd)
            socket.setblocking(False)
            sockets.append(socket)
    return sockets


class Supervisor:
    """The service manager that waits for our words, if there is one; `watchdog_ns` is 0 if it wants no regular sign."""

    def __init__(self) -> None:
        self._address = os.environ.pop("NOTIFY_SOCKET", "")
        pid = os.environ.pop("WATCHDOG_PID", str(os.getpid()))
        micros = os.environ.pop("WATCHDOG_USEC", "")
        wanted = pid == str(os.getpid()) and micros.isascii() and micros.isdigit()
        self.watchdog_ns = int(micros) * 1000 if wanted else 0

    def tell(self, state: str) -> None:
        """`READY=1`, `STOPPING=1`, `WATCHDOG=1`. A word that cannot be said is not worth failing for."""
        if self._address[:1] not in ("/", "@"):
            return
        socket = Socket(_socket.AF_UNIX, _socket.SOCK_DGRAM | _socket.SOCK_NONBLOCK)
        try:
            # a leading @ stands for the NUL byte of an abstract address
            socket.sendto(state.encode(), _socket.MSG_NOSIGNAL, self._address.replace("@", "\0", 1))
        except OSError:
            pass
        finally:
            socket.close()
