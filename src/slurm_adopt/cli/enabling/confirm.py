# SPDX-License-Identifier: Apache-2.0
"""`slurm-adopt confirm`: a change of `enable` stays, because somebody could log in after it."""

from __future__ import annotations

import argparse
import os

from ...words import duration
from ..main import die
from .change import Locked, confirm, last_end, read_pending
from .login import find_login
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
        login = find_login(pending.service)
        new = "log in with ssh anew, on a connection of its own (ssh -o ControlPath=none), and run it there"
        if login is None:
            die("this is no ssh login, so it does not show that one can log in", new)
        if not pending.since_s:
            die(
                f"the change of {pending.path} was broken off",
                "slurm-adopt enable begins again; this one is taken back",
            )
        if login.began_s <= pending.since_s:
            die("this login is older than the change, so it does not show that one can log in", new)
        if login.elsewhere:
            die(
                f"{login.elsewhere}, which has made this login, does not ask the PAM service {pending.service}",
                f"log in through the sshd that does; it is taken back in {duration(pending.left_s)}",
            )
        is_ours = confirm(pending)
    disarm()
    print(f"{pending.path} stays as it is now{'' if is_ours else ', with what somebody has changed in it since'}.")
    return 0
