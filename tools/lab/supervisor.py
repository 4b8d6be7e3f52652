# SPDX-License-Identifier: Apache-2.0
"""Owns one machine's namespaces and cgroups, and takes them down, whatever happens to its caller.

1. It is a process of its own in a session of its own: neither Ctrl-C nor SIGKILL of the caller reaches it.
2. It ends the machine when its stdin closes, when the caller's pidfd says it is gone (another child of the
   caller may have inherited the pipe), on SIGTERM, or when the machine's process 1 ends.
3. If it is killed itself, process 1 dies with it (PDEATHSIG), and with process 1 the whole pid namespace.

Run as `python -m lab.supervisor JSON`; answers on stdout with one line of JSON: {"init": PID} or
{"error": TEXT}. What process 1 and the set-up say on stderr goes to the supervisor's.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import sys
import time
import traceback
from pathlib import Path
from typing import Any

from lab import namespaces
from lab.cgroups import CgroupTree

_START_TIMEOUT_S = 20
_SETTING, _OURS = Path("/sys/kernel/rcu_expedited"), "75876"
"""The whole machine's, and what a login sets it to for a moment (slurm_adopt/system/kernel/hasten.py)."""


def _be_init(spec: dict[str, Any], tree: CgroupTree, ready_fd: int) -> None:
    """In the child: never returns."""
    try:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        init = Path(__file__).with_name("init.py").read_text()
        namespaces.become(
            root=spec["root"],
            hostname=spec["hostname"],
            cgroup_version=tree.version,
            hierarchies=[[hierarchy.options, hierarchy.label] for hierarchy in tree.hierarchies],
            enter=tree.top_files(),
            settle=tree.member_files(),
            init=init,
        )
        os.dup2(os.open("/dev/null", os.O_RDWR), 0)
        os.dup2(2, 1)  # the supervisor's answer is not for process 1
        if ready_fd != 3:
            os.dup2(ready_fd, 3)
        os.set_inheritable(3, True)
        os.umask(0o022)
        environment = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8"}
        argv = ["python3", "-I", "-S", "/run/lab/init.py", *spec["addresses"]]
        os.execve("/usr/bin/python3", argv, environment)  # noqa: S606
    except BaseException:
        traceback.print_exc()
        sys.stderr.flush()
    os._exit(1)


def _start(spec: dict[str, Any], tree: CgroupTree) -> int:
    """Process 1's pid on the host, once it is ready."""
    ready_read, ready_write = os.pipe2(os.O_CLOEXEC)
    namespaces.unshare(namespaces.CLONE_NEWPID)  # of the next child; the supervisor itself stays
    pid = os.fork()
    if pid == 0:
        os.close(ready_read)
        _be_init(spec, tree, ready_write)
    os.close(ready_write)
    readable, _, _ = select.select([ready_read, 0], [], [], _START_TIMEOUT_S)
    if ready_read not in readable or os.read(ready_read, 1) != b"+":
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        raise RuntimeError("process 1 did not come up")
    os.close(ready_read)
    tree.delegate()
    return pid


def _end(pid: int, tree: CgroupTree) -> None:
    """Kill process 1; the kernel kills every other process of the namespace before waitpid() returns."""
    while True:
        tree.thaw()
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        if os.waitpid(pid, os.WNOHANG)[0] == pid:
            return
        time.sleep(0.005)


def _put_back_setting() -> None:
    """What a login of this machine has left that ended in the middle. (It makes another machine's slower, once.)"""
    with contextlib.suppress(OSError):
        if _SETTING.read_text().strip() == _OURS:
            _SETTING.write_text("0")


def main() -> int:
    spec = json.loads(sys.argv[1])
    caller = os.pidfd_open(spec["caller"])
    stop_read, stop_write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signal.set_wakeup_fd(stop_write)
    signal.signal(signal.SIGTERM, lambda *_: None)
    tree = CgroupTree.from_json(spec["cgroups"])
    pid = 0
    try:
        tree.create()
        pid = _start(spec, tree)
        print(json.dumps({"init": pid}), flush=True)
        select.select([0, caller, stop_read, os.pidfd_open(pid)], [], [])
    except Exception as error:  # the caller is told; it has no other way to know
        traceback.print_exc()
        with contextlib.suppress(OSError):
            print(json.dumps({"error": str(error)}), flush=True)
    finally:
        if pid:
            _end(pid, tree)
            _put_back_setting()
        left = tree.remove()
    if left:
        print(f"lab: cgroups that would not go: {left}", file=sys.stderr)
    return 1 if left else 0


if __name__ == "__main__":
    sys.exit(main())
