# SPDX-License-Identifier: Apache-2.0
"""`slurm-adopt doctor`: what is wrong with this node, why it matters, and the mend."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time

from ...system.tasks.files import replace_file
from ..job_argument import job_number
from ..main import die
from ..terminal import has_colour, width
from .finding import NOTE, as_json, as_text, exit_status, in_order
from .subjects import look_at

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .nodes.answers import Report


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's arguments."""
    parser.add_argument("--json", action="store_true", help="the findings as one JSON object")
    parser.add_argument("--all", action="store_true", help="notes as well: worth knowing, and right on many nodes")
    parser.add_argument(
        "--try-job", metavar="ID", type=job_number, default=0, help="put a process into this job and read it back"
    )
    parser.add_argument("--nodename", default="", help="this node's NodeName, where it is not `hostname -s`")
    parser.add_argument(
        "--nodes", metavar="NODESET", default="", help="look at these nodes instead, and say in what they differ"
    )
    parser.add_argument(
        "--via",
        choices=("clustershell", "srun"),
        default="",
        help="how to reach them: clustershell (if it can be imported) or srun",
    )
    parser.add_argument("--html", metavar="FILE", default="", help="with --nodes: the report as one HTML page, too")


def run(args: argparse.Namespace) -> int:
    """Print the findings; 0 if there are none, 1 for warnings, 2 for errors."""
    if args.nodes:
        return _run_on_nodes(args)
    if args.via or args.html:
        die("--via and --html are for many nodes", "slurm-adopt doctor --nodes NODESET names them")
    if os.geteuid() != 0:
        die("the doctor must run as root", "it reads what only root may: sudo slurm-adopt doctor")
    found = in_order(look_at(args.nodename, args.try_job))
    shown = [finding for finding in found if args.all or finding.severity != NOTE]
    if args.json:
        print(json.dumps({"findings": [as_json(finding) for finding in shown]}, ensure_ascii=True, indent=1))
        return exit_status(found)
    columns, colour = width(), has_colour()
    for number, finding in enumerate(shown):
        if number:
            print()
        for line in as_text(finding, columns, colour):
            print(line)
    return exit_status(found)


def _run_on_nodes(args: argparse.Namespace) -> int:
    """The same for many nodes, each finding once."""
    from .nodes.answers import make_report
    from .nodes.ask import ask
    from .nodes.report import as_object, lines_of

    if args.try_job or args.nodename:
        die("--try-job and --nodename are for one node", "leave them out, or run the doctor on the node itself")
    command = ("slurm-adopt", "doctor", "--json", *(("--all",) if args.all else ()))
    answers = ask(args.nodes, command, args.via, _progress if sys.stderr.isatty() else lambda *_: None)
    report = make_report(answers, args.all)
    if args.html:
        _write_page(args.html, report)
    if args.json:
        print(json.dumps(as_object(report), ensure_ascii=True, indent=1))
    else:
        for line in lines_of(report, width(), has_colour()):
            print(line)
    return exit_status([shared.finding for shared in report.findings])


def _write_page(path: str, report: Report) -> None:
    from .nodes.page import page

    when = time.strftime("%Y-%m-%d %H:%M %Z", time.localtime())
    try:
        # which node is open to what is the administrators' business
        replace_file(path, page(report, when).encode("utf-8", "replace"), 0o600)
    except OSError as error:
        die(f"{path} cannot be written: {error.strerror}", "name a file in a folder of yours: --html FILE")


def _progress(done: int, of: int) -> None:
    end = "\n" if done == of else ""
    print(f"\r{done} of {of} nodes", end=end, file=sys.stderr, flush=True)
