# SPDX-License-Identifier: Apache-2.0
"""Isolated nodes for tests.

`node`        shared by the whole run, with this checkout installed and its strict lines in sshd's PAM file;
              after each test its jobs, its users' processes, its PAM files and its further sshds are put back
`fresh_node`  of the test's own; `@pytest.mark.node(slurm={...}, ...)` gives it Node's options
`cluster`     two nodes, slurmctld's machine and a login node, shared by the whole run and put back like `node`
`--suite`     the Debian or Ubuntu release of all of them, the host's own by default

`make test` runs files side by side (pytest-xdist). Each worker has nodes of its own, and says at its end what it has
left behind on the host.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from typing import Any

import hypothesis
import pytest

from lab.cluster import Cluster
from lab.leaks import left_behind, processes_mounts_cgroups
from lab.node import Node
from lab.product import use_product, use_strict_lines

# how long an example takes is the machine's business
hypothesis.settings.register_profile("project", deadline=None)
hypothesis.settings.load_profile("project")


#: Files and folders that take longest, in about that many seconds. They begin first, so that the end is not one long file
#: alone. Only the order is at stake: what is not here comes afterwards.
LONGEST_S = {
    "tests/module": 166,
    "tests/node/cli/test_doctor.py": 125,
    "tests/node/system/test_callerid.py": 116,
    "tests/node/resident/test_service.py": 105,
    "tests/node/resident/test_warn.py": 96,
    "tests/node/login/test_suspended.py": 78,
    "tests/node/login/test_session.py": 77,
    "tests/conformance/test_conformance.py": 68,
    "tests/node/cli/test_doctor_nodes.py": 65,
    "tests/node/faults/test_faults.py": 63,
    "tests/node/users/test_move.py": 52,
    "tests/node/login/test_hooks.py": 51,
    "tests/selinux/test_selinux_policy.py": 47,
    "tests/node/resident/test_locked_memory.py": 45,
    "tests/lab/test_root.py": 45,
    "tests/node/users/test_users.py": 42,
    "tests/node/login/test_races.py": 39,
    "tests/node/cli/test_enable.py": 39,
    "tests/lint/test_linters.py": 35,
    "tests/install/test_make.py": 31,
    "tests/node/system/test_node_discovery.py": 29,
    "tests/node/login/test_hints.py": 29,
    "tests/node/cli/test_status.py": 29,
    "tests/node/login/test_public_stacks.py": 28,
    "tests/lab/test_node.py": 27,
    "tests/node/cli/test_demo.py": 27,
    "tests/node/cli/test_explain.py": 27,
    "tests/node/login/test_greeting.py": 26,
    "tests/node/users/test_job_names.py": 26,
    "tests/conformance/test_stacks.py": 24,
    "tests/node/login/test_takeover.py": 19,
    "tests/node/login/test_exempt.py": 19,
    "tests/lab/test_leaks.py": 18,
    "tests/lab/test_cluster.py": 18,
}
#: Folders whose files share what they build: one worker takes them all.
TOGETHER = ("tests/module",)
#: Each worker mostly waits for Slurm, sshd and deadlines.
WORKERS_PER_CPU = 2


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    return WORKERS_PER_CPU * len(os.sched_getaffinity(0))


def _together(name: str) -> str:
    """What one worker runs: the test file of this name, or the folder that it is run with."""
    return next((folder for folder in TOGETHER if name.startswith(f"{folder}/")), name)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """One worker for each file, whatever --dist says.

    (xdist 3.8 hands on what is marked `xdist_group` as a part of a test's name, which pytest 9.2 no longer lets it
    change: each worker got some tests of every file, and made the nodes of all of them.)
    """
    from xdist.scheduler import LoadScopeScheduling  # not installed where only `pytest tests/unit` is run

    class FileByFile(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return _together(nodeid.partition("::")[0])

    return FileByFile(config, log)


#: The workers that ran a test of each file, as the process that they report to knows.
_WORKERS: dict[str, set[str]] = {}


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if worker := getattr(report, "node", None):
        _WORKERS.setdefault(_together(report.location[0]), set()).add(worker.gateway.id)


def pytest_sessionfinish(exitstatus: int) -> None:
    """A run that was not file by file fails. (One that has failed already says why; what a worker left that died, another
    one runs.)"""
    torn = sorted(name for name, workers in _WORKERS.items() if len(workers) > 1)
    if torn and exitstatus == pytest.ExitCode.OK:
        raise pytest.UsageError(f"these files ran in more than one worker: {' '.join(torn)}")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """The longest files first. Without xdist the order is the usual one."""
    if hasattr(config, "workerinput"):
        items.sort(key=lambda item: -LONGEST_S.get(_together(item.nodeid.partition("::")[0]), 0))  # files stay together


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--suite", default=None, help="Debian or Ubuntu release of the isolated nodes")


def pytest_configure(config: pytest.Config) -> None:
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        # started in the background of a shell; nodes and demos are interrupted here, and would inherit that
        signal.signal(signal.SIGINT, signal.default_int_handler)
    config.addinivalue_line("markers", "node(**options): options of lab.node.Node for `fresh_node`")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Any:
    report = yield
    if report.when == "call" and report.failed:
        for name, value in getattr(item, "funcargs", {}).items():
            if isinstance(value, (Node, Cluster)):
                report.sections.append((f"logs of {name}", value.diagnose()))
    return report


@pytest.fixture(scope="session", autouse=True)
def _leaves_nothing_behind() -> Iterator[None]:
    """No process, mount or cgroup of a machine outlives the run. Set up first, so torn down last."""
    if os.geteuid() != 0:
        yield
        return
    before = processes_mounts_cgroups()
    yield
    assert left_behind(before) == []


def _require_root() -> None:
    if os.geteuid() != 0:
        pytest.skip("an isolated node needs root")


@pytest.fixture(scope="session")
def shared_node(request: pytest.FixtureRequest) -> Iterator[Node]:
    """Use `node`, which puts things back."""
    _require_root()
    with Node(request.config.getoption("--suite")) as node:
        use_product(node)
        yield node


@pytest.fixture
def node(shared_node: Node) -> Iterator[Node]:
    yield shared_node
    shared_node.reset()
    use_strict_lines(shared_node)


@pytest.fixture
def fresh_node(request: pytest.FixtureRequest) -> Iterator[Node]:
    _require_root()
    marker = request.node.get_closest_marker("node")
    options = dict(marker.kwargs) if marker else {}
    options.setdefault("suite", request.config.getoption("--suite"))
    with Node(**options) as node:
        use_product(node)
        yield node


@pytest.fixture(scope="session")
def shared_cluster(request: pytest.FixtureRequest) -> Iterator[Cluster]:
    """Use `cluster`, which puts things back."""
    _require_root()
    with Cluster(request.config.getoption("--suite")) as cluster:
        for node in cluster.nodes:
            use_product(node)
        yield cluster


@pytest.fixture
def cluster(shared_cluster: Cluster) -> Iterator[Cluster]:
    yield shared_cluster
    shared_cluster.reset()
    for node in shared_cluster.nodes:
        use_strict_lines(node)
