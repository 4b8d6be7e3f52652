# SPDX-License-Identifier: Apache-2.0
"""`slurm-adopt doctor`: what is wrong with this node, why it matters, and the mend."""

from __future__ import annotations

import argparse
import json
import os

from ..job_argument import job_number
from ..main import die
from ..terminal import has_colour, width
from .finding import NOTE, as_json, as_text, exit_status, in_order
from .subjects import look_at


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's arguments."""
    parser.add_argument("--json", action="store_true", help="the findings as one JSON object")
    parser.add_argument("--all", action="store_true", help="notes as well: worth knowing, and right on many nodes")
    parser.add_argument(
        "--try-job", metavar="ID", type=job_number, default=0, help="put a process into this job and read it back"
    )
    parser.add_argument("--nodename", default="", help="this node's NodeName, where it is not `hostname -s`")


def run(args: argparse.Namespace) -> int:
    """Print the findings; 0 if there are none, 1 for warnings, 2 for errors."""
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
