# SPDX-License-Identifier: Apache-2.0
"""The NodeName lines of slurm.conf as node records.

Rules of this file:
1. `NodeHostname` defaults to the names, `NodeAddr` to the host names, `Port` to SlurmdPort. Each is one value or
   as many as there are names, taken in parallel; one value serves all of them.
2. `NodeName=DEFAULT` sets the port of the lines that follow it.
3. A line that does not fit together loses its own nodes and nobody else's: it becomes a problem. Pairs behind a
   malformed one are not read. A node that is lost is only an address that caller ID does not ask.
4. The first line that names a node counts (Slurm up to 23.11; 24.05 and later refuse to start).
   Several nodes may have one host name: builds with multiple-slurmd support, Debian's among them.
"""

from __future__ import annotations

from ..record import record
from .hostlist import MAX_DIGITS, HostList, HostListError
from .slurm_conf import BLANKS, NODE, logical_line, read_pairs

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from .slurm_conf import Statement

# over all lines of a file; Slurm stops at 65,533 nodes (MAX_SLURM_NODES), and DEFAULT lines are free
MAX_NODES = 65536
DEFAULT_PORT = 6818


@record
class NodeRecord:
    """One node: its name, host name, address as written (a name or a number), and slurmd's port."""

    name: str
    hostname: str
    address: str
    port: int


class _Line:
    """One NodeName line: four lists in parallel."""

    def __init__(self, pairs: dict[str, str], default_port: str) -> None:
        names = pairs[NODE]
        hosts = pairs.get("nodehostname", names)
        self.names = HostList(names)
        self.hosts = HostList(hosts)
        self.addresses = HostList(pairs.get("nodeaddr", hosts))
        self.ports = _port_list(pairs.get("port", default_port))
        for what, values in (("NodeHostname", self.hosts), ("NodeAddr", self.addresses), ("Port", self.ports)):
            if len(values) not in (1, len(self.names)):
                raise HostListError(f"{len(values)} values of {what} for {len(self.names)} nodes")

    def node(self, index: int) -> NodeRecord:
        name = self.names[index]
        if "/" in name or not name.isprintable() or name.startswith("."):
            # it becomes a part of file names
            raise HostListError(f"no name for a node: {name[:40]!r}")
        port = self.ports[min(index, len(self.ports) - 1)]
        if not (port.isascii() and port.isdigit() and len(port) <= MAX_DIGITS and 0 < int(port) < 65536):
            raise HostListError(f"port {port[:40]!r} of node {name}")
        host = self.hosts[min(index, len(self.hosts) - 1)]
        return NodeRecord(name, host, self.addresses[min(index, len(self.addresses) - 1)], int(port))


def _port_list(text: str) -> HostList:
    """`6818`, `6818-6820`, `6818,6819` or the same in brackets."""
    return HostList(text if "[" in text else f"[{text}]")


def _lines(
    statements: tuple[Statement, ...], default_port: int, problems: list[str], host: str = ""
) -> Iterator[_Line]:
    port = str(default_port)
    # what a bracket may have before it if the list can hold `host`: `cn` in `NodeName=cn[1-9] …`, or nothing
    before = ("=", ",", *BLANKS, *[host[:count] for count in range(1, len(host))])
    for key, raw, file, number in statements:
        if key != NODE or (host and _cannot_name(raw, host, before)):
            continue
        pairs, wrong = read_pairs(logical_line(raw))
        name = pairs.get(NODE)
        if not name or "=" in name:
            problems.append(f"{file}:{number}: {wrong or 'no node name'}")
            continue
        if wrong:
            # what was read before it is good; a key after it that we need is only one more default
            problems.append(f"{file}:{number}: {wrong}")
        if name.upper() == "DEFAULT":
            port = pairs.get("port", port)
            continue
        try:
            yield _Line(pairs, port)
        except HostListError as error:
            problems.append(f"{file}:{number}: {error}")


def _cannot_name(raw: str, host: str, before: tuple[str, ...]) -> bool:
    """A quick look that spares reading thousands of lines: True if no list of the line can hold `host`."""
    if host in raw or raw[8:9] != "=" or "DEFAULT" in raw.upper() or '"' in raw or "\\" in raw:
        return False
    return not any(piece.endswith(before) for piece in raw.split("[")[:-1])


def iter_nodes(
    statements: tuple[Statement, ...], default_port: int = DEFAULT_PORT, problems: list[str] | None = None
) -> Iterator[NodeRecord]:
    """All node records, at most `MAX_NODES`; what is odd is added to `problems` on the way."""
    problems = [] if problems is None else problems
    seen: set[str] = set()
    for line in _lines(statements, default_port, problems):
        for index in range(len(line.names)):
            if len(seen) >= MAX_NODES:
                problems.append(f"more than {MAX_NODES} nodes")
                return
            try:
                node = line.node(index)
            except HostListError as error:
                problems.append(str(error))
                break
            if node.name in seen:
                problems.append(f"node {node.name} is defined twice")
                continue
            seen.add(node.name)
            yield node


def _node_at(line: _Line, index: int, problems: list[str]) -> list[NodeRecord]:
    try:
        return [line.node(index)]
    except HostListError as error:
        problems.append(str(error))
        return []


def _find(values: HostList, line: _Line, wanted: str, problems: list[str]) -> list[NodeRecord]:
    """The nodes of a line for which `values`, one of its lists, says `wanted`."""
    places: Iterable[int] = values.places(wanted)
    if len(values) == 1:
        # one value stands for all the line's nodes
        places = range(len(line.names)) if values[0] == wanted else ()
    return [node for index in places for node in _node_at(line, index, problems)]


def _all_with(
    statements: tuple[Statement, ...],
    wanted: str,
    values_of: Callable[[_Line], HostList],
    default_port: int,
    problems: list[str] | None,
) -> list[NodeRecord]:
    """The records that have `wanted` among the values of their line, each node once."""
    problems = [] if problems is None else problems
    found: dict[str, NodeRecord] = {}
    for line in _lines(statements, default_port, problems, wanted):
        for node in _find(values_of(line), line, wanted, problems):
            found.setdefault(node.name, node)
    return list(found.values())


def nodes_of_host(
    statements: tuple[Statement, ...], host: str, default_port: int = DEFAULT_PORT, problems: list[str] | None = None
) -> list[NodeRecord]:
    """The records whose NodeHostname is `host`: one, none, or several where several slurmds run on a host."""
    return _all_with(statements, host, lambda line: line.hosts, default_port, problems)


def nodes_of_address(
    statements: tuple[Statement, ...],
    address: str,
    default_port: int = DEFAULT_PORT,
    problems: list[str] | None = None,
) -> list[NodeRecord]:
    """The records whose NodeAddr is written `address`, a number or a name."""
    return _all_with(statements, address, lambda line: line.addresses, default_port, problems)


def node_of_name(
    statements: tuple[Statement, ...], name: str, default_port: int = DEFAULT_PORT, problems: list[str] | None = None
) -> NodeRecord | None:
    """The record of one node name."""
    problems = [] if problems is None else problems
    for line in _lines(statements, default_port, problems, name):
        index = line.names.index(name)
        if index is not None:
            return next(iter(_node_at(line, index, problems)), None)
    return None
