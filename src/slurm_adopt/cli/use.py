# SPDX-License-Identifier: Apache-2.0
"""`slurm-adopt use`: which job the next logins go into."""

from __future__ import annotations

import argparse

from ..wire.user_exchange import UserRequest
from .job_argument import job_argument
from .user_client import SOCKET, ask_ok


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the command."""
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument(
        "job", metavar="JOBID", type=job_argument, nargs="?", help="one of the jobs that `slurm-adopt jobs` lists"
    )
    which.add_argument("--clear", action="store_true", help="forget the choice")
    parser.add_argument("--socket", default=SOCKET, metavar="PATH", help=argparse.SUPPRESS)


def run(args: argparse.Namespace) -> int:
    """Set or clear the preference."""
    if args.clear:
        print(ask_ok(UserRequest("clear"), args.socket).text)
    else:
        reply = ask_ok(UserRequest("use", args.job.find(args.socket)), args.socket)
        print(args.job.in_words(reply.text))
    return 0
