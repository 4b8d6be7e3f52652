# SPDX-License-Identifier: Apache-2.0
"""Words for people: a time span, a text that somebody else has chosen, rows with aligned columns.

Pure; it imports nothing.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence


def duration(seconds: float) -> str:
    """A time span in the two units that matter: `3 h 12 min`, `2 d 3 h`, `45 min`, `12 s`; `0 s` if it is negative."""
    minutes = int(seconds) // 60
    if seconds < 90:
        return f"{max(0, int(seconds))} s"
    if minutes < 60:
        return f"{minutes} min"
    hours = minutes // 60
    if hours < 24:
        return f"{hours} h {minutes % 60} min"
    return f"{hours // 24} d {hours % 24} h"


def called(job_id: int, names: Mapping[int, str]) -> str:
    """A job as its user knows it: `4700_11 (4703)`, as squeue shows it and as SLURM_JOB_ID has it; else its number."""
    return f"{names[job_id]} ({job_id})" if job_id in names else str(job_id)


def printable(text: str) -> str:
    """The text with a `?` for each character that a terminal would act upon."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else "?" for char in text)


def columns(rows: Sequence[tuple[str, ...]]) -> Iterator[str]:
    """Rows of the same length as lines, columns side by side."""
    widths = [max(len(row[index]) for row in rows) for index in range(len(rows[0]))]
    for row in rows:
        yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip()
