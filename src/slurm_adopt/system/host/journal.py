# SPDX-License-Identifier: Apache-2.0
"""Sending one line to the journal, or to syslog where there is no journal.

Rules of this file:
1. Never waits: a log daemon that hangs costs a line, not a login.
2. A line has no newline: in the journal's own protocol (systemd.io/JOURNAL_NATIVE_PROTOCOL) that would be a new field.
"""

from __future__ import annotations

import _socket
import os
import time

from ..tasks.sockets import Socket

JOURNAL = "/run/systemd/journal/socket"
SYSLOG = "/dev/log"
AUTHPRIV = 10
INFO = 6


class LogSender:
    """Lines under one identifier."""

    def __init__(self, identifier: str) -> None:
        self.identifier = identifier

    def send(self, line: str) -> bool:
        """Whether the line was taken."""
        line = line.replace("\n", " ")
        native = f"SYSLOG_IDENTIFIER={self.identifier}\nSYSLOG_FACILITY={AUTHPRIV}\nPRIORITY={INFO}\nMESSAGE={line}\n"
        stamp = time.strftime("%b %e %H:%M:%S")
        syslog = f"<{AUTHPRIV * 8 + INFO}>{stamp} {self.identifier}[{os.getpid()}]: {line}"
        return _send(JOURNAL, native) or _send(SYSLOG, syslog)


def _send(path: str, text: str) -> bool:
    try:
        socket = Socket(_socket.AF_UNIX, _socket.SOCK_DGRAM | _socket.SOCK_NONBLOCK)
    except OSError:
        return False  # no descriptor left
    try:
        socket.sendto(text.encode("utf-8", "replace"), _socket.MSG_NOSIGNAL, path)
    except OSError:
        return False
    finally:
        socket.close()
    return True
