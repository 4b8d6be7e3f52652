# SPDX-License-Identifier: Apache-2.0
"""Modules that move sessions without logind, and change their root: pam_cgfs (lxc), pam_cgroup, pam_chroot, all real ones."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from tests.node.login.test_public_nodes import NO_JOB, doctor, job_of

from lab.node import Node
from lab.product import install_product

pytestmark = pytest.mark.extra
STRICT, DEFAULT = "required pam_slurm_adopt.so profile=strict", "required pam_slurm_adopt.so"
SHOW = "cat /proc/self/cgroup"
LXC = "optional pam_cgfs.so -c freezer,memory,name=systemd,unified"
LIBCGROUP = "optional pam_cgroup.so"
RULES = "/etc/cgrules.conf"


@pytest.fixture(scope="module")
def machine() -> Iterator[Node]:
    with Node(packages=("libpam-cgfs", "libpam-cgroup", "libpam-chroot", "libpam-slurm")) as node:
        install_product(node)
        if node.tree.version != 1:
            pytest.skip("on cgroup v2 these move sessions where pam_systemd does")
        common = node.read("/etc/pam.d/common-session")
        # pam-auth-update has put them there
        node.write("/etc/pam.d/common-session", "".join(one for one in common.splitlines(True) if "pam_cg" not in one))
        yield node


@pytest.fixture
def node(machine: Node) -> Iterator[Node]:
    yield machine
    machine.path(RULES).unlink(missing_ok=True)
    machine.reset()


def controllers_in(text: str, job: int) -> set[str]:
    return {line.split(":")[1] for line in text.splitlines() if f"/job_{job}/step_extern" in line}


def test_moved_sessions__lxc(node: Node) -> None:
    job = node.submit("alice")
    node.pam(account=[STRICT], session=[STRICT])
    inside = controllers_in(node.ssh("alice", SHOW).stdout, job)
    assert "freezer" in inside
    node.pam(account=[DEFAULT], session=[LXC])
    mark = node.log_mark()
    done = node.ssh("alice", SHOW)
    log = "\n".join(node.log_since(mark))
    assert "freezer" not in controllers_in(done.stdout, job)  # what it is about
    assert " reason=adopted " not in log
    assert "session-escapes" in log
    node.pam(account=[STRICT], session=[LXC])
    assert node.ssh("alice", SHOW).returncode != 0
    assert "pam-session-missing" in [finding["code"] for finding in doctor(node)]
    node.pam(account=[STRICT], session=[LXC, STRICT])
    assert controllers_in(node.ssh("alice", SHOW).stdout, job) == inside
    assert doctor(node) == []
    assert NO_JOB in node.ssh("bob").stderr
    assert node.ssh("root").returncode == 0
    node.pam(account=[STRICT], session=[STRICT, LXC])
    assert "pam-session-too-early" in [finding["code"] for finding in doctor(node)]


def test_moved_sessions__libcgroup(node: Node) -> None:
    job = node.submit("alice")
    node.pam(account=[STRICT], session=[LIBCGROUP])
    inside = controllers_in(node.ssh("alice", SHOW).stdout, job)  # without rules nobody is moved
    assert "freezer" in inside
    node.write(RULES, "alice\tfreezer\tstudents/\n")
    node.run("mkdir -p /sys/fs/cgroup/freezer/students")
    try:
        mark = node.log_mark()
        assert node.ssh("alice", SHOW).returncode != 0
        assert "session-uncertain" in "\n".join(node.log_since(mark))
        node.pam(account=[DEFAULT], session=[LIBCGROUP])
        assert "freezer" not in controllers_in(node.ssh("alice", SHOW).stdout, job)
        node.pam(account=[STRICT], session=[LIBCGROUP, STRICT])
        assert controllers_in(node.ssh("alice", SHOW).stdout, job) == inside
        assert doctor(node) == []
    finally:
        node.cancel_all()
        node.run("rmdir /sys/fs/cgroup/freezer/students")


JAIL = """
mkdir -p /srv/jail/run /srv/jail/usr /srv/jail/etc /srv/jail/dev /srv/jail/proc /srv/jail/tmp /srv/jail/home
cd /srv/jail; for name in bin lib lib64 sbin; do ln -s usr/$name $name; done
for name in usr etc dev proc home; do mount --rbind /$name /srv/jail/$name; done
mount -t tmpfs none /srv/jail/usr/libexec
echo 'alice /srv/jail' >/etc/security/chroot.conf
"""


def test_moved_sessions__a_session_with_another_root(node: Node) -> None:
    """Ahead of what changes the root, the session line works as ever; behind it there is nothing of this package."""
    node.run(JAIL)
    chroot = "required pam_chroot.so"
    try:
        job = node.submit("alice")
        node.pam(account=[STRICT], session=[STRICT, chroot])
        done = node.ssh("alice", f"{SHOW}; ls -d /srv/jail /run/lab")
        assert job_of(done.stdout) == job
        assert "/run/lab" not in done.stdout
        assert doctor(node) == []
        node.pam(account=[STRICT], session=[chroot, STRICT])
        done = node.ssh("alice", SHOW)
        assert done.returncode != 0
        assert "the login helper could not be reached" in done.stdout + done.stderr
        assert [finding["code"] for finding in doctor(node)] == ["pam-session-jailed"]
        assert node.ssh("root").returncode == 0
    finally:
        node.cancel_all()
        node.run(
            "umount -R /srv/jail/usr/libexec; for name in usr etc dev proc home; do umount -R -l /srv/jail/$name; done; rm -rf --one-file-system /srv/jail /etc/security/chroot.conf"
        )


def test_moved_sessions__the_older_module_beside_ours(node: Node) -> None:
    """As OpenHPC's guide has it, appended: both have to let the user in."""
    node.pam(account=[STRICT, "required pam_slurm.so"], session=[STRICT])
    job = node.submit("alice")
    assert job_of(node.ssh("alice", SHOW).stdout) == job
    assert node.ssh("bob").returncode != 0
    assert node.ssh("root").returncode == 0
    assert [finding["code"] for finding in doctor(node)] == ["pam-slurm-beside"]
