# SPDX-License-Identifier: Apache-2.0
"""Processes as the kernel shows them in /proc.

A number is not a process: whoever forks next may have it by the time it is used. So everything here takes a process,
its number together with its start time, and looks at the start time once more after reading. Only three functions
take a number, and what they give is a process: `read_process`, `read_owned_process` and `read_row` are the doors for
numbers that the kernel (SO_PEERCRED, a folder of cgroups) or slurmstepd has named.

Rules of this file:
1. No path of /proc/PID is made anywhere else (tests/lint holds it).
2. What was read counts only if the process is still the same afterwards. A process that is gone or replaced is `None`
   or empty, never an error and never a guess.
3. What is read is capped.
4. That we have no descriptor (or memory) left says nothing about a process: `OSError`, wherever something is opened.
"""

from __future__ import annotations

import os

from ...record import record
from ..tasks.task import raise_own_lack

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Protocol

    class AnyProcess(Protocol):
        """Any object with a process number and the start time of that process, in clock ticks since boot."""

        @property
        def pid(self) -> int: ...

        @property
        def started(self) -> int: ...


#: /proc/PID/stat and /proc/PID/cgroup: a page is typical, v1 with deep paths may take a few.
READ_CAP = 64 * 1024
PAGE = 4096
#: a privileged sshd has about ten descriptors
FD_CAP = 4096
#: slurmd has a dozen threads, and one more for each request it works on.
THREAD_CAP = 256
CHILD_CAP = 1024
#: of /proc/PID/stat's flags: the process is about to end
PF_EXITING = 0x4
NO_AUDIT_SESSION = (1 << 32) - 1


@record
class Process:
    """`started` is the start time in clock ticks since boot."""

    pid: int
    started: int


@record
class OwnedProcess:
    """A process and whose it is: `uid` is the effective user id, `parent` the number of its parent."""

    pid: int
    started: int
    parent: int
    real_uid: int
    uid: int


@record
class Row:
    """A process and where it hangs: `parent` and `session` are the numbers of its parent and of its session's leader,
    `terminal` is the device number of its terminal (0: none)."""

    pid: int
    started: int
    parent: int
    session: int
    terminal: int


# Doors: from a number to a process ------------------------------------------------------------------


def read_process(pid: int) -> Process | None:
    """The process that has this number now."""
    stat = _read_stat(pid)
    return Process(pid, int(stat[19])) if stat else None


def read_owned_process(pid: int) -> OwnedProcess | None:
    """The process that has this number now, with its owner: three times the time of `read_process`."""
    stat = _read_stat(pid)
    status = _read_record(pid, "status") if stat else None
    if not status or _started_of(pid) != int(stat[19]):
        return None
    # Name: comes before it, and the kernel escapes newlines there
    uids = status[status.find(b"\nUid:") :].split(None, 3)
    if len(uids) < 4:
        return None
    return OwnedProcess(pid, int(stat[19]), int(stat[1]), int(uids[1]), int(uids[2]))


def read_row(pid: int) -> Row | None:
    """The process that has this number now; None also for a zombie, which is nowhere any more."""
    stat = _read_stat(pid)
    if not stat or stat[0] in (b"Z", b"X"):
        return None
    return Row(pid, int(stat[19]), int(stat[1]), int(stat[3]), int(stat[4]) & 0xFFFFFFFF)


def list_numbers() -> list[int]:
    """The numbers of all processes of this pid namespace; `OSError`."""
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]


def list_roots_programs() -> Iterator[tuple[int, str]]:
    """Numbers and programs of all processes that are root's in the kernel's eyes: a first sieve. `OSError`."""
    for pid in list_numbers():
        try:
            if os.stat(f"/proc/{pid}").st_uid == 0:
                yield pid, os.readlink(f"/proc/{pid}/exe")
        except OSError:
            continue  # it has ended, or is a thread of the kernel's


def read_owner(pid: int) -> int:
    """Return the effective uid of the process with this number; -1 if there is none.

    It is 0 for a process that is not dumpable, whoever's it is: use it as a first sieve only.
    """
    try:
        return os.stat(f"/proc/{pid}").st_uid
    except OSError:
        return -1


# What a process is ---------------------------------------------------------------------------------


def is_same(process: AnyProcess) -> bool:
    """Whether the number still is this process's; `OSError` if that cannot be looked at."""
    return _started_of(process.pid) == process.started


def has_ended(process: AnyProcess) -> bool:
    """Whether the process is gone, for those who look again later: what cannot be looked at now is taken to live."""
    try:
        return not is_same(process)
    except OSError:
        return False


def is_ending(process: AnyProcess) -> bool:
    """Whether it has ended, or is about to: cgroup v1 says `/` of it by then. It may still have children."""
    stat = _read_stat(process.pid)
    if not stat or int(stat[19]) != process.started:
        return True
    return stat[0] in (b"Z", b"X") or bool(int(stat[6]) & PF_EXITING)


def read_row_of(process: AnyProcess) -> Row | None:
    """Where this process hangs now; None if it has ended, or is a zombie."""
    row = read_row(process.pid)
    return row if row is not None and row.started == process.started else None


def read_cgroups(process: AnyProcess) -> bytes | None:
    """The text of /proc/PID/cgroup."""
    return _confirmed(process, _read_record(process.pid, "cgroup"))


def open_cgroups(process: AnyProcess) -> int:
    """A descriptor for `read_open_cgroups`, which the caller closes; -1 if the process is gone.

    It is this very process's for good: the kernel writes the text when it is read, and none once the process has been
    reaped, whoever has its number then.
    """
    fd = _open(f"/proc/{process.pid}/cgroup")
    if fd < 0:
        return -1
    try:
        same = is_same(process)
    except OSError:
        os.close(fd)
        raise
    if same:
        return fd
    os.close(fd)
    return -1


def read_open_cgroups(fd: int) -> bytes | None:
    """The text of /proc/PID/cgroup as it is now; None if the process is gone."""
    if fd < 0:
        return None
    try:
        text = os.pread(fd, PAGE, 0)  # from the beginning: the kernel writes the text anew
        return text if len(text) < PAGE else os.pread(fd, READ_CAP, 0)
    except OSError:
        return None


def read_limits_text(process: AnyProcess) -> bytes | None:
    """The text of /proc/PID/limits."""
    return _confirmed(process, _read_record(process.pid, "limits"))


def read_audit_session(process: AnyProcess) -> int:
    """The audit session's number; 0 without one (no pam_loginuid, or no audit in the kernel)."""
    text = _confirmed(process, read_file(f"/proc/{process.pid}/sessionid")) or b""
    number = int(text) if text.strip().isdigit() else 0
    return number if number != NO_AUDIT_SESSION else 0


def read_command_name(process: AnyProcess) -> str:
    """Return the process's name, which its user chooses; empty if the process has ended."""
    return (_confirmed(process, read_file(f"/proc/{process.pid}/comm")) or b"").decode("utf-8", "replace").strip()


def read_program(process: AnyProcess) -> str:
    """The path of the program that the process runs, without following it; empty if it is gone."""
    try:
        path = os.readlink(f"/proc/{process.pid}/exe")
    except OSError as error:
        raise_own_lack(error)
        return ""
    if not is_same(process):
        return ""
    # an upgrade has replaced the file that still runs
    return path[: -len(" (deleted)")] if path.endswith(" (deleted)") else path


def same_executable(one: AnyProcess, other: AnyProcess) -> bool:
    """Whether two processes of root's run the same file: device and inode, so an upgraded sshd still matches itself."""
    try:
        first, second = os.stat(f"/proc/{one.pid}/exe"), os.stat(f"/proc/{other.pid}/exe")
    except OSError:
        return False
    return is_same(one) and is_same(other) and (first.st_dev, first.st_ino) == (second.st_dev, second.st_ino)


def read_namespace(process: AnyProcess, name: str) -> tuple[int, int] | None:
    """Device and inode of a file below /proc/PID/ns, which name the namespace."""
    try:
        found = os.stat(f"/proc/{process.pid}/ns/{name}")
    except OSError:
        return None
    return (found.st_dev, found.st_ino) if is_same(process) else None


def read_own_namespace(name: str) -> tuple[int, int] | None:
    """`read_namespace` of ourselves."""
    try:
        found = os.stat(f"/proc/self/ns/{name}")
    except OSError:
        return None
    return found.st_dev, found.st_ino


def read_folder(process: AnyProcess) -> str:
    """The folder that the process is in; empty if that is gone."""
    try:
        path = os.readlink(f"/proc/{process.pid}/cwd")
    except OSError as error:
        raise_own_lack(error)
        return ""
    return path if is_same(process) else ""


def path_seen_by(process: AnyProcess, path: str) -> str:
    """The path that leads from here to what the process sees at `path`; empty if it sees nothing there.

    Nearly always it is the same one. A unit of systemd's may hide a folder, or put another one in its place
    (TemporaryFileSystem=, BindPaths=, PrivateTmp=). Links with absolute targets are followed from here, not from there.
    """
    inside = f"/proc/{process.pid}/root{path}"
    try:
        theirs = os.stat(inside)
    except (OSError, ValueError):
        return ""
    if not is_same(process):
        return ""
    try:
        ours = os.stat(path)
    except OSError:
        return inside
    return path if (ours.st_dev, ours.st_ino) == (theirs.st_dev, theirs.st_ino) else inside


def is_root_link(path: str) -> bool:
    """Whether this is a link into another process's view of the files, which no text says (`path_seen_by`)."""
    parts = path.split("/")
    return len(parts) == 4 and parts[1] == "proc" and parts[2].isdigit() and parts[3] == "root"


def read_children(process: AnyProcess) -> list[int]:
    """The numbers of the process's children, as far as the kernel lists them (CONFIG_PROC_CHILDREN)."""
    found: list[int] = []
    try:
        threads = os.listdir(f"/proc/{process.pid}/task")[:THREAD_CAP]
    except OSError:
        return found
    for thread in threads:
        text = read_file(f"/proc/{process.pid}/task/{thread}/children") or b""
        found += [int(word) for word in text.split()]
    return found[:CHILD_CAP] if is_same(process) else []


def read_socket_inode(process: AnyProcess, fd: int) -> str:
    """`socket:[N]` of a process's descriptor, or an empty string."""
    link = _read_descriptor(process.pid, str(fd))
    return link if link.startswith("socket:[") and is_same(process) else ""


def read_socket_inodes(process: AnyProcess) -> set[str]:
    """All `socket:[N]` of a process of root's."""
    links = {link for link in read_descriptors(process, FD_CAP) if link.startswith("socket:[")}
    return links if is_same(process) else set()


def read_connections(process: AnyProcess, table: str) -> str:
    """/proc/PID/net/tcp or tcp6: the connections of the process's network namespace."""
    try:
        with open(f"/proc/{process.pid}/net/{table}", encoding="ascii") as file:
            text = file.read()
    except OSError:
        return ""
    return text if is_same(process) else ""


def read_descriptors(process: AnyProcess, cap: int | None = None) -> Iterator[str]:
    """Yield the target of each descriptor of the process, empty if it was just closed. A user may have a million."""
    try:
        names = os.listdir(f"/proc/{process.pid}/fd")
    except OSError as error:
        raise_own_lack(error)
        return
    for name in names[:cap]:
        yield _read_descriptor(process.pid, name)


def read_descriptor_stats(process: AnyProcess) -> Iterator[tuple[str, os.stat_result | None]]:
    """Yield target and stat(2) of each descriptor, None for what may not be looked at, as the whole folder may not be.
    Call it in a child only: a file system may hang."""
    try:
        names = os.listdir(f"/proc/{process.pid}/fd")
    except OSError as error:
        raise_own_lack(error)
        if not has_ended(process):
            yield "a descriptor", None
        return
    for name in names:
        found = None
        try:
            found = os.stat(f"/proc/{process.pid}/fd/{name}")
        except FileNotFoundError:
            continue  # closed just now
        except OSError as error:
            raise_own_lack(error)
        if is_same(process):
            yield _read_descriptor(process.pid, name), found


def read_status(process: AnyProcess) -> bytes | None:
    """The text of /proc/PID/status."""
    return _confirmed(process, _read_record(process.pid, "status"))


# What waits for the process's memory map, which its owner can lock for ever: only in a child ----------


def read_environ(process: AnyProcess) -> bytes:
    """The environment that the process was started with, or what it has made of it."""
    return _confirmed(process, read_file(f"/proc/{process.pid}/environ")) or b""


def read_arguments(process: AnyProcess) -> tuple[bytes, ...]:
    """The words of the process's command line, or what it has made of them; the program's name is the first."""
    text = _confirmed(process, read_file(f"/proc/{process.pid}/cmdline")) or b""
    return tuple(text.rstrip(b"\0").split(b"\0"))


def read_mapped_names(process: AnyProcess) -> set[bytes] | None:
    """Return the names of the process's mappings (proc_pid_maps(5)); None if they cannot be read."""
    names = set()
    try:
        with open(f"/proc/{process.pid}/maps", "rb") as file:
            for line in file:
                fields = line.split(None, 5)
                if len(fields) == 6:
                    names.add(fields[5].rstrip(b"\n"))
    except OSError:
        return None
    return names if is_same(process) else None


def read_title(process: AnyProcess) -> bytes:
    """The process's first argument, which it may write over."""
    return read_arguments(process)[0]


# Reading -------------------------------------------------------------------------------------------


def read_file(path: str) -> bytes | None:
    """A small file of the kernel's, or None if it is not there."""
    return _read(path, READ_CAP, ends_short=False)


def _confirmed(process: AnyProcess, text: bytes | None) -> bytes | None:
    """Return what was read if the number has been this process's all the time: a lost number never comes back to it."""
    return text if text is not None and is_same(process) else None


def _read_record(pid: int, name: str) -> bytes | None:
    """One of the files that the kernel writes in one piece (stat, status, cgroup): less than was asked for is all.

    Three of them are read for every login, and nearly all fit a page.
    """
    return _read(f"/proc/{pid}/{name}", PAGE, ends_short=True)


def _read_stat(pid: int) -> list[bytes]:
    """The first 20 fields of /proc/PID/stat from the third on, or an empty list: state, parent, ..., start time."""
    text = _read_record(pid, "stat")
    if not text:
        return []
    # the command name stands in parentheses and may hold blanks and parentheses itself
    fields = text[text.rindex(b")") + 2 :].split(None, 20)
    return fields if len(fields) >= 20 else []


def _started_of(pid: int) -> int:
    """Start time in clock ticks since boot; 0 if there is no such process."""
    stat = _read_stat(pid)
    return int(stat[19]) if stat else 0


def _read_descriptor(pid: int, name: str) -> str:
    try:
        return os.readlink(f"/proc/{pid}/fd/{name}")
    except OSError:
        return ""


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
