# SPDX-License-Identifier: Apache-2.0
"""Modules that are meant to let some people in without a job, and let everybody in.

Rules of this file:
1. It is asked what happens to somebody who is in no list and no group, and comes from somewhere. What names a network
   or a host is the site's wish.
2. pam_access lets in whom no line of its files fits (pam_access(8)); pam_listfile whom its file does not say anything
   about, if the file cannot be read and `onerr=succeed` stands there (pam_listfile(8)).
3. Whom a condition of pam_succeed_if lets in, `pam_known` says; an ordinary user's number is one that useradd gives.
4. pam_rootok and `use_uid` look at who asks, not at who logs in: sshd asks as root. su is what they are meant for.
"""

from __future__ import annotations

from ...record import replace
from ...system.host.pam_known import UserFacts, answers_for
from ...system.host.pam_walk import SUCCESS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ...system.host.pam_stack import PamLine
    from .node import Node

ACCESS_CONF = "/etc/security/access.conf"
ACCESS_FOLDER = "/etc/security/access.d/*.conf"
EVERYBODY = "ALL"
#: No account has an empty name, or is in no group at all.
NOBODY, ORDINARY_UID = "", 60000
#: Of pam_succeed_if: about whom the process runs as.
ASKER = "use_uid"
#: Services of programs that users start.
BY_USERS = ("su", "login")


def why_open(node: Node, line: PamLine, service: str) -> str:
    """Why this line says yes to people that it is not told about; empty if it does not, or if that is not known."""
    words = dict(word.partition("=")[::2] for word in line.args)
    asks_who_asks = line.name == "pam_rootok.so" or (line.name == "pam_succeed_if.so" and ASKER in line.args)
    if asks_who_asks and service.startswith(BY_USERS):
        return ""
    if line.name == "pam_rootok.so":
        return "it asks whether root is asking, and sshd always asks as root"
    if line.name == "pam_succeed_if.so":
        who = UserFacts("root", 0, service) if asks_who_asks else UserFacts(NOBODY, ORDINARY_UID, service)
        condition = replace(line, args=tuple(word for word in line.args if word != ASKER))
        holds = answers_for(who)(condition) == [(SUCCESS, None)]
        return "its condition holds for people in no list and no group" if holds else ""
    if line.name == "pam_usertype.so" and "isregular" in words:
        return "everybody is a regular user who is no system account"
    if line.name == "pam_access.so":
        return _access(node, words)
    if line.name == "pam_listfile.so":
        return _listfile(node, words)
    return ""


def _access(node: Node, words: dict[str, str]) -> str:
    named = words.get("accessfile", "")
    texts = [(path, node.text(path)) for path in ([named] if named else [ACCESS_CONF, *node.glob(ACCESS_FOLDER)])]
    if texts[0][1] is None or "fieldsep" in words:
        return ""  # what a module does without its file differs; other separators are rare
    for path, text in texts:
        for number, row in enumerate((text or "").split("\n"), 1):
            says = _says(row.partition("#")[0])
            if says == "-":
                return ""
            if says == "+":
                return f"{path}:{number} lets in everybody"
    return f"{texts[0][0]} has no line `- : ALL : ALL`, and pam_access lets in whom no line fits"


def closes_for_all(node: Node, line: PamLine) -> bool:
    """Whether this line says no to everybody but root: its access.conf lets in nobody else."""
    words = dict(word.partition("=")[::2] for word in line.args)
    text = node.text(words.get("accessfile", "") or ACCESS_CONF) if line.name == "pam_access.so" else None
    if text is None or "fieldsep" in words or (not words.get("accessfile") and node.glob(ACCESS_FOLDER)):
        return False
    for row in text.split("\n"):
        rule = row.partition("#")[0]
        fields = _fields(rule)
        if _says(rule) == "-":
            return True
        if len(fields) == 3 and fields[0] != ["-"] and fields[1] != ["root"]:
            return False  # it lets in somebody: who that is, the site knows
    return False


def _fields(row: str) -> list[list[str]]:
    """The words of each field of a line of access.conf: whether, who, and from where."""
    return [field.split() for field in row.split(":", 2)]


def _says(row: str) -> str:
    """`+` or `-` if a line decides for somebody who comes from somewhere; empty if it does not fit."""
    fields = _fields(row)
    if len(fields) != 3 or fields[0] not in (["+"], ["-"]):
        return ""
    fits = all(field[:1] == [EVERYBODY] for field in fields[1:])
    return fields[0][0] if fits else ""


def _listfile(node: Node, words: dict[str, str]) -> str:
    path = words.get("file", "")
    if not path or not node.exists(path):
        return f"{path or 'its file'} is not there, and onerr=succeed lets everybody in" if _onerr(words) else ""
    return f"it lets in everybody who is not in {path} (sense=deny)" if words.get("sense") == "deny" else ""


def _onerr(words: dict[str, str]) -> bool:
    return words.get("onerr") == "succeed"
