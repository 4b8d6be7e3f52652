# SPDX-License-Identifier: Apache-2.0
"""The kernel's settings that logins feel."""

from __future__ import annotations

from ...system.kernel.hasten import Places, find_obstacle
from .finding import NOTE, WARNING, Finding

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from .node import Node

PTRACE_SCOPE = "/proc/sys/kernel/yama/ptrace_scope"
#: Nobody may use ptrace(2) any more, root neither (Documentation/admin-guide/LSM/Yama.rst).
NO_PTRACE = "3"
#: Why moves are not hastened, and what to do about it.
SLOW = {
    "no-switch": (
        "/sys/kernel/rcu_expedited cannot be written",
        "mount -o remount,rw /sys    # in a container: whoever starts it; without that there is nothing to do here",
    ),
    "rcu-normal": (
        "/sys/kernel/rcu_normal forbids expedited grace periods",
        "echo 0 >/sys/kernel/rcu_normal    # a real-time kernel sets it for a reason",
    ),
    "isolated-processors": (
        "the kernel isolates processors (nohz_full=, isolcpus=)",
        "add hasten=yes to both PAM lines, if an interrupt for each login is no harm there",
    ),
}


def check_kernel(node: Node) -> Iterator[Finding]:
    """Settings that make logins slow, or that take away what an option needs."""
    lines = [line for line in node.our_lines("account") if line.works]
    mode = lines[-1].options.hasten if lines else "auto"
    places = _places(node)
    waits = b"favordynmods" in (node.read(Places().features) or b"").split()
    obstacle = find_obstacle(mode, places) if waits and mode != "no" else ""
    seen, mend = SLOW.get(obstacle, ("", ""))
    if seen:
        yield Finding(
            "kernel-slow-moves",
            NOTE,
            f"{seen}: logins are not hastened",
            "a login that comes alone waits some 15 ms for the kernel to move it into the job",
            mend,
        )
    scope = (node.text(PTRACE_SCOPE) or "").strip()
    mover = next((line for line in lines if line.options.user_move), None)
    if scope == NO_PTRACE and mover is not None:
        yield Finding(
            "kernel-no-ptrace",
            WARNING,
            f"kernel.yama.ptrace_scope is {scope}, and {mover.line.origin} has user_move=yes",
            "`slurm-adopt move` holds the login's processes with ptrace(2), and refuses without it",
            f"take user_move=yes out of {mover.line.origin}; or ptrace_scope=2 in /etc/sysctl.d, and a boot",
        )


def _places(node: Node) -> Places:
    return Places(**{name: node.place(path) for name, path in Places().__dict__.items()})
