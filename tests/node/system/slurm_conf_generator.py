# SPDX-License-Identifier: Apache-2.0
"""A slurm.conf as somebody may have written it: the settings are chosen first, then how they are spelt."""

from __future__ import annotations

import random
from typing import NamedTuple

WAYS_OF_CASE = (str, str.lower, str.upper, str.swapcase)
#: Keys with values that any slurmctld takes, whatever the machine has.
VALUES = {
    "SlurmdSpoolDir": ("/var/spool/slurmd", "/var/spool/%n", "/scratch/%h/slurmd.%n", "/a=b/c", "/with blank/d", "/x#y"),
    "SlurmdPidFile": ("/run/slurmd.pid", "/run/slurmd-%n.pid"),
    "SlurmdPort": ("6818", "7001", "17002"),
    "SlurmdUser": ("root", "daemon", "1"),
    "AuthInfo": ("socket=/run/munge/munge.socket.2", "cred_expire=120,ttl=60"),
    "PrologFlags": ("contain", "Alloc", "Contain,X11", "ALLOC,CONTAIN"),
    "Prolog": ("/etc/slurm/prolog.sh", "/etc/slurm/prolog.d/*", "/opt/it's/prolog", "/opt/a b/prolog"),
    "ProctrackType": ("proctrack/cgroup", "proctrack/linuxproc", "proctrack/pgid"),
    "TaskPlugin": ("task/affinity", "task/cgroup", "task/affinity,task/cgroup"),
    "LaunchParameters": ("ulimit_pam_adopt", "enable_nss_slurm", "enable_nss_slurm,ulimit_pam_adopt"),
    "CommunicationParameters": ("NoAddrCache", "EnableIPv6", "EnableIPv6,NoAddrCache"),
    "MessageTimeout": ("11", "60"),
    "TCPTimeout": ("3", "8"),
    "X11Parameters": ("home_xauthority",),
}  # fmt: skip


class Written(NamedTuple):
    """Files by name (`slurm.conf` and what it includes), the names of all nodes in it, and those of their hosts."""

    files: dict[str, str]
    nodes: tuple[str, ...]
    hosts: tuple[str, ...]


def write(seed: int, fixed: dict[str, str]) -> Written:
    """`fixed` are settings that every file has, for the program that reads it to run at all."""
    return _Writer(random.Random(seed)).write(fixed)


class _Writer:
    def __init__(self, chance: random.Random) -> None:
        self.chance = chance
        self.nodes: list[str] = []
        self.hosts: list[str] = []

    def write(self, fixed: dict[str, str]) -> Written:
        settings = [(key, self.chance.choice(values)) for key, values in VALUES.items() if self.chance.random() < 0.8]
        # said before, and another value then: the last one counts
        earlier = [(key, self.chance.choice(VALUES[key])) for key, _ in self.chance.sample(settings, 3)]
        self.chance.shuffle(settings)
        lines = [self.setting(key, value) for key, value in (*fixed.items(), *earlier, *settings)]
        nodes = self.node_lines()
        lines += [*nodes, "PartitionName=main Nodes=ALL Default=YES State=UP"]
        place = self.chance.randrange(len(fixed), len(lines) - 1)
        more = self.chance.randrange(place + 1, len(lines))
        files = {
            "slurm.conf": [*lines[:place], self.include("part.conf"), *lines[more:]],
            "part.conf": lines[place:more],
        }
        texts = {name: self.text(found) for name, found in files.items()}
        return Written(texts, tuple(self.nodes), tuple(self.hosts))

    def include(self, name: str) -> str:
        return f"{self.chance.choice(('Include', 'include', 'INCLUDE'))}{self.blanks(1)}{name}"

    def text(self, lines: list[str]) -> str:
        """With comments, empty lines and blanks between them."""
        found = []
        for line in lines:
            if self.chance.random() < 0.2:
                found.append(self.chance.choice(("", "# SlurmdPort=1", "   # a comment \\# with more", "\t", "#")))
            if self.chance.random() < 0.2:
                line += self.chance.choice((" # and why", "\t#", "  ", "#x=y"))
            found.append(line)
        return "\n".join(found) + "\n"

    def blanks(self, least: int = 0) -> str:
        return "".join(self.chance.choice(" \t") for _ in range(self.chance.randrange(least, 3)))

    def pair(self, key: str, value: str, loose: bool = True) -> str:
        key = self.chance.choice(WAYS_OF_CASE)(key)
        quoted = '"' in value or " " in value or self.chance.random() < 0.2
        # what begins a comment does so inside quotes, too
        value = value.replace("#", "\\#")
        value = f'"{value}"' if quoted else value
        around = self.chance.random() < 0.2 and loose
        return f"{key}{self.blanks() if around else ''}={self.blanks() if around else ''}{value}"

    def setting(self, key: str, value: str) -> str:
        lead = self.blanks() if self.chance.random() < 0.15 else ""
        text = lead + self.pair(key, value)
        if "=" in text and self.chance.random() < 0.1:
            place = text.index("=") + 1
            text = f"{text[:place]}\\\n{text[place:]}"
        return text

    # Nodes -----------------------------------------------------------------------------------------

    def node_lines(self) -> list[str]:
        lines = []
        for number in range(self.chance.randrange(1, 6)):
            if self.chance.random() < 0.4:
                lines.append(self.joined([("NodeName", "DEFAULT"), ("Port", str(7100 + number)), ("CPUs", "2")]))
            lines.append(self.node_line(f"{self.chance.choice(('n', 'cn-', 'rack0x'))}{'abcdef'[number]}"))
        return lines

    def node_line(self, prefix: str) -> str:
        text, names = self.host_list(prefix)
        self.nodes += names
        pairs = [("NodeName", text)]
        more = []
        if self.chance.random() < 0.4:
            more.append(("NodeHostname", f"host-{prefix}[1-{len(names)}]"))
            self.hosts += [f"host-{prefix}{number}" for number in range(1, len(names) + 1)]
        if self.chance.random() < 0.4:
            more.append(("NodeAddr", f"10.1.{ord(prefix[-1])}.[1-{len(names)}]"))
        if self.chance.random() < 0.4:
            more.append(("Port", self.chance.choice(("7200", f"[7300-{7300 + len(names) - 1}]"))))
        more += [("CPUs", "2"), ("RealMemory", "100"), ("Feature", "a,b")][: self.chance.randrange(4)]
        self.chance.shuffle(more)
        return self.joined(pairs + more)

    def joined(self, pairs: list[tuple[str, str]]) -> str:
        """On one line, or continued."""
        found = self.pair(*pairs[0], loose=False)
        for key, value in pairs[1:]:
            gap = "  \\\n\t" if self.chance.random() < 0.15 else " " + self.blanks()
            found += gap + self.pair(key, value)
        return found

    def host_list(self, prefix: str) -> tuple[str, list[str]]:
        kind = self.chance.randrange(5)
        low, count = self.chance.randrange(1, 12), self.chance.randrange(2, 5)
        if kind == 0:
            return prefix, [prefix]
        if kind == 1:
            return f"{prefix}[{low}-{low + count}]", [f"{prefix}{n}" for n in range(low, low + count + 1)]
        if kind == 2:  # leading zeros
            padded = [f"{prefix}{n:03}" for n in range(low, low + count + 1)]
            return f"{prefix}[{low:03}-{low + count:03}]", padded
        if kind == 3:
            return f"{prefix}[{low},{low + 3}-{low + 4}]", [f"{prefix}{n}" for n in (low, low + 3, low + 4)]
        return f"{prefix}x,{prefix}[{low}-{low + 1}]", [f"{prefix}x", f"{prefix}{low}", f"{prefix}{low + 1}"]
