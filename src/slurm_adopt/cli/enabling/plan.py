# SPDX-License-Identifier: Apache-2.0
"""Which lines of ours go where in a service's file, and what the file is then.

Rules of this file:
1. One place on every distribution: the service's own file in /etc/pam.d. pam-auth-update (Debian, Ubuntu), authselect
   (RHEL, Fedora) and pam-config (SUSE) write the files that services share, `common-*` and `system-auth`, and leave
   this one to the administrator; in a shared file the line would guard sudo, cron and the console as well. Where only
   the vendor has a file (SUSE: /usr/etc/pam.d), the one in /etc is a copy of it, which libpam takes instead.
2. Our line is the last of its kind. If a line ahead ends the stack for everybody (RHEL: `sufficient pam_localuser.so`
   of password-auth), the account line goes before what brings that line in; the session line goes before what gives the
   session another root.
3. The lines are a matter of text; what has come of it is read again as libpam reads it. Without our lines it is the
   stack that it was, every jump ends where it did, and the other kinds are the same. Else nothing is planned.
4. What stands there already stays. A line of ours that somebody has written keeps its control and its place.
"""

from __future__ import annotations

import errno
import os
import re

from ...options.parse import parse_options
from ...record import record
from ...system.host.pam_stack import BLANKS, DEPTH_CAP, DIRECTORIES, KINDS, read_stack
from ...system.host.pam_walk import actions_of, jump
from ...system.tasks.files import other_writers, read_trusted
from ..doctor.node import OUR_NAME
from ..doctor.pam import find_ending, find_jailer
from ..main import die

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from ...system.host.pam_stack import PamLine, Stack
    from ..doctor.node import Node, OurLine
    from .candidate import Candidate

    #: The lines that are not ours: what each is, and where its jumps end.
    Shape = list[tuple[tuple[object, ...], tuple[object, ...]]]

SITE = DIRECTORIES[0]
FILE_CAP = 256 * 1024
MODULE = f"{OUR_NAME}.so"
#: Of a line: its kind, or what an `@include` names.
FIRST_WORDS = re.compile(r"\s*(?:-?(account|session|auth|password)\s|@include\s+(\S+))", re.IGNORECASE)
#: All of a line before the options.
HEAD = re.compile(r"\s*-?\w+\s+(?:\[[^\]]*\]|\S+)\s+\S+")
SERVICE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")
OPTION = re.compile(r"[a-z0-9_]+=[A-Za-z0-9_.,:@/*+%-]*")


@record
class Plan:
    """`path` is the file in /etc; `before` is what it holds, None if there is none.

    `source` is the file that libpam reads until now, /etc's or the vendor's, and `text` what it holds. `after` None:
    the file is to go, as it says nothing but what the vendor's says. `notes`: a sentence each.
    """

    service: str
    path: str
    source: str
    before: bytes | None
    text: bytes
    after: bytes | None
    notes: tuple[str, ...] = ()

    @property
    def changes(self) -> bool:
        """Whether there is anything to do."""
        return self.text != self.after


def plan_enable(candidate: Candidate, service: str, options: str | None, default: str, kinds: tuple[str, ...]) -> Plan:
    """Our lines for these kinds, with `options`; None: those that stand there stay, new ones get `default`.

    The candidate has the new file then.
    """
    source, before, text = read_service_file(candidate.node, service)
    original = _encoded(text)
    wanted = check_options(service, default if options is None else options)
    old = _shapes(candidate, service)
    notes: list[str] = []
    for kind in kinds:
        text = _with_line(candidate, kind, (service, source, text), (wanted, options is not None), (old, notes))
        candidate.put(service, _encoded(text))
    if _shapes(candidate, service) != old:
        die(f"{source} cannot be changed without changing what its other lines do", "write the lines by hand")
    return Plan(service, f"{SITE}/{service}", source, before, original, _encoded(text), tuple(notes))


def plan_disable(candidate: Candidate, service: str) -> Plan:
    """The file without our lines; no file, if it is the vendor's then. The candidate has the new file then."""
    source, before, text = read_service_file(candidate.node, service)
    old = _shapes(candidate, service)
    notes, numbers = [], []
    for kind in ("account", "session"):
        for line in candidate.our_lines(kind, service):
            where, number = _origin(candidate, line.line)
            if _stands_in(where, service) and not (line.path and not candidate.is_ours(line.path)):
                numbers.append(number)
            elif line.works:
                why = "other services have this file as well" if not _stands_in(where, service) else "it is Slurm's own"
                notes.append(f"{where}:{number} stays: {why}")
    lines = split_lines(text)
    for number in sorted(set(numbers), reverse=True):
        first, behind = _extent(lines, number)
        del lines[first:behind]
    after: bytes | None = _encoded("".join(lines))
    candidate.put(service, after or b"")
    if _shapes(candidate, service) != old:
        die(
            f"a line of {source} jumps over a line of slurm-adopt, and would jump over another one without it",
            "take both out by hand, in one go",
        )
    if before is not None and numbers and after == _vendors(candidate.node, service)[1]:
        after = None
    return Plan(service, f"{SITE}/{service}", source, before, _encoded(text), after, tuple(notes))


def check_options(service: str, options: str) -> str:
    """The options as they are to stand there; ends the command if the module would not understand them."""
    words = options.split()
    if service != "sshd" and not any(word.startswith("service=") for word in words):
        words.append(f"service={service}")
    odd = next((word for word in words if not OPTION.fullmatch(word)), "")
    if odd:
        die(f"{odd!r} cannot stand on a PAM line", "options are NAME=VALUE; docs/reference/options.md has them all")
    parsed = parse_options(words)
    if parsed.problems:
        die("; ".join(parsed.problems), "man pam_slurm_adopt lists the options")
    if not parsed.works_in(service):
        die(f"a line with {options!r} does nothing in the service {service}", f"add service={service} to the options")
    return " ".join(words)


def read_service_file(node: Node, service: str) -> tuple[str, bytes | None, str]:
    """The file that libpam reads for a service, what /etc has of it, and the text; ends the command if it must not be
    changed."""
    if not SERVICE.fullmatch(service):
        die(f"{service!r} is no name of a PAM service", "ls /etc/pam.d lists them")
    path = f"{SITE}/{service}"
    before = None
    owners = (os.geteuid(),)
    try:
        others = other_writers(SITE, os.stat(node.place(SITE)), owners)
        if others:
            die(f"{SITE}: {others.partition(': ')[0]}", others.partition(": ")[2] or "make it root's")
        before = read_trusted(node.place(path), owners, FILE_CAP)
    except FileNotFoundError:
        pass
    except OSError as error:
        if error.errno == errno.ELOOP:
            target = os.path.realpath(node.place(path))
            die(
                f"{path} is a link to {target}: whoever keeps that file would undo the change, or it would not be seen",
                f"change {target} with the tool that made it, or: cp --remove-destination {target} {path}",
            )
        what, _, mend = str(error.strerror).replace(node.root, "").partition(": ")
        die(f"{path}: {what}", mend)
    if before is not None:
        return path, before, _decoded(before)
    place, found = _vendors(node, service)
    if found is None:
        die(f"there is no PAM service {service}", "ls /etc/pam.d lists them; --service names the one that sshd uses")
    return place, None, _decoded(found)


def _vendors(node: Node, service: str) -> tuple[str, bytes | None]:
    """The vendor's file of this name, and what it holds."""
    for directory in DIRECTORIES[1:]:
        found = node.read(f"{directory}/{service}")
        if found is not None:
            return f"{directory}/{service}", found
    return "", None


def split_lines(text: str) -> list[str]:
    """The lines with their ends; for libpam only a newline ends one."""
    return re.findall(r"[^\n]*\n|[^\n]+\Z", text)


def _decoded(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")


def _encoded(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


# One line -------------------------------------------------------------------------------------------


def _with_line(
    candidate: Candidate,
    kind: str,
    file: tuple[str, str, str],
    want: tuple[str, bool],
    so_far: tuple[dict[str, Shape], list[str]],
) -> str:
    """The file's text with our line of this kind; `file` is service, path and text, `want` the options and whether they
    were asked for."""
    service, source, text = file
    wanted, is_given = want
    ours = [(line, *_origin(candidate, line.line)) for line in candidate.our_lines(kind, service)]
    for line, where, number in ours:
        if not _stands_in(where, service) and line.works:
            if is_given and " ".join(line.line.args) != wanted:
                die(
                    f"{where}:{number} has the {kind} line already, with other options",
                    f"change or remove {where}:{number}",
                )
            so_far[1].append(
                f"{where}:{number} is the {kind} line; it stands in a file that other services have as well"
            )
            return text
    own = [(line, number) for line, where, number in ours if _stands_in(where, service)]
    if own and (
        any(line.works for line, _ in own)
        if not is_given
        else all(" ".join(line.line.args) == wanted for line, _ in own)
    ):
        return text
    if len(own) > 1:
        die(f"{source} has {len(own)} {kind} lines of slurm-adopt, which belong together", "change them by hand")
    if own:
        lines = split_lines(text)
        first, behind = _extent(lines, own[0][1])
        head = HEAD.match(" ".join(line.strip().rstrip("\\") for line in lines[first:behind]))
        assert head is not None, "libpam's reader has found kind, control and module there"
        return "".join([*lines[:first], f"{head[0].strip()} {wanted}\n", *lines[behind:]])
    module = candidate.other_name() or MODULE
    return _insert(candidate, kind, (service, source, text), f"{kind}  required  {module} {wanted}\n", so_far[0])


def _insert(candidate: Candidate, kind: str, file: tuple[str, str, str], line: str, old: dict[str, Shape]) -> str:
    service, source, text = file
    lines = split_lines(text)
    if lines and not lines[-1].endswith("\n"):
        lines[-1] += "\n"
    spans = list(_spans_of(candidate, kind, lines))
    places = [spans[-1][1] if spans else len(lines)]
    places += [first for first, _ in reversed(spans)]
    ending, fits = "", False
    for place in places:
        changed = "".join([*lines[:place], line, *lines[place:]])
        candidate.put(service, _encoded(changed))
        ours = [one for one in candidate.our_lines(kind, service) if _is(one, service, candidate)]
        found = _find_wrong(candidate, kind, ours[0]) if ours else None
        fits = bool(ours) and found is None and _shapes(candidate, service) == old
        if fits or (kind == "session" and found is None):
            break  # a session line that is not the last guards nothing, but for what gives the session another root
        ending = ending or (f": {candidate.shown(found.origin)} stands before it" if found else "")
    if not fits:
        die(f"{source} has no place for the {kind} line{ending}", "write it by hand, and ask slurm-adopt doctor")
    return changed


def _find_wrong(candidate: Candidate, kind: str, ours: OurLine) -> PamLine | None:
    """A line that must not stand ahead of ours."""
    return find_jailer(candidate, ours) if kind == "session" else find_ending(candidate, ours, is_new=True)


def _is(line: OurLine, service: str, candidate: Candidate) -> bool:
    return _stands_in(_origin(candidate, line.line)[0], service)


def _stands_in(where: str, service: str) -> bool:
    """Whether a file is the service's own."""
    return where in (f"{directory}/{service}" for directory in DIRECTORIES)


def _origin(candidate: Candidate, line: PamLine) -> tuple[str, int]:
    """The file, as the node names it, and the number of the line in it."""
    where, _, number = candidate.shown(line.origin).rpartition(":")
    return where, int(number)


def _extent(lines: list[str], number: int) -> tuple[int, int]:
    """Where the line that begins with this number begins, and where the next one does."""
    behind = number - 1
    while behind < len(lines) - 1 and "#" not in lines[behind] and lines[behind].rstrip(BLANKS).endswith("\\"):
        behind += 1
    return number - 1, behind + 1


def _spans_of(candidate: Candidate, kind: str, lines: list[str], depth: int = 0) -> Iterator[tuple[int, int]]:
    """The lines that bring anything into the stack of this kind, each from its beginning to the next one's."""
    place = 0
    while place < len(lines):
        first, place = _extent(lines, place + 1)
        found = FIRST_WORDS.match(lines[first])
        if found is None or depth >= DEPTH_CAP:
            continue
        name = found[2]
        if name:
            path = name if name.startswith("/") else f"{SITE}/{name}"
            inner = split_lines(candidate.text(path) or "")
            if any(_spans_of(candidate, kind, inner, depth + 1)):
                yield first, place
        elif found[1].lower() == kind:
            yield first, place


# What must not change -------------------------------------------------------------------------------


def _shapes(candidate: Candidate, service: str) -> dict[str, Shape]:
    return {kind: _shape(read_stack(service, kind, candidate.root)) for kind in KINDS}


def _shape(stack: Stack) -> Shape:
    lines = stack.lines
    foreign = [place for place, line in enumerate(lines) if not line.name.startswith(OUR_NAME)]
    found: Shape = []
    for place in foreign:
        line = lines[place]
        ends: list[object] = []
        for action in actions_of(line.control)[0] if line.what == "module" else ():
            if action.isdigit():
                goal, left = jump(lines, place, int(action))
                ends.append((sum(one < goal for one in foreign), bool(left)))
        what = (line.kind, line.control, line.module, line.args, line.optional, line.level, line.what)
        found.append((what, tuple(ends)))
    return found
