# SPDX-License-Identifier: Apache-2.0
"""Processes as the kernel shows them in /proc.

Rules of this file:
1. A process is a pid and its start time: a pid alone may be somebody else's by the time it is used.
2. What is read is capped; a process that is gone is `None`, never an error and never a guess.
"""

from __future__ import annotations

import os

from ..record import record

#: /proc/PID/stat and /proc/PID/cgroup: a page is typical, v1 with deep paths may take a few.
READ_CAP = 64 * 1024
#: a privileged sshd has about ten descriptors
FD_CAP = 4096


@record
class Process:
    """`started` is the start time in clock ticks since boot; `uid` is the effective user id."""

    pid: int
    parent: int
    started: int
    real_uid: int
    uid: int


def read_file(path: str) -> bytes | None:
    """A small file of /proc, or None if the process (or file) is not there."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return None
    try:
        chunks = []
        size = 0
        while size < READ_CAP:
            chunk = os.read(fd, READ_CAP - size)
            if not chunk:
                break
            chunks.append(chunk)
            size += len(chunk)
        return b"".join(chunks)
    except OSError:
        return None
    finally:
        os.close(fd)


def read_process(pid: int) -> Process | None:
    """Identity of a process."""
    stat = read_file(f"/proc/{pid}/stat")
    status = read_file(f"/proc/{pid}/status")
    if not stat or not status:
        return None
    # the command name stands in parentheses and may hold blanks and parentheses itself
    fields = stat[stat.rindex(b")") + 2 :].split()
    uids = next((line.split() for line in status.split(b"\n") if line.startswith(b"Uid:")), [])
    if len(fields) < 20 or len(uids) < 3:
        return None
    return Process(pid, int(fields[1]), int(fields[19]), int(uids[1]), int(uids[2]))


def read_started(pid: int) -> int:
    """Start time in clock ticks since boot; 0 if the process is gone."""
    stat = read_file(f"/proc/{pid}/stat")
    if not stat:
        return 0
    fields = stat[stat.rindex(b")") + 2 :].split()
    return int(fields[19]) if len(fields) >= 20 else 0


def read_cgroups(pid: int) -> bytes | None:
    """The text of /proc/PID/cgroup."""
    return read_file(f"/proc/{pid}/cgroup")


def read_socket_inode(pid: int, fd: int) -> str:
    """`socket:[N]` of a process's descriptor, or an empty string."""
    try:
        link = os.readlink(f"/proc/{pid}/fd/{fd}")
    except OSError:
        return ""
    return link if link.startswith("socket:[") else ""


def read_socket_inodes(pid: int) -> set[str]:
    """All `socket:[N]` of a process."""
    try:
        names = os.listdir(f"/proc/{pid}/fd")[:FD_CAP]
    except OSError:
        return set()
    links = (read_socket_inode(pid, int(name)) for name in names)
    return {link for link in links if link}


def same_executable(one: int, other: int) -> bool:
    """Whether two processes run the same file (device and inode, so an upgraded sshd still matches itself)."""
    try:
        first, second = os.stat(f"/proc/{one}/exe"), os.stat(f"/proc/{other}/exe")
    except OSError:
        return False
    return (first.st_dev, first.st_ino) == (second.st_dev, second.st_ino)
