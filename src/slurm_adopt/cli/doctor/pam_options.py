# SPDX-License-Identifier: Apache-2.0
"""The options of our lines: what the module does not know, what asks for nothing, and names that nobody has.

Rules of this file:
1. An option is idle if the login would be the same without it, for certain: another option of the line overrules it, or
   the phase that it is for does not see it. What is only unusual is the site's wish.
2. Lines that are alike, of one service, are one finding: `enable` writes the same options on both.
"""

from __future__ import annotations

from ...options.schema import OPTIONS
from .finding import ERROR, WARNING, Finding
from .node import KINDS, OUR_NAME

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from .node import Node, OurLine

STRICT = {spec.name: spec.strict for spec in OPTIONS if spec.strict}
#: They have their effect in one phase only: (option, the kind of line that acts upon it).
OF_ONE_KIND = (
    ("rlimits", "session"),
    ("user_manager", "session"),
    ("user_move", "account"),
    ("action_unknown", "account"),
    ("allow_users", "account"),
    ("allow_groups", "account"),
)
#: Groups that everybody is in: gid 100 of Red Hat and SUSE, and that of Active Directory.
GROUPS_OF_ALL = {"users", "100", "domain users", "domain^users"}


def check_swallowed(lines: list[OurLine]) -> Iterator[Finding]:
    """A line whose options are another line."""
    for line in lines:
        if any(word.rpartition("/")[2].startswith(OUR_NAME) for word in line.line.args):
            file, _, number = line.line.origin.rpartition(":")
            yield Finding(
                "pam-options",
                ERROR,
                f"{line.line.origin} ends with a backslash, and so the next line is part of it",
                "the next line is not there for libpam, and its words are options of this one",
                f"sed -i '{number}s/[ \\t]*\\\\[ \\t]*$//' {file}",
            )


def check_options(account: list[OurLine], session: list[OurLine]) -> Iterator[Finding]:
    """What stands on the lines of one service."""
    alike: dict[tuple[str, ...], list[OurLine]] = {}
    for line in (*account, *session):
        alike.setdefault(line.line.args, []).append(line)
    for lines in alike.values():
        where = " and ".join(dict.fromkeys(line.line.origin for line in lines))
        found = list(_problems(lines[0], where))
        yield from found
        if not found:
            yield from _unsafe(lines, where)
            yield from _idle(lines, account, session, where)


def _problems(line: OurLine, where: str) -> Iterator[Finding]:
    if line.options.problems:
        yield Finding(
            "pam-options",
            ERROR,
            f"{where}: {'; '.join(line.options.problems)}",
            "the module makes of it what is stricter, and logs an error at each login",
            f"mend {where}; the options are in docs/reference/options.md",
        )


def _unsafe(lines: list[OurLine], where: str) -> Iterator[Finding]:
    options = lines[0].options
    unsafe = []
    if options.action_adopt_failure == "allow":
        unsafe.append("action_adopt_failure=allow")
    if options.action_generic_failure != "deny":
        unsafe.append(f"action_generic_failure={options.action_generic_failure}")
    if unsafe and any(line.works for line in lines):
        yield Finding(
            "pam-unsafe-defaults",
            WARNING,
            f"{where}: {' and '.join(unsafe)}, as by default",
            "when something fails, users get in outside of all jobs",
            f"add profile=strict to {where}",
        )


def _idle(lines: list[OurLine], account: list[OurLine], session: list[OurLine], where: str) -> Iterator[Finding]:
    line = lines[0]
    if not any(one.works for one in lines):
        return
    idle = [*_overruled(line), *_of_other_phase(lines, account, session)]
    if idle:
        names = " and ".join(dict.fromkeys(word.partition("=")[0] for word, _ in idle))
        yield Finding(
            "pam-option-idle",
            WARNING,
            f"{where}: {'; '.join(f'{word} {why}' for word, why in idle)}",
            "logins are as they would be without it: what was meant is not in force",
            f"take {names} out of {where}, or what overrules it; see docs/reference/options.md",
        )


def _overruled(line: OurLine) -> Iterator[tuple[str, str]]:
    """Words of the line that another word of it makes void, and why."""
    words = dict(word.partition("=")[::2] for word in line.line.args)
    options = line.options
    for name, strict in STRICT.items() if options.profile == "strict" else ():
        if words.get(name, strict) != strict:
            yield f"{name}={words[name]}", f"stands beside profile=strict, which sets {strict}"
    if "prolog_wait" in words and options.prolog_wait_s > options.timeout_s:
        yield (
            f"prolog_wait={words['prolog_wait']}",
            f"is longer than timeout={options.timeout_s:g}, which ends the wait",
        )
    if "caller_timeout" in words and options.caller_timeout_s > options.timeout_s:
        yield (
            f"caller_timeout={words['caller_timeout']}",
            f"is longer than timeout={options.timeout_s:g}, which ends the wait",
        )
    if "socket" in words and options.mode == "oneshot":
        yield f"socket={words['socket']}", "stands beside mode=oneshot, which asks no service"


def _of_other_phase(lines: list[OurLine], account: list[OurLine], session: list[OurLine]) -> Iterator[tuple[str, str]]:
    """Words for the account phase on a session line alone, and the reverse. Of a missing line nothing is said here."""
    words = dict(word.partition("=")[::2] for word in lines[0].line.args)
    for name, kind in OF_ONE_KIND:
        other = [line for line in (account if kind == "account" else session) if line.works]
        if name not in words or any(line.line.kind == kind for line in lines) or not other:
            continue
        if all(getattr(line.options, name) != getattr(lines[0].options, name) for line in other):
            yield f"{name}={words[name]}", f"is for the {kind} line, {other[-1].line.origin}, which has it not"


def check_no_jobs(line: OurLine, filters: set[str]) -> Iterator[Finding]:
    """A line that leaves users without a job to the lines after it, of which none says no."""
    later = line.stack[line.index + 1 :]
    if line.options.action_no_jobs != "ignore" or line.options.enforce != "yes":
        return
    if not any(after.name in filters for after in later):
        yield Finding(
            "pam-no-jobs-ignored",
            WARNING,
            f"{line.line.origin} has action_no_jobs=ignore, and no line after it refuses anybody",
            "users without a job get in",
            f"add profile=strict to {line.line.origin}; to refuse nobody on purpose: enforce=adopt",
        )


# Names ----------------------------------------------------------------------------------------------


def check_names(node: Node) -> Iterator[Finding]:
    """allow_users= and allow_groups=: names that nobody has here, and groups that everybody is in. NSS may hang."""
    if node.root:
        return
    said: dict[str, list[str]] = {}
    for kind in KINDS:
        for line in node.our_lines(kind):
            for word in _words(line) if line.works and not line.options.problems else ():
                said.setdefault(word, []).append(line.line.origin)
    for word, origins in said.items():
        name, _, value = word.partition("=")
        where = " and ".join(dict.fromkeys(origins))
        if name == "allow_groups" and value.lower() in GROUPS_OF_ALL:
            yield Finding(
                "pam-exempts-everybody",
                ERROR,
                f"{where}: {word} lets in, with jobs or without, who is in that group: it is usually everybody's",
                "nobody is refused, and nobody goes into a job",
                f"take {word} out of {where}; name a group of administrators",
            )
        elif not _is_known(name, value):
            what = "netgroup" if value.startswith("@") else "user" if name == "allow_users" else "group"
            asked = {"netgroup": "netgroup", "user": "passwd", "group": "group"}[what]
            yield Finding(
                "pam-unknown-name",
                WARNING,
                f"{where}: {word}, and there is no such {what} here",
                "who was meant is refused without a job; whoever gets that name later is let in",
                f"mend the name in {where}, or /etc/nsswitch.conf, until `getent {asked} {value.lstrip('@')}` shows it",
            )


def _words(line: OurLine) -> Iterator[str]:
    for name in ("allow_users", "allow_groups"):
        for value in getattr(line.options, name):
            yield f"{name}={value}"


def _is_known(name: str, value: str) -> bool:
    import grp
    import pwd

    if value.startswith("@"):
        return _is_netgroup(value[1:])
    if name == "allow_groups" and value.isascii() and value.isdigit():
        return True  # a number holds without a name
    try:
        if name == "allow_users":
            pwd.getpwnam(value)
        else:
            grp.getgrnam(value)
    except KeyError:
        return False
    return True


def _is_netgroup(name: str) -> bool:
    import ctypes

    libc = ctypes.CDLL(None)
    found = bool(libc.setnetgrent(name.encode("utf-8", "surrogateescape")))
    libc.endnetgrent()
    return found
