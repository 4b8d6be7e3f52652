# SPDX-License-Identifier: Apache-2.0
"""Which configured node a connection comes from, by its address.

The original asks whatever address the connection has, so a login node's user who listens on slurmd's port (it is not a
privileged one) answers for slurmd. Here only addresses of configured nodes are asked, each at its own port.

Rules of this file:
1. Addresses are compared as numbers; an IPv4-mapped one is IPv4.
2. NodeAddr written as a number comes first, then the names that /etc/hosts (root's own) gives the address.
3. Only then DNS, in a child with a deadline: the address's name, if it is a node's, is looked up forward again,
   because whoever owns an address writes its reverse entry.
"""

from __future__ import annotations

import _socket
import os
import time

from ...record import replace
from ...wire.slurm_nodes import iter_nodes, nodes_of_address, nodes_of_host
from ..tasks.child import ChildFault, call_in_child
from ..tasks.sockets import packed
from ..tasks.task import MS, DeadlineExceeded, raise_own_lack, sleep_until

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ...wire.slurm_conf import Statement
    from ...wire.slurm_nodes import NodeRecord
    from ..slurm.conf import SlurmConf
    from ..tasks.task import Task
    from .memory import CallerMemory

HOSTS = "/etc/hosts"
MAX_HOSTS_BYTES = 4 << 20
# several slurmds may run on one host (multiple-slurmd builds); a test cluster has dozens, nobody asks them all
MAX_NODES = 4
# a resolver on the cluster's own network answers in a few; the others are broken, at every login again
DNS_NS = 300 * MS


#: The same address is looked up once; the others look this often whether it is known.
LOOK_AGAIN_NS = 10 * MS


def find_nodes_of_peer(
    conf: SlurmConf, peer_address: str, deadline_ns: int, memory: CallerMemory | None = None, uid: int = 0
) -> Task[list[NodeRecord]]:
    """The nodes that have this address, each with `address` as a number; empty if it is no node's.

    A NodeAddr that is a number stays: there slurmd listens, also if the connection came over another network or IPv6.
    `ValueError` if `peer_address` is no address. `memory`: the resident service's, on the account of `uid`.
    """
    wanted = packed(peer_address)
    # a link-local address leads to a machine only together with its link
    _, mark, link = peer_address.partition("%")
    text = _text(wanted) + mark + link
    if memory is not None:
        return (yield from _remembered(conf, wanted, text, deadline_ns, memory, uid))
    found, _ = yield from _find(conf, wanted, text, uid, deadline_ns)
    return found


def _remembered(
    conf: SlurmConf, wanted: bytes, text: str, deadline_ns: int, memory: CallerMemory, uid: int
) -> Task[list[NodeRecord]]:
    while True:
        hosts = _hosts_state()
        known = memory.nodes_of(text, conf, hosts)
        if known is not None:
            return known
        if text not in memory.resolving:
            break
        now_ns = time.monotonic_ns()
        if now_ns >= deadline_ns:
            raise DeadlineExceeded
        yield from sleep_until(min(deadline_ns, now_ns + LOOK_AGAIN_NS))
    memory.resolving.add(text)
    try:
        found, sure = yield from _find(conf, wanted, text, uid, deadline_ns)
    finally:
        memory.resolving.discard(text)
    if sure:
        memory.keep_nodes(text, found, conf, hosts, uid)
    return found


def _find(conf: SlurmConf, wanted: bytes, text: str, uid: int, deadline_ns: int) -> Task[tuple[list[NodeRecord], bool]]:
    """The nodes, and whether the answer is worth keeping: not if the login had no time to find it."""
    found = _by_number(conf, wanted, text) or _by_names(conf, names_in_hosts(wanted))
    sure = True
    if not found and not wanted.startswith((b"\x7f", bytes(15))):
        # a name server that does not answer in its time is as good as one that does not know
        sure = deadline_ns - time.monotonic_ns() >= DNS_NS
        found = yield from _by_dns(conf, text, uid, deadline_ns)
    nodes = [
        node if _number(node.address) and "%" not in text else replace(node, address=text) for node in found[:MAX_NODES]
    ]
    return nodes, sure or bool(nodes)


def _hosts_state() -> tuple[int, int, int]:
    try:
        info = os.stat(HOSTS)
    except OSError:
        return (0, 0, 0)
    return (info.st_ino, info.st_ctime_ns, info.st_size)


def _text(address: bytes) -> str:
    return _socket.inet_ntop(_socket.AF_INET if len(address) == 4 else _socket.AF_INET6, address)


def _by_number(conf: SlurmConf, wanted: bytes, text: str) -> list[NodeRecord]:
    found = nodes_of_address(conf.statements, text, conf.slurmd_port)
    if found or len(wanted) == 4:
        return found
    # an IPv6 address can be written in many ways
    return [node for node in iter_nodes(_lines_with_colon(conf), conf.slurmd_port) if _number(node.address) == wanted]


def _lines_with_colon(conf: SlurmConf) -> tuple[Statement, ...]:
    """The few NodeName lines that may have an IPv6 address, and those that set defaults."""
    return tuple([statement for statement in conf.statements if ":" in statement[1] or "DEFAULT" in statement[1]])


def _number(address: str) -> bytes | None:
    try:
        return packed(address)
    except ValueError:
        return None


def names_in_hosts(wanted: bytes) -> list[str]:
    """All names that /etc/hosts gives an address."""
    try:
        with open(HOSTS, "rb") as file:
            lines = file.read(MAX_HOSTS_BYTES).decode("utf-8", "surrogateescape").split("\n")
    except OSError as error:
        raise_own_lack(error)
        return []
    names: list[str] = []
    for line in lines:
        fields = line.partition("#")[0].split()
        if len(fields) > 1 and _number(fields[0]) == wanted:
            names.extend(fields[1:])
    return names


def _by_names(conf: SlurmConf, names: list[str]) -> list[NodeRecord]:
    """The nodes whose NodeAddr or NodeHostname is one of the names, or of their short forms."""
    found: dict[str, NodeRecord] = {}
    for name in dict.fromkeys([*names, *[name.partition(".")[0] for name in names]]):
        for find in (nodes_of_address, nodes_of_host):
            for node in find(conf.statements, name, conf.slurmd_port):
                found.setdefault(node.name, node)
    return list(found.values())


def _by_dns(conf: SlurmConf, text: str, uid: int, deadline_ns: int) -> Task[list[NodeRecord]]:
    try:
        until_ns = min(deadline_ns, time.monotonic_ns() + DNS_NS)
        answer = yield from call_in_child(lambda: _resolve(conf, text), until_ns, uid)
    except (ChildFault, DeadlineExceeded):
        return []  # what cannot be found out is no node
    names = answer.decode("utf-8", "surrogateescape").split("\n")
    return [node for node in _by_names(conf, names[:1]) if node.name in names[1:]]


def _resolve(conf: SlurmConf, text: str) -> bytes:
    """In the child: the address's name, then those nodes of that name whose NodeAddr leads back to the address."""
    name = _socket.getnameinfo((text, 0), _socket.NI_NAMEREQD)[0]
    good = [node.name for node in _by_names(conf, [name]) if text in _addresses(node.address)]
    return os.fsencode("\n".join([name, *good]))


def _addresses(name: str) -> list[str]:
    try:
        return [str(info[4][0]) for info in _socket.getaddrinfo(name, None, 0, _socket.SOCK_STREAM)]
    except OSError:
        return []
