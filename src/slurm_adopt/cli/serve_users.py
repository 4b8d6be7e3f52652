# SPDX-License-Identifier: Apache-2.0
"""`slurm-adopt serve-users`: answers what users ask for with jobs, use and move."""

from __future__ import annotations

import argparse
import os
import socket

from ..record import replace
from ..system.host.listener import Listener, ListenFault
from ..system.host.systemd import take_listeners
from ..users.server import Limits, Users
from .main import die
from .user_client import SOCKET

#: A service that systemd starts again at the next request has no reason to stay.
IDLE_S = 60.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the command."""
    parser.add_argument(
        "--listen", metavar="PATH", help=f"listen on this socket, unless systemd passes one (usually {SOCKET})"
    )
    parser.add_argument("--idle-exit", metavar="SECONDS", type=float, help="end after SECONDS without a request")


def run(args: argparse.Namespace) -> int:
    """Serve."""
    if os.geteuid() != 0:
        die("serve-users needs root", "start it with systemctl start slurm-adopt-users.socket")
    sockets = take_listeners()
    idle_s = args.idle_exit if args.idle_exit is not None else IDLE_S if sockets else 0.0
    if not sockets:
        if not args.listen:
            die("no socket to serve", f"start slurm-adopt-users.socket, or say --listen {SOCKET}")
        if not args.listen.startswith("/"):
            die(f"{args.listen} is not an absolute path")
        try:
            sockets = [Listener(args.listen, socket.SOCK_SEQPACKET, 0o666).socket]
        except ListenFault as fault:
            die(str(fault))
    os.chdir("/")
    Users(sockets[0], replace(Limits(), idle_s=idle_s)).serve()
    return 0
