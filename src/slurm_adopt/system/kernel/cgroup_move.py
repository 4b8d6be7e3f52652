# SPDX-License-Identifier: Apache-2.0
"""Putting a process back where it was: out of a frozen step, or out of a step that it never belonged to.

Everything else that is moved, slurmstepd moves. This is for what slurmstepd cannot take back.

Rules of this file:
1. Runs in a child with a deadline (`call_in_child`): a move waits for the kernel, and for others who move.
2. A process is moved only where a /proc/PID/cgroup text of before says that it was, and only if it is still the same.
3. The freezer goes first: a frozen process goes on as soon as it is out of there.
"""

from __future__ import annotations

import os

from ...wire.cgroup_path import decode_cgroups
from .procfs import is_same, read_cgroups

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .procfs import AnyProcess

ROOT = "/sys/fs/cgroup"


def put_back(process: AnyProcess, before: bytes) -> bool:
    """Move the process to the cgroups of the text `before`; whether the kernel shows it there afterwards."""
    now = {line.controllers: line.path for line in decode_cgroups(read_cgroups(process) or b"")}
    lines = [line for line in decode_cgroups(before) if now.get(line.controllers, line.path) != line.path]
    lines.sort(key=lambda line: "freezer" not in line.controllers)
    for line in lines:
        if not is_same(process):
            return False
        try:
            _write(f"{_mount(line.controllers)}{line.path}/cgroup.procs", process)
        except OSError:
            continue  # the folder is gone (a scope that ended): the others are tried all the same
    return read_cgroups(process) == before


def _mount(controllers: tuple[str, ...]) -> str:
    if not controllers:
        unified = f"{ROOT}/unified"  # beside cgroup v1
        return unified if os.path.exists(f"{unified}/cgroup.procs") else ROOT
    return f"{ROOT}/{','.join(controllers).replace('name=', '')}"


def _write(path: str, process: AnyProcess) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        os.write(fd, b"%d\n" % process.pid)
    finally:
        os.close(fd)
