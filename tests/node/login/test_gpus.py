# SPDX-License-Identifier: Apache-2.0
"""What a login sees of GPUs: two device files that stand for them, with `ConstrainDevices=yes` and real slurmstepds."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from lab.node import Node
from lab.product import STRICT, install_product, use_strict_lines
from lab.slurm import NodeEntry, SlurmConfig

GPUS = ("full", "random")
LOOK = f"""
env | grep -E '^(CUDA|ROCR|ZE|GPU|SLURM_JOB_GPUS)'
for name in {" ".join(GPUS)}; do head -c1 /dev/$name >/dev/null 2>&1 && echo $name; done
"""
VISIBLE = {"CUDA_VISIBLE_DEVICES=0", "ROCR_VISIBLE_DEVICES=0", "GPU_DEVICE_ORDINAL=0"}
#: What is seen beside the device, without the variables of other makers that a release of Slurm knows.
BY_OPTION = {
    "id": set[str](),
    "none": set[str](),
    "job": VISIBLE,
    "CUDA_VISIBLE_DEVICES": {"CUDA_VISIBLE_DEVICES=0"},
}


class GpuNode(Node):
    def prepare(self) -> None:
        super().prepare()
        install_product(self)  # slurm.conf names the prolog hook
        for folder in ("/etc/slurm", "/etc/slurm-llnl"):
            self.write(f"{folder}/gres.conf", "".join(f"Name=gpu File=/dev/{name}\n" for name in GPUS))


@pytest.fixture(scope="module")
def node() -> Iterator[Node]:
    settings = {"GresTypes": "gpu", "Prolog": "/usr/libexec/slurm-adopt/hooks/prolog"}
    config = SlurmConfig("lab", [NodeEntry("lab", "lab", extra="Gres=gpu:2")], settings, {"ConstrainDevices": "yes"})
    with GpuNode(config=config) as node:
        if "devices" not in node.tree.controllers:
            pytest.skip("no devices controller to take a part of")
        yield node
        node.cancel_all()


def seen(node: Node, user: str) -> set[str]:
    return set(node.ssh(user, LOOK).stdout.split())


def test_gpus__a_login_has_the_devices_of_its_job_and_no_others(node: Node) -> None:
    for user in ("alice", "bob"):
        node.submit(user, gres="gpu:1", ntasks=1)
    for option, variables in BY_OPTION.items():
        use_strict_lines(node, f"{STRICT} export_env={option}")
        for number, user in enumerate(("alice", "bob")):
            found = seen(node, user)
            assert found & set(GPUS) == {GPUS[number]}
            assert variables <= found
            if not variables:
                assert found == {GPUS[number]}
    node.cancel_all()


def test_gpus__without_a_process_of_the_job_there_is_the_hooks_number(node: Node) -> None:
    use_strict_lines(node, f"{STRICT} export_env=job")
    node.allocate("alice", gres="gpu:1")
    found = seen(node, "alice")
    assert "SLURM_JOB_GPUS=0" in found
    assert not [word for word in found if word.startswith("CUDA")]
    assert GPUS[0] in found
    assert GPUS[1] not in found
