# SPDX-License-Identifier: Apache-2.0
"""The kernel's settings that logins feel."""

from __future__ import annotations

from .finding import NOTE, WARNING, Finding

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from .node import Node

PTRACE_SCOPE = "/proc/sys/kernel/yama/ptrace_scope"
#: Nobody may use ptrace(2) any more, root neither (Documentation/admin-guide/LSM/Yama.rst).
NO_PTRACE = "3"
#: Since 6.0 a process that is moved waits for a grace period of RCU, unless the mount favours moves.
WAITS_FROM = (6, 0)


def check_kernel(node: Node) -> Iterator[Finding]:
    """Settings that make logins slow, or that take away what an option needs."""
    mounts = [line.split() for line in (node.text("/proc/mounts") or "").splitlines()]
    cgroups = [fields for fields in mounts if len(fields) > 3 and fields[2] in ("cgroup", "cgroup2")]
    favoured = any("favordynmods" in fields[3].split(",") for fields in cgroups)
    if cgroups and not favoured and _release(node) >= WAITS_FROM:
        yield Finding(
            "kernel-slow-moves",
            NOTE,
            "no cgroup mount has favordynmods",
            "a login that comes alone waits some 15 ms for the kernel to move it into the job",
            "mount -o remount,favordynmods /sys/fs/cgroup    # cgroup v2; or cgroup_favordynmods=true at boot",
        )
    scope = (node.text(PTRACE_SCOPE) or "").strip()
    mover = next((line for line in node.our_lines("account") if line.works and line.options.user_move), None)
    if scope == NO_PTRACE and mover is not None:
        yield Finding(
            "kernel-no-ptrace",
            WARNING,
            f"kernel.yama.ptrace_scope is {scope}, and {mover.line.origin} has user_move=yes",
            "`slurm-adopt move` holds the login's processes with ptrace(2), and refuses without it",
            f"sysctl kernel.yama.ptrace_scope=2 (needs a boot), or take user_move=yes out of {mover.line.origin}",
        )


def _release(node: Node) -> tuple[int, ...]:
    """(6, 18)"""
    words = (node.text("/proc/sys/kernel/osrelease") or "").strip().split(".")[:2]
    return tuple(int(word) for word in words) if all(word.isdigit() for word in words) else ()
