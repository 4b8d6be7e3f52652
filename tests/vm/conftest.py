# SPDX-License-Identifier: Apache-2.0
"""One virtual machine for the whole run, with this checkout installed; jobs and PAM files are put back between tests."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab import matrix
from lab.matrix_targets import VmTarget

#: A test may build the image, boot it and play a whole round of logins under emulation.
HANGS_AFTER_S = 3600


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.vm)
            item.add_marker(pytest.mark.timeout(HANGS_AFTER_S))


@pytest.fixture(scope="package")
def shared_vm() -> Iterator[VmTarget]:
    if os.geteuid() != 0:
        pytest.skip("a virtual machine needs root here (mount namespaces, its image)")
    target = VmTarget()
    target.up()
    try:
        matrix.prepare(target)
        yield target
    finally:
        target.close()


@pytest.fixture
def vm(shared_vm: VmTarget) -> Iterator[VmTarget]:
    yield shared_vm
    shared_vm.cancel_all()
    shared_vm.pam()
