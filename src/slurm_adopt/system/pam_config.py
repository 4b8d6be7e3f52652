# SPDX-License-Identifier: Apache-2.0
"""Reading PAM's configuration: which lines a service's stack consists of.

Rules of this file:
1. Read only; nothing here ever writes to /etc/pam.d.
2. Includes are followed as libpam does (`@include`, `include`, `substack`), to a depth, each file once per branch.
"""

from __future__ import annotations

import os

from ..record import record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

DIRECTORIES = ("/etc/pam.d", "/usr/lib/pam.d")
MODULE = "pam_slurm_adopt.so"
SYSTEMD_MODULE = "pam_systemd.so"
DEPTH_CAP = 8
FILE_CAP = 256 * 1024
KINDS = ("auth", "account", "password", "session")


@record
class PamLine:
    """One line of a stack: `optional` is the leading `-`; `control` as it stands there; `origin` is `file:line`."""

    kind: str
    control: str
    module: str
    args: tuple[str, ...]
    optional: bool
    origin: str


def read_stack(service: str, kind: str, directories: tuple[str, ...] = DIRECTORIES) -> list[PamLine]:
    """The lines of one management group of a service, includes unfolded; empty if there is no such service."""
    return list(_lines(service, kind, directories, 0))


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


def _lines(service: str, kind: str, directories: tuple[str, ...], depth: int) -> Iterator[PamLine]:
    if depth > DEPTH_CAP or "/" in service or service.startswith("."):
        return
    path, text = _read(service, directories)
    for number, line in enumerate(text.replace("\\\n", " ").split("\n"), 1):
        words = _words(line.partition("#")[0])
        if len(words) >= 2 and words[0] == "@include":
            yield from _lines(words[1], kind, directories, depth + 1)
        if len(words) < 3 or words[0].lstrip("-").lower() != kind:
            continue
        if words[1] in ("include", "substack"):
            yield from _lines(words[2], kind, directories, depth + 1)
        else:
            yield PamLine(kind, words[1], words[2], tuple(words[3:]), words[0].startswith("-"), f"{path}:{number}")


def _read(service: str, directories: tuple[str, ...]) -> tuple[str, str]:
    for directory in directories:
        path = f"{directory}/{service}"
        try:
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            continue
        try:
            return path, os.read(fd, FILE_CAP).decode("utf-8", "replace")
        finally:
            os.close(fd)
    return "", ""


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
