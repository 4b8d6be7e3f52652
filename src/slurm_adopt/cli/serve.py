# SPDX-License-Identifier: Apache-2.0
"""`slurm-adopt serve`: the resident service."""

from __future__ import annotations

import argparse
import os
import resource

from ..observe.audit import AuditFault
from ..resident.run_files import LOGIN_SOCKET
from ..resident.service import Service, Setup
from ..resident.warn import parse_marks
from ..system.host.listener import ListenFault
from ..system.host.systemd import take_listeners
from .main import die

DEFAULT_IDLE_EXIT_S = 90
#: As in slurm-adopt.service. A session holds one, a login as many as its user has jobs; a shell's limit is 1024.
DESCRIPTORS = 65536


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's arguments."""
    parser.add_argument(
        "--listen",
        metavar="PATH",
        help=f"listen on the socket PATH (without systemd); the module asks {LOGIN_SOCKET}",
    )
    parser.add_argument(
        "--idle-exit",
        metavar="SECONDS",
        type=float,
        help="end after SECONDS without a login or session (0: never); "
        f"default {DEFAULT_IDLE_EXIT_S} under socket activation, else 0",
    )
    parser.add_argument(
        "--metrics-file",
        metavar="PATH",
        default="",
        help="write the metrics to PATH for node_exporter's textfile collector",
    )
    parser.add_argument(
        "--audit-file", metavar="PATH", default="", help="append the audit stream to PATH as well as to the journal"
    )
    parser.add_argument(
        "--warn-before",
        metavar="MINUTES",
        default="",
        help="warn logins on their terminals at these times before their job ends, such as 15,5,1 or 90s",
    )
    parser.add_argument("--no-audit-journal", action="store_true", help="do not send the audit stream to the journal")


def run(args: argparse.Namespace) -> int:
    """Serve until stopped or idle."""
    if os.geteuid() != 0:
        die("serve must run as root", "it reads /proc of sshd and talks to slurmstepd")
    activated = take_listeners()
    if not activated and not args.listen:
        die(
            "no socket to listen on",
            f"start slurm-adopt.socket, or name one: slurm-adopt serve --listen {LOGIN_SOCKET}",
        )
    for path in (args.listen, args.metrics_file, args.audit_file):
        if path and not path.startswith("/"):
            die(f"{path} is not an absolute path")
    idle_exit_s = args.idle_exit
    if idle_exit_s is None:
        idle_exit_s = DEFAULT_IDLE_EXIT_S if activated and not args.listen else 0
    if not 0 <= idle_exit_s <= 86400:
        die(f"--idle-exit {idle_exit_s:g} is not between 0 and 86400")
    try:
        marks_s = parse_marks(args.warn_before) if args.warn_before else ()
    except ValueError as error:
        die(f"--warn-before: {error}")
    raise_descriptor_limit()
    setup = Setup(
        args.listen or "", idle_exit_s, args.metrics_file, not args.no_audit_journal, args.audit_file, marks_s
    )
    try:
        service = Service(setup, activated)
    except (ListenFault, AuditFault) as fault:
        die(str(fault))
    service.run()
    return 0


def raise_descriptor_limit() -> None:
    """Use what the hard limit gives, so that no single user's logins can use the descriptors up."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = DESCRIPTORS if hard == resource.RLIM_INFINITY else min(DESCRIPTORS, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
