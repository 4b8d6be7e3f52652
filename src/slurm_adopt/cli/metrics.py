# SPDX-License-Identifier: Apache-2.0
"""`slurm-adopt metrics`: prints the metrics of the resident service in Prometheus' text format."""

from __future__ import annotations

import argparse
import socket
import sys

from ..resident.run_files import ADMIN_SOCKET, NUMBERS_FILE
from .main import die

TIMEOUT_S = 3


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's arguments."""
    parser.add_argument("--file", metavar="PATH", help="read the metrics from this file instead of asking the service")


def run(args: argparse.Namespace) -> int:
    """Ask the service; if it has gone idle, read what it has left."""
    text = None if args.file else _ask()
    if text is None:
        path = args.file or NUMBERS_FILE
        try:
            with open(path, encoding="ascii", errors="replace") as file:
                text = file.read()
        except FileNotFoundError:
            die(
                f"there are no metrics: {path} does not exist",
                "the service has not run since boot (slurm-adopt.socket)",
            )
        except OSError as error:
            die(f"{path}: {error.strerror}", "only root may ask the service" if not args.file else "")
    sys.stdout.write(text)
    return 0


def _ask() -> str | None:
    """The service's answer; None if it does not run."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(TIMEOUT_S)
        try:
            connection.connect(ADMIN_SOCKET)
            connection.sendall(b"metrics\n")
            chunks = []
            while chunk := connection.recv(65536):
                chunks.append(chunk)
        except (FileNotFoundError, ConnectionError, PermissionError):
            return None
        except OSError as error:
            die(f"the service does not answer: {error}")
    return b"".join(chunks).decode("ascii", "replace") or None
