# SPDX-License-Identifier: Apache-2.0
"""With `service=*` su and login put the user into his job, as sshd does; without it they are left alone."""

from __future__ import annotations

import pytest

from lab.node import Node

LINE = "required pam_slurm_adopt.so profile=strict"
SHOW = "cat /proc/self/cgroup /proc/$PPID/cgroup; echo job=$SLURM_JOB_ID"
#: root becomes alice; `script` gives login the terminal that it wants.
WAYS = {
    "su": f"su -s /bin/sh -c '{SHOW}' alice",
    "su -": f"su - -s /bin/sh -c '{SHOW}' alice",
    "login": f"printf '%s\\nexit\\n' '{SHOW}' | script -qec 'login -f alice' /dev/null",
}


def enter(node: Node, way: str, options: str) -> str:
    """What root sees who becomes alice."""
    service = way.split()[0]
    services = [service, "su-l"] if way == "su -" else [service]
    for name in services:
        node.pam(name, account=[f"{LINE} {options}"], session=[f"{LINE} {options}"])
    try:
        done = node.run(WAYS[way], check=False, timeout=30)
        return done.stdout + done.stderr
    finally:
        for name in services:
            node.pam(name)


@pytest.mark.parametrize("way", WAYS)
def test_other_services__the_user_is_put_into_his_job(node: Node, way: str) -> None:
    job = node.submit("alice")
    shown = enter(node, way, "service=*")
    assert f"job={job}" in shown.splitlines(), shown
    own = [line for line in shown.splitlines() if f"/job_{job}/step_extern" in line]
    assert len(own) >= 2, shown  # the user's shell, and the process that carries the login


@pytest.mark.parametrize("way", WAYS)
def test_other_services__without_a_job_the_user_is_refused(node: Node, way: str) -> None:
    shown = enter(node, way, "service=*")
    assert "you have no active jobs on this node" in shown, shown
    assert "job=" not in [line.strip()[:4] for line in shown.splitlines()]


@pytest.mark.parametrize("way", WAYS)
def test_other_services__are_left_alone_without_being_named(node: Node, way: str) -> None:
    job = node.submit("alice")
    shown = enter(node, way, "")
    assert "job=" in [line.strip() for line in shown.splitlines()], shown
    assert f"/job_{job}/" not in shown
