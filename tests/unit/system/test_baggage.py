# SPDX-License-Identifier: Apache-2.0
"""What a login would take along, of real processes; and what cannot be looked at."""

from __future__ import annotations

import errno
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from slurm_adopt.system.kernel import baggage
from slurm_adopt.system.kernel.baggage import find_baggage
from slurm_adopt.system.kernel.procfs import Process, read_process


@pytest.fixture(autouse=True)
def _node(monkeypatch: pytest.MonkeyPatch) -> None:
    """We stand in for process 1, whose namespaces a container may hide."""
    monkeypatch.setattr(baggage, "read_process", lambda _: read_process(os.getpid()))


@pytest.fixture
def sleeper(tmp_path: Path) -> Iterator[Process]:
    with open(tmp_path / "open", "w") as file, subprocess.Popen(["sleep", "1000"], stdout=file, stdin=file) as child:
        process = read_process(child.pid)
        assert process is not None
        yield process
        child.kill()


def refuse(monkeypatch: pytest.MonkeyPatch, call: str, part: str, code: int) -> None:
    """From now on the call fails for paths with this part, as the kernel's access checks would have it."""
    real = getattr(os, call)

    def guarded(path: Any, *args: Any, **kwargs: Any) -> Any:
        if part in str(path):
            raise OSError(code, os.strerror(code), path)
        return real(path, *args, **kwargs)

    monkeypatch.setattr(os, call, guarded)


def test_find_baggage__an_ordinary_process_has_none(sleeper: Process) -> None:
    assert find_baggage([sleeper]) == []


@pytest.mark.parametrize("code", [errno.EACCES, errno.EPERM, errno.EIO, errno.ENOTCONN])
def test_find_baggage__a_descriptor_that_may_not_be_looked_at(
    sleeper: Process, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, code: int
) -> None:
    """A device could be behind it (seen: SELinux refuses the look)."""
    refuse(monkeypatch, "stat", f"/proc/{sleeper.pid}/fd/1", code)
    assert find_baggage([sleeper]) == [f"{sleeper.pid} sleep has {tmp_path}/open open that cannot be looked at"]


def test_find_baggage__descriptors_that_may_not_be_listed(sleeper: Process, monkeypatch: pytest.MonkeyPatch) -> None:
    refuse(monkeypatch, "listdir", f"/proc/{sleeper.pid}/fd", errno.EACCES)
    assert find_baggage([sleeper]) == [f"{sleeper.pid} sleep has a descriptor open that cannot be looked at"]


def test_find_baggage__a_descriptor_that_was_just_closed(sleeper: Process, monkeypatch: pytest.MonkeyPatch) -> None:
    refuse(monkeypatch, "stat", f"/proc/{sleeper.pid}/fd/1", errno.ENOENT)
    assert find_baggage([sleeper]) == []


@pytest.mark.parametrize("whose", ["the login's", "the node's"])
def test_find_baggage__a_namespace_that_may_not_be_looked_at(
    sleeper: Process, monkeypatch: pytest.MonkeyPatch, whose: str
) -> None:
    number = sleeper.pid if whose == "the login's" else os.getpid()
    refuse(monkeypatch, "stat", f"/proc/{number}/ns/user", errno.EACCES)
    assert find_baggage([sleeper]) == [f"{sleeper.pid} sleep has a user namespace that cannot be looked at"]


def test_find_baggage__a_kind_of_namespace_that_the_kernel_lacks(
    sleeper: Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    refuse(monkeypatch, "stat", "/ns/user", errno.ENOENT)
    assert find_baggage([sleeper]) == []


@pytest.mark.parametrize(
    ("reader", "said"),
    [("read_status", "memory whose size cannot be read"), ("read_mapped_names", "a memory map that cannot be read")],
)
def test_find_baggage__memory_that_may_not_be_looked_at(
    sleeper: Process, monkeypatch: pytest.MonkeyPatch, reader: str, said: str
) -> None:
    monkeypatch.setattr(baggage, reader, lambda _: None)
    assert find_baggage([sleeper]) == [f"{sleeper.pid} sleep has {said}"]
