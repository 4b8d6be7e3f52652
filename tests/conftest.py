# SPDX-License-Identifier: Apache-2.0
"""Isolated nodes for tests.

`node`        shared by the whole run, with this checkout installed and its strict lines in sshd's PAM file;
              after each test its jobs, its users' processes, its PAM files and its further sshds are put back
`fresh_node`  of the test's own; `@pytest.mark.node(slurm={...}, ...)` gives it Node's options
`cluster`     two nodes, slurmctld's machine and a login node, shared by the whole run and put back like `node`
`--suite`     the Debian or Ubuntu release of all of them, the host's own by default
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from typing import Any

import hypothesis
import pytest

from lab.cluster import Cluster
from lab.node import Node
from lab.product import use_product, use_strict_lines

# how long an example takes is the machine's business
hypothesis.settings.register_profile("project", deadline=None)
hypothesis.settings.load_profile("project")


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
