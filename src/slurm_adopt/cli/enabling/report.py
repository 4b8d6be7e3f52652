# SPDX-License-Identifier: Apache-2.0
"""What `enable` and `disable` say of a change, to people or to programs, and what they ask."""

from __future__ import annotations

import difflib
import json
import os
import sys

from ...words import duration, printable
from ..main import die
from ..terminal import has_colour
from .change import copy_of
from .watch import SYSTEMD_RUNS, is_armed_for_boot

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from .change import Pending
    from .plan import Plan
    from .trial import Outcome

WHO = {"root": "root", "with-job": "who has a job here", "without-job": "who has no job here"}


class Report:
    """What people or programs are told: for people line by line, for programs one object at the end."""

    def __init__(self, plan: Plan, is_json: bool) -> None:
        self.plan = plan
        self.is_json = is_json
        self.outcomes: list[Outcome] = []
        self.notes = list(plan.notes)

    def say(self, text: str) -> None:
        """A line for people."""
        if not self.is_json:
            print(text)
            sys.stdout.flush()

    def note(self, text: str) -> None:
        """Something worth knowing that does not stop anything."""
        self.notes.append(text)
        self.say(f"note: {printable(text)}")

    def outcome(self, outcome: Outcome, remark: str = "") -> None:
        """A trial."""
        self.outcomes.append(outcome)
        self.say(f"tried: {told(outcome)}{remark}")

    def show_difference(self) -> None:
        """The change, as diff(1) shows it, and what is worth knowing of it."""
        colour = has_colour()
        for line in difference(self.plan):
            mark = {"+": "\x1b[32m", "-": "\x1b[31m"}.get(line[:1], "") if colour else ""
            self.say(f"{mark}{line}\x1b[0m" if mark else line)
        for note in self.notes:
            self.say(f"note: {printable(note)}")

    def nothing_to_do(self, pending: Pending | None) -> int:
        """It is as it should be."""
        for note in self.notes:
            self.say(f"note: {printable(note)}")
        if pending is not None and pending.path == self.plan.path:
            return self.end_waiting(pending, changed=False)
        return self.end(f"nothing to do: {self.plan.source} is as it should be", changed=False)

    def end_waiting(self, pending: Pending, changed: bool = True) -> int:
        """It is in force, and has to be confirmed."""
        if changed and os.path.isdir(SYSTEMD_RUNS) and not is_armed_for_boot():
            self.note("systemd could not be told: after a reboot, the next slurm-adopt command takes the change back")
        self.say(
            f"{pending.path} is in force. Within {duration(pending.left_s)}, log in anew (keep this session open) and "
            "run there:\n  slurm-adopt confirm\n"
            f"Else the file of before comes back{f' ({pending.copy})' if pending.before else ''}."
        )
        return self._close(changed, pending.left_s)

    def end(self, text: str, changed: bool) -> int:
        """The last word."""
        self.say(text)
        return self._close(changed, None)

    def _close(self, changed: bool, left_s: float | None) -> int:
        if self.is_json:
            shown: dict[str, Any] = {
                "service": self.plan.service,
                "file": self.plan.path,
                "changed": changed,
                "difference": list(difference(self.plan)),
                "notes": self.notes,
                "trials": [dict(outcome.__dict__, let_in=outcome.is_let_in) for outcome in self.outcomes],
                "confirm_within_s": None if left_s is None else round(left_s, 1),
                "kept": copy_of(self.plan.path) if os.path.lexists(copy_of(self.plan.path)) else None,
            }
            print(json.dumps(shown, ensure_ascii=True, indent=1))
        return 0


def difference(plan: Plan) -> Iterator[str]:
    """The lines of a unified diff."""
    old, new = ((data or b"").decode("utf-8", "replace").split("\n") for data in (plan.text, plan.after))
    for line in difflib.unified_diff(old, new, plan.source, plan.path, lineterm=""):
        yield "".join(char if char.isprintable() or char == "\t" else "?" for char in line)


def told(outcome: Outcome) -> str:
    """A trial in words."""
    name = outcome.user if outcome.who == "root" else f"{outcome.user}, {WHO[outcome.who]},"
    return f"{name} is {'let in' if outcome.is_let_in else f'refused ({outcome.said})'}"


def stop_at(problems: list[str], force: bool, state: str) -> None:
    """End the command if there is a problem; `state` says what has become of the change."""
    if problems and not force:
        die("; ".join(map(printable, problems)), f"{state}; slurm-adopt doctor says more, --force goes on nevertheless")


def ask() -> None:
    """Go on only if a person says so."""
    if not sys.stdin.isatty():
        die("nobody can be asked: this is no terminal", "add --yes, or look with --dry-run")
    try:
        answer = input("Write it? [y/N] ")
    except EOFError:
        answer = ""
    if answer.strip().lower() not in ("y", "yes"):
        die("nothing has been changed", "--yes does not ask")
