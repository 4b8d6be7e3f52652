# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import shlex

import pytest

from slurm_adopt.wire.slurmd_command import environment_value, parse_command


@pytest.mark.parametrize(
    ("line", "conf", "node", "is_configless", "is_dynamic"),
    [
        ("slurmd", "", "", False, False),
        ("slurmd -f /opt/slurm.conf", "/opt/slurm.conf", "", False, False),
        ("slurmd -f/opt/slurm.conf -Nn1", "/opt/slurm.conf", "n1", False, False),
        ("slurmd -Dvvvf /opt/slurm.conf", "/opt/slurm.conf", "", False, False),
        ("slurmd -DcN n1 -s", "", "n1", False, False),
        ("slurmd -f one -f two", "two", "", False, False),
        ("slurmd --systemd -Z --conf 'Feature=a -N other' -N dyn.1", "", "dyn.1", False, True),
        ("slurmd -Z --conf='Gres=gpu:2' -Ndyn", "", "dyn", False, True),
        ("slurmd -ZD", "", "", False, True),
        ("slurmd --conf-server=ctl:6817", "", "", True, False),
        ("slurmd --conf-server ctl:6817,ctl2 -D", "", "", True, False),
        ("slurmd --conf-s ctl -Dfx", "x", "", True, False),
        # the value of another option, and an option that nobody knows
        ("slurmd -L -f -n -19 -d -N", "", "", False, False),
        ("slurmd --new-option -f /x", "/x", "", False, False),
        ("slurmd -Fgpu -f /x", "/x", "", False, False),
        ("slurmd -D -- -f /x", "", "", False, False),
        ("slurmd word -f /x -", "/x", "", False, False),
        ("slurmd -f", "", "", False, False),
        ("slurmd --conf-server", "", "", False, False),
        ("slurmd --", "", "", False, False),
    ],
)
def test_slurmd_command__options(line: str, conf: str, node: str, is_configless: bool, is_dynamic: bool) -> None:
    found = parse_command(tuple(word.encode() for word in shlex.split(line)))
    assert (found.conf, found.node) == (conf, node)
    assert (found.is_configless, found.is_dynamic) == (is_configless, is_dynamic)


@pytest.mark.parametrize("arguments", [(), (b"",), (b"\xff\xfe", b"-f\xff")])
def test_slurmd_command__any_bytes(arguments: tuple[bytes, ...]) -> None:
    assert parse_command(arguments).conf in ("", "\udcff")


def test_slurmd_command__environment() -> None:
    environment = b"PATH=/bin\0XSLURM_CONF=no\0SLURM_CONF=/a\0SLURM_CONF=/b\0"
    assert environment_value(environment, "SLURM_CONF") == "/a"
    assert environment_value(environment, "PWD") == ""
    assert environment_value(b"", "PWD") == ""
