# SPDX-License-Identifier: Apache-2.0
"""Proof that a machine leaves nothing behind: what the host looks like before and after.

Others may work on the same host meanwhile, with machines of their own. What somebody alive answers for is not
a leak: a process that descends from a living caller, a cgroup of a machine that has one.
"""

from __future__ import annotations

import hashlib
import os
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

_NAME = re.compile(r"slurm-adopt-lab-[0-9a-f]{8}")


@dataclass(frozen=True)
class HostProcess:
    """A process of the host. `started` in clock ticks after boot: with the pid, its identity."""

    pid: int
    started: int
    parent: int
    command: str
    of_machine: bool
    """Inside a machine (a pid namespace not ours), a supervisor, or a command on its way into one."""


@dataclass(frozen=True)
class Snapshot:
    """The host at one moment; every mapping by what identifies the thing."""

    processes: Mapping[tuple[int, int], HostProcess]
    mounts: frozenset[str]
    cgroups: frozenset[str]
    """Directories below /sys/fs/cgroup."""
    cgroup_settings: Mapping[str, str]
    """Files of the hierarchies' roots that Slurm's plugins write."""
    etc: Mapping[str, str]
    """Mode, owner and content hash of every file in /etc, users and groups among them."""
    run: frozenset[str]
    """Paths in /run and /dev/shm that a machine's programs would make there."""
    interfaces: frozenset[str]


def snapshot() -> Snapshot:
    return Snapshot(
        processes=_processes(),
        mounts=_mounts(),
        cgroups=frozenset(path for path, _, _ in os.walk("/sys/fs/cgroup")),
        cgroup_settings=_cgroup_settings(),
        etc=dict(_hashes("/etc")),
        run=_run_paths(),
        interfaces=frozenset(os.listdir("/sys/class/net")),
    )


def compare(before: Snapshot, after: Snapshot) -> list[str]:
    """What changed, one line each; [] if nothing did."""
    found = [f"process {p.pid} left: {p.command}" for p in _orphans(before, after)]
    found += [f"mount left: {line}" for line in sorted(after.mounts - before.mounts)]
    found += [f"mount gone: {line}" for line in sorted(before.mounts - after.mounts)]
    alive = _living_machines(after)
    for path in sorted(after.cgroups - before.cgroups):
        name = _NAME.search(path)
        if "slurm" in path and not (name and name[0] in alive):
            found.append(f"cgroup left: {path}")
    for what, old, new in (
        ("cgroup setting", before.cgroup_settings, after.cgroup_settings),
        ("file", before.etc, after.etc),
    ):
        found += [f"{what} changed: {key}" for key in sorted({*old, *new}) if old.get(key) != new.get(key)]
    found += [f"path left: {path}" for path in sorted(after.run - before.run)]
    found += [f"interface left: {name}" for name in sorted(after.interfaces - before.interfaces)]
    return found


def processes_mounts_cgroups() -> Snapshot:
    """As snapshot(), without files: for the whole of a test run, in which the host's own may change."""
    return Snapshot(
        processes=_processes(),
        mounts=_mounts(),
        cgroups=frozenset(path for path, _, _ in os.walk("/sys/fs/cgroup")),
        cgroup_settings={},
        etc={},
        run=frozenset(),
        interfaces=frozenset(),
    )


def left_behind(before: Snapshot, timeout_s: float = 60.0) -> list[str]:
    """As settled(), for processes_mounts_cgroups(); a mount that has gone is somebody else's."""
    return _settled(
        lambda: [line for line in compare(before, processes_mounts_cgroups()) if not line.startswith("mount gone")],
        timeout_s,
    )


def settled(before: Snapshot, timeout_s: float = 60.0) -> list[str]:
    """compare() with now until nothing is left or the time is over: after a kill, ending takes a moment."""
    return _settled(lambda: compare(before, snapshot()), timeout_s)


def _settled(what_is_left: Callable[[], list[str]], timeout_s: float) -> list[str]:
    deadline = time.monotonic() + timeout_s
    while True:
        found = what_is_left()
        if not found or time.monotonic() > deadline:
            return found
        time.sleep(0.1)


def _processes() -> dict[tuple[int, int], HostProcess]:
    found = {}
    own = _pid_namespace("self")
    for entry in os.listdir("/proc"):
        if not entry.isdigit():
            continue
        try:
            fields = Path(f"/proc/{entry}/stat").read_text().rpartition(")")[2].split()
            command = Path(f"/proc/{entry}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
            inside = _pid_namespace(entry) != own
        except (FileNotFoundError, ProcessLookupError):
            continue
        of_machine = inside or "lab.supervisor" in command or command.startswith("nsenter ")
        process = HostProcess(int(entry), int(fields[19]), int(fields[1]), command, of_machine)
        if command:  # kernel threads have none; neither have zombies, which hold nothing
            found[process.pid, process.started] = process
    return found


def _mounts() -> frozenset[str]:
    return frozenset(Path("/proc/self/mountinfo").read_text().splitlines())


def _pid_namespace(pid: str) -> str:
    try:
        return os.readlink(f"/proc/{pid}/ns/pid")
    except PermissionError:  # a process of the host's that even root may not look into (a container's process 1)
        return os.readlink("/proc/self/ns/pid")


def _orphans(before: Snapshot, after: Snapshot) -> list[HostProcess]:
    """New processes of a machine, or around one, that nobody alive answers for.

    The highest ancestor below process 1 tells: with a living caller it is the caller's shell, or the like.
    """
    by_pid = {process.pid: process for process in after.processes.values()}

    def ancestor(process: HostProcess) -> HostProcess:
        parent = by_pid.get(process.parent)
        return process if parent is None or parent.pid == 1 else ancestor(parent)

    new = [process for key, process in after.processes.items() if key not in before.processes]
    return [process for process in new if ancestor(process).of_machine]


def _living_machines(now: Snapshot) -> set[str]:
    """Names of machines with a supervisor whose parent, the caller, is not process 1."""
    supervisors = [p for p in now.processes.values() if "lab.supervisor" in p.command and p.parent != 1]
    return {name for process in supervisors for name in _NAME.findall(process.command)}


def _cgroup_settings() -> dict[str, str]:
    found = {}
    for root in (Path("/sys/fs/cgroup"), *Path("/sys/fs/cgroup").glob("*")):
        for name in ("release_agent", "notify_on_release", "cgroup.clone_children", "cgroup.subtree_control"):
            path = root / name
            if path.is_file():
                found[str(path)] = path.read_text()
    return found


def _hashes(top: str) -> list[tuple[str, str]]:
    def describe(path: Path) -> str:
        status = path.lstat()
        if path.is_symlink():
            content = os.readlink(path)
        else:
            content = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""
        return f"{status.st_mode:o} {status.st_uid}:{status.st_gid} {content}"

    return [(str(path), text) for path in sorted(Path(top).rglob("*")) if (text := _or_gone(describe, path))]


def _or_gone(describe: Callable[[Path], str], path: Path) -> str:
    try:
        return describe(path)
    except FileNotFoundError:
        return ""


def _run_paths() -> frozenset[str]:
    """What a machine's programs make there. The host's own programs come and go."""
    paths = (str(path) for top in ("/run", "/dev/shm") for path in Path(top).rglob("*"))
    return frozenset(path for path in paths if re.search("slurm|munge|sshd|lab|user/", path))
