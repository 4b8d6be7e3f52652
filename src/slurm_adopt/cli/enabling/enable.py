# SPDX-License-Identifier: Apache-2.0
"""`slurm-adopt enable`: our lines go into a PAM service, are tried, and are taken back unless somebody confirms them.

Rules of this file:
1. The difference is shown, and root tried by libpam, before anything is changed. Whom the module knows by the installed
   files (a user with a job: what will the session stack do?) is tried right after the change, which is taken back at
   once if that user is refused.
2. Without `--force` nothing stays that refuses root, refuses the user with a job, or that the doctor calls an error.
"""

from __future__ import annotations

import argparse
import time

from ..doctor.finding import ERROR, WARNING
from ..doctor.module import check_module
from ..doctor.node import Node
from ..doctor.pam import check_stacks
from ..doctor.sshd import find_servers, pam_service_of
from .change import apply, confirm, describe, read_pending
from .command import UNCHANGED, add_service, add_switches, begin, candidate_of, may_write
from .plan import plan_enable
from .report import Report, stop_at, told
from .trial import can_try_elsewhere, try_account, user_with_job, user_without_job
from .watch import arm, disarm, restore

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from ..doctor.finding import Finding
    from .candidate import Candidate

DEFAULT_OPTIONS = "profile=strict"
DEFAULT_MINUTES, MINUTES_CAP = 5.0, 1440.0
#: With `--minutes 0`: as long as the trial may take.
TRIAL_S = 300.0
ASK_NS = 5 * 10**9


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's arguments."""
    add_service(parser)
    parser.add_argument(
        "--options", metavar="WORDS", help=f"the options on the lines, as one word (new lines: {DEFAULT_OPTIONS!r})"
    )
    parser.add_argument("--account-only", action="store_true", help="only the account line, and no session line")
    parser.add_argument(
        "--minutes",
        type=_minutes,
        default=DEFAULT_MINUTES,
        help="how long to wait for `slurm-adopt confirm` (5); 0: nobody needs to confirm, for scripts",
    )
    parser.add_argument("--with-job", metavar="USER", default="", help="who is tried as the user with a job")
    parser.add_argument("--without-job", metavar="USER", default="", help="who is tried as the user without (nobody)")
    add_switches(parser, force="also if root or the user with a job is refused")
    parser.add_argument(
        "--restore-pending",
        action="store_true",
        help="take back a change that should have been confirmed by now, and do nothing else (systemd calls this)",
    )


def run(args: argparse.Namespace) -> int:
    """Show, try, change, try."""
    begin(args, "enable")
    if args.restore_pending:
        return restore_pending()
    kinds = ("account",) if args.account_only else ("account", "session")
    node = Node()
    with candidate_of(node) as candidate:
        plan = plan_enable(candidate, args.service, args.options, DEFAULT_OPTIONS, kinds)
        report = Report(plan, args.json)
        problems = list(_findings(node, candidate, args.service, report))
        if not plan.changes:
            stop_at(problems, args.force, "the lines are there; nothing has been changed")
            return report.nothing_to_do(read_pending())
        report.show_difference()
        without = user_without_job(args.without_job)
        problems += _try_before(candidate, args.service, without, report)
        stop_at(problems, args.force, UNCHANGED)
    if not may_write(args):
        return report.end(f"{UNCHANGED} (--dry-run)", changed=False)
    pending = apply(plan, args.minutes * 60 or TRIAL_S, arm)
    assert pending is not None, "it is given a time"
    problems = _try_after(args.service, user_with_job(args.with_job), report)
    if problems and not args.force:
        settled = restore(only_if_due=False)
        restored = settled is not None and settled[0] in ("restored", "unchanged")
        stop_at(problems, False, f"{plan.path} " + ("is as it was" if restored else "could NOT be put back"))
    if not args.minutes:
        confirm(pending)
        disarm()
        return report.end(f"{plan.path} is in force", changed=True)
    return report.end_waiting(pending)


def restore_pending() -> int:
    """What the units call: take back what is due."""
    settled = restore()
    if settled is None:
        return 0
    print(describe(*settled))
    return 1 if settled[0] == "failed" else 0


def _findings(node: Node, candidate: Candidate, service: str, report: Report) -> Iterator[str]:
    """What the doctor says of the module and of the new stack: notes, and errors as sentences."""
    account, session = candidate.our_lines("account", service), candidate.our_lines("session", service)
    found: list[Finding] = [*check_module(node), *check_stacks(candidate, service, account, session)]
    for finding in found:
        text = candidate.shown(f"{finding.code}: {finding.seen}: {finding.why}")
        if finding.severity == ERROR:
            yield text
        elif finding.severity == WARNING:
            report.notes.append(text)
    deadline_ns = time.monotonic_ns() + ASK_NS
    asking = Node(deadline_ns=deadline_ns)
    used = {server.name: pam_service_of(asking, server) for server in find_servers(asking)}
    if used and None not in used.values() and service not in used.values():
        those = ", ".join(f"{name} asks {asked or 'no PAM'}" for name, asked in used.items())
        report.notes.append(f"no sshd that runs asks the PAM service {service}: {those}")


def _try_before(candidate: Candidate, service: str, without: str, report: Report) -> list[str]:
    """libpam with the new stack, which is not installed yet."""
    if not can_try_elsewhere():
        report.note(
            "this libpam cannot try a stack that is not installed (it is older than 1.4): tried afterwards only"
        )
        return []
    root = try_account(service, "root", "root", candidate.confdir)
    report.outcome(root)
    if without:
        outcome = try_account(service, "without-job", without, candidate.confdir)
        acts = any(line.works and line.options.enforce == "yes" for line in candidate.our_lines("account", service))
        remark = ": is that meant (an exemption, a job, Slurm that cannot be asked)?" if acts else ""
        report.outcome(outcome, remark if outcome.is_let_in else "")
    if root.is_let_in:
        return []
    before = try_account(service, "root", "root")
    return [told(root) + ("" if before.is_let_in else ", as by the stack that is installed now")]


def _try_after(service: str, user: str, report: Report) -> list[str]:
    """libpam with what is installed now."""
    root = try_account(service, "root", "root")
    outcomes = [root]
    if user:
        outcomes.append(try_account(service, "with-job", user))
        report.outcome(outcomes[-1])
    else:
        report.note("no user has a job here: not tried for one (--with-job names somebody)")
    return [told(outcome) for outcome in outcomes if not outcome.is_let_in]


def _minutes(text: str) -> float:
    try:
        minutes = float(text)
    except ValueError:
        minutes = -1.0
    if not 0 <= minutes <= MINUTES_CAP:
        raise argparse.ArgumentTypeError(f"{text!r} is not between 0 and {MINUTES_CAP:.0f} minutes")
    return minutes
