# SPDX-License-Identifier: Apache-2.0
"""A name service that hangs when it is told to, installed into a node: `passwd: lab files`, as sites with nss_slurm
have it. It answers that it knows nobody (`nss_lab.c`)."""

from __future__ import annotations

import re
import subprocess
import sysconfig
import tempfile
from collections.abc import Callable
from pathlib import Path

from lab.node import Node

SOURCE = Path(__file__).with_name("nss_lab.c")
#: `:sshd:ps:` in the first one lets these programs wait, who has done so stands in the other.
HANGS, WAITS = "/run/lab/nss-hangs", "/run/lab/nss-waits"


def install(node: Node) -> Callable[[], None]:
    """Build it and install it; returns what takes it away again."""
    where = f"/usr/lib/{sysconfig.get_config_var('MULTIARCH')}/libnss_lab.so.2"
    with tempfile.TemporaryDirectory() as folder:
        built = f"{folder}/libnss_lab.so.2"
        subprocess.run(["cc", "-shared", "-fPIC", "-Wl,-soname,libnss_lab.so.2", "-o", built, str(SOURCE)], check=True)
        node.install(built, where, 0o755)
    before = node.read("/etc/nsswitch.conf")
    node.write("/etc/nsswitch.conf", re.sub(r"(?m)^(passwd|group):.*", r"\1: lab files", before))

    def take_away() -> None:
        node.run(["rm", "-f", HANGS, WAITS])
        node.write("/etc/nsswitch.conf", before)
        node.path(where).unlink()

    return take_away
