# SPDX-License-Identifier: Apache-2.0
"""Cgroups of a machine's own, below those that exist, in every hierarchy the host has.

1. Only new directories are made and only these are removed; no file of an existing cgroup is written.
2. Names are unique per machine, so two rigs on one host cannot meet.
3. A hybrid or v1 host gives the machine v1 (its v2 hierarchy carries no controllers and Slurm refuses it);
   a pure v2 host gives it v2.
4. Slurm's v1 plugins lay out `/slurm/...` at the root of each hierarchy. With a cgroup namespace that root
   is our directory, so it neither sees nor touches a Slurm of the host.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

_V1_CONTROLLERS = {"freezer", "cpuset", "devices", "cpuacct", "cpu", "memory"}
"""Those that some release of Slurm uses. Others (pids, blkio, ...) stay with whatever started the rig."""

_LEAF = "machine"
"""v2 only: processes may not live in a cgroup that hands controllers on, so the machine lives in this child."""


@dataclass(frozen=True)
class Hierarchy:
    """One cgroup hierarchy of the host. `options` are its mount options, "" for v2."""

    options: str
    mountpoint: str
    parent: str
    """The directory (on the host) below which a machine's cgroup is made."""

    @property
    def version(self) -> int:
        return 1 if self.options else 2

    @property
    def label(self) -> str:
        """The folder's name below /sys/fs/cgroup inside the machine: "cpu,cpuacct", "systemd", "unified"."""
        return self.options.rpartition("=")[2] or "unified"


def host_hierarchies(further: frozenset[str] = frozenset()) -> list[Hierarchy]:
    """What the host mounts, as far as a machine uses it, and these v1 controllers. Source: mountinfo and
    /proc/self/cgroup."""
    own = {}
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        own[controllers] = path
    found: list[Hierarchy] = []
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        left, _, right = line.partition(" - ")
        root, mountpoint = left.split()[3:5]
        fstype, _, options = right.split(maxsplit=2)
        if fstype == "cgroup2":
            # Below the hierarchy's root: a cgroup with processes cannot hand controllers on, the root can.
            found.append(Hierarchy("", mountpoint, mountpoint))
        elif fstype == "cgroup" and (controllers := _v1_controllers(options, further)):
            # Below our own cgroup: what limits the rig's caller (memory!) also limits its machines.
            below = os.path.relpath(own.get(controllers.replace("none,", ""), root), root)
            parent = mountpoint if below.startswith("..") else os.path.normpath(f"{mountpoint}/{below}")
            found.append(Hierarchy(controllers, mountpoint, parent))
    unique = {hierarchy.options: hierarchy for hierarchy in reversed(found)}
    return [hierarchy for hierarchy in unique.values() if os.access(hierarchy.parent, os.W_OK)]


def _v1_controllers(super_options: str, further: frozenset[str]) -> str:
    """Mount options of a v1 hierarchy: "cpu,cpuacct", "none,name=systemd"; "" if no machine needs it."""
    names = super_options.split(",")
    if "name=systemd" in names:
        return "none,name=systemd"
    if not (_V1_CONTROLLERS | further).intersection(names):
        return ""
    known = Path("/proc/cgroups").read_text().splitlines()[1:]
    controllers = {line.split()[0] for line in known}
    return ",".join(name for name in names if name in controllers)


@dataclass(frozen=True)
class CgroupTree:
    """The cgroups of one machine: one directory `name` in each of `hierarchies`."""

    name: str
    hierarchies: tuple[Hierarchy, ...]

    @classmethod
    def on_this_host(cls, name: str, further: frozenset[str] = frozenset()) -> CgroupTree:
        """further: v1 controllers that the machine is given beside those of Slurm's, if the host has them."""
        return cls(name, tuple(host_hierarchies(further)))

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> CgroupTree:
        """From to_json(): where the cgroups are depends on who asked first (see host_hierarchies)."""
        return cls(value["name"], tuple(Hierarchy(**hierarchy) for hierarchy in value["hierarchies"]))

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @property
    def version(self) -> int:
        """The cgroup version that Slurm uses in the machine: 2 only if there is no v1 hierarchy at all."""
        return 1 if any(hierarchy.version == 1 for hierarchy in self.hierarchies) else 2

    @property
    def controllers(self) -> frozenset[str]:
        """The controllers at the machine's disposal."""
        if self.version == 1:
            return frozenset(",".join(h.options for h in self.hierarchies).split(",")) & _V1_CONTROLLERS
        with contextlib.suppress(OSError):
            return frozenset(Path(self.directories()[0], "cgroup.controllers").read_text().split())
        return frozenset()

    def directories(self) -> list[str]:
        return [f"{hierarchy.parent}/{self.name}" for hierarchy in self.hierarchies]

    def create(self) -> None:
        for hierarchy, directory in zip(self.hierarchies, self.directories()):
            os.mkdir(directory)
            if "cpuset" in hierarchy.options.split(","):
                for name in ("cpuset.cpus", "cpuset.mems"):  # empty in a new cgroup, and empty takes no process
                    value = Path(hierarchy.parent, name).read_text()
                    Path(directory, name).write_text(value)
            if self.version == 2:
                os.mkdir(f"{directory}/{_LEAF}")

    def top_files(self) -> list[str]:
        """The cgroup.procs files that the first process writes before it makes its cgroup namespace."""
        return [f"{directory}/cgroup.procs" for directory in self.directories()]

    def member_files(self) -> list[str]:
        """The cgroup.procs files that every process of the machine writes."""
        leaf = f"/{_LEAF}" if self.version == 2 else ""
        return [f"{directory}{leaf}/cgroup.procs" for directory in self.directories()]

    def delegate(self) -> None:
        """v2: hand on the controllers that may be; call when every process is in the leaf."""
        if self.version == 2:
            directory = self.directories()[0]
            for controller in sorted(self.controllers):
                with contextlib.suppress(OSError):  # e.g. cpu with real-time processes around
                    Path(directory, "cgroup.subtree_control").write_text(f"+{controller}")

    def relative(self, host_path: str) -> str:
        """A path of /proc/PID/cgroup as read on the host, as it reads inside the machine."""
        _, found, rest = f"{host_path}/".partition(f"/{self.name}/")
        return "/" + rest.rstrip("/") if found else host_path

    def thaw(self) -> None:
        """A process in a frozen cgroup does not die, not even of SIGKILL (v1)."""
        for _, _, files, fd in _walk(self.directories()):
            for name, value in (("freezer.state", "THAWED"), ("cgroup.freeze", "0")):
                if name in files:
                    with contextlib.suppress(OSError):
                        _write_at(fd, name, value)

    def remove(self, timeout_s: float = 10.0) -> list[str]:
        """Remove our directories, children first, and say which would not go (none, normally).

        The kernel empties a cgroup a moment after its last process has been reaped (EBUSY until then).
        """
        deadline = time.monotonic() + timeout_s
        while True:
            left = [
                os.path.join(directory, name)
                for directory, names, _, fd in _walk(self.directories())
                for name in names
                if not _rmdir(name, fd)
            ]
            left += [top for top in self.directories() if not _rmdir(top)]
            if not left or time.monotonic() > deadline:
                return left
            self.thaw()
            time.sleep(0.01)


def _walk(tops: Sequence[str]) -> Iterator[tuple[str, list[str], list[str], int]]:
    """(directory, names of its directories, of its files, its descriptor), children before parents; what vanishes
    meanwhile is skipped. By descriptors: a job can nest directories deeper than a path can be long."""
    for top in tops:
        with contextlib.suppress(FileNotFoundError):
            yield from os.fwalk(top, topdown=False)


def _write_at(directory: int, name: str, text: str) -> None:
    fd = os.open(name, os.O_WRONLY | os.O_CLOEXEC, dir_fd=directory)
    try:
        os.write(fd, text.encode())
    finally:
        os.close(fd)


def _rmdir(name: str, directory: int | None = None) -> bool:
    try:
        os.rmdir(name, dir_fd=directory)
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return True
