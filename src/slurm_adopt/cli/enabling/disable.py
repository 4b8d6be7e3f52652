# SPDX-License-Identifier: Apache-2.0
"""`slurm-adopt disable`: exactly our lines go out of a PAM service."""

from __future__ import annotations

import argparse
import sys

from ..doctor.node import Node
from .change import apply, describe, is_pending
from .command import UNCHANGED, add_service, add_switches, begin, candidate_of, may_write
from .plan import plan_disable
from .report import Report, stop_at, told
from .trial import can_try_elsewhere, try_account
from .watch import arm, restore


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's arguments."""
    add_service(parser)
    add_switches(parser, force="also if root is refused without the lines")


def run(args: argparse.Namespace) -> int:
    """Show, try, change. Whom it lets in needs no confirmation; a change that waits for one is taken back first."""
    begin(args, "disable")
    if not args.dry_run and is_pending():
        settled = restore(only_if_due=False)
        if settled is not None:
            print(f"slurm-adopt: {describe(*settled)}", file=sys.stderr)
    with candidate_of(Node()) as candidate:
        plan = plan_disable(candidate, args.service)
        report = Report(plan, args.json)
        if not plan.changes:
            return report.nothing_to_do(None)
        report.show_difference()
        if can_try_elsewhere():
            root = try_account(args.service, "root", "root", candidate.confdir)
            report.outcome(root)
            stop_at([] if root.is_let_in else [told(root)], args.force, UNCHANGED)
    if not may_write(args):
        return report.end(f"{UNCHANGED} (--dry-run)", changed=False)
    apply(plan, 0, arm)
    return report.end(f"{plan.path} asks slurm-adopt no more", changed=True)
