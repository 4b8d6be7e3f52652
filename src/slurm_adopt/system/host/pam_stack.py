# SPDX-License-Identifier: Apache-2.0
"""Reading PAM's configuration: which lines a service's stack consists of, as libpam reads them.

Everything here was tried with libpam 1.5.2 and 1.7.0, and is tried again by tests/libpam.

Rules of this file:
1. Read only; nothing here ever writes to PAM's files.
2. A line that libpam cannot use is a line all the same: it fails, whatever its module would have said.
3. What is read differently by different releases of libpam, or is not read to its end, is a doubt; nobody guesses.
4. A stack that was read before is used again as long as each of its files is the same one, unchanged, and those that
   were missing are missing.
"""

from __future__ import annotations

import os
import time

from ...record import record
from ..tasks.task import raise_own_lack

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import Literal, Optional

    #: device, inode, size, change time in ns; None: there is no such file
    Identity = Optional[tuple[int, int, int, int]]
    What = Literal["module", "substack", "broken"]

#: In libpam's order: the site's, the distribution's, and the vendor's directory of SUSE and of Fedora. The last two are
#: compiled in there only; nobody else has them.
DIRECTORIES = ("/etc/pam.d", "/usr/lib/pam.d", "/usr/etc/pam.d", "/usr/share/pam.d")
#: Used where there is none of the directories.
ONE_FILE = "/etc/pam.conf"
#: The service whose lines hold for services that have none.
OTHER = "other"
MODULE = "pam_slurm_adopt.so"
#: libpam's own cap for substacks, and from 1.7 on for includes; before, a stack that includes itself ends sshd.
DEPTH_CAP = 16
#: No real stack has a tenth of it.
LINE_CAP = 1024
FILE_CAP = 256 * 1024
KINDS = ("auth", "account", "password", "session")
BLANKS = " \n\t"
#: Ahead of a line of which it is in doubt where it ends.
IN_DOUBT = "\\"
#: A file that was changed so short a time ago might be changed once more without its change time telling.
SETTLED_NS = 2_000_000_000
KNOWN_STACKS_CAP = 64


@record
class PamLine:
    """One line of a stack: `optional` is the leading `-`; `control` without brackets; `origin` is `file:line`.

    `what`: a module; the beginning of a substack, whose lines follow with a higher `level`; or a line that libpam has
    no use for and that fails when its turn comes.
    """

    kind: str
    control: str
    module: str
    args: tuple[str, ...]
    optional: bool
    origin: str
    level: int = 0
    what: What = "module"

    @property
    def name(self) -> str:
        """The module's file name."""
        return self.module.rpartition("/")[2]


@record
class Stack:
    """The lines of one management group of a service, includes unfolded; and where it is in doubt what libpam reads."""

    lines: tuple[PamLine, ...]
    doubts: tuple[str, ...] = ()


def read_stack(service: str, kind: str, root: str = "") -> Stack:
    """The stack of a service; without a line if there is neither one for the service nor one for `other`.

    `root` goes before every path.
    """
    return _read_stack(service, kind, root)[0]


def _read_stack(service: str, kind: str, root: str) -> tuple[Stack, dict[str, Identity]]:
    """A stack, and all files that were looked for."""
    reading = _Reading(kind, root)
    for name in (service, OTHER):
        if not reading.lines:
            reading.read_service(name)
    return Stack(tuple(reading.lines), tuple(reading.doubts)), reading.files


class KnownStacks:
    """The stacks that many logins need, read once and again when one of their files is another than before."""

    def __init__(self) -> None:
        self.known: dict[tuple[str, str, str], tuple[Stack, dict[str, Identity]]] = {}

    def read(self, service: str, kind: str, root: str = "") -> Stack:
        """`read_stack`."""
        key = (service, kind, root)
        known = self.known.get(key)
        if known is not None and all(_identity(path) == seen for path, seen in known[1].items()):
            return known[0]
        stack, files = _read_stack(service, kind, root)
        settled_ns = time.time_ns() - SETTLED_NS
        if all(seen is None or seen[3] < settled_ns for seen in files.values()):
            if len(self.known) >= KNOWN_STACKS_CAP:
                self.known.clear()
            self.known[key] = stack, files
        return stack


def list_services(root: str = "") -> list[str]:
    """All PAM services of this node that have a file of their own, by name."""
    found: set[str] = set()
    for directory in DIRECTORIES:
        try:
            found.update(os.listdir(root + directory))
        except OSError:
            continue
    return sorted(name for name in found if not name.startswith(".") and "~" not in name)


class _Reading:
    """One reading of a stack: its lines so far, and the files that were looked for."""

    def __init__(self, kind: str, root: str) -> None:
        self.kind = kind
        self.root = root
        self.lines: list[PamLine] = []
        self.doubts: list[str] = []
        self.files: dict[str, Identity] = {}

    def read_service(self, service: str) -> None:
        if "/" in service or service.startswith("."):
            return
        if not any(self._is_directory(directory) for directory in DIRECTORIES):
            self._read_one_file(service)
            return
        path, text = self._open(service)
        if text is not None:
            self._take_whole(path, assemble_lines(text))

    def _read_one_file(self, service: str) -> None:
        """/etc/pam.conf, where each line begins with a service's name."""
        path, text = self._open(ONE_FILE)
        own: list[tuple[int, str | None]] = []
        for number, line in assemble_lines(text or ""):
            if line is None:
                own.append((number, line))
                continue
            mark = IN_DOUBT if line.startswith(IN_DOUBT) else ""
            name, at = next_token(line, len(mark))
            if str(name).lower() == service.lower():
                own.append((number, mark + line[at:]))
        self._take_whole(path, own)

    def _take_whole(self, path: str, source: Iterable[tuple[int, str | None]]) -> None:
        """The file that a service's stack begins with."""
        if not self._take(path, source, None, 0, 0):
            self.doubts.append(f"{path}: libpam refuses this file")

    def _take(
        self, path: str, source: Iterable[tuple[int, str | None]], wanted: str | None, depth: int, level: int
    ) -> bool:
        """Take over the lines of a file; false if libpam gives it up. `wanted`: the group that an include is for."""
        for number, text in source:
            origin = f"{path}:{number}"
            if text is None:
                return False
            if len(self.lines) >= LINE_CAP:
                self.doubts.append(f"{origin}: more than {LINE_CAP} lines")
                return True
            if text.startswith(IN_DOUBT):
                self.doubts.append(f"{origin}: a continued line before a blank one or a comment")
                text = text.removeprefix(IN_DOUBT)
            first, at = next_token(text, 0)
            if first is not None and first.lower() == "@include":
                name, _ = next_token(text, at)
                if not self._include(name or "", wanted, depth, level):
                    if wanted is None:
                        return False
                    self.lines.append(PamLine(wanted, "required", name or "", (), False, origin, level, "broken"))
                continue
            self._take_line(text, origin, wanted, depth, level)
        return True

    def _take_line(self, text: str, origin: str, wanted: str | None, depth: int, level: int) -> None:
        word, at = next_token(text, 0)
        kind = (word or "").lower()
        optional = kind.startswith("-")
        kind = kind[1:] if optional else kind
        broken = kind not in KINDS
        # libpam counts what it does not understand among those that it is reading, else among the strictest
        kind = (wanted or KINDS[0]) if broken else kind
        if kind != self.kind:
            return
        control, at = next_token(text, at)
        module, at = next_token(text, at)
        broken = broken or module is None
        control = "bad" if control is None else control
        if control.lower() in ("include", "substack"):
            inner = level
            if control.lower() == "substack":
                inner += 1
                self.lines.append(PamLine(kind, control, module or "", (), optional, origin, level, "substack"))
            if not self._include(module or "", kind, depth, inner):
                self.lines.append(PamLine(kind, "required", module or "", (), optional, origin, level, "broken"))
            return
        args = tuple(_tokens(text, at))
        what: What = "broken" if broken else "module"
        self.lines.append(PamLine(kind, control, module or "", args, optional, origin, level, what))

    def _include(self, name: str, wanted: str | None, depth: int, level: int) -> bool:
        # a substack is an include as well, so its level is within the cap too
        if not name or depth + 1 >= DEPTH_CAP:
            return False
        path, text = self._open(name)
        return text is not None and self._take(path, assemble_lines(text), wanted, depth + 1, level)

    def _open(self, name: str) -> tuple[str, str | None]:
        """The path and the text of a file; None if there is none. A name that begins with `/` is a path."""
        for path in [name] if name.startswith("/") else [f"{directory}/{name}" for directory in DIRECTORIES]:
            full = self.root + path
            self.files[full] = None
            try:
                fd = os.open(full, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
            except OSError as error:
                raise_own_lack(error)
                continue
            try:
                self.files[full] = _identity(fd)
                raw = os.read(fd, FILE_CAP)
                if len(raw) == FILE_CAP:
                    self.doubts.append(f"{full}: more than {FILE_CAP // 1024} KiB")
                return full, raw.decode("utf-8", "replace")
            except IsADirectoryError:
                continue
            finally:
                os.close(fd)
        return "", None

    def _is_directory(self, path: str) -> bool:
        found = os.path.isdir(self.root + path)
        if not found:
            self.files[self.root + path] = _identity(self.root + path)
        return found


def assemble_lines(text: str) -> Iterator[tuple[int, str | None]]:
    """The lines of a file with what is continued put together, and the number of each; None: the file ends half-way.

    `IN_DOUBT` stands ahead of a line of which it is in doubt where it ends.
    """
    begun, doubt = "", ""
    first = 0
    for number, line in enumerate(text.split("\n"), 1):
        line = line.lstrip(BLANKS)
        if not line or line.startswith("#"):
            doubt = IN_DOUBT if begun else ""  # libpam 1.5 goes on behind it, 1.7 does not
            continue
        first = first if begun else number
        body, comment, _ = line.partition("#")
        trimmed = body.rstrip(BLANKS)
        if not comment and trimmed.endswith("\\"):
            begun += trimmed[:-1] + " "
            continue
        yield first, doubt + begun + (body if comment else trimmed)
        begun = doubt = ""
    if begun:
        yield first, None


def next_token(text: str, start: int) -> tuple[str | None, int]:
    """The word that begins at or after `start`, and where it ends; `[...]` is one word, without its brackets."""
    at, size = start, len(text)
    while at < size and text[at] in BLANKS:
        at += 1
    if at >= size:
        return None, size
    if text[at] != "[":
        end = at
        while end < size and text[end] not in BLANKS:
            end += 1
        return text[at:end], end
    end = at + 1
    while end < size and text[end] != "]":
        end += 2 if text[end : end + 2] == "\\]" else 1
    return text[at + 1 : end].replace("\\]", "]"), min(end + 1, size)


def _tokens(text: str, at: int) -> Iterator[str]:
    word, at = next_token(text, at)
    while word is not None:
        yield word
        word, at = next_token(text, at)


def _identity(file: str | int) -> Identity:
    """Of a path, or of what is open."""
    try:
        found = os.stat(file)
    except OSError:
        return None
    return found.st_dev, found.st_ino, found.st_size, found.st_ctime_ns
