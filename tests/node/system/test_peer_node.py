# SPDX-License-Identifier: Apache-2.0
"""Whose address is it? Name services are replaced; the child that asks them is real."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from lab.machine import wait_for
from slurm_adopt.record import replace
from slurm_adopt.system.rpc import peers as peer_node
from slurm_adopt.system.rpc.memory import CallerMemory
from slurm_adopt.system.rpc.peers import find_nodes_of_peer, names_in_hosts
from slurm_adopt.system.slurm.conf import SlurmConf, read_slurm_conf
from slurm_adopt.system.tasks.child import USER_CAP, reap_children
from slurm_adopt.system.tasks.task import MS, all_of, run
from slurm_adopt.wire.slurm_conf import parse

NODES = """
NodeName=DEFAULT Port=7000
NodeName=n[1-3] NodeAddr=10.0.0.[1-3]
NodeName=six NodeAddr=FD00:0:0::0007 Port=7001
NodeName=named NodeAddr=gate.example.org
NodeName=plain
NodeName=dns
NodeName=v[1-2] NodeHostname=multi NodeAddr=10.0.9.9 Port=[7001,7002]
"""
#: On a busy machine a child may wait its turn longer than a name server is given.
DNS_NS, PATIENT_NS = peer_node.DNS_NS, 60_000 * MS
HOSTS = """\
127.0.0.1 localhost
10.0.1.1 gate.example.org gate # the front door
10.0.1.2\tplain.cluster.example.org
fd00::8 plain
10.0.1.3 stranger
10.0.0.2 n3
fd00::2 n2.example.org
nonsense n1
"""


@pytest.fixture
def conf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SlurmConf:
    path = tmp_path / "slurm.conf"
    path.write_text("")
    path.chmod(0o644)
    (tmp_path / "hosts").write_text(HOSTS)
    monkeypatch.setattr(peer_node, "HOSTS", str(tmp_path / "hosts"))
    monkeypatch.setattr(peer_node, "DNS_NS", PATIENT_NS)
    monkeypatch.setattr("slurm_adopt.system.rpc.peers._socket.getnameinfo", _reverse)
    monkeypatch.setattr("slurm_adopt.system.rpc.peers._socket.getaddrinfo", _forward)
    return replace(read_slurm_conf((str(path),)), statements=parse(NODES).statements)


def _reverse(address: tuple[str, int], flags: int) -> tuple[str, str]:
    assert flags
    names = {"10.0.2.1": "dns.example.org", "10.0.2.2": "dns.example.org", "10.0.2.3": "hangs", "10.0.2.4": "stranger"}
    name = names.get(address[0])
    if name == "hangs":
        time.sleep(30)
    if name is None:
        raise OSError("no such name")
    return name, "0"


def _forward(name: str, *_: object) -> list[tuple[int, int, int, str, tuple[str, int]]]:
    if name != "dns":
        raise OSError("no such name")
    return [(2, 1, 6, "", ("10.0.2.1", 0))]


def find(conf: SlurmConf, address: str) -> list[tuple[str, str, int]]:
    nodes = run(find_nodes_of_peer(conf, address, time.monotonic_ns() + PATIENT_NS))
    return [(node.name, node.address, node.port) for node in nodes]


@pytest.mark.parametrize(
    ("address", "nodes"),
    [
        ("10.0.0.1", [("n1", "10.0.0.1", 7000)]),
        ("::ffff:10.0.0.3", [("n3", "10.0.0.3", 7000)]),
        # NodeAddr as a number wins over what /etc/hosts calls the address
        ("10.0.0.2", [("n2", "10.0.0.2", 7000)]),
        ("10.0.0.4", []),
        ("fd00::7", [("six", "FD00:0:0::0007", 7001)]),
        ("fd00::8", [("plain", "fd00::8", 7000)]),
        ("fd00::9", []),
        # over another network: slurmd is asked where slurm.conf says
        ("fd00::2", [("n2", "10.0.0.2", 7000)]),
        ("10.0.1.1", [("named", "10.0.1.1", 7000)]),
        ("10.0.1.2", [("plain", "10.0.1.2", 7000)]),
        ("10.0.1.3", []),
        ("10.0.9.9", [("v1", "10.0.9.9", 7001), ("v2", "10.0.9.9", 7002)]),
        ("10.0.2.1", [("dns", "10.0.2.1", 7000)]),
        # whoever owns 10.0.2.2 has written `dns` into its reverse entry
        ("10.0.2.2", []),
        ("10.0.2.4", []),
        ("127.0.0.1", []),
        ("::1", []),
    ],
)
def test_peer_node__whose_address(conf: SlurmConf, address: str, nodes: list[tuple[str, str, int]]) -> None:
    assert find(conf, address) == nodes


def test_peer_node__dns_that_hangs_is_given_up(conf: SlurmConf, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peer_node, "DNS_NS", DNS_NS)
    started = time.monotonic()
    assert find(conf, "10.0.2.3") == []
    assert time.monotonic() - started < 25  # half a minute is what it would take


def test_peer_node__asks_the_resolver_once(conf: SlurmConf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = tmp_path / "asked"
    resolve = peer_node._resolve

    def counted(*arguments: Any) -> bytes:
        with asked.open("a") as file:
            file.write("x")
        return resolve(*arguments)

    monkeypatch.setattr(peer_node, "_resolve", counted)
    memory = CallerMemory()

    def names(address: str, conf: SlurmConf = conf) -> list[str]:
        monkeypatch.setattr(peer_node, "DNS_NS", DNS_NS if address == "10.0.2.3" else PATIENT_NS)
        deadline_ns = time.monotonic_ns() + 2 * PATIENT_NS
        return [node.name for node in run(find_nodes_of_peer(conf, address, deadline_ns, memory, 1001))]

    # known, another machine's, nobody's, and one whose name server hangs
    for address, found in (("10.0.2.1", ["dns"]), ("10.0.2.4", []), ("10.0.2.9", []), ("10.0.2.3", [])):
        asked.write_text("")
        assert [names(address), names(address), names(address)] == [found] * 3
        assert asked.read_text() == "x"
    # a new slurm.conf, or another /etc/hosts, and it is looked for again
    assert names("10.0.2.1", replace(conf)) == ["dns"]
    assert asked.read_text() == "xx"
    (tmp_path / "hosts").write_text(HOSTS + "10.0.2.1 plain\n")
    assert names("10.0.2.1") == ["plain"]


def test_peer_node__a_login_in_a_hurry_proves_nothing(conf: SlurmConf, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peer_node, "DNS_NS", DNS_NS)
    memory = CallerMemory()
    deadline_ns = time.monotonic_ns() + 20_000_000
    assert run(find_nodes_of_peer(conf, "10.0.2.3", deadline_ns, memory, 1001)) == []
    assert memory.nodes_of("10.0.2.3", conf, peer_node._hosts_state()) is None


def test_peer_node__logins_side_by_side_look_up_once(
    conf: SlurmConf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = tmp_path / "asked"

    def slow(*_: Any) -> bytes:
        with asked.open("a") as file:
            file.write("x")
        time.sleep(0.05)
        return b"dns.example.org\ndns"

    monkeypatch.setattr(peer_node, "_resolve", slow)
    memory, deadline_ns = CallerMemory(), time.monotonic_ns() + PATIENT_NS
    tasks = [find_nodes_of_peer(conf, "10.0.2.1", deadline_ns, memory, 1001) for _ in range(20)]
    outcomes = run(all_of(tasks, deadline_ns))
    assert [[node.name for node in nodes] for nodes in outcomes if not isinstance(nodes, Exception)] == [["dns"]] * 20
    assert asked.read_text() == "x"
    # one that is given up does not block the others
    task = find_nodes_of_peer(conf, "10.0.2.9", deadline_ns, memory, 1001)
    next(task)
    task.close()
    assert memory.resolving == set()


def test_peer_node__one_users_addresses_leave_resolvers_for_the_others(
    conf: SlurmConf, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A user may come from as many addresses as IPv6 gives them, and from each at once."""
    monkeypatch.setattr(peer_node, "_resolve", lambda *_: time.sleep(60))
    memory, deadline_ns = CallerMemory(), time.monotonic_ns() + 10**10

    def looks(address: str, uid: int) -> bool:
        task = find_nodes_of_peer(conf, address, deadline_ns, memory, uid)
        try:
            next(task)
        except BlockingIOError:
            return False
        looking.append(task)
        return True

    looking: list[Any] = []
    wait_for(lambda: not reap_children(), "the searches of the tests before to end")
    assert [looks(f"2001:db8::{number:x}", 1001) for number in range(1, 20)] == [True] * USER_CAP + [False] * 11
    assert looks("2001:db8::99", 1002)
    for task in looking:
        task.close()


def test_peer_node__no_address(conf: SlurmConf) -> None:
    with pytest.raises(ValueError, match="no address"):
        find(conf, "somewhere")


def test_peer_node__hosts_is_missing(conf: SlurmConf, monkeypatch: pytest.MonkeyPatch) -> None:
    assert names_in_hosts(bytes([10, 0, 1, 1])) == ["gate.example.org", "gate"]
    monkeypatch.setattr(peer_node, "HOSTS", "/nonexistent")
    assert names_in_hosts(bytes([10, 0, 1, 1])) == []
    assert find(conf, "10.0.0.1") == [("n1", "10.0.0.1", 7000)]
