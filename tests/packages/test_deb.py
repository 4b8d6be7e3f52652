# SPDX-License-Identifier: Apache-2.0
"""One .deb on Debian 11, 12, 13 and testing, each with its own Slurm, OpenSSH and Python: its whole life."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from lab.node import Node

from .conftest import run
from .life import (
    LIBRARY,
    LINE,
    Logins,
    files_of,
    is_ours,
    job_of_login,
    module_in_pams_folder,
    pam_files,
    session_is_in,
)

pytestmark = pytest.mark.packages
ORIGINAL = "libpam-slurm-adopt"


@pytest.fixture(scope="module")
def newer(deb: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same package as a later version, told by what it says of itself."""
    tree = tmp_path_factory.mktemp("newer") / "tree"
    run("dpkg-deb", "-R", deb, tree)
    control = tree / "DEBIAN/control"
    control.write_text(re.sub(r"^Version: .*$", "Version: 99.1", control.read_text(), flags=re.MULTILINE))
    package = tree / "usr/share/slurm-adopt/python/slurm_adopt/__init__.py"
    package.write_text(re.sub(r'^__version__ = ".*"$', '__version__ = "99.1"', package.read_text(), flags=re.MULTILINE))
    target = tree.parent / "slurm-adopt_99.1.deb"
    run("dpkg-deb", "--root-owner-group", "-Zxz", "-b", tree, target)
    return target


def repacked(node: Node, name: str) -> str:
    """The package that is installed there, as a .deb in the machine again."""
    script = f"""
set -e
top=$(mktemp -d); mkdir $top/DEBIAN
dpkg-query -L {name} | while read -r path; do
  [ ! -f "$path" ] || {{ mkdir -p "$top$(dirname "$path")"; cp -p "$path" "$top$path"; }}
done
dpkg-query -s {name} | sed '/^Status:/d' > $top/DEBIAN/control
dpkg-deb -b $top /var/tmp/{name}.deb >&2
rm -rf $top
"""
    node.run(script)
    return f"/var/tmp/{name}.deb"


def installed(node: Node, name: str) -> bool:
    said = node.run(["dpkg-query", "-W", "-f", "${db:Status-Abbrev}", name], check=False).stdout
    return said.startswith("ii")


def apt(node: Node, *words: str, check: bool = True) -> str:
    done = node.run(["apt-get", "-q", "-y", *words], check=check, timeout=300)
    return done.stdout + done.stderr


def tool_version(node: Node) -> str:
    return node.run(["slurm-adopt", "--version"]).stdout.split()[-1]


@pytest.mark.parametrize("suite", ["bullseye", "bookworm", "trixie", "forky"])
def test_deb__its_life(suite: str, deb: Path, newer: Path) -> None:
    with Node(suite) as node:
        node.install(deb, "/var/tmp/ours.deb")
        node.install(newer, "/var/tmp/newer.deb")
        original = repacked(node, ORIGINAL)
        node.pam("sshd", account=[LINE])
        pam = pam_files(node)
        job = node.submit("alice")

        # the original's line stays as it is; replacing it is one command
        assert job_of_login(node, "alice") == (0, str(job))
        before = files_of(node)
        theirs = set(node.run(["dpkg-query", "-L", ORIGINAL]).stdout.splitlines())
        apt(node, "install", "/var/tmp/ours.deb")
        assert not installed(node, ORIGINAL)
        assert is_ours(node)
        mark = node.log_mark()
        assert job_of_login(node, "alice") == (0, str(job))
        assert any("pam_slurm_adopt" in line and "reason=adopted" in line for line in node.log_since(mark))
        refused = node.ssh("bob")
        assert refused.returncode != 0
        assert "you have no active jobs on this node" in refused.stdout + refused.stderr
        assert node.run(["ls", f"{LIBRARY}/current/oneshot.bundle"]).returncode == 0
        assert node.run(["slurm-adopt", "status"]).returncode == 0

        _upgrades_under_logins(node, job)
        _follows_the_interpreter(node)

        # going back is one command, and so is coming again
        apt(node, "install", original)
        assert (installed(node, ORIGINAL), installed(node, "slurm-adopt")) == (True, False)
        assert job_of_login(node, "alice") == (0, str(job))
        assert {name for name in files_of(node) if not name.startswith("/run/")} == before
        apt(node, "install", "/var/tmp/ours.deb")
        assert is_ours(node)
        assert job_of_login(node, "alice") == (0, str(job))

        _goes_without_a_trace(node, before, theirs, pam)


def _upgrades_under_logins(node: Node, job: int) -> None:
    """No login is lost or wrong, a session that is open stays, with the service and without it; and back again."""
    node.pam("sshd", account=[f"{LINE} timeout=60"], session=[f"{LINE} timeout=60"])
    session = node.ssh_popen("alice", "exec sleep 12345")
    node.process("sleep 12345", "alice")
    first = tool_version(node)
    service = None
    for package, version in (("newer", "99.1"), ("ours", first), ("newer", "99.1")):
        if package == "newer" and version == tool_version(node):
            continue
        with Logins(node, "alice", job) as logins:
            node.run(["dpkg", "--install", f"/var/tmp/{package}.deb"], timeout=300)
        assert logins.count >= 1
        assert logins.wrong == []
        assert tool_version(node) == version
        assert session_is_in(node, session, "alice", job)
        if service is None:
            listen = ["slurm-adopt", "serve", "--listen", "/run/slurm-adopt/login.sock"]
            service = node.popen(listen)
    assert service is not None
    assert service.poll() is None
    service.terminate()
    service.wait(60)
    node.run(["dpkg", "--install", "/var/tmp/ours.deb"], timeout=300)
    session.kill()
    session.wait(60)
    node.pam("sshd", account=[LINE])


def _follows_the_interpreter(node: Node) -> None:
    """An interpreter that comes or goes sets off the package's trigger; without one that will do, it says so."""
    tree = node.run(["readlink", f"{LIBRARY}/current"]).stdout
    node.run("dpkg-trigger --by-package=python3 /usr/bin/python3 && dpkg --triggers-only --pending")
    assert node.run(["readlink", f"{LIBRARY}/current"]).stdout != tree
    # as where the distribution's python3 is too old, and another one is there
    node.run(
        "real=$(readlink -f /usr/bin/python3); mkdir /var/tmp/kept; cp -a /usr/bin/python3* /var/tmp/kept; "
        "cp $real /usr/bin/python3.18; rm -f $(ls -d /usr/bin/python3* | grep -v '3[.]18$'); "
        "printf '#!/bin/sh\\nexit 1\\n' > /usr/bin/python3; chmod 755 /usr/bin/python3; "
        "/usr/libexec/slurm-adopt/setup configure"
    )
    assert node.run(["readlink", f"{LIBRARY}/current/python"]).stdout.strip() == "/usr/bin/python3.18"
    assert node.run(["slurm-adopt", "--version"]).returncode == 0
    said = node.run("rm /usr/bin/python3.18; /usr/libexec/slurm-adopt/setup configure").stderr
    assert "no Python 3.9 or later" in said
    for command in (["slurm-adopt", "doctor"], ["/usr/libexec/slurm-adopt/helper"]):
        told = node.run(command, check=False)
        assert (told.returncode, told.stdout) == (2, "")
        assert "python-missing" in told.stderr
    mark = node.log_mark()
    assert node.ssh("alice").returncode == 0
    assert any("reason=helper-unreachable" in line for line in node.log_since(mark))
    node.run("rm /usr/bin/python3; cp -a /var/tmp/kept/. /usr/bin; rm -r /var/tmp/kept")
    node.run(["/usr/libexec/slurm-adopt/setup", "configure"])
    assert node.run(["readlink", f"{LIBRARY}/current/python"]).stdout.strip() == "/usr/bin/python3"


def _goes_without_a_trace(node: Node, before: set[str], theirs: set[str], pam: str) -> None:
    """Removing warns of the PAM line that is left, and that line refuses everybody; purging leaves nothing."""
    module = module_in_pams_folder(node)
    said = apt(node, "remove", "slurm-adopt")
    assert "/etc/pam.d/sshd still names pam_slurm_adopt.so" in said
    assert not node.path(module).is_symlink()
    for user in ("alice", "root"):
        assert node.ssh(user).returncode != 0
    apt(node, "purge", "slurm-adopt")
    assert files_of(node) - before == set()
    # apt has taken the original away when ours came; all else is as it was
    assert {
        name for name in before - files_of(node) - theirs if not name.endswith(("/pam_slurm_adopt.so", "/security"))
    } == set()
    assert pam_files(node) == pam
