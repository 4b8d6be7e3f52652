# SPDX-License-Identifier: Apache-2.0
"""What a refused user reads besides: the site's hint, and where the user's own jobs are. Real slurmctld and sshd."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from tests.conformance.situations import moved_away
from tests.node.faults.breakages import HELPER
from tests.releases import SUITES, suite_name

from lab.cluster import Cluster
from lab.machine import LabError, wait_for
from lab.node import Node
from lab.product import use_product, use_strict_lines

DENIED = "Access denied by pam_slurm_adopt: you have no active jobs on this node"
HINT = "[hint=Ask [us\\]: help@example.org, +49 30 1234]"
#: Busy machines are slow; what is looked at is what is said.
LINE = "required pam_slurm_adopt.so profile=strict timeout=60"
#: slurmctld keeps about 700 bytes of each; the answer would be longer than is read.
MANY = 1000


@pytest.fixture(
    scope="module",
    params=SUITES,
    ids=suite_name,
)
def shared_cluster(request: pytest.FixtureRequest) -> Iterator[Cluster]:
    # PrivateData: each user sees their own jobs only, and a node's root all of them
    with Cluster(request.param, slurm={"PrivateData": "jobs", "MaxJobCount": "5000"}) as cluster:
        use_product(cluster["node2"])
        yield cluster


@pytest.fixture
def target(shared_cluster: Cluster) -> Iterator[Node]:
    yield shared_cluster["node2"]
    shared_cluster["node2"].run("pkill -f 'slurm-adopt serv[e]'", check=False)
    shared_cluster.reset()


def use(node: Node, mode: str, *more: str) -> None:
    use_strict_lines(node, " ".join([LINE, f"mode={mode}", *more]))
    if mode == "service":
        node.popen(["/usr/bin/slurm-adopt", "serve", "--listen", "/run/slurm-adopt/login.sock"])
        wait_for(node.path("/run/slurm-adopt/login.sock").exists, "the service to listen")


def refused(node: Node, user: str = "alice") -> str:
    """What the user reads."""
    done = node.ssh(user)
    assert done.returncode != 0
    return next(line for line in done.stderr.replace("\r", "").splitlines() if line.startswith("Access denied"))


def is_told(node: Node, user: str, words: str) -> None:
    """The user reads these words: sooner or later, because slurmctld is given half a second, and busy machines are slow.

    The service asks a silent slurmctld again after half a minute.
    """
    seen: list[str] = []

    def reads_them() -> bool:
        seen.append(refused(node, user))
        return seen[-1] == words

    try:
        wait_for(reads_them, "slurmctld to answer in time", timeout=150, interval=2)
    except LabError:
        assert seen[-1] == words


def knows(node: Node) -> bool:
    """Whether slurmctld can be asked: not where root's credential could be used for another message."""
    return node.slurm_release >= (22, 5)


def test_hints__the_sites_own_sentence(target: Node) -> None:
    use(target, "oneshot", HINT)
    assert refused(target) == f"{DENIED}. Ask [us]: help@example.org, +49 30 1234"


def test_hints__the_sites_own_sentence_without_a_helper(target: Node) -> None:
    use(target, "oneshot", HINT)
    with moved_away(target, HELPER):
        said = refused(target)
    assert "the login helper could not be reached" in said
    assert said.endswith("Ask [us]: help@example.org, +49 30 1234")


def test_hints__nobody_is_told_where_jobs_are_unless_the_site_says_so(shared_cluster: Cluster, target: Node) -> None:
    shared_cluster.allocate("alice", ["node1"])
    use(target, "oneshot")
    assert refused(target) == DENIED


@pytest.mark.parametrize("mode", ["oneshot", "service"])
def test_hints__each_user_is_told_of_their_own_jobs(shared_cluster: Cluster, target: Node, mode: str) -> None:
    shared_cluster.allocate("alice", ["node1"])
    shared_cluster.allocate("bob", ["node1"])
    waiting = shared_cluster.login.sbatch("carol", hold=True, nodelist="node1")
    use(target, mode, "hint_jobs=yes", HINT)
    places = ". Your jobs are on node1" if knows(target) else ""
    for user in ("alice", "bob"):
        is_told(target, user, f"{DENIED}{places}. Ask [us]: help@example.org, +49 30 1234")
    assert refused(target, "carol").startswith(f"{DENIED}. Ask")
    shared_cluster.login.run(["scancel", str(waiting)])


@pytest.mark.parametrize("mode", ["oneshot", "service"])
def test_hints__slurmctld_is_silent(shared_cluster: Cluster, target: Node, mode: str) -> None:
    shared_cluster.allocate("alice", ["node1"])
    use(target, mode, "hint_jobs=yes")
    daemon = int(shared_cluster.ctl.read("/run/slurmctld.pid"))
    shared_cluster.ctl.run(["kill", "-STOP", str(daemon)])
    try:
        mark = target.log_mark()
        assert refused(target) == DENIED
        if knows(target):
            (line,) = [line for line in target.log_since(mark) if "reason=no-job" in line]
            assert "hint_jobs: no answer of slurmctld" in line
    finally:
        shared_cluster.ctl.run(["kill", "-CONT", str(daemon)])


def test_hints__slurmctld_is_gone(shared_cluster: Cluster, target: Node) -> None:
    shared_cluster.allocate("alice", ["node1"])
    use(target, "oneshot", "hint_jobs=yes")
    shared_cluster.ctl.slurmctld.stop()
    try:
        assert refused(target) == DENIED
    finally:
        shared_cluster.ctl.slurmctld.start()
        shared_cluster.ctl.wait_idle()


@pytest.mark.releases
def test_hints__more_jobs_than_are_read(shared_cluster: Cluster, target: Node) -> None:
    if target.suite is not None:
        pytest.skip("slurmctld is the same there, and takes a minute for so many jobs")
    shared_cluster.allocate("alice", ["node1"])
    loop = f"for i in $(seq {MANY}); do sbatch -Q --hold --output=/dev/null --wrap=true; done"
    shared_cluster.login.run(["bash", "-c", loop], user="alice", timeout=300)
    try:
        use(target, "oneshot", "hint_jobs=yes")
        mark = target.log_mark()
        assert refused(target) == DENIED
        (line,) = [line for line in target.log_since(mark) if "reason=no-job" in line]
        assert "hint_jobs: no answer of slurmctld: message of" in line
    finally:
        shared_cluster.login.run(["scancel", "-u", "alice", "--state=pending"])
