# SPDX-License-Identifier: Apache-2.0
"""Finds what processes would take along out of their job: memory, devices, namespaces.

The kernel charges memory to the cgroup that it was first used in, and leaves open devices and namespaces to whoever has
them. A login that is moved with them uses what belongs to a job that may have ended.

Rules of this file:
1. It looks at users' processes (descriptors, memory maps), which their users can make wait for ever: it runs in the
   child for one request, which is killed when its time is up.
2. What cannot be looked at is in the way.
"""

from __future__ import annotations

import os
import stat

from .procfs import (
    is_same,
    read_command_name,
    read_descriptor_stats,
    read_mapped_names,
    read_namespace,
    read_own_namespace,
    read_process,
    read_row_of,
    read_status,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from .procfs import AnyProcess

#: A login with a shell, tmux and an editor has about 20 MiB.
MEMORY_CAP_KIB = 64 * 1024
#: Character devices that belong to nobody (Documentation/admin-guide/devices.txt): null, zero, full, random, urandom,
#: kmsg; /dev/tty, console, ptmx.
FREE_DEVICES = {(1, 3), (1, 5), (1, 7), (1, 8), (1, 9), (5, 0), (5, 1), (5, 2)}
#: Virtual consoles, and Unix98 pseudo terminals.
TERMINALS = {4, *range(136, 144)}
#: Mapped from a device or from memory that has no name in a file system.
BAD_MAPS = (b"/dev/", b"/memfd:", b"/SYSV", b"/anon_hugepage", b"/dmabuf", b"anon_inode:")
NAMESPACES = ("user", "pid", "mnt", "ipc", "uts", "net", "cgroup")
NAMED_CAP = 8


def find_baggage(processes: Iterable[AnyProcess]) -> list[str]:
    """Return in words why these processes cannot be moved together; empty if they can."""
    known = [process for process in processes if read_row_of(process) is not None]
    found: list[str] = []
    sizes = {process.pid: _memory_kib(process) for process in known}
    if sum(sizes.values()) > MEMORY_CAP_KIB:
        biggest = sorted(known, key=lambda process: -sizes[process.pid])[:3]
        names = ", ".join(f"{_called(process)}: {sizes[process.pid] // 1024} MiB" for process in biggest)
        found.append(f"{sum(sizes.values()) // 1024} MiB of memory, more than {MEMORY_CAP_KIB // 1024} ({names})")
    node = read_process(1)
    for process in known:
        found += [f"{_called(process)} has {what}" for what in _things_of(process, node)]
    return found[:NAMED_CAP]


def _called(process: AnyProcess) -> str:
    name = "".join(char if char.isascii() and char.isprintable() else "?" for char in read_command_name(process))
    return f"{process.pid} {name}"


def _memory_kib(process: AnyProcess) -> int:
    """Memory that no file holds, resident or swapped, and huge pages; of a process that is gone none."""
    total = 0
    for line in (read_status(process) or b"").split(b"\n"):
        name, _, value = line.partition(b":")
        if name in (b"RssAnon", b"RssShmem", b"VmSwap", b"HugetlbPages"):
            total += int(value.split()[0])
    return total


def _things_of(process: AnyProcess, node: AnyProcess | None) -> Iterator[str]:
    yield from sorted({what for found in read_descriptor_stats(process) if (what := _device(*found))})
    if read_status(process) is None and is_same(process):
        yield "memory whose size cannot be read"
    maps = read_mapped_names(process)
    if maps is None and is_same(process):
        yield "a memory map that cannot be read"
    yield from sorted({f"mapped {name.decode('ascii', 'replace')[:60]}" for name in maps or () if _is_bad_map(name)})
    for kind in NAMESPACES:
        own, nodes = read_namespace(process, kind), node and read_namespace(node, kind)
        if read_row_of(process) is None or read_own_namespace(kind) is None:
            continue  # gone, or the kernel has none of this kind
        if own is None or nodes is None:
            yield f"a {kind} namespace that cannot be looked at"
        elif own != nodes:
            yield f"a {kind} namespace of its own"


def _is_bad_map(name: bytes) -> bool:
    return name.startswith(BAD_MAPS) and not name.startswith((b"/dev/zero", b"/dev/null"))


def _device(name: str, found: os.stat_result | None) -> str:
    """Return in words why an open descriptor prevents a move; empty if it does not."""
    if found is None:
        return f"{name} open that cannot be looked at"
    number = (os.major(found.st_rdev), os.minor(found.st_rdev))
    if stat.S_ISBLK(found.st_mode):
        return f"{name} open"
    if stat.S_ISCHR(found.st_mode):
        return "" if number in FREE_DEVICES or number[0] in TERMINALS else f"{name} open"
    if name.startswith(("/memfd:", "/dev/shm/", "anon_inode:[io_uring]", "/dmabuf")):
        return f"{name} open"
    if stat.S_ISREG(found.st_mode) and not found.st_nlink and found.st_size > 1 << 20:
        return f"a deleted file of {found.st_size >> 20} MiB open"
    return ""
