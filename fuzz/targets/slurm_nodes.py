# SPDX-License-Identifier: Apache-2.0
"""A node that the lines of slurm.conf name is found by its name, its host name and its address.

The three searches, which pass over lines that cannot have what is wanted, find what reading every line finds.
"""

from __future__ import annotations

from itertools import islice

from slurm_adopt.wire import slurm_nodes as wire
from slurm_adopt.wire.slurm_conf import ConfError, parse

LOOKED_AT = 5
MAX_LEN = 400


def check(data: bytes) -> None:
    """The text of a file."""
    try:
        statements = parse(data).statements
    except ConfError:
        return
    problems: list[str] = []
    nodes = list(islice(wire.iter_nodes(statements, problems=problems), LOOKED_AT))
    for node in nodes:
        assert 0 < node.port < 65536
        assert node.name
        assert "/" not in node.name
        assert not node.name.startswith(".")
        found = wire.node_of_name(statements, node.name)
        assert found is None or found.name == node.name
        if not problems:
            assert found == node
            assert node in wire.nodes_of_host(statements, node.hostname)
            assert node in wire.nodes_of_address(statements, node.address)
