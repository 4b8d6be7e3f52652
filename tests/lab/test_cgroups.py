# SPDX-License-Identifier: Apache-2.0
"""Where a machine's cgroups are, on hosts of every kind."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from lab.cgroups import CgroupTree, Hierarchy, host_hierarchies
from lab.machine import Machine

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="an isolated machine needs root")

V1 = (
    Hierarchy("cpu,cpuacct", "/sys/fs/cgroup/cpu,cpuacct", "/sys/fs/cgroup/cpu,cpuacct/user.slice"),
    Hierarchy("none,name=systemd", "/sys/fs/cgroup/systemd", "/sys/fs/cgroup/systemd/user.slice"),
    Hierarchy("", "/sys/fs/cgroup/unified", "/sys/fs/cgroup/unified"),
)
V2 = (Hierarchy("", "/sys/fs/cgroup", "/sys/fs/cgroup"),)


def test_cgroups__hybrid_is_version_1() -> None:
    tree = CgroupTree("x", V1)
    assert tree.version == 1
    assert tree.controllers == {"cpu", "cpuacct"}
    assert [hierarchy.label for hierarchy in V1] == ["cpu,cpuacct", "systemd", "unified"]
    assert tree.top_files() == tree.member_files()


def test_cgroups__pure_v2_keeps_processes_out_of_the_top() -> None:
    """A cgroup with processes cannot hand controllers on."""
    tree = CgroupTree("x", V2)
    assert tree.version == 2
    assert tree.top_files() == ["/sys/fs/cgroup/x/cgroup.procs"]
    assert tree.member_files() == ["/sys/fs/cgroup/x/machine/cgroup.procs"]


@pytest.mark.parametrize(
    ("host", "inside"),
    [
        ("/user.slice/x/slurm_lab/uid_1501/job_1", "/slurm_lab/uid_1501/job_1"),
        ("/x", "/"),
        ("/elsewhere", "/elsewhere"),
        ("/xx/job_1", "/xx/job_1"),
    ],
)
def test_cgroups__paths_as_seen_inside(host: str, inside: str) -> None:
    assert CgroupTree("x", V1).relative(host) == inside


@pytest.mark.parametrize("hierarchies", [V1, V2])
def test_cgroups__survive_json(hierarchies: tuple[Hierarchy, ...]) -> None:
    tree = CgroupTree("x", hierarchies)
    assert CgroupTree.from_json(json.loads(json.dumps(tree.to_json()))) == tree


@needs_root
def test_cgroups__a_machine_may_have_a_further_controller() -> None:
    """One that no release of Slurm uses; it is the machine's own, and goes with it."""
    machine = Machine()
    machine.tree = CgroupTree.on_this_host(machine.name, frozenset({"pids"}))
    (folder,) = [path for path in machine.tree.directories() if "/pids/" in path] or [""]
    if not folder:
        pytest.skip("this host does not mount pids as cgroup v1")
    with machine:
        assert machine.cgroups_of(1)["pids"] == "/"
        machine.run("mkdir /sys/fs/cgroup/pids/below; echo 1 >/sys/fs/cgroup/pids/below/pids.max")
        assert Path(folder, "below/pids.max").read_text() == "1\n"
    assert not Path(folder).exists()


@needs_root
def test_cgroups__a_machine_with_v2_alone() -> None:
    """On a hybrid host without controllers, but laid out, mounted and removed as on a pure one."""
    unified = [hierarchy for hierarchy in host_hierarchies() if hierarchy.version == 2]
    if not unified:
        pytest.skip("this host mounts no cgroup v2")
    machine = Machine()
    machine.tree = CgroupTree(machine.name, tuple(unified))
    with machine:
        assert machine.cgroups_of(1)["unified"] == "/machine"
        assert "0::/machine\n" in machine.run(["cat", "/proc/self/cgroup"]).stdout
        machine.run(
            "mkdir /sys/fs/cgroup/job; echo 0 > /sys/fs/cgroup/job/cgroup.procs; grep 0::/job /proc/self/cgroup"
        )
        assert machine.path("/sys/fs/cgroup/cgroup.procs").read_text() == ""
        (directory,) = machine.tree.directories()
        assert Path(directory).is_dir()
    assert not Path(directory).exists()
