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

from ...record import record
from ..tasks.task import raise_own_lack

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Optional

    #: device, inode, size, change time in ns; None: there is no such file
    Identity = Optional[tuple[int, int, int, int]]

DIRECTORIES = ("/etc/pam.d", "/usr/lib/pam.d")
MODULE = "pam_slurm_adopt.so"
#: They move a session into a scope of its own.
SCOPE_MODULES = ("pam_systemd.so", "pam_elogind.so")
DEPTH_CAP = 8
FILE_CAP = 256 * 1024
KINDS = ("auth", "account", "password", "session")
#: A file that was changed so short a time ago might be changed once more without its change time telling.
SETTLED_NS = 2_000_000_000
KNOWN_STACKS_CAP = 64


@record
class PamLine:
    """One line of a stack: `optional` is the leading `-`; `control` as it stands there; `origin` is `file:line`.

    `scope` are the origins of the substack lines that it stands below: `done` and `die` end one substack only.
    """

    kind: str
    control: str
    module: str
    args: tuple[str, ...]
    optional: bool
    origin: str
    scope: tuple[str, ...] = ()


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


def find_guard(service: str, directories: tuple[str, ...] = DIRECTORIES) -> PamLine | None:
    """The session line of ours that holds a session in its job; None if there is none.

    It stands after every module that moves sessions away, nothing ahead of it may end the stack or jump over it, and
    its failure counts. What its own options say is the caller's to judge.
    """
    lines = read_stack(service, "session", directories)
    movers = [index for index, line in enumerate(lines) if _name(line) in SCOPE_MODULES]
    for index in range(movers[-1] + 1 if movers else 0, len(lines)):
        if _name(lines[index]) == MODULE and _is_binding(lines[index].control) and _is_reached(lines, index):
            return lines[index]
    return None


def moves_sessions(service: str, directories: tuple[str, ...] = DIRECTORIES, root: str = "") -> bool:
    """Whether the service's session stack has a module that will move the session out of its job.

    On cgroup v1 pam_systemd moves the session in systemd's own hierarchy only, and without logind it does nothing (seen
    with systemd 257 on Debian 13).
    """
    if not os.path.exists(f"{root}/sys/fs/cgroup/cgroup.controllers") or not os.path.isdir(f"{root}/run/systemd/seats"):
        return False
    return any(_name(line) in SCOPE_MODULES for line in read_stack(service, "session", directories))


def list_services(directories: tuple[str, ...] = DIRECTORIES) -> list[str]:
    """All PAM services of this node, by name."""
    found: set[str] = set()
    for directory in directories:
        try:
            found.update(os.listdir(directory))
        except OSError:
            continue
    return sorted(name for name in found if not name.startswith(".") and "~" not in name)


def actions_of(control: str) -> dict[str, str]:
    """Map a module's return codes to the actions of a control (pam.conf(5)); `default` for the rest."""
    simple = {
        "required": {"success": "ok", "new_authtok_reqd": "ok", "ignore": "ignore", "default": "bad"},
        "requisite": {"success": "ok", "new_authtok_reqd": "ok", "ignore": "ignore", "default": "die"},
        "sufficient": {"success": "done", "new_authtok_reqd": "done", "default": "ignore"},
        "optional": {"success": "ok", "new_authtok_reqd": "ok", "default": "ignore"},
    }
    if not control.startswith("["):
        return simple.get(control.lower(), {"default": "bad"})
    pairs = [word.partition("=") for word in control.strip("[]").lower().split()]
    return {name: action for name, _, action in pairs}


def _name(line: PamLine) -> str:
    return line.module.rpartition("/")[2]


def _is_binding(control: str) -> bool:
    """Whether a refusal by this line refuses the session."""
    actions = actions_of(control)
    return all(
        actions.get(code, actions.get("default", "bad")) in ("bad", "die") for code in ("session_err", "perm_denied")
    )


def _is_reached(lines: tuple[PamLine, ...], index: int) -> bool:
    """Whether nothing ahead of a line may end the stack with success, or jump over the line."""
    for before, line in enumerate(lines[:index]):
        for code, action in actions_of(line.control).items():
            ends = action == "done" or (action == "die" and code in ("success", "new_authtok_reqd"))
            if ends and line.scope == lines[index].scope[: len(line.scope)]:
                return False
            if action.isdigit() and index in _jumped_over(lines, before, int(action)):
                return False
    return True


def _jumped_over(lines: tuple[PamLine, ...], start: int, count: int) -> range:
    """The lines that a jump of `count` passes; a substack counts as one."""
    depth = len(lines[start].scope)
    end = start + 1
    while end < len(lines) and count > 0:
        inside = lines[end].scope[: depth + 1]
        end += 1
        while len(inside) > depth and end < len(lines) and lines[end].scope[: depth + 1] == inside:
            end += 1
        count -= 1
    return range(start + 1, end)


def _lines(
    service: str,
    kind: str,
    directories: tuple[str, ...],
    depth: int,
    files: dict[str, Identity],
    scope: tuple[str, ...] = (),
) -> Iterator[PamLine]:
    if depth > DEPTH_CAP or "/" in service or service.startswith("."):
        return
    path, text = _read(service, directories, files)
    for number, line in enumerate(text.replace("\\\n", " ").split("\n"), 1):
        words = _words(line.partition("#")[0])
        if len(words) >= 2 and words[0] == "@include":
            yield from _lines(words[1], kind, directories, depth + 1, files, scope)
        if len(words) < 3 or words[0].lstrip("-").lower() != kind:
            continue
        origin = f"{path}:{number}"
        if words[1] in ("include", "substack"):
            inner = (*scope, origin) if words[1] == "substack" else scope
            yield from _lines(words[2], kind, directories, depth + 1, files, inner)
        else:
            yield PamLine(kind, words[1], words[2], tuple(words[3:]), words[0].startswith("-"), origin, scope)


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
