# SPDX-License-Identifier: Apache-2.0
"""Tables that the resident service leaves of the jobs on this node, one word for each: when it ends, what it is called.

A line is job, pid and start of the slurmstepd of its extern step, and the word: a job that is requeued is another one.
"""

from __future__ import annotations

from ..tasks.files import read_if_trusted, replace_file

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    #: Job, and pid and start of the slurmstepd of its extern step.
    Key = tuple[int, int, int]

#: 16384 jobs of a line each.
TABLE_CAP = 1 << 20


def read_words(path: str, is_word: Callable[[str], bool]) -> dict[Key, str]:
    """The words of a table that fit; none if somebody other than root may have written it."""
    table: dict[Key, str] = {}
    for line in (read_if_trusted(path, TABLE_CAP) or b"").decode("ascii", "replace").split("\n"):
        words = line.split()
        if len(words) == 4 and all(map(is_number, words[:3])) and is_word(words[3]):
            table[int(words[0]), int(words[1]), int(words[2])] = words[3]
    return table


def write_words(table: Mapping[Key, object], path: str) -> None:
    """Replace a table; `OSError`."""
    lines = [f"{job_id} {pid} {started} {word}\n" for (job_id, pid, started), word in table.items()]
    replace_file(path, "".join(lines).encode("ascii"), 0o600)


def is_number(word: str) -> bool:
    """Whether these are ASCII digits."""
    return word.isascii() and word.isdigit()
