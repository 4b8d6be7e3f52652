# SPDX-License-Identifier: Apache-2.0
"""Programs that root starts: only those that nobody else can replace, and without rights."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from slurm_adopt.system.tasks.child import run_program
from slurm_adopt.system.tasks.program import UntrustedProgram, resolve_program
from slurm_adopt.system.tasks.task import run

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="files of root's and of others")


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that only root may write, all the way up; pytest's own is below /tmp."""
    import shutil
    import tempfile

    made = Path(tempfile.mkdtemp(dir="/root"))
    (made / "bin").mkdir()
    shutil.copy("/bin/cat", made / "bin/cat")
    yield made
    shutil.rmtree(made)


def soon() -> int:
    return time.monotonic_ns() + 5 * 10**9


def test_program__runs_without_any_capability(folder: Path) -> None:
    path = resolve_program((str(folder / "bin/cat"),))
    said = run(run_program((path, "/proc/self/status"), {"PATH": "/bin"}, soon())).decode()
    fields = dict(line.split(":", 1) for line in said.splitlines() if ":" in line)
    assert fields["Uid"].split() == ["0"] * 4
    assert [int(fields[name], 16) for name in ("CapEff", "CapPrm", "CapInh", "CapAmb")] == [0, 0, 0, 0]
    assert fields["NoNewPrivs"].strip() == "1"


def test_program__a_link_leads_to_what_is_checked(folder: Path) -> None:
    (folder / "link").symlink_to(folder / "bin")
    assert resolve_program((str(folder / "link/cat"),)) == str(folder / "bin/cat")


@pytest.mark.parametrize("wrong", ["bin/cat", "bin", "."])
@pytest.mark.parametrize("how", ["owner", "group", "others"])
def test_program__that_somebody_else_could_replace(folder: Path, wrong: str, how: str) -> None:
    place = (folder / wrong).resolve()
    if how == "owner":
        os.chown(place, 1501, -1)
    elif how == "group":
        os.chown(place, -1, 7)
        place.chmod(0o775)
    else:
        place.chmod(0o757)
    mended = {"owner": "chown root", "group": "chmod g-w", "others": "chmod go-w"}[how]
    with pytest.raises(UntrustedProgram, match=f"{mended} {place}$"):
        resolve_program((str(folder / "bin/cat"),))


def test_program__in_a_store_as_nix_and_guix_have_it(folder: Path) -> None:
    """Its group adds to it; the sticky bit keeps the group from what is root's."""
    store, program = folder / "bin", folder / "bin/cat"
    os.chown(store, 0, 30000)
    store.chmod(0o1775)
    assert resolve_program((str(program),)) == str(program)
    os.chown(store, 30001, 30000)
    with pytest.raises(UntrustedProgram, match="belongs to uid 30001"):
        resolve_program((str(program),))
    os.chown(store, 0, 30000)
    os.chown(program, -1, 30000)
    program.chmod(0o1775)
    with pytest.raises(UntrustedProgram, match="group 30000 may write it"):
        resolve_program((str(program),))


def test_program__below_tmp_or_missing(tmp_path: Path) -> None:
    copy = tmp_path / "cat"
    copy.write_bytes(Path("/bin/cat").read_bytes())
    copy.chmod(0o755)
    for path, why in ((str(copy), "/tmp"), ("/nowhere/at/all", "there is no")):
        with pytest.raises(UntrustedProgram, match=why):
            resolve_program((path,))


def test_program__systemctl_is_one() -> None:
    if Path("/bin/systemctl").exists():
        assert resolve_program(("/usr/bin/systemctl", "/bin/systemctl")).endswith("systemctl")
