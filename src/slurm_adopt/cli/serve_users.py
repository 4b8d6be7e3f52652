# SPDX-License-Identifier: Apache-2.0
"""`slurm-adopt serve-users`: answers what users ask for with jobs, use and move."""

from __future__ import annotations

import argparse
import os

from ..record import replace
from ..service.users import Limits, Users, listen, listeners_of_systemd
from .main import die
from .user_client import SOCKET

HELP = "answer users' requests (jobs, use, move) on a socket of its own"
#: A service that systemd starts again at the next request has no reason to stay.
IDLE_S = 60.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the command."""
    parser.add_argument("--listen", metavar="PATH", help=f"make this socket, unless systemd gives one (e.g. {SOCKET})")
    parser.add_argument("--idle-exit", metavar="SECONDS", type=float, help="end when nobody has asked for so long")


def run(args: argparse.Namespace) -> int:
    """Serve."""
    if os.geteuid() != 0:
        die("serve-users needs root", "start it with systemctl start slurm-adopt-users.socket")
    sockets = listeners_of_systemd()
    idle_s = args.idle_exit if args.idle_exit is not None else IDLE_S if sockets else 0.0
    if not sockets:
        if not args.listen:
            die("no socket to serve", f"say --listen {SOCKET}, or let systemd start it")
        try:
            sockets = [listen(args.listen)]
        except OSError as error:
            die(f"cannot listen on {args.listen}: {error.strerror}")
    os.chdir("/")
    Users(sockets[0], replace(Limits(), idle_s=idle_s)).serve()
    return 0
