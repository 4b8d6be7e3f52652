# SPDX-License-Identifier: Apache-2.0
"""Runs stacks through a real libpam, in a root of their own whose /etc is the stack's.

Rules of this file:
1. The host is never changed: the root is a mount in a private mount namespace, and ends with the program in it.
2. Modules say that they ran and return what their line wants; libpam is the one that sshd loads.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from lab.root import ensure_root

HERE = Path(__file__).parent
#: Where the recording module is, as a stack names it; links to it have other modules' names.
MODULES = "/work"
ROOM = """
set -e
mount -t tmpfs -o mode=755 none "$1/root" && cd "$1/root" && mkdir usr work
for name in lib lib64 bin; do [ ! -L "$2/$name" ] || cp -P "$2/$name" $name; done
mount --bind "$2/usr" usr
mount --bind "$1" work
exec chroot . /work/driver
"""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mounts and chroot are root's."""
    for item in items:
        if (os.geteuid() != 0 or not shutil.which("cc")) and HERE in Path(str(item.fspath)).parents:
            item.add_marker(pytest.mark.skip(reason="needs root and a C compiler"))


class Libpam:
    """A place for stacks, each below a directory of its own, and a libpam that runs them."""

    def __init__(self, place: Path, system: str) -> None:
        self.place = place
        self.system = system

    def write(self, name: str, files: dict[str, str]) -> Path:
        """A stack's files, by their path below /etc; the directory that stands for the root."""
        for path, text in {"pam.d/.keep": "", **files}.items():
            file = self.place / name / "etc" / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text)
        return self.place / name

    def run(self, cases: Sequence[tuple[str, str, str]]) -> list[tuple[list[str], int]]:
        """Which modules ran, and the code, for each (name, service, kind); -1: libpam refused to start."""
        asked = "".join(f"/work/{name}/etc {service} {kind}\n" for name, service, kind in cases)
        argv = [
            "unshare",
            "--mount",
            "--propagation",
            "private",
            "sh",
            "-c",
            ROOM,
            "room",
            str(self.place),
            self.system,
        ]
        done = subprocess.run(argv, input=asked.encode(), capture_output=True, check=True, timeout=120)
        told = [line.split() for line in done.stdout.decode().split("\n")[:-1]]
        assert len(told) == len(cases), "the driver told one line for each stack"
        return [([], -1) if words[0] == "start" else (words[:-2], int(words[-1])) for words in told]


@pytest.fixture(
    scope="session",
    params=[None, *(pytest.param(suite, marks=pytest.mark.releases) for suite in ("trixie", "forky"))],
    ids=lambda suite: suite or "host",
)
def libpam(request: pytest.FixtureRequest) -> Iterator[Libpam]:
    """The libpam of this machine, and those of later releases."""
    warn = ("-std=gnu11", "-Wall", "-Wextra", "-Werror", "-O1")
    with tempfile.TemporaryDirectory(prefix="slurm-adopt-libpam-") as name:
        place = Path(name)
        (place / "root").mkdir()
        subprocess.run(["cc", *warn, "-rdynamic", "-o", place / "driver", HERE / "driver.c", "-lpam"], check=True)
        subprocess.run(["cc", *warn, "-shared", "-fPIC", "-o", place / "m.so", HERE / "recorder.c"], check=True)
        for link in ("pam_systemd.so", "pam_slurm_adopt.so"):
            os.link(place / "m.so", place / link)
        yield Libpam(place, str(ensure_root(request.param)) if request.param else "")
