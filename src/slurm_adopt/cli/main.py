# SPDX-License-Identifier: Apache-2.0
"""The command `slurm-adopt`.

Rules of this file:
1. A command is a module of this package with `add_arguments(parser)` and `run(args) -> int`, and a line in `COMMANDS`.
   It is imported only when it is called, so that `slurm-adopt serve` loads nothing else.
2. `die(what, hint)` reports an error: what is wrong, and how to mend it. The exit status is 1; of usage errors it is 2.
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from typing import NoReturn

from .. import __version__

#: name: (module, one line of help, heading)
COMMANDS: dict[str, tuple[str, str, str]] = {
    "jobs": ("jobs", "list your own jobs on this node", "user"),
    "use": ("use", "choose the job that your next logins to this node go into", "user"),
    "move": ("move", "move this ssh login into another of your jobs", "user"),
    "serve-users": ("serve_users", "serve the users' requests (jobs, use, move) on a socket of its own", "service"),
    "status": ("status", "list the ssh logins on this node, the job each is in, and what is in no job", "node"),
    "doctor": ("doctor.command", "look for faults of this node: what was seen, why it matters, how to mend it", "node"),
    "explain": ("explain", "say what a login of a user would get now, and why; or decide a recorded one again", "node"),
    "confine": (
        "confine",
        "update the limits that user_manager=confine has set for a user (for the epilog hook)",
        "node",
    ),
    "serve": ("serve", "run the resident service, which answers the PAM modules of this node", "service"),
    "metrics": ("metrics", "print the service's metrics in Prometheus' text format", "service"),
    "history": ("history", "list past logins: who, into which job, and how each session ended", "service"),
}


class CommandError(Exception):
    """An error for people: what went wrong, and a hint how to mend it."""

    def __init__(self, what: str, hint: str = "") -> None:
        super().__init__(what)
        self.hint = hint


def die(what: str, hint: str = "") -> NoReturn:
    """End the command with an error message."""
    raise CommandError(what, hint)


def build_parser(only: str | None = None) -> argparse.ArgumentParser:
    """The parser; `only`: with the arguments of this command alone, None: of all (for help pages)."""
    parser = argparse.ArgumentParser(
        prog="slurm-adopt",
        description="Shows and serves the ssh logins on this compute node, which run inside their users' Slurm jobs.",
    )
    parser.add_argument("--version", action="version", version=f"slurm-adopt {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name, (module, help_line, _heading) in COMMANDS.items():
        sub = commands.add_parser(name, help=help_line, description=help_line)
        if only is None or only == name:
            importlib.import_module(f"{__package__}.{module}").add_arguments(sub)
    return parser


def main(argv: list[str] | None = None) -> int:
    """Run a command; the process's exit status."""
    words = sys.argv[1:] if argv is None else argv
    named = next((word for word in words if not word.startswith("-")), "")
    args = build_parser(named).parse_args(words)
    command = importlib.import_module(f"{__package__}.{COMMANDS[args.command][0]}")
    try:
        return int(command.run(args))
    except CommandError as error:
        print(f"slurm-adopt: {error}", file=sys.stderr)
        if error.hint:
            print(f"  {error.hint}", file=sys.stderr)
        return 1
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
