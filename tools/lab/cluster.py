# SPDX-License-Identifier: Apache-2.0
"""Several machines that are one Slurm cluster: ctl, compute nodes, and a login node.

1. Each is a machine of its own; what one leaves behind is the business of its own supervisor.
2. The network is a bridge in ctl's network namespace and a pair of interfaces for each other machine; it ends
   with them. Nothing is in the host's network.
3. Users have the same keys everywhere, so that ssh from node to node asks for nothing.
"""

from __future__ import annotations

import contextlib
import secrets
import subprocess
from collections.abc import Mapping, Sequence
from types import TracebackType

from lab.machine import LabError, Machine
from lab.node import Node
from lab.slurm import NodeEntry, Settings, SlurmConfig

IPV4, IPV6 = "10.88.0", "fd88"
_NUMBERS = {"ctl": 1, "login": 20}


class Cluster:
    """with Cluster() as cluster: cluster.login.run(["ssh", "node1"], user="alice")

    Members are Nodes, by name in `machines` and as attributes ctl and login; compute nodes in `nodes`.

    suite          as for Node
    nodes          the compute nodes' names
    slurmd_port    other than 6818
    ports          of single nodes, by name
    slurm          slurm.conf settings; {"CommunicationParameters": "EnableIPv6"} for Slurm over IPv6
    packages       more than the private root's usual ones, on each machine
    version        6: slurm.conf and /etc/hosts have IPv6 addresses, and the machines no others
    """

    def __init__(
        self,
        suite: str | None = None,
        *,
        nodes: Sequence[str] = ("node1", "node2"),
        slurmd_port: int | None = None,
        ports: Mapping[str, int] | None = None,
        slurm: Settings | None = None,
        cgroup_conf: Settings | None = None,
        lines: Sequence[str] = (),
        packages: Sequence[str] = (),
        version: int = 4,
    ) -> None:
        self.version = version
        self.numbers = {**_NUMBERS, **{name: 11 + index for index, name in enumerate(nodes)}}
        entries = [NodeEntry(name, name, self.address(name, version), (ports or {}).get(name)) for name in nodes]
        settings: dict[str, str | None] = dict(slurm or {})
        if slurmd_port is not None:
            settings["SlurmdPort"] = str(slurmd_port)
        config = SlurmConfig(f"ctl({self.address('ctl', version)})", entries, settings, cgroup_conf or {}, lines)
        munge_key = secrets.token_bytes(128)
        # slurmd asks itself for a connection's process, as "localhost" and over IPv6 if its address is one (22.05)
        hosts = (
            "127.0.0.1 localhost\n"
            + "::1 localhost\n" * (version == 6)
            + "".join(f"{self.address(name, one)} {name}\n" for name in self.numbers for one in (4, 6)[version == 6 :])
        )
        self.machines: Mapping[str, Node] = {
            name: Node(
                suite,
                hostname=name,
                addresses=(),
                packages=packages,
                config=config,
                munge_key=munge_key,
                hosts=hosts,
                controller=name == "ctl",
                compute=name in nodes,
            )
            for name in self.numbers
        }
        self.ctl = self.machines["ctl"]
        self.login = self.machines["login"]
        self.nodes = [self.machines[name] for name in nodes]

    def address(self, name: str, version: int = 4) -> str:
        """A member's IP address; its host name leads to the same two."""
        return f"{IPV4}.{self.numbers[name]}" if version == 4 else f"{IPV6}::{self.numbers[name]:x}"

    def __getitem__(self, name: str) -> Node:
        return self.machines[name]

    def __enter__(self) -> Cluster:
        self.up()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def up(self) -> None:
        """Start all machines, their network and Slurm, and wait until every node takes jobs. Raises LabError."""
        try:
            for machine in self.machines.values():
                Machine.up(machine)
            self._connect()
            for machine in self.machines.values():
                machine.keys = self.ctl.keys
                machine.prepare()
            for machine in self.machines.values():
                machine.start_daemons()
            self.ctl.wait_idle()
        except BaseException as error:
            story = self.diagnose()
            self.close()
            if isinstance(error, (LabError, subprocess.SubprocessError)):
                raise LabError(f"{error}\n{story}") from error
            raise

    def close(self) -> None:
        """End every machine, also if ending one fails. Raises LabError."""
        with contextlib.ExitStack() as stack:
            for machine in self.machines.values():
                stack.callback(machine.close)

    def diagnose(self) -> str:
        up = [machine for machine in self.machines.values() if machine.init_pid]
        return "\n".join(f"===== {machine.hostname}\n{machine.diagnose()}" for machine in up)

    def _connect(self) -> None:
        """With the host's ip, in the machines' network namespaces."""

        def ip(machine: Node, *arguments: str) -> None:
            command = ["nsenter", "-t", str(machine.init_pid), "-n", "ip", *arguments]
            done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
            if done.returncode:
                raise LabError(f"ip {' '.join(arguments)}: {done.stdout}")

        def give_addresses(machine: Node, interface: str) -> None:
            if self.version == 4:
                ip(machine, "addr", "add", f"{self.address(machine.hostname)}/24", "dev", interface)
            # nodad: else the address may not be used for the first seconds
            ip(machine, "addr", "add", f"{self.address(machine.hostname, 6)}/64", "dev", interface, "nodad")
            ip(machine, "link", "set", interface, "up")

        ip(self.ctl, "link", "add", "br0", "type", "bridge")
        give_addresses(self.ctl, "br0")
        for name, machine in self.machines.items():
            if machine is not self.ctl:
                peer = ["peer", "name", "eth0", "netns", str(machine.init_pid)]
                ip(self.ctl, "link", "add", f"v-{name}", "type", "veth", *peer)
                ip(self.ctl, "link", "set", f"v-{name}", "master", "br0", "up")
                give_addresses(machine, "eth0")

    # Jobs ------------------------------------------------------------------------------------------

    def allocate(self, user: str, nodes: Sequence[str], timeout: float = 120.0) -> int:
        """A job on just these nodes that has nothing but its extern steps; returns its id when all of them run."""
        job = self.login.salloc(user, ntasks=len(nodes), nodes=len(nodes), nodelist=",".join(nodes))
        for name in nodes:
            self[name].wait_started([job], timeout)
        return job

    def reset(self) -> None:
        """As Node.reset(), on every machine: the state a test should leave a shared cluster in."""
        self.ctl.cancel_all()
        for machine in self.machines.values():
            machine.reset()

    def cancel(self, job: int) -> None:
        """Cancel a job and wait until nothing of it is left on any node."""
        self.login.run(["scancel", str(job)])
        for node in self.nodes:
            node.wait_ended(job)

    def ssh(
        self, user: str, via: str, to: str, command: str, *, version: int = 4, check: bool = False
    ) -> subprocess.CompletedProcess[str]:
        """From a login of the user's on `via` (a compute node), ssh on to `to` and run a command there."""
        inner = ["ssh", "-o", "BatchMode=yes", self.address(to, version), command]
        quoted = " ".join(f"'{word}'" for word in inner)
        return self.login.ssh(user, quoted, client=user, host=via, check=check)
