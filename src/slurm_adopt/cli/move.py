# SPDX-License-Identifier: Apache-2.0
"""`slurm-adopt move`: puts the running login into another job."""

from __future__ import annotations

import argparse

from ..wire.user_exchange import UserRequest
from .job_argument import job_argument
from .user_client import SOCKET, ask, refuse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the command."""
    parser.add_argument("job", metavar="JOBID", type=job_argument, help="one of the jobs that `slurm-adopt jobs` lists")
    parser.add_argument("--socket", default=SOCKET, metavar="PATH", help=argparse.SUPPRESS)


def run(args: argparse.Namespace) -> int:
    """Move the login."""
    job_id = args.job.find(args.socket)
    reply = ask(UserRequest("move", job_id), args.socket)
    if reply.result != "ok":
        refuse(reply)
    print(args.job.in_words(reply.text))
    if reply.moved:
        print(f"Programs that run already keep their environment; in a shell: export SLURM_JOB_ID={job_id}")
    return 0
