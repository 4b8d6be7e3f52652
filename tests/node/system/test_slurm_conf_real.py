# SPDX-License-Identifier: Apache-2.0
"""Generated slurm.conf files: what this reader finds in them is what Slurm's own programs say that they say.

slurmctld reads the file, `scontrol show config` and `scontrol show node` tell. slurmd says where its spool directory is.
"""

from __future__ import annotations

import contextlib
import os
import random
import re
import subprocess
from collections.abc import Iterator

import pytest
from tests.node.system.slurm_conf_generator import Written, write

from lab.machine import wait_for
from lab.node import Node
from slurm_adopt.system.slurm.conf import SlurmConf, read_slurm_conf
from slurm_adopt.system.slurm.spool_dir import pid_files, spool_dirs
from slurm_adopt.wire.hostlist import expand
from slurm_adopt.wire.slurm_nodes import iter_nodes, node_of_name

SEEDS = range(int(os.environ.get("SLURM_CONF_SEEDS", "12")))
FOLDER = "/run/lab/conf"
FIXED = {
    "ClusterName": "Generated",
    "SlurmctldHost": "lab",
    "SlurmUser": "root",
    "AuthType": "auth/munge",
    "MpiDefault": "none",
    "SlurmctldPidFile": f"{FOLDER}/ctld.pid",
    "StateSaveLocation": f"{FOLDER}/state",
    "SlurmctldLogFile": f"{FOLDER}/ctld.log",
    "SlurmctldPort": "6917",
    "SelectType": "select/cons_tres",
}
#: Key of `scontrol show config`, and the field of ours, both as text.
SHOWN = {
    "ClusterName": "cluster_name",
    "SlurmdSpoolDir": "spool_dir",
    "SlurmdPidFile": "pid_file",
    "SlurmdPort": "slurmd_port",
    "AuthType": "auth_type",
    "AuthInfo": "auth_info",
    "Prolog": "prolog",
    "ProctrackType": "proctrack_type",
    "TaskPlugin": "task_plugin",
    "LaunchParameters": "launch_parameters",
    "CommunicationParameters": "communication_parameters",
    "MessageTimeout": "message_timeout_s",
    "TCPTimeout": "tcp_timeout_s",
}


@pytest.fixture(scope="module")
def quiet_node() -> Iterator[Node]:
    """munged alone runs."""
    with Node() as node:
        node.slurmd.stop()
        node.slurmctld.stop()
        yield node


def place(node: Node, seed: int) -> Written:
    """The generated files, and addresses for the hosts that they name."""
    written = write(seed, FIXED)
    node.run(f"rm -rf {FOLDER}; mkdir -p {FOLDER}/state")
    for name, text in written.files.items():
        node.write(f"{FOLDER}/{name}", text)
    names = " ".join(("localhost", *written.nodes, *written.hosts))
    node.write("/etc/hosts", f"10.77.0.1 lab\n127.0.0.1 {names}\n")
    return written


@contextlib.contextmanager
def slurmctld(node: Node) -> Iterator[dict[str, str]]:
    """One that has read the files; the environment for its commands."""
    where = {"SLURM_CONF": f"{FOLDER}/slurm.conf"}
    daemon = node.popen(
        ["slurmctld", "-D", "-c", "-f", where["SLURM_CONF"]], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:

        def answers() -> bool:
            assert daemon.poll() is None, node.read(f"{FOLDER}/ctld.log")
            return "is UP" in node.run(["scontrol", "ping"], env=where, check=False).stdout

        wait_for(answers, "slurmctld to have read the file", 60, 0.1)
        yield where
    finally:
        daemon.kill()
        daemon.wait()
        wait_for(lambda: not any("slurmctld" in p.command for p in node.processes("root")), "slurmctld to end")


def read(node: Node) -> SlurmConf:
    return read_slurm_conf((str(node.path(f"{FOLDER}/slurm.conf")),))


def as_text(value: object) -> str:
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)


def shown_config(text: str) -> dict[str, str]:
    """`Key = value` lines, seconds as numbers, `(null)` as nothing."""
    found = dict(re.findall(r"^(\w+)\s*= (.*?)\s*$", text, re.MULTILINE))
    return {key: re.sub(r"^(\d+) sec$", r"\1", value).replace("(null)", "") for key, value in found.items()}


@pytest.mark.parametrize("seed", SEEDS)
def test_slurm_conf_real__settings_and_nodes(quiet_node: Node, seed: int) -> None:
    written = place(quiet_node, seed)
    with slurmctld(quiet_node) as where:
        shown = shown_config(quiet_node.run(["scontrol", "show", "config"], env=where).stdout)
        nodes = quiet_node.run(["scontrol", "--oneliner", "show", "node"], env=where).stdout
    conf = read(quiet_node)
    assert conf.problems == ()
    lists = ("TaskPlugin", "LaunchParameters", "CommunicationParameters")
    ours = {key: as_text(getattr(conf, field)) for key, field in SHOWN.items()}
    theirs = {key: shown[key].lower() if key in lists else shown[key] for key in SHOWN}
    theirs["TaskPlugin"] = theirs["TaskPlugin"].replace("task/none", "")
    # the default is a constant of the build; /var/run is /run
    ours["SlurmdPidFile"] = ours["SlurmdPidFile"].replace("/var/run/", "/run/")
    assert ours == theirs
    flags = set(shown["PrologFlags"].lower().split(",")) - {""}
    # what Contain and X11 bring with them
    assert flags - {"alloc", "contain"} <= set(conf.prolog_flags) <= flags
    assert ("contain" in flags) == bool({"contain", "x11"} & set(conf.prolog_flags))
    assert conf.slurmd_user == shown["SlurmdUser"].partition("(")[0] or shown["SlurmdUser"].endswith(
        f"({conf.slurmd_user})"
    )
    found = {
        (node.name, node.hostname, node.address, str(node.port))
        for node in iter_nodes(conf.statements, conf.slurmd_port)
    }
    # it shows no port where that is SlurmdPort
    usual = {"Port": str(conf.slurmd_port)}
    assert found == {
        tuple({**usual, **words}[key] for key in ("NodeName", "NodeHostName", "NodeAddr", "Port"))
        for words in (dict(word.split("=", 1) for word in line.split() if "=" in word) for line in nodes.splitlines())
    }
    assert sorted(node for node, *_ in found) == sorted(written.nodes)


@pytest.mark.parametrize("seed", SEEDS)
def test_slurm_conf_real__what_slurmd_says_of_itself(quiet_node: Node, seed: int) -> None:
    """Patterns in folders are filled in as slurmd does, and its port is the node's."""
    written = place(quiet_node, seed)
    conf = read(quiet_node)
    name = random.Random(seed).choice(written.nodes)
    ((spool, told),) = spool_dirs(conf, name, "lab")
    assert told == name
    quiet_node.run(["mkdir", "-p", os.path.dirname(spool)])
    said = slurmd_says(quiet_node, name)
    node = node_of_name(conf.statements, name, conf.slurmd_port)
    assert node is not None
    assert said["Spool Dir"] == spool
    assert said["Port"] == str(node.port)
    assert said["ClusterName"] == conf.cluster_name
    assert said["Prolog"].replace("(null)", "") == conf.prolog
    # the default is a constant of the build; /var/run is /run
    assert [said["Pid File"]] == [path.replace("/var/run/", "/run/") for path in pid_files(conf, name)]


def slurmd_says(node: Node, name: str) -> dict[str, str]:
    """What slurmd tells of its configuration when it starts."""
    argv = ["slurmd", "-D", "-vvvvv", "-N", name, "-f", f"{FOLDER}/slurm.conf"]
    said = ""
    with node.popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as slurmd:
        assert slurmd.stderr is not None
        for line in slurmd.stderr:
            said += line
            if "Pid File" in line:
                break
        slurmd.kill()
    found = dict(re.findall(r"debug3: (\w[\w ]*?)\s*= `?(.*?)'?$", said, re.MULTILINE))
    assert "Pid File" in found, said
    return found


def test_slurm_conf_real__host_lists(quiet_node: Node) -> None:
    """Whatever `scontrol show hostnames` takes is the same list here."""
    chance = random.Random(7)
    texts = [host_list(chance) for _ in range(200)]
    quiet_node.write("/run/lab/lists", "\n".join(texts) + "\n")
    loop = 'while read -r list; do scontrol show hostnames "$list" | tr "\\n" " "; echo; done </run/lab/lists'
    told = [line.split() for line in quiet_node.run(loop, timeout=300).stdout.splitlines()]
    assert len(told) == len(texts)
    assert {text: list(expand(text)) for text in texts} == dict(zip(texts, told))


def host_list(chance: random.Random) -> str:
    """Names, ranges with and without leading zeros, several brackets. What follows the last one 22.05 refuses."""
    pieces = []
    for _ in range(chance.randrange(1, 4)):
        text = chance.choice(("n", "cn-", "rack1n", "a.b-"))
        for number in range(chance.randrange(3)):
            ranges = []
            for _ in range(chance.randrange(1, 4)):
                low, width = chance.randrange(1, 120), chance.randrange(4)
                zeros = chance.choice((0, 0, 3, 4))
                many = f"{low:0{zeros}}-{low + chance.randrange(1, 5):0{zeros}}"
                ranges.append(many if width else f"{low:0{zeros}}")
            text += f"{('', '-ib')[number]}[{','.join(ranges)}]"
        pieces.append(text)
    return ",".join(pieces)
