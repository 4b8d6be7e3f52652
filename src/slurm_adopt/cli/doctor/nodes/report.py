# SPDX-License-Identifier: Apache-2.0
"""The report on many nodes for a terminal, and as JSON."""

from __future__ import annotations

import textwrap

from ....words import printable
from ..finding import COLOURS, ERROR, NOTE, WARNING, WIDTH_MAX, WIDTH_MIN, as_json, as_text
from .answers import folded

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from .answers import Group, Report

#: What a group is called by its worst finding.
STATES = {"": "healthy", NOTE: "healthy", WARNING: "warnings", ERROR: "errors"}
STATE_COLOURS = {"": "32", NOTE: "32", WARNING: COLOURS[WARNING], ERROR: COLOURS[ERROR]}


def summary(report: Report) -> str:
    """`200 nodes: 180 healthy, 12 with warnings, 8 with errors`"""
    parts = [f"{report.healthy} healthy"]
    parts += [f"{report.count(state)} with {STATES[state]}" for state in (WARNING, ERROR) if report.count(state)]
    return f"{len(report.nodes)} node{'s' if len(report.nodes) != 1 else ''}: {', '.join(parts)}"


def codes_of(report: Report, group: Group) -> list[str]:
    """The codes of a group's findings, each once."""
    return list(dict.fromkeys(report.findings[index].finding.code for index in group.indexes))


def lines_of(report: Report, width: int, colour: bool) -> Iterator[str]:
    """The report: how many, which nodes are alike, and each finding once with the nodes that have it."""
    width = min(max(width, WIDTH_MIN), WIDTH_MAX)
    yield summary(report)
    for group in report.groups:
        severity = report.severity_of(group)
        state = STATES[severity]
        if colour:
            state = f"\x1b[{STATE_COLOURS[severity]}m{state}\x1b[0m"
        yield ""
        yield from _wrapped(printable(folded(group.nodes)), width, "")
        yield f"  {state}"
        if group.indexes:
            yield from _wrapped(", ".join(codes_of(report, group)), width, "  ")
    for shared in report.findings:
        yield ""
        yield from as_text(shared.finding, width, colour)
        yield from _wrapped(f"on    {printable(folded(shared.nodes))}", width, "  ")


def _wrapped(text: str, width: int, indent: str) -> Iterator[str]:
    yield from textwrap.wrap(
        text, width, initial_indent=indent, subsequent_indent=f"{indent}    ", break_on_hyphens=False
    )


def as_object(report: Report) -> dict[str, Any]:
    """The report as one JSON object. `findings` of a group: their places in the list of findings."""
    return {
        "nodes": list(report.nodes),
        "healthy": report.healthy,
        "warnings": report.count(WARNING),
        "errors": report.count(ERROR),
        "groups": [
            {"nodes": list(group.nodes), "findings": list(group.indexes), "codes": codes_of(report, group)}
            for group in report.groups
        ],
        "findings": [{**as_json(shared.finding), "nodes": list(shared.nodes)} for shared in report.findings],
    }
