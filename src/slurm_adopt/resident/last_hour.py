# SPDX-License-Identifier: Apache-2.0
"""What became of the logins of the last hour, by verdict and reason code: for whoever looks at the node.

Rules of this file:
1. Pure. A minute's numbers are by verdict and reason, which are ours: what users do makes it no larger.
2. `load` takes what `render` wrote, so that an idle exit loses nothing; anything else is passed over.
"""

from __future__ import annotations

MINUTES = 60
#: A login that only `enforce=` has let in.
WOULD_DENY = "would-deny"
#: Of a file that somebody else has written.
COUNT_MAX = 10**9


class LastHour:
    """Numbers by minute since 1970."""

    def __init__(self) -> None:
        self._minutes: dict[int, dict[tuple[str, str], int]] = {}

    def count(self, when_s: float, verdict: str, reason: str, amount: int = 1) -> None:
        """One login (or so many)."""
        minute = int(when_s // 60)
        if minute not in self._minutes:
            for old in [known for known in self._minutes if known <= minute - MINUTES]:
                del self._minutes[old]
        numbers = self._minutes.setdefault(minute, {})
        numbers[verdict, reason] = numbers.get((verdict, reason), 0) + amount

    def render(self, now_s: float) -> str:
        """`MINUTE VERDICT REASON COUNT` lines of the last hour; never empty."""
        first = int(now_s // 60) - MINUTES
        lines = ["# minute verdict reason count"]
        for minute, numbers in sorted(self._minutes.items()):
            if minute > first:
                lines += [
                    f"{minute} {verdict} {reason} {count}" for (verdict, reason), count in sorted(numbers.items())
                ]
        return "\n".join(lines) + "\n"

    def load(self, text: str) -> None:
        """Go on from there."""
        for (minute, verdict, reason), count in parse(text).items():
            self.count(minute * 60, verdict, reason, count)


def parse(text: str) -> dict[tuple[int, str, str], int]:
    """What `render` wrote."""
    found: dict[tuple[int, str, str], int] = {}
    for line in text.splitlines():
        words = line.split()
        if len(words) == 4 and words[0].isdigit() and words[3].isdigit() and int(words[3]) < COUNT_MAX:
            found[int(words[0]), words[1], words[2]] = int(words[3])
    return found


def totals(text: str, now_s: float) -> dict[tuple[str, str], int]:
    """The last hour's numbers by verdict and reason."""
    first = int(now_s // 60) - MINUTES
    found: dict[tuple[str, str], int] = {}
    for (minute, verdict, reason), count in parse(text).items():
        if minute > first:
            found[verdict, reason] = found.get((verdict, reason), 0) + count
    return found
