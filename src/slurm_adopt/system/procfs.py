# SPDX-License-Identifier: Apache-2.0
"""Processes as the kernel shows them in /proc.

Rules of this file:
1. A process is a pid and its start time: a pid alone may be somebody else's by the time it is used.
2. What is read is capped; a process that is gone is `None`, never an error and never a guess.
3. That we have no descriptor (or memory) left says nothing about a process: `OSError`, wherever something is opened.
"""

from __future__ import annotations

import os

from ..record import record
from .task import raise_own_lack

#: /proc/PID/stat and /proc/PID/cgroup: a page is typical, v1 with deep paths may take a few.
READ_CAP = 64 * 1024
PAGE = 4096
#: a privileged sshd has about ten descriptors
FD_CAP = 4096


@record
class Process:
    """`started` is the start time in clock ticks since boot."""

    pid: int
    parent: int
    started: int


@record
class OwnedProcess:
    """A process and whose it is: `uid` is the effective user id."""

    pid: int
    parent: int
    started: int
    real_uid: int
    uid: int


def read_file(path: str) -> bytes | None:
    """A small file of /proc, or None if the process (or file) is not there."""
    return _read(path, READ_CAP, ends_short=False)


def _read_record(pid: int, name: str) -> bytes | None:
    """One of the files that the kernel writes in one piece (stat, status, cgroup): less than was asked for is all.

    Three of them are read for every login, and nearly all fit a page.
    """
    return _read(f"/proc/{pid}/{name}", PAGE, ends_short=True)


def _read(path: str, size: int, ends_short: bool) -> bytes | None:
    fd = _open(path)
    if fd < 0:
        return None
    try:
        return _read_open(fd, size, ends_short)
    finally:
        os.close(fd)


def _open(path: str) -> int:
    """-1 if it is not there."""
    try:
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError as error:
        raise_own_lack(error)
        return -1


def _read_open(fd: int, size: int, ends_short: bool) -> bytes | None:
    try:
        text = os.read(fd, size)
        if len(text) < size and ends_short:
            return text
        while text and len(text) < READ_CAP:
            chunk = os.read(fd, READ_CAP - len(text))
            if not chunk:
                break
            text += chunk
        return text
    except OSError:
        return None


def read_stat(pid: int) -> list[bytes]:
    """The first 20 fields of /proc/PID/stat from the third on, or an empty list: state, parent, ..., start time."""
    text = _read_record(pid, "stat")
    if not text:
        return []
    # the command name stands in parentheses and may hold blanks and parentheses itself
    fields = text[text.rindex(b")") + 2 :].split(None, 20)
    return fields if len(fields) >= 20 else []


def read_process(pid: int) -> Process | None:
    """Identity of a process."""
    stat = read_stat(pid)
    return Process(pid, int(stat[1]), int(stat[19])) if stat else None


def read_owned_process(pid: int) -> OwnedProcess | None:
    """Identity and owner of a process: twice the time of `read_process`."""
    stat = read_stat(pid)
    status = _read_record(pid, "status")
    if not stat or not status:
        return None
    # Name: comes before it, and the kernel escapes newlines there
    uids = status[status.find(b"\nUid:") :].split(None, 3)
    if len(uids) < 4:
        return None
    return OwnedProcess(pid, int(stat[1]), int(stat[19]), int(uids[1]), int(uids[2]))


def read_started(pid: int) -> int:
    """Start time in clock ticks since boot; 0 if the process is gone."""
    stat = read_stat(pid)
    return int(stat[19]) if stat else 0


def has_ended(pid: int, started: int) -> bool:
    """Whether the process is gone, for those who look again later: what cannot be looked at now is taken to live."""
    try:
        return read_started(pid) != started
    except OSError:
        return False


def read_cgroups(pid: int) -> bytes | None:
    """The text of /proc/PID/cgroup."""
    return _read_record(pid, "cgroup")


def open_cgroups(process: Process) -> int:
    """A descriptor for `read_open_cgroups`, which the caller closes; -1 if the process is gone.

    It is this very process's for good: the kernel writes the text when it is read, and none once the process has been
    reaped, whoever has its pid then.
    """
    fd = _open(f"/proc/{process.pid}/cgroup")
    if fd < 0:
        return -1
    try:
        is_same = read_started(process.pid) == process.started
    except OSError:
        os.close(fd)
        raise
    if is_same:
        return fd
    os.close(fd)
    return -1


def read_open_cgroups(fd: int) -> bytes | None:
    """The text of /proc/PID/cgroup as it is now; None if the process is gone. Once per descriptor."""
    return _read_open(fd, PAGE, ends_short=True) if fd >= 0 else None


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
    except OSError as error:
        raise_own_lack(error)
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
