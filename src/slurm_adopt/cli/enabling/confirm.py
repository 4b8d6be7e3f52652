# SPDX-License-Identifier: Apache-2.0
"""`slurm-adopt confirm`: a change of `enable` stays, because somebody could log in after it."""

from __future__ import annotations

import argparse
import os

from ..main import die
from .change import Locked, confirm, last_end, read_pending
from .login import login_began_s
from .watch import disarm


def add_arguments(_parser: argparse.ArgumentParser) -> None:
    """There are none: whoever could force it would be the one who is locked out."""


def run(_args: argparse.Namespace) -> int:
    """Look since when this login is there, and let the change stay. One that is due was taken back before."""
    if os.geteuid() != 0:
        die("only root may confirm", "sudo slurm-adopt confirm")
    with Locked():
        pending = read_pending()
        if pending is None:
            last = last_end()
            die("no change waits to be confirmed", f"the last one: {last}" if last else "slurm-adopt enable makes one")
        began_s = login_began_s()
        new = "log in with ssh anew, on a connection of its own (ssh -o ControlPath=none), and run it there"
        if began_s is None:
            die("this is no ssh login, so it does not show that one can log in", new)
        if not pending.since_s:
            die(
                f"the change of {pending.path} was broken off",
                "slurm-adopt enable begins again; this one is taken back",
            )
        if began_s <= pending.since_s:
            die("this login is older than the change, so it does not show that one can log in", new)
        confirm(pending)
    disarm()
    print(f"{pending.path} stays as it is now.")
    return 0
