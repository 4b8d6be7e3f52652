# SPDX-License-Identifier: Apache-2.0
"""The doctor on many nodes through ClusterShell: ssh to each, or by way of its tree (topology.conf) of gateways.

Rules of this file:
1. Tried with ClusterShell 1.9.1 and 1.10.1. Nothing of it is imported before it is asked for.
2. ClusterShell keeps what it has read until a line is whole, and takes 20 microseconds for each line. Whoever
   sends more than `CLIENT_CAP` bytes or `LINES_CAP` lines is ended.
3. A gateway is believed of the nodes behind it, and of no other. What it sends is unpickled by ClusterShell: here only
   if it is plain bytes, so that no gateway can run code on this machine.
4. Whatever goes wrong in ClusterShell, or with a gateway, is said of the nodes that have not answered.
"""

from __future__ import annotations

import base64
import importlib
import io
import logging
import pickle

from ...main import die
from .answers import ANSWER_CAP, LINES_CAP, Answer

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

NAME = "ClusterShell"
#: The doctor takes half a second, five where something hangs; ssh and a busy node some more.
NODE_S = 30
CONNECT_S = 10
#: How many at the same time, from one machine.
FANOUT = 64
#: Of what else was said, for the report.
SAID_CAP = 2000
#: Of one node, with what it says beside its answer; a gateway's messages are base64, and carry those of all nodes.
CLIENT_CAP = ANSWER_CAP + 16 * 1024
CHANNEL_CAP = 2 * CLIENT_CAP
#: What ClusterShell and we say a node's status is whose gateway has failed (sysexits.h: EX_PROTOCOL).
GATEWAY_FAILED = 76
#: ssh's own failures.
SSH_FAILED = 255


def ask_clustershell(
    nodes: str,
    command: tuple[str, ...],
    on_answer: Callable[[int, int], None],
    checked: Callable[[list[str]], list[str]],
) -> list[Answer]:
    """The answers of a set of nodes, in its order."""
    logging.getLogger(NAME).addHandler(logging.NullHandler())  # what it would say is in the report
    node_set = importlib.import_module(f"{NAME}.NodeSet")
    topology = importlib.import_module(f"{NAME}.Topology")
    try:
        names = checked(list(node_set.NodeSet(nodes)))
    except node_set.NodeSetException as error:
        die(f"{nodes[:80]!r} is no set of nodes: {error}", "as in node[1-9],login, or @group of ClusterShell's groups")
    gathering = Gathering(names, on_answer)
    task = importlib.import_module(f"{NAME}.Task").task_self()
    for key, value in (("stderr", True), ("stdout_msgtree", False), ("stderr_msgtree", False)):
        task.set_default(key, value)
    task.set_info("fanout", FANOUT)
    task.set_info("connect_timeout", CONNECT_S)
    reaching = task.default("distant_worker")
    task.set_default("distant_worker", _capped(reaching, gathering))
    try:
        in_tree = task._default_tree_is_enabled()
    except (topology.TopologyError, node_set.NodeSetException) as error:
        die(f"ClusterShell's topology.conf cannot be used: {error}", "mend it, or use --via srun")
    worker = (_tree_worker(gathering) if in_tree else task.default("distant_worker"))(
        node_set.NodeSet.fromlist(names),
        handler=_handler(importlib.import_module(f"{NAME}.Event").EventHandler, gathering),
        timeout=NODE_S,
        command=" ".join(command),
        stderr=True,
    )
    task.schedule(worker)
    try:
        # a gateway has no time limit of its own
        task.run(NODE_S * (len(names) // FANOUT + 2) if in_tree else None)
    except Exception as error:  # of ClusterShell, at what a gateway has sent; or the time was up
        gathering.trouble = f"ClusterShell: {type(error).__name__} {error}".strip()
    finally:
        task.set_default("distant_worker", reaching)
    return gathering.answers()


class Gathering:
    """What has come so far, by node, within its caps."""

    def __init__(self, names: list[str], on_answer: Callable[[int, int], None]) -> None:
        self.data: dict[str, bytearray] = {name: bytearray() for name in names}
        self.said: dict[str, bytearray] = {name: bytearray() for name in names}
        self.status: dict[str, int] = {}
        self.flooded: set[str] = set()
        #: By which gateway a node is reached, and what gateways have said.
        self.gateways: dict[str, str] = {}
        self.asides: dict[str, bytearray] = {}
        self.trouble = ""
        self._on_answer = on_answer
        self._over = 0

    def read(self, node: str, stream: str, line: bytes) -> None:
        if node not in self.data:
            return
        into, cap = (self.said, SAID_CAP) if stream == "stderr" else (self.data, ANSWER_CAP + 1)
        into[node] += (line + b"\n")[: max(0, cap - len(into[node]))]

    def aside(self, gateway: str, line: bytes) -> None:
        """What a gateway says of itself."""
        into = self.asides.setdefault(gateway, bytearray())
        into += (line + b"\n")[: max(0, SAID_CAP - len(into))]

    def ended(self, node: str, status: int | None) -> None:
        if status is not None:
            self.status[node] = status
        self._over += 1
        self._on_answer(self._over, len(self.data))

    def answers(self) -> list[Answer]:
        return [self._answer(name) for name in self.data]

    def _answer(self, name: str) -> Answer:
        status, said = self.status.get(name), _text(self.said[name])
        gateway = self.gateways.get(name, "")
        if status == SSH_FAILED or (gateway and status == GATEWAY_FAILED):
            status = None
        if status is None and gateway:
            aside = said or _text(self.asides.get(gateway, bytearray())) or self.trouble
            if gateway in self.flooded:
                aside = f"it has sent more than {CHANNEL_CAP} bytes for each of its nodes"
            said = f"by way of {gateway}: {aside or 'nothing came back in time'}"
        elif status is None:
            said = said or self.trouble
        return Answer(name, bytes(self.data[name]), status, said, name in self.flooded)


def _text(data: bytearray) -> str:
    return data.decode("utf-8", "replace").strip()


def _handler(base: Any, gathering: Gathering) -> Any:
    """An event handler of ClusterShell's, whose class is known only once it is imported."""

    def ev_read(_self: Any, _worker: Any, node: str, sname: str, msg: bytes) -> None:
        gathering.read(node, sname, msg)

    def ev_hup(_self: Any, _worker: Any, node: str, rc: int | None) -> None:
        gathering.ended(node, rc)

    return type("Handler", (base,), {"ev_read": ev_read, "ev_hup": ev_hup})()


def _capped(worker: Any, gathering: Gathering) -> Any:
    """The class of the worker that reaches nodes and gateways, with a cap on what each of its programs may write."""
    base = worker.SHELL_CLASS
    at_eof = importlib.import_module(f"{NAME}.Worker.EngineClient").EngineClientEOF

    def read(self: Any, sname: str, size: int = 65536) -> bytes:
        data: bytes = base._read(self, sname, size)
        self.came = getattr(self, "came", 0) + len(data)
        self.lines = getattr(self, "lines", 0) + data.count(b"\n")
        # the program of a gateway, or of pdsh, is that of many nodes
        alone = str(self.key) in gathering.data and str(self.key) not in gathering.gateways.values()
        if self.came > (CLIENT_CAP if alone else CHANNEL_CAP * len(gathering.data)) or (
            alone and self.lines > LINES_CAP
        ):
            gathering.flooded.update(map(str, self.key if hasattr(self.key, "nsiter") else [self.key]))
            self.popen.kill()
            raise at_eof
        return data

    client = type("Client", (base,), {"_read": read})
    return type("Worker", (worker,), {"SHELL_CLASS": client})


def _tree_worker(gathering: Gathering) -> Any:
    """ClusterShell's worker for its tree, which says whose gateway is whose, and outlives gateways that fail."""
    messages = importlib.import_module(f"{NAME}.Communication")
    base = importlib.import_module(f"{NAME}.Worker.Tree").WorkerTree
    no_route = importlib.import_module(f"{NAME}.Propagation").RouteResolvingError

    def execute(self: Any, cmd: str, targets: Any, gateway: Any, timeout: float) -> None:
        gathering.gateways.update((str(node), str(gateway)) for node in targets)
        base._execute_remote(self, cmd, targets, gateway, timeout)

    def relaunch(self: Any, gateway: str) -> None:
        targets = [str(node) for node in self.gwtargets[gateway]]
        try:
            self.router.next_hop(targets[0])
        except no_route:  # of which ClusterShell would make the end of all
            for node in targets:
                self._on_remote_node_close(node, GATEWAY_FAILED, gateway)
        else:
            base._relaunch(self, gateway)

    def line(self: Any, node: str, msg: bytes, sname: str, gateway: Any) -> None:
        if node == str(gateway) and sname == "stderr":
            gathering.aside(node, msg)
        elif node in self.gwtargets.get(str(gateway), ()):
            base._on_remote_node_msgline(self, node, msg, sname, gateway)

    def decode(self: Any) -> bytes:
        return plain_bytes(self.data or b"", messages.MessageProcessingError)

    messages.Message.data_decode = decode
    members = {"_execute_remote": execute, "_relaunch": relaunch, "_on_remote_node_msgline": line}
    return type("Tree", (base,), members)


class _Plain(pickle.Unpickler):
    """Makes nothing but what needs no name to be looked up."""

    def find_class(self, module: str, name: str) -> Any:
        raise pickle.UnpicklingError(f"{module}.{name} is no text")


def plain_bytes(data: bytes, fault: type[Exception]) -> bytes:
    """What a gateway's message holds, which is a pickle in base64, if that is bytes; else `fault`."""
    try:
        found = _Plain(io.BytesIO(base64.b64decode(data))).load()
    except Exception as error:  # whatever an unpickler makes of anything
        raise fault(f"a message that is none: {error}") from None
    if isinstance(found, str):  # ClusterShell 1.9 of what it could not read itself
        return found.encode("utf-8", "replace")
    if not isinstance(found, bytes):
        raise fault("a message that is no text")
    return found
