# SPDX-License-Identifier: Apache-2.0
"""The command `slurm-adopt`.

Rules of this file:
1. A command is a module of this package with `add_arguments(parser)` and `run(args) -> int`, and a line in `COMMANDS`.
   It is imported only when it is called, so that `slurm-adopt serve` loads nothing else.
2. `die(what, hint)` reports an error: what is wrong, and how to mend it. The exit status is 1; of usage errors it is 2,
   and they are two lines as well.
3. Without a command the node is shown (`overview`).
4. What `enable` has changed and nobody has confirmed in time is taken back by whichever command root gives next.
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from typing import NoReturn

from .. import __version__
from ..words import printable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

#: name: (module, one line of help, heading)
COMMANDS: dict[str, tuple[str, str, str]] = {
    "jobs": ("jobs", "list your own jobs on this node", "user"),
    "use": ("use", "choose the job that your next logins to this node go into", "user"),
    "move": ("move", "move this ssh login into another of your jobs", "user"),
    "serve-users": ("serve_users", "serve the users' requests (jobs, use, move) on a socket of its own", "service"),
    "status": ("status", "list the ssh logins on this node, the job each is in, and what is in no job", "node"),
    "doctor": ("doctor.command", "say what is wrong with this node, why it matters, and how to mend it", "node"),
    "explain": ("explain", "say what a login would get now, and why; or decide recorded logins again", "node"),
    "enable": (
        "enabling.enable",
        "put the module into a PAM service: tried first, and taken back unless confirmed",
        "node",
    ),
    "confirm": ("enabling.confirm", "let a change of `enable` stay; from a login that began after it", "node"),
    "disable": ("enabling.disable", "take the module out of a PAM service", "node"),
    "confine": (
        "confine",
        "update the limits that user_manager=confine has set for a user (for the epilog hook)",
        "node",
    ),
    "serve": ("serve", "run the resident service, which answers the PAM modules of this node", "service"),
    "metrics": ("metrics", "print the service's metrics in Prometheus' text format", "service"),
    "history": ("history", "list past logins: who, into which job, and how each session ended", "service"),
}
#: They run in a sandbox, and may not write to /etc.
SERVICES = ("serve", "serve-users")
#: A change of `enable` that waits for its confirmation.
PENDING = "/var/lib/slurm-adopt/pending"


class CommandError(Exception):
    """An error for people: what went wrong, and a hint how to mend it."""

    def __init__(self, what: str, hint: str = "") -> None:
        super().__init__(what)
        self.hint = hint


def die(what: str, hint: str = "") -> NoReturn:
    """End the command with an error message."""
    raise CommandError(what, hint)


class Parser(argparse.ArgumentParser):
    """One line what is wrong, one line how to mend it; the option that was probably meant."""

    def error(self, message: str) -> NoReturn:
        """Ends the command with 2."""
        hint = f"{self.prog} --help"
        wrong = message.rpartition("unrecognized arguments: ")[2].split()
        if wrong != message.split() and wrong:
            meant = closest(wrong[0].partition("=")[0], list(self._option_string_actions))
            hint = f"did you mean {meant}? {hint} lists all" if meant else f"{hint} lists what there is"
        self.exit(2, f"{self.prog}: {message}\n  {hint}\n")


def closest(word: str, known: list[str]) -> str:
    """The known word that was probably meant; empty if none is near."""
    import difflib

    return next(iter(difflib.get_close_matches(word, known, 1)), "")


def build_parser(only: str | None = None) -> argparse.ArgumentParser:
    """The parser; `only`: with the arguments of this command alone, None: of all (for help pages)."""
    parser = Parser(
        prog="slurm-adopt",
        description="Shows and serves the ssh logins on this compute node, which run inside their users' Slurm jobs. "
        "Without a command it shows the node in a few lines.",
    )
    parser.add_argument("--version", action="version", version=f"slurm-adopt {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", parser_class=Parser)
    for name, (module, help_line, _heading) in COMMANDS.items():
        sub = commands.add_parser(name, help=help_line, description=help_line)
        if only is None or only == name:
            importlib.import_module(f"{__package__}.{module}").add_arguments(sub)
    return parser


def main(argv: list[str] | None = None) -> int:
    """Run a command; the process's exit status."""
    words = sys.argv[1:] if argv is None else argv
    named = next((word for word in words if not word.startswith("-")), "")
    if named and named not in COMMANDS and words[0] == named:
        meant = closest(named, list(COMMANDS))
        hint = f"did you mean {meant}? " if meant else ""
        print(f"slurm-adopt: there is no command {_shown(named)}", file=sys.stderr)
        print(f"  {hint}slurm-adopt --help lists all", file=sys.stderr)
        return 2
    parser = build_parser(named)
    # of the command's own parser the options are known, so that the right one can be named
    args, rest = parser.parse_known_args(words)
    if rest:
        (commands,) = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
        commands.choices.get(args.command, parser).error(f"unrecognized arguments: {' '.join(map(_shown, rest))}")
    if args.command not in SERVICES and os.geteuid() == 0 and os.path.exists(PENDING):
        importlib.import_module(f"{__package__}.enabling.watch").restore_if_due()
    if args.command is None:
        return _guarded(importlib.import_module(f"{__package__}.overview").show)
    command = importlib.import_module(f"{__package__}.{COMMANDS[args.command][0]}")
    return _guarded(lambda: int(command.run(args)))


def _guarded(act: Callable[[], int]) -> int:
    try:
        return act()
    except CommandError as error:
        print(f"slurm-adopt: {error}", file=sys.stderr)
        if error.hint:
            print(f"  {error.hint}", file=sys.stderr)
        return 1
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except KeyboardInterrupt:
        return 130


def _shown(word: str) -> str:
    return printable(word[:80])
