# SPDX-License-Identifier: Apache-2.0
"""Slurm's programs of an older release in a node of a newer one, and their upgrade.

A package manager replaces files by name while old processes go on with what they have open; so does this. The older
programs lie where their own package has them, with the newer release's libc; of libraries they bring along what the
newer release does not have.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from lab.node import Node
from lab.root import ensure_root

PACKAGES = ("slurm*", "libslurm*")
#: Programs, and the folders of libraries and plugins; what administrators may have changed (/etc) stays.
FOLDERS = ("/usr/bin/", "/usr/sbin/", "/usr/lib/")
LIBRARIES = ("usr/lib/*-linux-gnu/*.so.*", "lib/*-linux-gnu/*.so.*")


def put_older(node: Node, suite: str) -> None:
    """The node's Slurm is now that of an older release. No daemon runs meanwhile, and nothing of its state is left."""
    own, older = _root_of(node), ensure_root(suite)
    assert node.slurmd.pid is None
    for library in sorted(path for pattern in LIBRARIES for path in older.glob(pattern)):
        place = node.path(f"/usr/lib/{library.parent.name}/{library.name}")
        if not place.exists() and not place.is_symlink():
            shutil.copy2(library, place, follow_symlinks=False)
    _replace(node, own, older)
    node.run(f"rm -rf {node.spool_dir}/*")


def upgrade(node: Node, suite: str) -> None:
    """The node's own release takes the place of the older one's, whatever runs."""
    _replace(node, ensure_root(suite), _root_of(node))


def _root_of(node: Node) -> Path:
    return ensure_root(node.suite, node.packages)


def _replace(node: Node, before: Path, after: Path) -> None:
    """Each file takes its predecessor's place from one moment to the next; what the new packages lack goes then."""
    wanted = set(_files(after))
    for name in sorted(wanted):
        place = node.path(name)
        place.parent.mkdir(parents=True, exist_ok=True)
        new = place.with_name(f"{place.name}.new")
        shutil.copy2(after / name[1:], new, follow_symlinks=False)
        os.replace(new, place)
    for name in set(_files(before)) - wanted:
        node.path(name).unlink()
    node.slurm_version = node.run(["slurmd", "-V"]).stdout.split()[1]
    node.write_slurm_config()


def _files(root: Path) -> Iterator[str]:
    """What Slurm's packages have put into a private root."""
    for pattern in PACKAGES:
        for listing in (root / "var/lib/dpkg/info").glob(f"{pattern}.list"):
            for name in listing.read_text().splitlines():
                path = root / name[1:]
                if name.startswith(FOLDERS) and (path.is_symlink() or path.is_file()):
                    yield name
