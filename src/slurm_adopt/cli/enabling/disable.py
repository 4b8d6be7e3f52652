# SPDX-License-Identifier: Apache-2.0
"""`slurm-adopt disable`: exactly our lines go out of a PAM service."""

from __future__ import annotations

import argparse
import contextlib
import os
import sys

from ..doctor.node import Node
from ..main import die
from .candidate import Candidate
from .change import apply, describe, is_pending
from .enable import CANDIDATE
from .plan import plan_disable
from .report import Report, ask, stop_at, told
from .trial import can_try_elsewhere, try_account
from .watch import arm, restore


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's arguments."""
    parser.add_argument("--service", default="sshd", help="the PAM service (sshd)")
    parser.add_argument("--yes", action="store_true", help="do not ask")
    parser.add_argument("--force", action="store_true", help="also if root is refused without the lines")
    parser.add_argument("--dry-run", action="store_true", help="show what would be done, and change nothing")
    parser.add_argument("--json", action="store_true", help="tell the result as one JSON object")


def run(args: argparse.Namespace) -> int:
    """Show, try, change. Whom it lets in needs no confirmation; a change that waits for one is taken back first."""
    if os.geteuid() != 0:
        die("only root may change PAM's files", "sudo slurm-adopt disable")
    if args.json and not (args.yes or args.dry_run):
        die("--json cannot ask", "add --yes or --dry-run")
    os.umask(0o022)
    if not args.dry_run and is_pending():
        settled = restore(only_if_due=False)
        if settled is not None:
            print(f"slurm-adopt: {describe(*settled)}", file=sys.stderr)
    with contextlib.closing(Candidate(Node(), f"{CANDIDATE}-{os.getpid()}")) as candidate:
        plan = plan_disable(candidate, args.service)
        report = Report(plan, args.json)
        if not plan.changes:
            return report.nothing_to_do(None)
        report.show_difference()
        if can_try_elsewhere():
            root = try_account(args.service, "root", "root", candidate.confdir)
            report.outcome(root)
            stop_at([] if root.is_let_in else [told(root)], args.force, "nothing has been changed")
    if args.dry_run:
        return report.end("nothing has been changed (--dry-run)", changed=False)
    if not args.yes:
        ask()
    apply(plan, 0, arm)
    return report.end(f"{plan.path} asks slurm-adopt no more", changed=True)
