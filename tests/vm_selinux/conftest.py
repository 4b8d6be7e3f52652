# SPDX-License-Identifier: Apache-2.0
"""A virtual machine with SELinux, our policy module loaded; it boots permissive, tests enforce.

A directory of its own, so that tests/vm has given its machine up before this one boots.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab import matrix
from lab.matrix_targets import VmTarget
from lab.selinux import compile_policy

#: A test may build the image, boot it and play a whole round of logins under emulation.
HANGS_AFTER_S = 3600


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.vm)
            item.add_marker(pytest.mark.timeout(HANGS_AFTER_S))


@pytest.fixture(scope="module")
def vm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[VmTarget]:
    if os.geteuid() != 0:
        pytest.skip("a virtual machine needs root here (mount namespaces, its image)")
    package = tmp_path_factory.mktemp("selinux") / "slurm_adopt.pp"
    compile_policy(package, "trixie")
    target = VmTarget(selinux=True)
    target.up()
    try:
        matrix.prepare(target)
        target.put(package, "/root/slurm_adopt.pp")
        target.run("semodule -i /root/slurm_adopt.pp", timeout=600)
        target.run("restorecon -RF /usr/libexec/slurm-adopt /usr/bin/slurm-adopt; setenforce 1")
        yield target
    finally:
        target.close()
