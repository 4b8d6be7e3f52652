# SPDX-License-Identifier: Apache-2.0
"""The sockets that the service makes itself.

Rules of this file:
1. Nobody but root may write the folder (`files.make_folder`). The socket has its mode, 0600 unless it is for users,
   from birth.
2. It appears under its name complete and listening, and replaces what was there: nobody meets a half-made one.
3. Only the very file that was made here is removed at the end; a successor's stays.
"""

from __future__ import annotations

import _socket
import os

from ..tasks.files import draft_of, make_folder, remove
from ..tasks.sockets import Socket

BACKLOG = 4096


class ListenFault(Exception):
    """The socket cannot be made; the message says why."""


def prepare_folder(path: str) -> None:
    """Make the folder of a socket, 0755, or be sure that it is safe."""
    folder = os.path.dirname(path)
    try:
        make_folder(folder, 0o755)
    except OSError as error:
        raise ListenFault(f"{folder}: {error.strerror}") from None


class Listener:
    """A listening unix socket at `path`, of the kind `SOCK_SEQPACKET` or `SOCK_STREAM`."""

    def __init__(self, path: str, kind: int, mode: int = 0o600) -> None:
        prepare_folder(path)
        self.path = path
        self.socket = Socket(_socket.AF_UNIX, kind | _socket.SOCK_NONBLOCK)
        draft = draft_of(path)
        mask = os.umask(0o777 & ~mode)
        try:
            remove(draft)
            self.socket.bind(draft)
            self.socket.listen(BACKLOG)
            found = os.lstat(draft)
            os.replace(draft, path)
        except OSError as error:
            self.socket.close()
            remove(draft)
            raise ListenFault(f"{path}: {error.strerror or error}") from None
        finally:
            os.umask(mask)
        self._identity = (found.st_dev, found.st_ino)

    def close(self) -> None:
        """Listen no more. Who has connected and was not accepted is told so by the kernel."""
        self.socket.close()
        try:
            found = os.lstat(self.path)
        except OSError:
            return
        if (found.st_dev, found.st_ino) == self._identity:
            remove(self.path)
