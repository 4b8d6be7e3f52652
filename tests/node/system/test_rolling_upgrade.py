# SPDX-License-Identifier: Apache-2.0
"""A rolling upgrade: slurmd of a node is upgraded under a running job, and people log in before, meanwhile, afterwards.

slurmctld is of the newer release, as Slurm's documentation wants it. The job has slurmstepds of the older one; on the
node that was upgraded they live on beside those of the newer. The other node is upgraded last.
"""

from __future__ import annotations

import json
import re
import socket
import struct
from contextlib import nullcontext

import pytest
from tests.packages.life import Logins

from lab.cluster import Cluster
from lab.node import Node
from lab.older_slurm import put_older, upgrade
from lab.product import STRICT, serving, use_product

#: Pairs of Debian's releases whose Slurm may meet in one cluster.
UPGRADES = [("bullseye", "bookworm"), ("trixie", "forky")]
PATIENT = f"{STRICT} timeout=60"
WHERE = "echo job=$SLURM_JOB_ID; cat /proc/self/cgroup"


def protocol_of(node: Node, job: int) -> int:
    """What the slurmstepd of a job's extern step says of itself, asked from outside the product: 38 for 22.05."""
    path = node.extern_socket(job)
    assert path is not None
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(60)
        connection.connect(str(path))
        connection.sendall(struct.pack("=i", 45 << 8))
        return int(struct.unpack("=i", connection.recv(4, socket.MSG_WAITALL))[0]) >> 8


def job_said(text: str) -> int:
    """The job of a login, as its environment and the kernel say alike."""
    said = re.search(r"^job=(\d+)$", text, re.MULTILINE)
    assert said, text
    assert set(re.findall(r"/job_(\d+)/step_extern", text)) == {said[1]}, text
    return int(said[1])


def job_of_login(cluster: Cluster, host: str) -> int:
    done = cluster.login.ssh("alice", WHERE, client="alice", host=host)
    assert done.returncode == 0, done.stderr
    return job_said(done.stdout)


def job_from(cluster: Cluster, via: str, to: str) -> tuple[int, str]:
    """From a login on `via`, on to `to`: the job there, and what caller ID came to."""
    mark = cluster[to].log_mark()
    done = cluster.ssh("alice", via, to, WHERE)
    assert done.returncode == 0, done.stderr
    line = next(line for line in cluster[to].log_since(mark) if "phase=account" in line)
    caller = re.search(r" caller=(\S+)", line)
    return job_said(done.stdout), caller[1] if caller else ""


def is_refused(cluster: Cluster, host: str) -> bool:
    done = cluster.login.ssh("carol", "true", client="carol", host=host)
    return done.returncode != 0 and "you have no active jobs on this node" in done.stdout + done.stderr


def faults(node: Node) -> list[str]:
    """What the doctor finds."""
    said = node.run(["slurm-adopt", "doctor", "--json"], check=False).stdout
    return [finding["code"] for finding in json.loads(said)["findings"]]


def upgrade_slurmd(cluster: Cluster, node: Node, older: str) -> None:
    """As Debian's package does: new files first, under the slurmd that runs, which then makes room for the new one."""
    upgrade(node, older)
    node.slurmd.stop()
    node.slurmd.start()
    cluster.ctl.wait_idle()


@pytest.mark.releases
@pytest.mark.parametrize("how", ["service", "oneshot"])
@pytest.mark.parametrize(("older", "newer"), UPGRADES, ids=[f"to-{newer}" for _, newer in UPGRADES])
def test_rolling_upgrade__logins_before_meanwhile_and_afterwards(older: str, newer: str, how: str) -> None:
    with Cluster(newer) as cluster:
        node1, node2 = cluster.nodes
        for node in cluster.nodes:
            use_product(node, PATIENT)
            node.slurmd.stop()
            put_older(node, older)
            node.slurmd.start()
        cluster.ctl.wait_idle()
        with serving(node1) if how == "service" else nullcontext() as service:
            _upgrade_under_a_job(cluster, older)
            assert service is None or service.poll() is None
        assert node2.slurm_version == node1.slurm_version == cluster.ctl.slurm_version


def _upgrade_under_a_job(cluster: Cluster, older: str) -> None:
    node1, node2 = cluster.nodes
    # 20.11.4 on Linux 6 often does not know a connection's process, and says so (see test_callerid)
    old_answers = node1.slurm_release >= (22, 5)

    # before: all of it is the older release's
    old = cluster.allocate("alice", ["node1", "node2"])
    version = protocol_of(node1, old)
    assert job_of_login(cluster, "node1") == old
    assert is_refused(cluster, "node1")
    before = faults(node1)
    session = cluster.login.ssh_popen("alice", "sh", client="alice", host="node1")
    assert session.stdin is not None
    assert session.stdout is not None

    def said_by_session(command: str) -> str:
        """From the login that was there before the upgrade."""
        assert session.stdin is not None
        assert session.stdout is not None
        session.stdin.write(f"{command} </dev/null; echo end\n")
        session.stdin.flush()
        lines = list[str]()
        while (line := session.stdout.readline()) != "end\n":
            assert line, lines
            lines.append(line)
        return "".join(lines)

    try:
        assert job_said(said_by_session(WHERE)) == old

        # meanwhile
        with Logins(node1, "alice", old) as logins:
            upgrade_slurmd(cluster, node1, older)
        assert logins.count >= 1
        assert logins.wrong == []
        assert job_said(said_by_session(WHERE)) == old

        # afterwards: the job's slurmstepd is the older release's, under a slurmd of the newer
        assert protocol_of(node1, old) == version
        assert job_of_login(cluster, "node1") == old
        assert is_refused(cluster, "node1")
        assert faults(node1) == before
        new = cluster.allocate("alice", ["node1"])
        assert protocol_of(node1, new) > version
        assert job_of_login(cluster, "node1") == new
        assert _listed(node1) == {old, new}

        # between nodes of two releases, both ways: into the job that a login comes from, which is not the newest
        landed, caller = job_from(cluster, "node2", "node1")
        assert (landed, caller) == (old, "found") or (not old_answers and (landed, caller) == (new, "unknown"))
        newest = cluster.allocate("alice", ["node2"])
        assert protocol_of(node2, newest) == version
        ssh = f"ssh -o BatchMode=yes node2 '{WHERE}'"
        assert job_said(said_by_session(ssh)) == old != newest

        # the other node follows
        upgrade_slurmd(cluster, node2, older)
        assert protocol_of(node2, newest) == version
        assert job_said(said_by_session(ssh)) == old
        assert job_of_login(cluster, "node2") == newest

        # the end of the job, by the newer slurmd, is the end of its login; the other job takes the next one
        cluster.cancel(old)
        assert session.wait(60) != 0
        assert job_of_login(cluster, "node1") == new
    finally:
        session.kill()
        session.communicate()


def _listed(node: Node) -> set[int]:
    """alice's jobs, as she sees them in a login."""
    done = node.ssh("alice", "slurm-adopt jobs --json", check=True)
    return {job["job"] for job in json.loads(done.stdout)["jobs"]}
