# SPDX-License-Identifier: Apache-2.0
"""make and make install: an ordinary user, no network, an empty home directory, nothing but a compiler, meson and Python."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
#: A user that no machine knows.
UID = 64123
BUILD_READS = (
    "Makefile",
    "meson.build",
    "meson_options.txt",
    "src",
    "data",
    "man",
    "selinux",
    "tools",
    "tests",
    "fuzz",
)
pytestmark = pytest.mark.skipif(not shutil.which("meson"), reason="needs meson and a C compiler")


class Clone:
    """A copy of what the build reads, owned by an ordinary user."""

    def __init__(self, folder: Path) -> None:
        self.source = folder / "source"
        self.out = folder / "out"
        self.home = folder / "home"
        for path in (self.source, self.out, self.home):
            path.mkdir(parents=True)
        for name in BUILD_READS:
            if (ROOT / name).is_dir():
                shutil.copytree(ROOT / name, self.source / name, ignore=shutil.ignore_patterns("__pycache__", "build*"))
            else:
                shutil.copy(ROOT / name, self.source)
        self.as_user: list[str] = []
        if os.geteuid() == 0:
            for path in (folder, *folder.rglob("*")):
                os.chown(path, UID, UID, follow_symlinks=False)
            self.as_user = ["unshare", "--net", "setpriv", f"--reuid={UID}", f"--regid={UID}", "--clear-groups"]
            self.as_user += ["--no-new-privs"]

    def run(self, *words: str | Path, path: str = "/usr/bin:/bin") -> subprocess.CompletedProcess[str]:
        environment = ["env", "-i", f"PATH={path}", f"HOME={self.home}", *map(str, words)]
        return subprocess.run(
            [*self.as_user, *environment],
            cwd=self.source,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )

    def make(self, *words: str | Path) -> str:
        done = self.run("make", *words)
        assert done.returncode == 0, done.stdout
        return done.stdout

    def installed(self) -> set[str]:
        """The files of the installed tree, without the package's modules; the tree is empty afterwards."""
        found = {f"/{path.relative_to(self.out)}" for path in self.out.rglob("*") if path.is_file()}
        return {name for name in found if "/slurm_adopt/" not in name}

    def read(self, name: str) -> str:
        return (self.out / name.lstrip("/")).read_text()


@pytest.fixture
def clone() -> Iterator[Clone]:
    """Below /tmp: pytest's own directories are closed to other users."""
    with tempfile.TemporaryDirectory(prefix="slurm-adopt-make-") as name:
        Path(name).chmod(0o755)
        yield Clone(Path(name, "clone"))


def test_make__needs_no_root_no_network_and_no_package_manager(clone: Clone) -> None:
    """The last prefix that was named holds; what is installed names its own places."""
    clone.make()
    assert "no work to do" in clone.make()
    clone.make("install", f"DESTDIR={clone.out}")
    first = clone.installed()
    assert {"/usr/bin/slurm-adopt", "/usr/libexec/slurm-adopt/helper", "/usr/lib/slurm-adopt/oneshot.bundle"} <= first
    assert "/usr/lib/systemd/system/slurm-adopt.socket" in first
    assert "/usr/libexec/slurm-adopt/hooks/prolog" in first
    assert {"/usr/share/man/man8/pam_slurm_adopt.8", "/usr/share/bash-completion/completions/slurm-adopt"} <= first
    assert "/usr/share/slurm-adopt/monitoring/slurm-adopt.rules.yml" in first
    assert "/usr/share/slurm-adopt/ansible/slurm_adopt.yml" in first
    assert clone.read("/usr/share/slurm-adopt/ansible/roles/slurm_adopt/tasks/main.yml")
    assert len([name for name in first if name.endswith("security/pam_slurm_adopt.so")]) == 1
    assert clone.read("/usr/libexec/slurm-adopt/helper").startswith("#!/usr/bin/python3 -IS\n")
    assert list(clone.home.iterdir()) == []
    assert not (clone.source / ".venv").exists()

    shutil.rmtree(clone.out / "usr")
    options = "-Dslurm_conf=/opt/slurm/etc/slurm.conf -Dunits=disabled -Dhooks=disabled -Dcompletions=disabled"
    options += " -Dmonitoring=disabled -Dansible=disabled"
    clone.make("PREFIX=/opt/adopt", f"MESON_OPTIONS={options}")
    clone.make("install", f"DESTDIR={clone.out}")
    second = {name for name in clone.installed() if "/share/man/" not in name}
    helper = "/opt/adopt/libexec/slurm-adopt/helper"
    module = next(name for name in second if name.endswith("security/pam_slurm_adopt.so"))
    assert second == {"/opt/adopt/bin/slurm-adopt", helper, "/opt/adopt/lib/slurm-adopt/oneshot.bundle", module}
    assert helper.encode() in (clone.out / module.lstrip("/")).read_bytes()
    assert '"/opt/adopt/lib/slurm-adopt"' in clone.read(helper)
    assert '"/opt/slurm/etc/slurm.conf"' in clone.read("/opt/adopt/lib/slurm-adopt/slurm_adopt/places.py")


def test_make__check_needs_no_root_either(clone: Clone) -> None:
    """meson test: what cannot run says so; nothing fails."""
    said = clone.make("check")
    assert "return-codes" in said
    assert "Fail:               0" in said


def test_make__an_old_python_is_refused_at_configure_and_at_install(clone: Clone) -> None:
    python = clone.out / "python3"
    python.write_text(
        "#!/bin/sh\n"
        f'[ -e {clone.out}/old ] || exec /usr/bin/python3 "$@"\n'
        'case "$*" in *"print("*) echo 3.6;; *) exit 1;; esac\n'
    )
    python.chmod(0o755)
    (clone.out / "old").touch()
    refused = clone.run("make", f"PYTHON={python}")
    assert refused.returncode != 0
    assert "needs Python 3.9 or later, and" in refused.stdout
    assert "is 3.6" in refused.stdout

    (clone.out / "old").unlink()
    clone.make(f"PYTHON={python}")
    (clone.out / "old").touch()
    refused = clone.run("make", "install", f"DESTDIR={clone.out}/tree")
    assert refused.returncode != 0
    assert "needs Python 3.9 or later" in refused.stdout


def test_make__says_what_is_missing_and_where_it_comes_from(clone: Clone) -> None:
    tools = clone.out / "bin"
    tools.mkdir()
    for name in ("sh", "make", "dirname", "sed", "cat", "env"):
        (tools / name).symlink_to(str(shutil.which(name, path="/usr/bin:/bin")))
    refused = clone.run("make", path=str(tools))
    assert refused.returncode != 0
    for word in ("a C compiler", "meson 0.61", "ninja", "libc6-dev", "pip install meson ninja"):
        assert word in refused.stdout, refused.stdout
    (tools / "cc").write_text("#!/bin/sh\nexit 1\n")
    (tools / "cc").chmod(0o755)
    refused = clone.run("make", path=str(tools))
    assert "libpam0g-dev" in refused.stdout
    assert "pam-devel" in refused.stdout
