# SPDX-License-Identifier: Apache-2.0
"""Containers that a user starts in an ssh session are in the job, and end with it: rootless podman, and bubblewrap."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from lab.machine import wait_for
from lab.node import Node
from lab.product import use_product

pytestmark = pytest.mark.extra
FILES = "/home/alice/rootfs"
#: A root file system with three programs, and numbers for alice's user namespaces.
PREPARE = f"""
set -e
mkdir -p {FILES}/bin {FILES}/proc {FILES}/dev {FILES}/etc {FILES}/sys {FILES}/run {FILES}/tmp
for name in cat sleep sh; do
  cp -L /bin/$name {FILES}/bin/
  for library in $(ldd /bin/$name | grep -o '/[^ ]*'); do
    mkdir -p {FILES}$(dirname $library)
    cp -L $library {FILES}$library
  done
done
chown -R alice: {FILES}
echo alice:200000:65536 | tee /etc/subuid >/etc/subgid
"""
PODMAN = "podman --cgroup-manager=cgroupfs --storage-driver=vfs run --rm --net=none"
BWRAP = "bwrap --ro-bind / / --dev /dev --proc /proc --unshare-user --unshare-pid"
#: How it runs a program, and how it leaves one behind.
WAYS = {
    "podman": (f"{PODMAN} --rootfs {FILES} %s", f"{PODMAN} -d --rootfs {FILES} %s"),
    "podman without cgroups": (
        f"{PODMAN} --cgroups=disabled --rootfs {FILES} %s",
        f"{PODMAN} --cgroups=disabled -d --rootfs {FILES} %s",
    ),
    "bubblewrap": (f"{BWRAP} %s", f"setsid {BWRAP} %s >/dev/null 2>&1 </dev/null &"),
}


@pytest.fixture(scope="module")
def machine() -> Iterator[Node]:
    with Node(packages=("podman", "crun", "uidmap", "bubblewrap")) as node:
        use_product(node)
        node.run(PREPARE)
        yield node


@pytest.mark.parametrize("way", WAYS)
def test_containers__are_in_the_job_and_end_with_it(machine: Node, way: str) -> None:
    run, leave = WAYS[way]
    job = machine.submit("alice")
    shown = machine.ssh("alice", run % "cat /proc/self/cgroup")
    assert f"/job_{job}/step_extern" in shown.stdout, shown
    left = machine.ssh("alice", leave % "sleep 1011")
    assert left.returncode == 0, left

    def inside() -> list[bool]:
        found = [process for process in machine.processes("alice") if process.command == "sleep 1011"]
        return [any(f"/job_{job}/step_extern" in path for path in process.cgroups.values()) for process in found]

    wait_for(inside, "the container that was left behind")
    assert all(inside())
    machine.cancel(job)
    wait_for(lambda: not machine.processes("alice"), "everything of the container to be gone")
