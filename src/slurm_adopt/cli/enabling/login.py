# SPDX-License-Identifier: Apache-2.0
"""The ssh login that a command is given in: since when is it there?

A login's privileged sshd begins with its connection, before PAM is asked. If it began after the change, PAM has read
the new file for it, and has let it in. A session that is multiplexed over an older connection (ControlMaster), or a
tmux of an older login, has the older one's sshd.
"""

from __future__ import annotations

import os
import time

from ...record import record
from ...system.kernel.login_tree import find_login_sshd, is_sshd, read_rows
from ...system.kernel.procfs import read_file, read_owned_process, read_process
from ..doctor.node import Node
from ..doctor.sshd import find_servers, pam_service_of, read_server

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ...system.kernel.procfs import Row

BOOT_ID = "/proc/sys/kernel/random/boot_id"
#: The kernel's unit of start times.
TICKS = os.sysconf("SC_CLK_TCK")


ASK_NS = 5 * 10**9


@record
class SshLogin:
    """`began_s` in seconds since boot. `elsewhere`: the sshd of this login, if it does not use the service asked for
    though another one does; empty if it uses it, or does not tell."""

    began_s: float
    elsewhere: str = ""


def now_s() -> float:
    """Seconds since the machine was started, time asleep counted: no clock that somebody sets."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def this_boot() -> str:
    """What tells one boot from another."""
    return (read_file(BOOT_ID) or b"").decode("ascii", "replace").strip()


def _first_of(sshd: Row, rows: dict[int, Row]) -> Row:
    """The sshd that the connection began with: root's logins have a second one below it (seen on OpenSSH 10.0), in the
    same session. The listener is in another one."""
    above = rows.get(sshd.parent)
    while above is not None and above.pid > 1 and above.session == sshd.session and is_sshd(above):
        sshd, above = above, rows.get(above.parent)
    return sshd


def find_login(service: str) -> SshLogin | None:
    """The ssh login of this command, by the sshd nearest above it; None if it is in none."""
    own, rows = read_process(os.getpid()), read_rows()
    sshd = find_login_sshd(own, rows, lambda _: True) if own is not None else None
    if sshd is None:
        return None
    sshd = _first_of(sshd, rows)
    began_s = sshd.started / TICKS
    listener = read_owned_process(sshd.parent)
    server = read_server(listener) if listener is not None and listener.uid == 0 else None
    node = Node(deadline_ns=time.monotonic_ns() + ASK_NS)
    used = pam_service_of(node, server) if server is not None else None
    if server is None or used is None or used == service:
        return SshLogin(began_s)
    others = (pam_service_of(node, other) for other in find_servers(node) if other != server)
    return SshLogin(began_s, server.name if not used or service in others else "")
