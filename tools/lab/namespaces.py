# SPDX-License-Identifier: Apache-2.0
"""From a fresh child of the supervisor to process 1 of a machine.

1. Everything here runs in process 1 of a new pid namespace, before any other process exists in it.
2. Nothing is written to the host's disk: the overlay's upper layer lies on a tmpfs that only this mount
   namespace has. No directory is made on the host either; the tmpfs covers /tmp, in here alone.
3. The host's root is gone (pivot_root, then detached) before anything of the machine runs.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import signal
import socket
import sys
from pathlib import Path

_CLONE = {"mount": 0x00020000, "cgroup": 0x02000000, "uts": 0x04000000, "ipc": 0x08000000, "net": 0x40000000}
CLONE_NEWPID = 0x20000000
_MS_RDONLY, _MS_NOSUID, _MS_BIND, _MS_REC, _MS_PRIVATE = 0x1, 0x2, 0x1000, 0x4000, 0x40000
_MNT_DETACH = 2
_PR_SET_PDEATHSIG = 1
_NS_GET_MNTNS_ID = 0x8008B705
_TOP = "/tmp"
_DEVICES = ("null", "zero", "full", "random", "urandom", "tty")
_libc = ctypes.CDLL(None, use_errno=True)


def _check(result: int, what: str) -> None:
    if result != 0:
        code = ctypes.get_errno()
        raise OSError(code, f"{what}: {os.strerror(code)}")


def unshare(flags: int) -> None:
    _check(_libc.unshare(ctypes.c_int(flags)), "unshare")


def unshare_below(flags: int) -> None:
    """unshare() with a mount namespace that can hold every later one (as a file that it is bound to).

    The kernel has no loops of namespaces that hold each other: one holds only those with a higher id. On Linux 6.18
    each CPU has ids of its own, so that a namespace made later on another CPU may have a lower one, and
    job_container/tmpfs fails ("ns base mount failed: Invalid argument", after which Slurm 22.05 holds the job). So ours
    comes from the CPU that has the lowest.
    """
    cpus = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(cpus, key=_mount_namespace_id)})
        unshare(flags)
    finally:
        os.sched_setaffinity(0, cpus)


def _mount_namespace_id(cpu: int) -> int:
    """The id of a new one, made on that CPU, which this process is in afterwards; 0 before Linux 6.11."""
    os.sched_setaffinity(0, {cpu})
    unshare(_CLONE["mount"])
    with open("/proc/thread-self/ns/mnt", "rb") as file:
        try:
            answer = fcntl.ioctl(file, _NS_GET_MNTNS_ID, bytes(8))
        except OSError as error:
            if error.errno != errno.ENOTTY:
                raise
            return 0
    return int.from_bytes(answer, sys.byteorder)


def die_with_parent() -> None:
    _check(_libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0), "prctl")


def mount(source: str, target: str, fstype: str = "", flags: int = 0, data: str = "") -> None:
    arguments = (source.encode(), target.encode(), fstype.encode(), ctypes.c_ulong(flags), data.encode())
    _check(_libc.mount(*arguments), f"mount {fstype} on {target}")


def become(
    root: str,
    hostname: str,
    cgroup_version: int,
    hierarchies: list[list[str]],
    enter: list[str],
    settle: list[str],
    init: str,
) -> None:
    """Set the machine up around the calling process (pid 1) and end with the new root as `/`.

    root: the private root (lower layer). hierarchies: [mount options, folder name] each. enter and settle:
    cgroup.procs files to write before and after the cgroup namespace begins. init: the text of init.py.
    """
    die_with_parent()
    _join(enter)
    os.chdir(root)  # before /tmp is covered: the cache may lie there
    unshare_below(sum(_CLONE.values()))
    _join(settle)
    socket.sethostname(hostname)
    mount("none", "/", flags=_MS_REC | _MS_PRIVATE)
    mount("tmpfs", _TOP, "tmpfs", _MS_NOSUID, "mode=755")
    for name in ("upper", "work", "root"):
        os.mkdir(f"{_TOP}/{name}", 0o755)
    new = f"{_TOP}/root"
    mount("overlay", new, "overlay", data=f"lowerdir=.,upperdir={_TOP}/upper,workdir={_TOP}/work")
    mount("proc", f"{new}/proc", "proc")
    mount("tmpfs", f"{new}/run", "tmpfs", _MS_NOSUID, "mode=755")
    _make_dev(f"{new}/dev")
    mount("sysfs", f"{new}/sys", "sysfs", _MS_RDONLY)
    _mount_cgroups(f"{new}/sys/fs/cgroup", cgroup_version, hierarchies)
    os.mkdir(f"{new}/run/lab", 0o755)
    with open(f"{new}/run/lab/init.py", "w") as file:
        file.write(init)
    os.mkdir(f"{new}/run/host")
    _check(_libc.pivot_root(new.encode(), f"{new}/run/host".encode()), "pivot_root")
    os.chdir("/")
    _check(_libc.umount2(b"/run/host", _MNT_DETACH), "umount /run/host")
    Path("/run/host").rmdir()


def _join(files: list[str]) -> None:
    for name in files:
        with open(name, "w") as file:
            file.write("0")


def _make_dev(dev: str) -> None:
    mount("tmpfs", dev, "tmpfs", _MS_NOSUID, "mode=755")
    for name in _DEVICES:
        os.close(os.open(f"{dev}/{name}", os.O_CREAT | os.O_WRONLY, 0o666))
        mount(f"/dev/{name}", f"{dev}/{name}", flags=_MS_BIND)
    os.mkdir(f"{dev}/pts")
    mount("devpts", f"{dev}/pts", "devpts", _MS_NOSUID, "newinstance,ptmxmode=0666,mode=620,gid=5")
    os.mkdir(f"{dev}/shm")
    mount("tmpfs", f"{dev}/shm", "tmpfs", _MS_NOSUID, "mode=1777")
    for name, target in (
        ("ptmx", "pts/ptmx"),
        ("fd", "/proc/self/fd"),
        ("stdin", "/proc/self/fd/0"),
        ("stdout", "/proc/self/fd/1"),
        ("stderr", "/proc/self/fd/2"),
    ):
        Path(f"{dev}/{name}").symlink_to(target)


def _mount_cgroups(top: str, version: int, hierarchies: list[list[str]]) -> None:
    if version == 2:
        mount("cgroup2", top, "cgroup2")
        return
    mount("tmpfs", top, "tmpfs", _MS_NOSUID, "mode=755")
    for options, label in hierarchies:
        os.mkdir(f"{top}/{label}")
        if options:
            mount("cgroup", f"{top}/{label}", "cgroup", data=options)
        else:
            mount("cgroup2", f"{top}/{label}", "cgroup2")
        if "," in label:  # hosts with systemd mount cpu and cpuacct together and link the single names
            for single in label.split(","):
                Path(f"{top}/{single}").symlink_to(label)
