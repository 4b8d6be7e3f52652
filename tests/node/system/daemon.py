# SPDX-License-Identifier: Apache-2.0
"""A daemon of Slurm's that answers as its test wants."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from collections.abc import Callable

Scenario = Callable[[socket.socket, bytes], None]


class Daemon:
    """Answers each connection in a thread; `seen` are the requests. `wrap` may put TLS around a connection."""

    def __init__(self, scenario: Scenario, wrap: Callable[[socket.socket], socket.socket] | None = None) -> None:
        self.scenario = scenario
        self.wrap = wrap
        self.seen: list[bytes] = []
        self.server = socket.create_server(("127.0.0.1", 0))
        self.port: int = self.server.getsockname()[1]
        self.threads: list[threading.Thread] = []
        self.accepting = threading.Thread(target=self._accept, daemon=True)
        self.accepting.start()

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self.server.accept()
            except OSError:
                return
            thread = threading.Thread(target=self._serve, args=(sock,), daemon=True)
            thread.start()
            self.threads.append(thread)

    def _serve(self, sock: socket.socket) -> None:
        try:
            with self.wrap(sock) if self.wrap else sock as stream:
                stream.settimeout(10)
                data = b""
                while len(data) < 4 or len(data) < struct.unpack(">I", data[:4])[0] + 4:
                    piece = stream.recv(65536)
                    if not piece:
                        return
                    data += piece
                self.seen.append(data)
                self.scenario(stream, data)
        except OSError:
            return  # the asker has gone

    def close(self) -> None:
        with contextlib.suppress(OSError):  # its test has closed it
            self.server.shutdown(socket.SHUT_RDWR)
        self.server.close()
        self.accepting.join(10)
        for thread in self.threads:
            thread.join(15)
