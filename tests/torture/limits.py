# SPDX-License-Identifier: Apache-2.0
"""Faults that take from the running service what it needs: descriptors, memory, processes. They are given back to the
same process; a service that has ended is a new one, with limits of its own."""

from __future__ import annotations

import os
import re
from collections.abc import Callable

from tests.torture.stage import LOGIN_SOCKET, Stage, TakeBack, not_now, surely

from lab.machine import LabError

#: How many descriptors, and how much memory in KiB, are left to it.
DESCRIPTORS_LEFT = (0, 1, 2, 3, 5, 8)
#: Silent connections of root's, at the same time, for a moment.
CROWD = f"""
import socket, time
held = [socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK) for _ in range(900)]
for client in held:
    try:
        client.connect("{LOGIN_SOCKET}")
    except OSError:
        break
time.sleep(0.5)
"""
#: cgroup v1 only: on v2 the machine has no cgroup in which one process can be limited.
PIDS = "/sys/fs/cgroup/pids/service"
MEMORY_LEFT_KIB = (0, 64, 512, 2048)


def soft_limit(limits: str, name: str) -> str:
    """The soft limit of that name in the text of /proc/PID/limits: a number, or `unlimited`. `ValueError`."""
    found = re.search(rf"^{re.escape(name)} +(\d+|unlimited) ", limits, re.MULTILINE)
    if found is None:
        raise ValueError(f"no limit of {name}")
    return found[1]


def _lowered(name: str, option: str, choose: Callable[[Stage, int], int]) -> Callable[[Stage], TakeBack]:
    """Set a soft limit of the service's for a while. `choose` tells its value for a process of the node."""

    def begin(stage: Stage) -> TakeBack:
        node, pid = stage.node, stage.service.pid
        if not pid:
            return not_now
        try:
            before = soft_limit(node.read(f"/proc/{pid}/limits"), name)
            lowered = choose(stage, pid)
        except OSError:
            return not_now
        node.run(["prlimit", f"--pid={pid}", f"--{option}={lowered}:"], check=False)

        def give_back() -> None:
            node.run(["prlimit", f"--pid={pid}", f"--{option}={before}:"], check=False)
            if stage.service.pid == pid and soft_limit(node.read(f"/proc/{pid}/limits"), name) != before:
                raise LabError(f"the service still has a limit: {name}")

        return lambda: surely(give_back)

    return begin


def _descriptors(stage: Stage, pid: int) -> int:
    return len(os.listdir(stage.node.path(f"/proc/{pid}/fd"))) + stage.chance.choice(DESCRIPTORS_LEFT)


def _memory(stage: Stage, pid: int) -> int:
    status = stage.node.read(f"/proc/{pid}/status")
    kib = int(status.partition("VmSize:")[2].split()[0])
    return (kib + stage.chance.choice(MEMORY_LEFT_KIB)) * 1024


def no_processes(stage: Stage) -> TakeBack:
    """The service can fork no more. The kernel does not limit root's processes by RLIMIT_NPROC."""
    node, pid = stage.node, stage.service.pid
    if not pid or not node.path(PIDS).parent.joinpath("cgroup.procs").exists():
        return not_now
    join = f"mkdir -p {PIDS} && echo {pid} >{PIDS}/cgroup.procs && cat {PIDS}/pids.current >{PIDS}/pids.max"
    node.run(join, check=False)
    return lambda: surely(lambda: node.run(f"echo max >{PIDS}/pids.max"))


def no_memory(stage: Stage) -> TakeBack:
    """What a service has got once it keeps: it is asked for more than that."""
    take_back = _memory_lowered(stage)
    if take_back is not not_now:
        stage.node.run(["python3", "-c", CROWD], check=False)
    return take_back


no_descriptors = _lowered("Max open files", "nofile", _descriptors)
_memory_lowered = _lowered("Max address space", "as", _memory)
