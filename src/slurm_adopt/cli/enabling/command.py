# SPDX-License-Identifier: Apache-2.0
"""What `enable` and `disable` have in common as commands: arguments, and what has to hold before they begin."""

from __future__ import annotations

import argparse
import contextlib
import os

from ..doctor.node import Node
from ..main import die
from .candidate import Candidate
from .report import ask

CANDIDATE = "/run/slurm-adopt/try"
UNCHANGED = "nothing has been changed"


def add_service(parser: argparse.ArgumentParser) -> None:
    """Which PAM service."""
    parser.add_argument("--service", default="sshd", help="the PAM service (sshd)")


def add_switches(parser: argparse.ArgumentParser, force: str) -> None:
    """How to go about it; `force` says what else is done with `--force`."""
    parser.add_argument("--yes", action="store_true", help="do not ask")
    parser.add_argument("--force", action="store_true", help=force)
    parser.add_argument("--dry-run", action="store_true", help="show what would be done, and change nothing")
    parser.add_argument("--json", action="store_true", help="tell the result as one JSON object")


def begin(args: argparse.Namespace, command: str) -> None:
    """What has to hold before a file is written; else the command ends."""
    if os.geteuid() != 0:
        die("only root may change PAM's files", f"sudo slurm-adopt {command}")
    if args.json and not (args.yes or args.dry_run):
        die("--json cannot ask", "add --yes or --dry-run")
    os.umask(0o022)


def candidate_of(node: Node) -> contextlib.closing[Candidate]:
    """The node's PAM files as they would be, for as long as the block lasts."""
    return contextlib.closing(Candidate(node, f"{CANDIDATE}-{os.getpid()}"))


def may_write(args: argparse.Namespace) -> bool:
    """Whether to go on and write: not with `--dry-run`, else after asking."""
    if not args.dry_run and not args.yes:
        ask()
    return not args.dry_run
