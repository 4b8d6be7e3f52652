# SPDX-License-Identifier: Apache-2.0
"""The doctor on the nodes of a cluster: through ClusterShell and real ssh, through real srun, and in a real browser."""

from __future__ import annotations

import contextlib
import importlib.util
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lab.cluster import Cluster
from lab.machine import Machine
from lab.node import Node
from lab.product import install_product, use_product
from slurm_adopt.cli.doctor.nodes.answers import Answer, make_report
from slurm_adopt.cli.doctor.nodes.page import page

SSHD = "/etc/pam.d/sshd"
#: Whatever else there is to say of the lab's nodes.
BROKEN = "pam-twice"
#: A busy machine takes its time; the command itself gives a node 30 s.
PATIENT_S = 300


@pytest.fixture(scope="module")
def nodes(request: pytest.FixtureRequest) -> Iterator[Cluster]:
    """Two nodes and a login node that has the command, ClusterShell and srun. node2 has our line twice."""
    with Cluster(request.config.getoption("--suite")) as cluster:
        for node in cluster.nodes:
            use_product(node)
        login = cluster.login
        install_product(login)
        install_clustershell(login)
        give(login, PATIENT_S)
        stack = cluster["node2"].read(SSHD)
        line = next(line for line in stack.splitlines() if line.startswith("account") and "pam_slurm_adopt.so" in line)
        cluster["node2"].write(SSHD, stack.replace(line, f"{line}\n{line}"))
        yield cluster


def install_clustershell(machine: Machine) -> None:
    found = importlib.util.find_spec("ClusterShell")
    assert found is not None, "it is in tests/requirements.txt"
    assert found.origin is not None
    for path in Path(found.origin).parent.rglob("*.py"):
        inside = path.relative_to(Path(found.origin).parent)
        machine.install(path, f"/usr/lib/python3/dist-packages/ClusterShell/{inside}")


def doctor(node: Node, *args: str) -> tuple[int, dict[str, Any]]:
    done = node.run(["slurm-adopt", "doctor", "--json", *args], check=False, timeout=600)
    assert done.stderr == ""
    return done.returncode, json.loads(done.stdout)


def nodes_with(report: dict[str, Any], code: str) -> list[str]:
    return [node for found in report["findings"] if found["code"] == code for node in found["nodes"]]


@pytest.mark.parametrize("via", ["clustershell", "srun"])
def test_doctor_nodes__which_differ_and_in_what(nodes: Cluster, via: str) -> None:
    status, report = doctor(nodes.login, "--nodes", "node[1-2]", "--via", via)
    assert report["nodes"] == ["node1", "node2"]
    assert nodes_with(report, BROKEN) == ["node2"]
    assert nodes_with(report, "node-no-answer") == nodes_with(report, "node-bad-answer") == []
    alone = [doctor(node)[0] for node in nodes.nodes]
    assert status == max(alone)
    assert ["node1"] in [group["nodes"] for group in report["groups"]]


def test_doctor_nodes__clustershell_is_taken_if_it_is_there(nodes: Cluster) -> None:
    """ctl has no slurmd: only ssh leads there, and it has no doctor."""
    _, report = doctor(nodes.login, "--nodes", "ctl,node1")
    assert nodes_with(report, "node-no-answer") == ["ctl"]
    (found,) = [found for found in report["findings"] if found["code"] == "node-no-answer"]
    assert "not found" in found["seen"] or "connect" in found["seen"]


@pytest.mark.parametrize("via", ["clustershell", "srun"])
def test_doctor_nodes__one_that_does_not_answer(nodes: Cluster, via: str) -> None:
    status, report = doctor(nodes.login, "--nodes", "node1,nowhere", "--via", via)
    assert status == 2
    assert nodes_with(report, "node-no-answer") == ["nowhere"]
    assert "nowhere" not in nodes_with(report, BROKEN)


def test_doctor_nodes__a_node_that_sends_something_else(nodes: Cluster) -> None:
    other = "#!/bin/sh\nprintf 'x\\033[2J<script>'\n"
    node = nodes["node1"]
    node.run("mv /usr/bin/slurm-adopt /usr/bin/slurm-adopt.away")
    try:
        node.write("/usr/bin/slurm-adopt", other, 0o755)
        done = nodes.login.run(["slurm-adopt", "doctor", "--nodes", "node[1-2]"], check=False, timeout=120)
    finally:
        node.run("mv /usr/bin/slurm-adopt.away /usr/bin/slurm-adopt")
    assert done.returncode == 2
    assert "error: node-bad-answer" in done.stdout
    assert "\x1b" not in done.stdout + done.stderr


def test_doctor_nodes__a_set_of_nodes_that_is_none(nodes: Cluster) -> None:
    for via in ("clustershell", "srun"):
        done = nodes.login.run(["slurm-adopt", "doctor", "--nodes", "n[", "--via", via], check=False)
        assert done.returncode == 1
        assert "is no set of nodes" in done.stderr
        assert len(done.stderr.splitlines()) == 2


# ClusterShell's tree --------------------------------------------------------------------------------

TOPOLOGY = "[routes]\nlogin: node1\nnode1: node2\n"
PACKAGE = "/usr/lib/python3/dist-packages/ClusterShell"
OURS = "/usr/lib/slurm-adopt/slurm_adopt/cli/doctor/nodes/clustershell.py"
#: A gateway in foreign hands: the message makes whoever unpickles it run a program.
HOSTILE_GATEWAY = """
import base64, os, pickle
class Harm:
    def __reduce__(self):
        return os.system, ("touch /root/owned",)
text = base64.b64encode(pickle.dumps(Harm())).decode()
print("<?xml version='1.0'?><channel version='1'>", flush=True)
print(f"<message type='SER' msgid='1' srcid='0' nodes='node2'>{text}</message>", flush=True)
while os.read(0, 65536):
    pass
"""


@pytest.fixture
def tree(nodes: Cluster) -> Iterator[Cluster]:
    """login is the root, node1 a gateway with ClusterShell, and node2 is behind it: login does not know its address."""
    hosts = nodes.login.read("/etc/hosts")
    install_clustershell(nodes["node1"])
    nodes.login.write("/etc/hosts", "".join(row for row in hosts.splitlines(True) if not row.endswith(" node2\n")))
    nodes.login.run("mkdir -p /etc/clustershell")
    nodes.login.write("/etc/clustershell/topology.conf", TOPOLOGY)
    try:
        yield nodes
    finally:
        nodes.login.run("rm -r /etc/clustershell")
        nodes.login.write("/etc/hosts", hosts)
        nodes["node1"].run(f"rm -r {PACKAGE}")


def give(machine: Machine, seconds: int) -> None:
    """The command there gives a node so many seconds."""
    machine.run(f"sed -i 's/^NODE_S = .*/NODE_S = {seconds}/' {OURS}")
    assert f"\nNODE_S = {seconds}\n" in machine.read(OURS)


@contextlib.contextmanager
def impatient(machine: Machine, seconds: int = 5) -> Iterator[None]:
    """For nodes that never answer."""
    give(machine, seconds)
    try:
        yield
    finally:
        give(machine, PATIENT_S)


def why_silent(report: dict[str, Any], node: str) -> str:
    [found] = [one for one in report["findings"] if one["code"] == "node-no-answer" and one["nodes"] == [node]]
    return str(found["seen"])


def test_doctor_nodes__a_node_behind_a_gateway(tree: Cluster) -> None:
    status, report = doctor(tree.login, "--nodes", "node[1-2]")
    assert nodes_with(report, "node-no-answer") == nodes_with(report, "node-bad-answer") == []
    assert nodes_with(report, BROKEN) == ["node2"]
    assert status == max(doctor(node)[0] for node in tree.nodes)
    tree.login.run("mv /etc/clustershell/topology.conf /etc/clustershell/away")
    _, report = doctor(tree.login, "--nodes", "node[1-2]")
    assert "resolve" in why_silent(report, "node2"), "there is no other way to it"


@pytest.mark.extra
def test_doctor_nodes__a_node_behind_a_gateway_that_sends_without_end(tree: Cluster) -> None:
    node = tree["node2"]
    node.run("mv /usr/bin/slurm-adopt /usr/bin/slurm-adopt.away")
    try:
        node.write("/usr/bin/slurm-adopt", "#!/bin/sh\nexec yes\n", 0o755)
        with impatient(tree.login):
            _, report = doctor(tree.login, "--nodes", "node2")
    finally:
        node.run("mv /usr/bin/slurm-adopt.away /usr/bin/slurm-adopt")
    # how much the gateway has passed on by then differs
    assert nodes_with(report, "node-bad-answer") + nodes_with(report, "node-no-answer") == ["node2"]


def test_doctor_nodes__a_gateway_that_fails_costs_its_own_nodes(tree: Cluster) -> None:
    gateway = tree["node1"]
    gateway.run(f"mv {PACKAGE} /root/away")
    try:
        _, report = doctor(tree.login, "--nodes", "login,node2")
        assert "by way of node1: " in why_silent(report, "node2")
        assert "ClusterShell" in why_silent(report, "node2")
        assert "login" not in nodes_with(report, "node-no-answer"), "it is asked directly, and answers"
        gateway.ssh_server.stop()
        try:
            _, report = doctor(tree.login, "--nodes", "login,node2")
        finally:
            gateway.ssh_server.start()
        assert "by way of node1: ssh: connect to host node1" in why_silent(report, "node2")
        assert "login" not in nodes_with(report, "node-no-answer")
    finally:
        gateway.run(f"mv /root/away {PACKAGE}")


def test_doctor_nodes__a_gateway_in_foreign_hands_runs_no_code_here(tree: Cluster) -> None:
    tree["node1"].write(f"{PACKAGE}/Gateway.py", HOSTILE_GATEWAY)
    with impatient(tree.login):
        _, report = doctor(tree.login, "--nodes", "node[1-2]")
    assert "by way of node1: " in why_silent(report, "node2")
    assert not tree.login.path("/root/owned").exists()


def test_doctor_nodes__a_gateway_that_hangs_is_not_waited_for(tree: Cluster) -> None:
    tree["node1"].write(f"{PACKAGE}/Gateway.py", "import os\nwhile os.read(0, 65536):\n    pass\n")
    with impatient(tree.login):
        _, report = doctor(tree.login, "--nodes", "node2")
    assert "by way of node1: " in why_silent(report, "node2")


@pytest.fixture
def deep_tree(nodes: Cluster) -> Iterator[Cluster]:
    """Two levels of gateways: login reaches ctl alone, ctl node1, and node1 node2. ctl has no doctor."""
    hosts = {machine: machine.read("/etc/hosts") for machine in (nodes.login, nodes["ctl"])}
    for machine, behind in ((nodes.login, (" node1", " node2")), (nodes["ctl"], (" node2",))):
        known = [row for row in hosts[machine].splitlines(True) if not row.rstrip().endswith(behind)]
        machine.write("/etc/hosts", "".join(known))
    for gateway in (nodes["ctl"], nodes["node1"]):
        install_clustershell(gateway)
    nodes["ctl"].ssh_server.start()
    nodes.login.run("mkdir -p /etc/clustershell")
    nodes.login.write("/etc/clustershell/topology.conf", "[routes]\nlogin: ctl\nctl: node1\nnode1: node2\n")
    try:
        yield nodes
    finally:
        nodes.login.run("rm -r /etc/clustershell")
        nodes["ctl"].ssh_server.stop()
        for machine, text in hosts.items():
            machine.write("/etc/hosts", text)
        for gateway in (nodes["ctl"], nodes["node1"]):
            gateway.run(f"rm -rf {PACKAGE}")


def test_doctor_nodes__nodes_behind_two_levels_of_gateways(deep_tree: Cluster) -> None:
    status, report = doctor(deep_tree.login, "--nodes", "node[1-2]")
    assert nodes_with(report, "node-no-answer") == nodes_with(report, "node-bad-answer") == []
    assert nodes_with(report, BROKEN) == ["node2"]
    assert status == max(doctor(node)[0] for node in deep_tree.nodes)


@pytest.mark.releases
def test_doctor_nodes__a_gateway_of_the_second_level_that_fails(deep_tree: Cluster) -> None:
    """ClusterShell ends on the first gateway then: all nodes that it leads to by that one are named, itself among them."""
    gateway = deep_tree["node1"]
    gateway.run(f"mv {PACKAGE} /root/away")
    try:
        with impatient(deep_tree.login, 20):  # node1 answers in it
            _, report = doctor(deep_tree.login, "--nodes", "node[1-2]")
    finally:
        gateway.run(f"mv /root/away {PACKAGE}")
    assert nodes_with(report, "node-no-answer") == ["node1", "node2"]
    [found] = [one for one in report["findings"] if one["code"] == "node-no-answer"]
    assert "by way of ctl: " in found["seen"]


def test_doctor_nodes__a_tree_that_is_none(tree: Cluster) -> None:
    tree.login.write("/etc/clustershell/topology.conf", "[routes]\nelsewhere: node1\nnode1: node2\n")
    done = tree.login.run(["slurm-adopt", "doctor", "--nodes", "node1"], check=False)
    assert done.returncode == 1
    assert "topology.conf cannot be used" in done.stderr
    assert len(done.stderr.splitlines()) == 2


# The page -------------------------------------------------------------------------------------------

SCRIPT = "<script>document.title='owned'</script>"
HOSTILE = (
    SCRIPT,
    f"</style></pre>{SCRIPT}",
    '"><img src=x onerror="document.title=\'owned\'">',
    "<svg onload=document.title='owned'>",
)


@pytest.fixture(scope="module")
def browser(request: pytest.FixtureRequest) -> Iterator[Machine]:
    with Machine("browser", request.config.getoption("--suite"), packages=("chromium",)) as machine:
        yield machine


def dom(browser: Machine, source: str) -> str:
    """The document as it is after the browser has read it and run whatever there is to run."""
    browser.write("/tmp/report.html", source)
    argv = [
        "chromium",
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--user-data-dir=/tmp/profile",
    ]
    return browser.run([*argv, "--dump-dom", "file:///tmp/report.html"], timeout=120).stdout


@pytest.mark.extra
def test_doctor_nodes__no_node_runs_a_script_in_the_browser(browser: Machine) -> None:
    assert "<title>owned</title>" in dom(browser, f"<title>x</title><body>{SCRIPT}</body>"), "it runs scripts"
    answers = [
        Answer(
            f"n{number}",
            json.dumps(
                {"findings": [{"code": "x", "severity": "error", "seen": text, "why": text, "mend": text}]}
            ).encode(),
            2,
        )
        for number, text in enumerate(HOSTILE)
    ]
    answers += [Answer(f"m{number}", b"", None, text) for number, text in enumerate(HOSTILE)]
    source = page(make_report(answers), "now")
    seen = dom(browser, source)
    assert "<title>slurm-adopt doctor: 8 nodes: 0 healthy, 8 with errors</title>" in seen
    assert "<script" not in seen
    assert "<img" not in seen
    assert "<svg" not in seen
    # the page's own policy holds, even if a tag came in
    inside = source.replace("<h1>", f"{SCRIPT}<h1>")
    assert inside != source
    assert "<title>slurm-adopt doctor" in dom(browser, inside)
