# SPDX-License-Identifier: Apache-2.0
"""`slurm-adopt` alone: the node in a few lines. Is it in force, since when, what of the last hour, what to do next?"""

from __future__ import annotations

import os
import textwrap
import time

from .. import __version__
from ..resident.last_hour import WOULD_DENY, totals
from ..resident.run_files import ADMIN_SOCKET, RECENT_FILE
from ..system.slurm.conf import ConfFault
from ..system.slurm.spool import SpoolFault
from ..system.tasks.task import run as run_task
from ..words import duration, printable
from .doctor.node import Node
from .doctor.pam import find_ending
from .doctor.service import ask
from .enabling.change import read_pending
from .main import CommandError
from .status_view import view_node
from .terminal import has_colour, width

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from .doctor.node import OurLine

WIDTH_MAX = 100
INDENT = 12
GREEN, YELLOW, RED = "32", "33", "31"
RECENT_CAP = 1 << 16


class Screen:
    """Lines of a name and a text, wrapped to the terminal."""

    def __init__(self) -> None:
        self.width = min(width(), WIDTH_MAX)
        self.colour = has_colour()

    def line(self, name: str, text: str, colour: str = "") -> str:
        """One entry; `colour` for its first line."""
        lines = textwrap.wrap(printable(text), max(20, self.width - INDENT), break_on_hyphens=False) or [""]
        if self.colour and colour:
            lines[0] = f"\x1b[{colour}m{lines[0]}\x1b[0m"
        return "\n".join(f"{name if number == 0 else '':<{INDENT}}{text}" for number, text in enumerate(lines))


def show() -> int:
    """Print it."""
    for line in lines(Screen(), Node()):
        print(line)
    return 0


def lines(screen: Screen, node: Node) -> Iterator[str]:
    """All entries."""
    is_root = os.geteuid() == 0
    yield f"slurm-adopt {__version__} on {os.uname().nodename}"
    state, text, colour = _force(node)
    yield screen.line("in force", text, colour)
    if not is_root:
        yield screen.line("next", "slurm-adopt jobs shows your jobs here; sudo slurm-adopt shows the node")
        return
    recent = _recent()
    waiting = _waiting()
    if waiting:
        yield screen.line("waiting", waiting, YELLOW)
    yield screen.line("decided by", _service(recent is not None))
    outside = False
    try:
        view = run_task(view_node())
    except (ConfFault, SpoolFault) as fault:
        yield screen.line("jobs", f"{fault.reason}: {fault}", RED)
    else:
        inside = sum(login.membership == "in-job" for login in view.logins)
        others = [login for login in view.logins if login.membership == "outside"]
        outside = bool(others or view.strays or view.strangers)
        text = f"{len(view.jobs)} here, {inside} {'login' if inside == 1 else 'logins'} in them"
        if outside:
            text += f"; outside of jobs: {len(others)} logins, {len(view.strays) + len(view.strangers)} processes"
        yield screen.line("jobs", text, YELLOW if outside else "")
    numbers = totals(recent, time.time()) if recent is not None else {}
    yield screen.line("last hour", _hour(numbers) if recent is not None else "not known: the service has not run here")
    yield screen.line("next", _next(state, numbers, outside))


def _force(node: Node) -> tuple[str, str, str]:
    """`no-line`, or the strongest enforce= of the lines that work; the text and its colour."""
    found = [line for line in node.our_lines("account") if line.works and find_ending(node, line) is None]
    if not found:
        return "no-line", "no: no PAM line asks it", RED
    order = ("yes", "adopt", "no")
    enforce = min((line.options.enforce for line in found), key=order.index)
    chosen = [line for line in found if line.options.enforce == enforce]
    services = ", ".join(dict.fromkeys(line.service for line in chosen))
    where = f"for {services}, since {_since(chosen[0])} ({chosen[0].line.origin})"
    text, colour = {
        "yes": (f"yes, {where}", GREEN),
        "adopt": (f"users with a job are adopted, nobody is refused (enforce=adopt), {where}", YELLOW),
        "no": (f"no: it looks on and changes nothing (enforce=no), {where}", YELLOW),
    }[enforce]
    return enforce, text, colour


def _waiting() -> str:
    """The change of `enable` that somebody has to confirm."""
    try:
        pending = read_pending()
    except CommandError as error:
        return str(error)
    if pending is None:
        return ""
    left = duration(pending.left_s)
    return f"{pending.path} is taken back in {left} unless `slurm-adopt confirm` comes from a new login"


def _since(line: OurLine) -> str:
    """When the file of the line was changed last: as long it has been in force at least."""
    try:
        changed = os.stat(line.line.origin.rpartition(":")[0]).st_mtime
    except OSError:
        return "?"
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(changed))


def _service(is_known: bool) -> str:
    try:
        numbers = ask(ADMIN_SOCKET)
    except OSError:
        return "the one-shot helper; " + ("the service is idle" if is_known else "the service does not run")
    started = next((row.split()[1] for row in numbers.splitlines() if row.startswith("slurm_adopt_start_time")), "")
    since = f" since {time.strftime('%Y-%m-%d %H:%M', time.localtime(float(started)))}" if started else ""
    return f"the service, which runs{since}"


def _recent() -> str | None:
    """The service's numbers of the last hour, or those that it has left; None if it has never run."""
    try:
        return ask(ADMIN_SOCKET, b"recent\n")
    except OSError:
        pass
    try:
        with open(RECENT_FILE, encoding="ascii", errors="replace") as file:
            return file.read(RECENT_CAP)
    except OSError:
        return None


def _hour(numbers: dict[tuple[str, str], int]) -> str:
    """`12 logins: 9 let in, 3 refused (no-job 2, job-ending 1)`"""
    if not numbers:
        return "no login was decided"
    words = {"allow": "let in", "deny": "refused", "ignore": "left to other modules", WOULD_DENY: "would be refused"}
    parts = []
    for verdict, word in words.items():
        reasons = sorted(
            ((count, reason) for (one, reason), count in numbers.items() if one == verdict),
            key=lambda pair: (-pair[0], pair[1]),
        )
        if reasons:
            named = f" ({', '.join(f'{reason} {count}' for count, reason in reasons)})" if verdict != "allow" else ""
            parts.append(f"{sum(count for count, _ in reasons)} {word}{named}")
    total = sum(numbers.values())
    return f"{total} {'login' if total == 1 else 'logins'}: {', '.join(parts)}"


def _next(state: str, numbers: dict[tuple[str, str], int], outside: bool) -> str:
    verdicts = {verdict for verdict, _ in numbers}
    if state == "no-line":
        return "slurm-adopt enable puts it in, and takes it back unless confirmed; begin with enforce=no (--options)"
    if state == "no":
        return "slurm-adopt history --would-deny says who would be refused; then enforce=adopt, then enforce=yes"
    if outside:
        return "slurm-adopt status names what is outside of jobs"
    if state == "adopt":
        return "slurm-adopt history --would-deny says who would be refused; then enforce=yes"
    if "deny" in verdicts:
        return "slurm-adopt history --since 1h names who was refused; slurm-adopt explain USER says why"
    return "slurm-adopt doctor looks for faults of this node; slurm-adopt --help lists all commands"
