# SPDX-License-Identifier: Apache-2.0
"""What nodes have answered, checked and folded.

Rules of this file:
1. Pure. An answer is bytes of a machine that may be anybody's: it has caps, and what does not fit is a finding of its
   own about that node.
2. Findings are alike if they differ in nothing but the node's own name, for which `NODE` stands then.
"""

from __future__ import annotations

import json
import re

from ....record import record, replace
from ....wire.hostlist import fold
from ....words import printable
from ..finding import ERROR, NOTE, ORDER, Finding

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

#: A node with twenty findings sends 15 KiB.
ANSWER_CAP = 256 * 1024
#: The most findings have 1400.
LINES_CAP = 8192
FINDING_CAP = 200
TEXT_CAP = 4000
CODE_CAP = 64
CODE_CHARACTERS = "abcdefghijklmnopqrstuvwxyz0123456789-."
FIELDS = ("code", "severity", "seen", "why", "mend")
#: Stands for the node's own name in what several nodes have in common.
PLACE = "NODE"


@record
class Answer:
    """What came from one node: `data` is what the doctor wrote, `said` what else there was to read, `status` the exit
    status; None if the node did not answer. `flooded`: it sent too much, and was ended."""

    node: str
    data: bytes = b""
    status: int | None = None
    said: str = ""
    flooded: bool = False


@record
class Shared:
    """One finding and the nodes that have it."""

    finding: Finding
    nodes: tuple[str, ...]


@record
class Group:
    """Nodes whose findings are alike. `indexes`: into the report's list of findings."""

    nodes: tuple[str, ...]
    indexes: tuple[int, ...]


@record
class Report:
    """All of it: each finding once, the most severe and most frequent first, and the groups, the largest first."""

    nodes: tuple[str, ...]
    findings: tuple[Shared, ...]
    groups: tuple[Group, ...]

    def severity_of(self, group: Group) -> str:
        """The worst of the group's findings; empty for healthy nodes."""
        severities = {self.findings[index].finding.severity for index in group.indexes}
        return next((severity for severity in ORDER if severity in severities), "")

    @property
    def healthy(self) -> int:
        """How many nodes have notes at most."""
        return self.count("") + self.count(NOTE)

    def count(self, severity: str) -> int:
        """How many nodes have this and nothing worse."""
        return sum(len(group.nodes) for group in self.groups if self.severity_of(group) == severity)


def findings_of(answer: Answer) -> tuple[Finding, ...]:
    """The findings of one node, or the one that it has given none."""
    if answer.flooded or len(answer.data) > ANSWER_CAP:
        return (_bad_answer(f"more than {ANSWER_CAP} bytes, or {LINES_CAP} lines"),)
    if answer.status is None:
        return (_no_answer(answer.said or "nothing came back in time"),)
    try:
        return tuple(map(_finding, _list_of(answer.data)))
    except (ValueError, RecursionError) as error:
        said = answer.said.strip() or answer.data[-200:].decode("utf-8", "replace").strip()
        if answer.status > 2 or (answer.status and not answer.data.strip()):
            return (_no_answer(f"exit status {answer.status}: {said or 'without a word'}"),)
        return (_bad_answer(str(error)),)


def _bad_answer(what: str) -> Finding:
    return Finding(
        "node-bad-answer",
        ERROR,
        f"what came from {PLACE} is not what the doctor writes: {what}",
        "nothing is known of this node; another version, a broken shell profile, or a node in foreign hands",
        "run on it: slurm-adopt doctor --json",
    )


def _no_answer(said: str) -> Finding:
    return Finding(
        "node-no-answer",
        ERROR,
        f"{PLACE} has not answered: {said[-TEXT_CAP:]}",
        "nothing is known of this node, and logins to it may fail alike",
        f"ssh {PLACE} slurm-adopt doctor",
    )


def _list_of(data: bytes) -> list[Any]:
    # a login shell's greeting may stand before it
    found = json.loads(data[max(0, data.find(b"{")) :])
    findings = found.get("findings") if isinstance(found, dict) else None
    if not isinstance(findings, list):
        raise ValueError("no list of findings")
    if len(findings) > FINDING_CAP:
        raise ValueError(f"{len(findings)} findings")
    return findings


def _finding(fields: Any) -> Finding:
    if not isinstance(fields, dict) or set(fields) != set(FIELDS):
        raise ValueError("a finding with other fields")
    for name in FIELDS:
        if not isinstance(fields[name], str) or len(fields[name]) > TEXT_CAP:
            raise ValueError(f"a finding whose {name} is no text of at most {TEXT_CAP} characters")
    if len(fields["code"]) > CODE_CAP or fields["code"].strip(CODE_CHARACTERS):
        raise ValueError("a finding with an impossible code")
    if fields["severity"] not in ORDER or not all(fields.values()):
        raise ValueError("a finding with an unknown severity, or without a text")
    texts: dict[str, Any] = {name: printable_lines(fields[name]) for name in FIELDS}
    return Finding(**texts)


def make_report(answers: list[Answer], notes: bool = False) -> Report:
    """Fold the answers; notes only if they are wanted."""
    by_place: dict[Finding, list[str]] = {}
    of_node: dict[str, set[Finding]] = {}
    for answer in answers:
        mine = of_node.setdefault(answer.node, set())
        for finding in findings_of(answer):
            if finding.severity == NOTE and not notes:
                continue
            alike = without_name(finding, answer.node)
            if alike not in mine:
                mine.add(alike)
                by_place.setdefault(alike, []).append(answer.node)

    def rank(alike: Finding) -> tuple[int, int, str, str]:
        return ORDER.index(alike.severity), -len(by_place[alike]), alike.code, alike.seen

    order = sorted(by_place, key=rank)
    shared = []
    for alike in order:
        nodes = tuple(by_place[alike])
        # a single node is called by its name
        shared.append(Shared(with_name(alike, nodes[0]) if len(nodes) == 1 else alike, nodes))
    numbers = {alike: number for number, alike in enumerate(order)}
    groups: dict[tuple[int, ...], list[str]] = {}
    for node, found in of_node.items():
        groups.setdefault(tuple(sorted(numbers[alike] for alike in found)), []).append(node)
    listed = [Group(tuple(nodes), indexes) for indexes, nodes in groups.items()]
    listed.sort(key=lambda group: (-len(group.nodes), group.indexes))
    return Report(tuple(of_node), tuple(shared), tuple(listed))


def without_name(finding: Finding, node: str) -> Finding:
    """The finding with `NODE` for the node's name where that is a word of its own."""
    return _swap(finding, node, PLACE)


def with_name(finding: Finding, node: str) -> Finding:
    """The other way round, for a finding that one node has."""
    return _swap(finding, PLACE, node)


def _swap(finding: Finding, word: str, by: str) -> Finding:
    pattern = re.compile(rf"(?<![\w-]){re.escape(word)}(?![\w-])")
    texts = {name: pattern.sub(lambda _: by, getattr(finding, name)) for name in ("seen", "why", "mend")}
    return replace(finding, **texts)


def printable_lines(text: str) -> str:
    """`printable`, line by line."""
    return "\n".join(map(printable, text.split("\n")))


def folded(nodes: tuple[str, ...]) -> str:
    """`node[1-3] (3 nodes)`"""
    return f"{fold(nodes)} ({len(nodes)} node{'s' if len(nodes) != 1 else ''})"
