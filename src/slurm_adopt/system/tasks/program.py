# SPDX-License-Identifier: Apache-2.0
"""Programs that are started as root: which file is run, and with which rights.

Rules of this file:
1. A program is a fixed absolute path. Nothing that a user, a process or a message says chooses it.
2. Nobody but root may write the file or a folder above it (`files.other_writers`): what was checked is what is run.
   In a folder of root's with the sticky bit (/nix/store, /gnu/store) its group cannot replace what is root's.
3. What needs no right gets none: the program runs as root (systemd and its like answer root only), with no capability
   and no way to gain one (`no_new_privs`).
"""

from __future__ import annotations

import os
import stat

from .files import is_store, other_writers

#: linux/capability.h: version 3 has two sets of 32 bits each.
CAPABILITY_VERSION = 0x20080522
PR_SET_NO_NEW_PRIVS = 38


class UntrustedProgram(Exception):
    """The program is not there, or somebody else than root could replace it; the message says what to mend."""


def resolve_program(paths: tuple[str, ...]) -> str:
    """The first of the paths that exists, with links resolved, if nobody but root can change what is there."""
    path = next((path for path in paths if os.access(path, os.X_OK)), "")
    if not path:
        raise UntrustedProgram(f"there is no {paths[0]}")
    resolved = os.path.realpath(path)
    place = resolved
    while True:
        found = os.stat(place, follow_symlinks=False)
        others = "" if is_store(found) else other_writers(place, found)
        if others:
            raise UntrustedProgram(f"{place}: {others}")
        if place == "/":
            break
        place = os.path.dirname(place)
    if not stat.S_ISREG(os.stat(resolved).st_mode):
        raise UntrustedProgram(f"{resolved} is not a file")
    return resolved


def run_without_rights(resolved: str, argv: tuple[str, ...], environment: dict[str, str]) -> None:
    """In a child: become the program, without any capability. Returns only if that is not possible."""
    fd = os.open(resolved, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
    drop_rights()
    os.execve(fd, argv, environment)  # noqa: S606  a fixed program, and no shell wanted


def drop_rights() -> None:
    """Give up all capabilities for good. `OSError` if that does not work: then nothing must be run."""
    import ctypes
    import struct

    libc = ctypes.CDLL(None, use_errno=True)
    header, none = struct.pack("=Ii", CAPABILITY_VERSION, 0), bytes(24)
    if libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) or libc.capset(header, none):
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
