# SPDX-License-Identifier: Apache-2.0
"""What well-known modules will answer for a user: pam_succeed_if, pam_listfile, pam_localuser, pam_permit, pam_deny.

Sites write with them which users' sessions pam_systemd is to leave alone, and Slurm's own documentation does.

Rules of this file:
1. What is not surely understood is not known: one word that is strange, and the module may answer anything.
2. Only users' names and numbers, the service and groups are compared; groups are looked up by the caller.
"""

from __future__ import annotations

from ..tasks.files import ROOT, read_trusted
from ..tasks.task import raise_own_lack
from .pam_walk import SUCCESS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from .pam_stack import PamLine
    from .pam_walk import Answers

#: What a condition that does not hold, an entry that is not there, a refusal returns; sites tell it from success only.
#: (pam_succeed_if and pam_listfile: auth_err; pam_localuser: perm_denied; pam_deny: session_err)
REFUSALS = {"pam_succeed_if.so": 7, "pam_listfile.so": 7, "pam_localuser.so": 6, "pam_deny.so": 14}
SILENT = ("quiet", "quiet_fail", "quiet_success", "debug", "audit")
FILE_CAP = 1024 * 1024
LINE_CAP = 256


class UserFacts:
    """A user as PAM modules see one: name and uid of the login, and the groups among those that were asked for."""

    def __init__(self, user: str, uid: int, service: str, groups: frozenset[str] = frozenset()) -> None:
        self.user = user
        self.uid = uid
        self.service = service
        self.groups = groups


def groups_in_question(lines: tuple[PamLine, ...]) -> tuple[str, ...]:
    """The groups that the lines ask about."""
    found: set[str] = set()
    for line in lines:
        if line.name == "pam_succeed_if.so":
            for operator, value in zip(line.args, line.args[1:]):
                if operator in ("ingroup", "notingroup"):
                    found.update(value.split(":"))
    return tuple(sorted(found - {""}))


def answers_for(who: UserFacts, root: str = "") -> Callable[[PamLine], Answers | None]:
    """What each module will answer for this user, as far as that is known."""

    def known(line: PamLine) -> Answers | None:
        holds = _holds(line, who, root)
        return None if holds is None else [(SUCCESS if holds else REFUSALS[line.name], None)]

    return known


def _holds(line: PamLine, who: UserFacts, root: str) -> bool | None:
    """Whether the module succeeds; None: not known."""
    if line.name == "pam_permit.so":
        return True
    if line.name == "pam_deny.so":
        return False
    if line.name == "pam_succeed_if.so":
        return _succeeds(line.args, who)
    if line.name == "pam_listfile.so":
        return _is_listed(line.args, who, root)
    if line.name == "pam_localuser.so" and not line.args:
        text = _read(root + "/etc/passwd")
        return None if text is None else any(entry.startswith(f"{who.user}:") for entry in text.split("\n"))
    return None


def _succeeds(args: tuple[str, ...], who: UserFacts) -> bool | None:
    words = [word for word in args if word not in SILENT]
    if not words or len(words) % 3:
        return None
    results = [_compare(words[at], words[at + 1], words[at + 2], who) for at in range(0, len(words), 3)]
    # the module looks at all of them from the left, and ends at the first that does not hold
    for result in results:
        if not result:
            return result
    return True


def _compare(field: str, operator: str, value: str, who: UserFacts) -> bool | None:
    if field == "user" and operator in ("ingroup", "notingroup"):
        return any(group in who.groups for group in value.split(":")) == (operator == "ingroup")
    mine = {"user": who.user, "uid": str(who.uid), "service": who.service}.get(field)
    if mine is None:
        return None
    if operator in ("in", "notin"):
        return (mine in value.split(":")) == (operator == "in")
    if operator in ("=", "!="):
        return (mine == value) == (operator == "=")
    if field != "uid" or not value.isascii() or not value.isdigit():
        return None
    one, other = who.uid, int(value)
    compared = {"eq": one == other, "ne": one != other, "lt": one < other, "le": one <= other}
    compared.update({"gt": one > other, "ge": one >= other, "<": one < other, "<=": one <= other})
    compared.update({">": one > other, ">=": one >= other})
    return compared.get(operator)


def _is_listed(args: tuple[str, ...], who: UserFacts, root: str) -> bool | None:
    given = {name: value for name, _, value in (arg.partition("=") for arg in args if arg != "quiet")}
    sense, path = given.get("sense"), given.get("file", "")
    if set(given) - {"item", "sense", "file", "onerr"} or given.get("item") != "user" or not path.startswith("/"):
        return None
    text = _read(root + path)
    if text is None or sense not in ("allow", "deny"):
        return None
    entries = text.split("\n")
    if any(len(entry) >= LINE_CAP for entry in entries):
        return None
    return (who.user in entries) == (sense == "allow")


def _read(path: str) -> str | None:
    """A list that only root may write; None if it is not there, too long, or another user may write it."""
    try:
        return read_trusted(path, ROOT, FILE_CAP, follow=True).decode("utf-8", "surrogateescape")
    except OSError as error:
        raise_own_lack(error)
        return None
