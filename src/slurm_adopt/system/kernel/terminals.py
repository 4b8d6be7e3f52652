# SPDX-License-Identifier: Apache-2.0
"""A line on the terminals of a user's processes in one extern step, as wall(1) does it.

Rules of this file:
1. A terminal is written to only if it is a pseudo terminal, is the very device that the process has, and belongs to
   that user; opened without following links, without becoming anybody's controlling terminal, without waiting.
2. One write for a terminal. One that would block (Ctrl-S, a client that hangs) misses the line.
3. Runs in a child that can be killed (system/tasks/child.py): opening a terminal and reading /proc take no deadline.
"""

from __future__ import annotations

import os
import stat

from ...wire.cgroup_path import same_step
from .procfs import list_numbers, read_cgroups, read_row

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .procfs import AnyProcess

#: Unix98 pseudo terminals: eight majors, 256 (or 2^20 in one) terminals each (Documentation/admin-guide/devices.txt).
PTS_MAJORS = range(136, 144)
TERMINAL_CAP = 256


def write_to_terminals(stepd: AnyProcess, uid: int, line: str) -> int:
    """Write a line to all terminals of the user's processes in this step; how many took it."""
    text = f"\r\n\a{line}\r\n".encode("utf-8", "replace")
    return sum(_write(device, uid, text) for device in sorted(find_terminals(stepd))[:TERMINAL_CAP])


def find_terminals(stepd: AnyProcess) -> set[int]:
    """Device numbers of the pseudo terminals of the processes in the step."""
    reference = read_cgroups(stepd)
    devices: set[int] = set()
    for number in list_numbers() if reference is not None else ():
        row = read_row(number)
        # tty_nr as the kernel's "new" encoding; os.major() and os.minor() undo it
        if row is None or os.major(row.terminal) not in PTS_MAJORS or row.terminal in devices:
            continue
        if same_step(reference or b"", read_cgroups(row) or b"").inside:
            devices.add(row.terminal)
    return devices


def _write(device: int, uid: int, text: bytes) -> bool:
    number = (os.major(device) - PTS_MAJORS.start) * 256 + os.minor(device)
    flags = os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        fd = os.open(f"/dev/pts/{number}", flags)
    except OSError:
        return False  # gone, or closed to messages (mesg n) where we are not almighty
    try:
        found = os.fstat(fd)
        if not stat.S_ISCHR(found.st_mode) or found.st_rdev != device or found.st_uid != uid:
            return False
        return os.write(fd, text) == len(text)
    except OSError:
        return False
    finally:
        os.close(fd)
