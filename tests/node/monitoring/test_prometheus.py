# SPDX-License-Identifier: Apache-2.0
"""The alert rules before a real promtool, and the metrics before a real Prometheus."""

from __future__ import annotations

import json
import subprocess
import threading
import urllib.parse
import urllib.request
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from tests.node.resident.test_service import METRICS_FILE, STRICT, Service

from lab.machine import wait_for
from lab.node import Node
from lab.product import install_product
from lab.root import ensure_root

pytestmark = pytest.mark.extra

HERE = Path(__file__).parent
RULES = HERE.parents[2] / "data/monitoring/slurm-adopt.rules.yml"
DASHBOARD = RULES.parent / "slurm-adopt-dashboard.json"
PACKAGES = ("prometheus",)


@pytest.fixture(scope="module")
def programs() -> Path:
    """Where Debian's promtool and prometheus are; neither needs more than libc."""
    return ensure_root(None, PACKAGES) / "usr/bin"


def test_prometheus__promtool_accepts_the_rules_and_their_tests(programs: Path, tmp_path: Path) -> None:
    for file in (RULES, HERE / "rules.test.yml"):
        (tmp_path / file.name).write_text(file.read_text())
    for words in (["check", "rules", RULES.name], ["test", "rules", "rules.test.yml"]):
        done = subprocess.run(
            [programs / "promtool", *words], cwd=tmp_path, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="module")
def node() -> Iterator[Node]:
    with Node() as node:
        install_product(node)
        node.pam("sshd", account=[STRICT])
        service = Service(node)
        service.start()
        yield node
        service.stop()


@pytest.fixture
def exporter(node: Node) -> Iterator[str]:
    """What node_exporter does with the file: serves it over HTTP. Yields host and port."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/plain; version=0.0.4")
            self.end_headers()
            self.wfile.write(node.path(METRICS_FILE).read_bytes())

        def log_message(self, *_: object) -> None:
            """Nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_prometheus__a_real_one_scrapes_a_node_and_draws_the_dashboard(
    node: Node, exporter: str, programs: Path, tmp_path: Path
) -> None:
    job = node.submit("alice")
    (tmp_path / "prometheus.yml").write_text(
        "global: {scrape_interval: 1s, evaluation_interval: 1s}\n"
        f"rule_files: [{RULES}]\n"
        f"scrape_configs: [{{job_name: node, static_configs: [{{targets: ['{exporter}']}}]}}]\n"
    )
    listen = tmp_path / "listen"
    argv = [programs / "prometheus", "--config.file=prometheus.yml", "--storage.tsdb.path=data"]
    argv += ["--web.listen-address=127.0.0.1:0"]
    with (
        listen.open("w") as log,
        subprocess.Popen([str(word) for word in argv], cwd=tmp_path, stderr=log, stdout=log) as server,
    ):
        try:
            wait_for(lambda: "Listening on" in listen.read_text() and _address(listen), "Prometheus")
            address = _address(listen)
            for user, admitted in (("alice", True), ("bob", False), ("alice", True)):
                assert (node.ssh(user).returncode == 0) is admitted
            admissions = 'sum(slurm_adopt_logins_total{phase="account",verdict="allow"})'
            wait_for(lambda: _ask(address, admissions) == [2.0], "two admissions in Prometheus", timeout=60)
            assert _ask(address, 'sum(slurm_adopt_logins_total{verdict="deny",reason="no-job"})') == [1.0]
            assert _ask(address, "slurm_adopt_faults_total") == [0.0]
            for panel in json.loads(DASHBOARD.read_text())["panels"]:
                for target in panel["targets"]:
                    expression = target["expr"].replace('instance=~"$node"', 'instance=~".*"')
                    _ask(address, expression.replace("$__rate_interval", "1m"))
            with urllib.request.urlopen(f"http://{address}/api/v1/rules") as answer:
                rules = json.load(answer)["data"]["groups"][0]["rules"]
            assert {rule["health"] for rule in rules} <= {"ok", "unknown"}
            assert not [rule["name"] for rule in rules if rule["state"] == "firing"]
        finally:
            server.terminate()
    node.cancel(job)


def _address(log: Path) -> str:
    """Where Prometheus listens, as its log says."""
    for line in log.read_text().splitlines():
        for word in line.split():
            if word.startswith("address=127.0.0.1:") and not word.endswith(":0"):
                return word.partition("=")[2]
    return ""


def _ask(address: str, expression: str) -> list[float]:
    """The values of an instant query; fails if Prometheus does not understand it."""
    query = urllib.parse.urlencode({"query": expression})
    with urllib.request.urlopen(f"http://{address}/api/v1/query?{query}") as answer:
        found = json.load(answer)
    assert found["status"] == "success", found
    return [float(sample["value"][1]) for sample in found["data"]["result"]]
