# SPDX-License-Identifier: Apache-2.0
"""The .rpm in a root of rpm's own, with its scriptlets: refused beside the original, installed, upgraded, erased; and
put in the original's place by dnf.

The system is Debian's; to rpm it is one where only what is installed here exists.
"""

from __future__ import annotations

import platform
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab.node import Node

from .conftest import ROOT, run
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
PACKAGES = ("rpm", "dnf", "createrepo-c")
#: What a RHEL 8 with python3.11 says it has.
SYSTEM = """
Provides: pam = 1.3.1, libpam.so.0()(64bit), libpam.so.0(LIBPAM_1.0)(64bit), libpam.so.0(LIBPAM_EXTENSION_1.0)(64bit)
Provides: libpam.so.0(LIBPAM_MODUTIL_1.0)(64bit), python(abi) = %s, coreutils, grep, /bin/sh, ld-linux-aarch64.so.1()(64bit)
Provides: ld-linux-aarch64.so.1(GLIBC_2.17)(64bit), libc.so.6()(64bit)
""" + "".join(
    f"Provides: libc.so.6(GLIBC_{version})(64bit)\n"
    for version in ("2.2.5", "2.3.4", "2.4", "2.7", "2.14", "2.16", "2.17", "2.28")
)
#: Folders that RHEL's package `filesystem` has, and this machine has not.
OF_FILESYSTEM = {"/usr/share/licenses", "/usr/share/man/man1", "/usr/share/man/man8"}


def made(folder: Path, name: str, header: str = "", files: tuple[str, ...] = ()) -> Path:
    """A small package of rpm's."""
    spec = folder / f"{name}.spec"
    lines = [f"Name: {name}", "Version: 1", "Release: 1", "Summary: test", "License: none", "AutoReqProv: no", header]
    lines += ["%description", "test", "%install"]
    lines += [f"mkdir -p %{{buildroot}}{Path(file).parent} && echo theirs > %{{buildroot}}{file}" for file in files]
    spec.write_text("\n".join([*lines, "%files", *files, ""]))
    run("rpmbuild", "-bb", "--define", f"_topdir {folder}", "--define", "_build_id_links none", spec)
    (package,) = (folder / "RPMS").glob(f"*/{name}-1-1.*.rpm")
    return package


@pytest.fixture(scope="module")
def machine() -> str:
    return platform.machine()


@pytest.fixture(scope="module")
def rpm_node() -> Iterator[Node]:
    """A node where rpm has a database of its own, and nothing of the original's is left."""
    with Node(packages=PACKAGES) as node:
        forget_debian(node)
        yield node


def forget_debian(node: Node) -> None:
    node.run(["dpkg", "--purge", "libpam-slurm-adopt"])
    node.run("rm -rf /var/lib/rpm && rpm --initdb")


def rpm(node: Node, *words: str, check: bool = True) -> str:
    done = node.run(["rpm", "--force-debian", *words], check=check, timeout=300)
    return done.stdout + done.stderr


def current(node: Node) -> str:
    return node.run(["readlink", f"{LIBRARY}/current"], check=False).stdout.strip()


def test_rpm__its_life(rpm_node: Node, packages: Path, machine: str, tmp_path: Path) -> None:
    node = rpm_node
    (ours,) = packages.glob(f"slurm-adopt-[0-9]*.{machine}.rpm")
    newer = _newer(tmp_path / "newer", machine)
    theirs = "/usr/lib64/security/pam_slurm_adopt.so"
    version = node.run(["python3", "-c", "import sys; print('%d.%d' % sys.version_info[:2])"]).stdout.strip()
    for package, inside in (
        (ours, "ours"),
        (newer, "newer"),
        (made(tmp_path, "old-system", SYSTEM % "3.6"), "old"),
        (made(tmp_path, "python3.11", f"Provides: python(abi) = {version}", ("/usr/bin/python3.11-of-rpm",)), "python"),
        (made(tmp_path, "slurm-pam_slurm", "", (theirs,)), "original"),
    ):
        node.install(package, f"/var/tmp/{inside}.rpm")
    node.pam("sshd", account=[f"{LINE} timeout=60"])
    pam, before = pam_files(node), files_of(node)
    job = node.submit("alice")

    # an interpreter is wanted, and the original is not wanted beside it
    rpm(node, "-i", "/var/tmp/old.rpm", "/var/tmp/original.rpm")
    assert "python(abi) >= 3.9 is needed by slurm-adopt" in rpm(node, "-i", "/var/tmp/ours.rpm", check=False)
    rpm(node, "-i", "/var/tmp/python.rpm")
    assert "conflicts" in rpm(node, "-i", "/var/tmp/ours.rpm", check=False)
    assert not node.path(LIBRARY).exists()
    rpm(node, "-e", "slurm-pam_slurm")
    rpm(node, "-i", "/var/tmp/ours.rpm")
    assert is_ours(node)
    assert rpm(node, "-V", "slurm-adopt") == ""
    assert job_of_login(node, "alice") == (0, str(job))

    session = node.ssh_popen("alice", "exec sleep 12345")
    node.process("sleep 12345", "alice")
    for words in (["-U", "/var/tmp/newer.rpm"], ["-U", "--oldpackage", "/var/tmp/ours.rpm"]):
        tree = current(node)
        with Logins(node, "alice", job) as logins:
            rpm(node, *words)
        assert logins.wrong == []
        assert current(node) not in ("", tree)
        assert session_is_in(node, session, "alice", job)
    session.kill()
    session.wait(60)

    # rpm's file trigger: an interpreter of whatever name goes, and comes
    tree = current(node)
    rpm(node, "-U", "--replacepkgs", "/var/tmp/python.rpm")
    assert current(node) not in ("", tree)

    said = rpm(node, "-e", "slurm-adopt")
    assert "/etc/pam.d/sshd still names pam_slurm_adopt.so" in said
    assert not node.path(module_in_pams_folder(node)).is_symlink()
    assert node.ssh("alice").returncode != 0
    rpm(node, "-e", "python3.11", "old-system")
    assert {name for name in files_of(node) - before - OF_FILESYSTEM if not name.startswith("/usr/lib64")} == set()
    assert pam_files(node) == pam

    # what is not ours is not overwritten
    node.run("echo mine > $(dirname $(find /usr/lib/*/security -name pam_permit.so))/pam_slurm_adopt.so")
    rpm(node, "-i", "/var/tmp/old.rpm", "/var/tmp/python.rpm")
    assert "is somebody else's, and stays" in rpm(node, "-i", "/var/tmp/ours.rpm")
    node.pam("sshd", account=[f"required {LIBRARY}/pam_slurm_adopt.so timeout=60"])
    assert job_of_login(node, "alice") == (0, str(job))
    rpm(node, "-e", "slurm-adopt")
    assert node.run("cat /usr/lib/*/security/pam_slurm_adopt.so").stdout == "mine\n"


def _newer(work: Path, machine: str) -> Path:
    """The same version as a later release of the package."""
    arch = {"x86_64": "amd64", "aarch64": "arm64"}[machine]
    argv: list[str | Path] = [sys.executable, ROOT / "tools/packages", "rpm", "--arch", arch, "--rpm-release", "2"]
    run(*argv, "--work", work / "work", "--out", work / "out")
    (found,) = (work / "out").glob(f"slurm-adopt-[0-9]*.{machine}.rpm")
    return found


def test_rpm__the_policy_comes_and_goes_with_its_package(rpm_node: Node, packages: Path, tmp_path: Path) -> None:
    """Without SELinux nothing happens; with semodule the policy is compiled for this machine, and removed."""
    node = rpm_node
    (policy,) = packages.glob("slurm-adopt-selinux-*.noarch.rpm")
    node.install(policy, "/var/tmp/policy.rpm")
    rpm(node, "-i", "--nodeps", "/var/tmp/policy.rpm")
    rpm(node, "-e", "--nodeps", "slurm-adopt-selinux")
    node.write(
        "/usr/sbin/semodule", '#!/bin/sh\necho "$@" >>/var/tmp/semodule\n[ $1 != -l ] || echo slurm_adopt\n', 0o755
    )
    node.write("/usr/bin/make", "#!/bin/sh\ncd $3 && cp slurm_adopt.te slurm_adopt.pp\n", 0o755)
    node.write("/usr/share/selinux/devel/Makefile", "")
    rpm(node, "-i", "--nodeps", "/var/tmp/policy.rpm")
    assert "-i /tmp/" in node.read("/var/tmp/semodule")
    rpm(node, "-e", "--nodeps", "slurm-adopt-selinux")
    assert node.read("/var/tmp/semodule").splitlines()[-1] == "-r slurm_adopt"
    assert not node.path("/usr/share/slurm-adopt/selinux").exists()


def dnf(node: Node, *words: str, check: bool = True) -> str:
    """dnf with what lies in /var/tmp/repo, and nothing else. As root calls it there: files by name."""
    usual = ["--assumeyes", "--releasever=8", "--nogpgcheck", "--repofrompath=lab,/var/tmp/repo", "--repo=lab"]
    done = node.run(["dnf", *usual, *words], check=check, timeout=300, cwd="/var/tmp")
    return done.stdout + done.stderr


def installed(node: Node) -> set[str]:
    return {name for name in rpm(node, "-qa", "--qf", "%{NAME}\\n").split() if name.startswith("slurm")}


def test_rpm__dnf_puts_one_in_the_others_place(packages: Path, machine: str, tmp_path: Path) -> None:
    """The commands of docs/packages.md. The original's file lies where PAM looks: dnf overwrites nothing."""
    (ours,) = packages.glob(f"slurm-adopt-[0-9]*.{machine}.rpm")
    with Node(packages=PACKAGES) as node:
        forget_debian(node)
        theirs = module_in_pams_folder(node)
        job = node.submit("alice")
        for package in (
            ours,
            made(tmp_path, "system", SYSTEM % "3.11"),
            made(tmp_path, "slurm-pam_slurm", "", (theirs,)),
        ):
            node.install(package, f"/var/tmp/repo/{package.name}")
        node.install(ours, f"/var/tmp/{ours.name}")
        node.run(["createrepo_c", "/var/tmp/repo"])
        dnf(node, "install", "system", "slurm-pam_slurm")
        node.pam("sshd", account=[f"{LINE} timeout=60"])

        said = dnf(node, "install", f"./{ours.name}", check=False)
        assert "conflicts with slurm-pam_slurm" in said
        assert "--allowerasing" in said
        assert installed(node) == {"slurm-pam_slurm"}
        assert node.read(theirs) == "theirs\n"

        dnf(node, "install", "--allowerasing", f"./{ours.name}")
        assert installed(node) == {"slurm-adopt"}
        assert is_ours(node)
        assert job_of_login(node, "alice") == (0, str(job))

        dnf(node, "install", "--allowerasing", "slurm-pam_slurm")
        assert installed(node) == {"slurm-pam_slurm"}
        assert node.read(theirs) == "theirs\n"
        assert not node.path(LIBRARY).exists()

        dnf(node, "swap", "slurm-pam_slurm", "slurm-adopt")
        assert installed(node) == {"slurm-adopt"}
        assert job_of_login(node, "alice") == (0, str(job))
        dnf(node, "reinstall", "slurm-adopt")
        assert job_of_login(node, "alice") == (0, str(job))

        said = dnf(node, "remove", "slurm-adopt")
        assert "/etc/pam.d/sshd still names pam_slurm_adopt.so" in said
        assert not node.path(theirs).is_symlink()
        assert not node.path(LIBRARY).exists()
