# SPDX-License-Identifier: Apache-2.0
"""The ssh login that a command is given in: since when is it there?

A login's privileged sshd begins with its connection, before PAM is asked. If it began after the change, PAM has read
the new file for it, and has let it in. A session that is multiplexed over an older connection (ControlMaster), or a
tmux of an older login, has the older one's sshd.
"""

from __future__ import annotations

import os
import time

from ...system.kernel.login_tree import find_login_sshd, read_rows
from ...system.kernel.procfs import read_file, read_process

BOOT_ID = "/proc/sys/kernel/random/boot_id"
#: The kernel's unit of start times.
TICKS = os.sysconf("SC_CLK_TCK")


def now_s() -> float:
    """Seconds since the machine was started, time asleep counted: no clock that somebody sets."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def this_boot() -> str:
    """What tells one boot from another."""
    return (read_file(BOOT_ID) or b"").decode("ascii", "replace").strip()


def login_began_s() -> float | None:
    """When the ssh login of this command began, in seconds since boot; None if it is in none."""
    own = read_process(os.getpid())
    sshd = find_login_sshd(own, read_rows(), lambda _: True) if own is not None else None
    return sshd.started / TICKS if sshd is not None else None
