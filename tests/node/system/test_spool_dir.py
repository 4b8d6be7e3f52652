# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import os
from pathlib import Path

import pytest

from slurm_adopt.record import replace
from slurm_adopt.system.slurm.conf import SlurmConf, read_slurm_conf
from slurm_adopt.system.slurm.slurmd import Slurmd, compiled_place_in, is_slurmd
from slurm_adopt.system.slurm.spool_dir import extern_node, spool_dirs
from slurm_adopt.wire.slurm_conf import parse

NODES = """
NodeName=n[1-3] NodeHostname=host[1-3]
NodeName=v[1-2] NodeHostname=multi
NodeName=full NodeHostname=machine.example.org
NodeName=own
"""


@pytest.fixture
def conf(tmp_path: Path) -> SlurmConf:
    path = tmp_path / "slurm.conf"
    path.write_text("")
    path.chmod(0o644)
    return replace(read_slurm_conf((str(path),)), statements=parse(NODES).statements)


@pytest.mark.parametrize(
    ("pattern", "nodename", "hostname", "expected"),
    [
        ("/s", "", "host2", [("/s", "n2")]),
        ("/s/%n", "", "host2.example.org", [("/s/n2", "n2")]),
        ("/s/%h.%n/x", "", "host2", [("/s/host2.n2/x", "n2")]),
        ("/s/%n", "", "multi", [("/s/v1", "v1"), ("/s/v2", "v2")]),
        ("/s/%n", "", "machine.example.org", [("/s/full", "full")]),
        ("/s/%n", "", "own", [("/s/own", "own")]),
        ("/s/%n-%h", "n3", "elsewhere", [("/s/n3-elsewhere", "n3")]),
        # slurmd's own host name, not what NodeHostname calls it
        ("/s/%h.%n", "", "machine.example.org", [("/s/machine.full", "full")]),
        ("/s/%n-%h", "dyn", "where.ever", [("/s/dyn-where", "dyn")]),
        ("/s", "dyn", "where", [("/s", "dyn")]),
        ("/s", "", "dynamic.example.org", [("/s", None)]),
        ("/s/%x%", "", "host2", [("/s/%x%", "n2")]),
        ("/none/%n", "", "dyn.example.org", [("/none/dyn", None), ("/none/dyn.example.org", None)]),
    ],
)
def test_spool_dir__names(
    conf: SlurmConf, pattern: str, nodename: str, hostname: str, expected: list[tuple[str, str | None]]
) -> None:
    assert spool_dirs(replace(conf, spool_dir=pattern), nodename, hostname) == expected


def test_spool_dir__localhost_comes_last(conf: SlurmConf) -> None:
    local = replace(conf, statements=parse("NodeName=n1 NodeHostname=localhost\nNodeName=here").statements)
    assert spool_dirs(local, "", "other.example.org") == [("/var/spool/slurmd", "n1")]
    assert spool_dirs(local, "", "here") == [("/var/spool/slurmd", "here")]


@pytest.mark.parametrize(
    ("pattern", "told", "hostname", "expected"),
    [
        # the host's name is another node's, or nobody's; what slurmd was told comes first
        ("/s/%n", ("n3",), "host2", [("/s/n3", "n3"), ("/s/n2", "n2")]),
        ("/s/%n.%h", ("n3",), "elsewhere", [("/s/n3.elsewhere", "n3"), ("/s/elsewhere.elsewhere", None)]),
        ("/s/%n", ("dyn.1", ""), "where.ever", [("/s/dyn.1", "dyn.1"), ("/s/where", None), ("/s/where.ever", None)]),
        ("/s/%n", ("v2", "v1"), "multi", [("/s/v2", "v2"), ("/s/v1", "v1")]),
        # all sockets of the folder are looked at anyway
        ("/s", ("dyn",), "where", [("/s", None)]),
        ("/s", ("n3",), "host2", [("/s", "n3"), ("/s", "n2")]),
    ],
)
def test_spool_dir__names_that_slurmd_was_told(
    conf: SlurmConf, pattern: str, told: tuple[str, ...], hostname: str, expected: list[tuple[str, str | None]]
) -> None:
    slurmds = tuple(Slurmd(100 + number, 1, "/usr/sbin/slurmd", node=node) for number, node in enumerate(told))
    known = replace(conf, spool_dir=pattern, slurmds=slurmds)
    assert spool_dirs(known, "", hostname) == expected
    assert spool_dirs(known, "n1", hostname) == spool_dirs(replace(conf, spool_dir=pattern), "n1", hostname)


@pytest.mark.skipif(os.geteuid() != 0, reason="gives folders to other users")
def test_spool_dir__dynamic_nodes_are_found_by_looking(conf: SlurmConf, tmp_path: Path) -> None:
    for folder, entries in {
        "slurmd.ec2-17": ["ec2-17_12.4294967292", "ec2-17_12.0", "cred_state"],
        "slurmd.empty": ["ec2-17_12.0"],
        "slurmd.users": ["evil_1.4294967292"],
        "slurmd.open": ["evil_1.4294967292"],
        "slurmd.two": ["a_b_1.4294967292", "c_2.4294967292", "c_3.4294967292", "x_y.4294967292", "_5.4294967292"],
        "other.x": ["other_1.4294967292"],
    }.items():
        (tmp_path / folder).mkdir(mode=0o755)
        for entry in entries:
            (tmp_path / folder / entry).touch()
    os.chown(tmp_path / "slurmd.users", 12345, 0)
    (tmp_path / "slurmd.open").chmod(0o757)
    (tmp_path / "slurmd.link").symlink_to("slurmd.two")
    dynamic = replace(conf, spool_dir=f"{tmp_path}/slurmd.%n")
    assert spool_dirs(dynamic, "", "here") == [
        (f"{tmp_path}/slurmd.here", None),
        (f"{tmp_path}/slurmd.ec2-17", "ec2-17"),
        (f"{tmp_path}/slurmd.two", "a_b"),
        (f"{tmp_path}/slurmd.two", "c"),
    ]


@pytest.mark.parametrize(
    ("entry", "node"),
    [
        ("vm_1.4294967292", "vm"),
        ("a_b.c_17.4294967292", "a_b.c"),
        ("vm_1.4294967291", None),
        ("vm_.4294967292", None),
        ("_1.4294967292", None),
        ("vm_x.4294967292", None),
        ("vm_1.0.4294967292", None),
        (".4294967292", None),
    ],
)
def test_spool_dir__extern_node(entry: str, node: str | None) -> None:
    assert extern_node(entry) == node


@pytest.mark.parametrize(
    ("data", "place"),
    [
        (b"", ""),
        (b"\0/etc/slurm/slurm.conf\0", "/etc/slurm/slurm.conf"),
        (b"x\0%s/slurm.conf\0/run/slurm/conf/slurm.conf\0\0/opt/a b/slurm.conf\0", "/opt/a b/slurm.conf"),
        (b"\0see /etc/slurm.conf\0/slurm.conf.d\0etc/slurm.conf\0", ""),
        (b"\0/a\xff/slurm.conf\0/b\n/slurm.conf\0", ""),
        (b"/slurm.conf", ""),
    ],
)
def test_slurmd__the_place_that_is_compiled_in(data: bytes, place: str) -> None:
    assert compiled_place_in(data) == place


def test_slurmd__names() -> None:
    assert [is_slurmd(f"/usr/sbin/{name}") for name in ("slurmd", "slurmd-wlm", "slurmdbd", "slurmstepd", "")] == [
        True,
        True,
        False,
        False,
        False,
    ]
