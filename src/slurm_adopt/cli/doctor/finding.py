# SPDX-License-Identifier: Apache-2.0
"""What a check has found: one fault of the node, with its mend.

Rules of this file:
1. A code is for ever: never renamed, never given another meaning.
2. One fault is one finding: what only follows from another fault is not said.
3. What was seen may hold text that users or other programs chose: nothing of it reaches the terminal but printable
   characters.
"""

from __future__ import annotations

import textwrap

from ...record import record
from ...words import printable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any, Literal

    Severity = Literal["error", "warning", "note"]

ERROR: Severity = "error"
WARNING: Severity = "warning"
#: Worth knowing, and right on many nodes: shown with `--all` only, and never the reason for an exit status.
NOTE: Severity = "note"
ORDER = (ERROR, WARNING, NOTE)
COLOURS = {ERROR: "31", WARNING: "33", NOTE: "36"}
WIDTH_MIN, WIDTH_MAX = 40, 100


@record
class Finding:
    """`seen` is the fact, `why` what it does to logins, `mend` the line to write or the command to run."""

    code: str
    severity: Severity
    seen: str
    why: str
    mend: str

    def __post_init__(self) -> None:
        if self.severity not in ORDER or not (self.code and self.seen and self.why and self.mend):
            raise ValueError(f"an incomplete finding: {self!r}")


def exit_status(findings: list[Finding]) -> int:
    """0 if there is nothing but notes, 1 for warnings, 2 for errors."""
    severities = {finding.severity for finding in findings}
    return 2 if ERROR in severities else 1 if WARNING in severities else 0


def in_order(findings: list[Finding]) -> list[Finding]:
    """Errors first; within a severity as the subjects came."""
    return sorted(findings, key=lambda finding: ORDER.index(finding.severity))


def as_json(finding: Finding) -> dict[str, Any]:
    """The finding as it stands."""
    return dict(finding.__dict__)


def as_text(finding: Finding, width: int, colour: bool) -> Iterator[str]:
    """The finding for people; a mend is never wrapped, so that it can be copied."""
    mark = f"\x1b[{COLOURS[finding.severity]}m{finding.severity}\x1b[0m" if colour else finding.severity
    yield f"{mark}: {finding.code}"
    width = min(max(width, WIDTH_MIN), WIDTH_MAX)
    for title, text in (("seen", finding.seen), ("why ", finding.why)):
        yield from textwrap.wrap(
            printable(text), width, initial_indent=f"  {title}  ", subsequent_indent=" " * 8, break_on_hyphens=False
        )
    for number, line in enumerate(finding.mend.split("\n")):
        yield ("  mend  " if number == 0 else " " * 8) + printable(line)
