# SPDX-License-Identifier: Apache-2.0
"""inotify(7): being told what happens in a directory.

Rules of this file:
1. ctypes is loaded when the first watch is made: only the resident service does that.
2. What the kernel tells is a hint which names to look at again; nothing is believed of it.
"""

from __future__ import annotations

import os
import select
import struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

IN_ATTRIB = 0x0004
IN_MOVED_FROM = 0x0040
IN_MOVED_TO = 0x0080
IN_CREATE = 0x0100
IN_DELETE = 0x0200
IN_DELETE_SELF = 0x0400
IN_MOVE_SELF = 0x0800
IN_UNMOUNT = 0x2000
IN_Q_OVERFLOW = 0x4000
IN_IGNORED = 0x8000
IN_ONLYDIR = 0x01000000
#: Everything that adds, removes or replaces a name, or changes whose it is.
NAMES = IN_ATTRIB | IN_MOVED_FROM | IN_MOVED_TO | IN_CREATE | IN_DELETE | IN_DELETE_SELF | IN_MOVE_SELF
#: After one of these, what was seen before says nothing about now.
LOST = IN_Q_OVERFLOW | IN_UNMOUNT | IN_IGNORED | IN_DELETE_SELF | IN_MOVE_SELF

#: wd, mask, cookie, length of the name
_HEADER = struct.Struct("=iIII")
READ_SIZE = 64 * 1024


class Inotify:
    """One watched directory. `OSError` if the kernel has no watch left (fs.inotify.max_user_watches)."""

    def __init__(self, path: str) -> None:
        import ctypes

        libc = ctypes.CDLL(None, use_errno=True)
        self.fd: int = libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        if self.fd < 0:
            code = ctypes.get_errno()
            raise OSError(code, f"inotify_init1: {os.strerror(code)}")
        if libc.inotify_add_watch(self.fd, os.fsencode(path), ctypes.c_uint32(NAMES | IN_ONLYDIR)) < 0:
            code = ctypes.get_errno()
            os.close(self.fd)
            raise OSError(code, f"inotify_add_watch: {os.strerror(code)}")
        self._poller = select.poll()
        self._poller.register(self.fd, select.POLLIN)

    def close(self) -> None:
        """Give the watch up."""
        os.close(self.fd)

    def read(self) -> bytes:
        """All events that are there, as the kernel writes them; empty if there are none."""
        events = b""
        # nearly always there are none, and an exception to say so costs more than the question
        while self._poller.poll(0):
            events += os.read(self.fd, READ_SIZE)
        return events


def decode_events(data: bytes) -> Iterator[tuple[int, str]]:
    """(mask, name) of each event; the name is empty if it is about the directory itself."""
    position = 0
    while position < len(data):
        _, mask, _, length = _HEADER.unpack_from(data, position)
        position += _HEADER.size
        yield mask, os.fsdecode(data[position : position + length].rstrip(b"\0"))
        position += length
