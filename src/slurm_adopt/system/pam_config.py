# SPDX-License-Identifier: Apache-2.0
"""Reading PAM's configuration: which lines a service's stack consists of.

Rules of this file:
1. Read only; nothing here ever writes to /etc/pam.d.
2. Includes are followed as libpam does (`@include`, `include`, `substack`), to a depth, each file once per branch.
3. A stack that was read before is used again as long as each of its files is the same one, unchanged, and those that
   were missing are missing.
"""

from __future__ import annotations

import os
import time

from ..record import record
from .task import raise_own_lack

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Optional

    #: device, inode, size, change time in ns; None: there is no such file
    Identity = Optional[tuple[int, int, int, int]]

DIRECTORIES = ("/etc/pam.d", "/usr/lib/pam.d")
MODULE = "pam_slurm_adopt.so"
SYSTEMD_MODULE = "pam_systemd.so"
DEPTH_CAP = 8
FILE_CAP = 256 * 1024
KINDS = ("auth", "account", "password", "session")
#: A file that was changed so short a time ago might be changed once more without its change time telling.
SETTLED_NS = 2_000_000_000
KNOWN_STACKS_CAP = 64


@record
class PamLine:
    """One line of a stack: `optional` is the leading `-`; `control` as it stands there; `origin` is `file:line`."""

    kind: str
    control: str
    module: str
    args: tuple[str, ...]
    optional: bool
    origin: str


#: For the resident service: the lines of a stack, and all files that were looked for.
KNOWN_STACKS: dict[tuple[str, str, tuple[str, ...]], tuple[tuple[PamLine, ...], dict[str, Identity]]] = {}


def read_stack(service: str, kind: str, directories: tuple[str, ...] = DIRECTORIES) -> tuple[PamLine, ...]:
    """The lines of one management group of a service, includes unfolded; empty if there is no such service."""
    key = (service, kind, directories)
    known = KNOWN_STACKS.get(key)
    if known is not None and all(_identity(path) == seen for path, seen in known[1].items()):
        return known[0]
    files: dict[str, Identity] = {}
    lines = tuple(_lines(service, kind, directories, 0, files))
    settled_ns = time.time_ns() - SETTLED_NS
    if all(seen is None or seen[3] < settled_ns for seen in files.values()):
        if len(KNOWN_STACKS) >= KNOWN_STACKS_CAP:
            KNOWN_STACKS.clear()
        KNOWN_STACKS[key] = lines, files
    return lines


def has_session_line(service: str) -> bool:
    """Whether our module stands in the session stack, where namespaces can still be joined."""
    return any(line.module.endswith(MODULE) for line in read_stack(service, "session"))


def session_escapes(service: str, directories: tuple[str, ...] = DIRECTORIES, root: str = "") -> bool:
    """Whether the session will leave the job again: pam_systemd moves it to user.slice, and no line of ours follows.

    On cgroup v1 it moves the session in systemd's own hierarchy only, and without logind it does nothing (seen with
    systemd 257 on Debian 13).
    """
    if not os.path.exists(f"{root}/sys/fs/cgroup/cgroup.controllers") or not os.path.isdir(f"{root}/run/systemd/seats"):
        return False
    modules = [line.module.rpartition("/")[2] for line in read_stack(service, "session", directories)]
    if SYSTEMD_MODULE not in modules:
        return False
    return MODULE not in modules[modules.index(SYSTEMD_MODULE) :]


def _lines(
    service: str, kind: str, directories: tuple[str, ...], depth: int, files: dict[str, Identity]
) -> Iterator[PamLine]:
    if depth > DEPTH_CAP or "/" in service or service.startswith("."):
        return
    path, text = _read(service, directories, files)
    for number, line in enumerate(text.replace("\\\n", " ").split("\n"), 1):
        words = _words(line.partition("#")[0])
        if len(words) >= 2 and words[0] == "@include":
            yield from _lines(words[1], kind, directories, depth + 1, files)
        if len(words) < 3 or words[0].lstrip("-").lower() != kind:
            continue
        if words[1] in ("include", "substack"):
            yield from _lines(words[2], kind, directories, depth + 1, files)
        else:
            yield PamLine(kind, words[1], words[2], tuple(words[3:]), words[0].startswith("-"), f"{path}:{number}")


def _read(service: str, directories: tuple[str, ...], files: dict[str, Identity]) -> tuple[str, str]:
    for directory in directories:
        path = f"{directory}/{service}"
        files[path] = None
        try:
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise_own_lack(error)
            continue
        try:
            files[path] = _identity(fd)
            return path, os.read(fd, FILE_CAP).decode("utf-8", "replace")
        finally:
            os.close(fd)
    return "", ""


def _identity(file: str | int) -> Identity:
    """Of a path, or of what is open."""
    try:
        found = os.stat(file)
    except OSError:
        return None
    return found.st_dev, found.st_ino, found.st_size, found.st_ctime_ns


def _words(line: str) -> list[str]:
    """Words of a line; `[...]` is one word, its brackets taken off an argument but kept on a control."""
    words: list[str] = []
    rest = line.strip()
    while rest:
        if rest.startswith("["):
            word, _, rest = rest.partition("]")
            words.append(word + "]" if len(words) == 1 else word[1:])
        else:
            parts = rest.split(None, 1)
            words.append(parts[0])
            rest = parts[1] if len(parts) > 1 else ""
        rest = rest.strip()
    return words
