# SPDX-License-Identifier: Apache-2.0
"""What hostile sessions do. `deeds.py` does it, on the node's own Python, as the user and from inside the session."""

from __future__ import annotations

import random
import re
from typing import NamedTuple

DEEDS_PLACE = "/usr/local/lib/torture/deeds.py"
#: A deed is ended after this; what it leaves in the background ends by itself a little later.
LONGEST_S = 20
#: Name in the report and in docs/security/torture.md, and what deeds.py calls it.
DEEDS = {
    "write themselves into other cgroups": "cgroups",
    "flood the service's sockets, as root of a user namespace too": "service",
    "flood the socket of the service for users": "users",
    "move their login into other jobs, their own and others'": "move",
    "log in from inside their job, as themselves and as others": "onward",
    "leave daemons behind that ignore signals": "daemons",
    "call processes sshd, slurmstepd, helper and service": "names",
    "use up their processes and descriptors": "limits",
    "signal everybody else's processes": "signals",
    "start and end processes as fast as they can": "forks",
}


#: What a login from inside a job prints: its uid, its SLURM_JOB_ID, its cgroups.
ONWARD = re.compile(r"^onward (\d+)=(\d*)=\r?\n(.*?)^=onward\r?$", re.DOTALL | re.MULTILINE)


class Deed(NamedTuple):
    """One of them; `command` is for the session's shell. `moves`: the session may be in another job afterwards."""

    name: str
    command: str
    moves: bool


def deed_of(chance: random.Random) -> Deed:
    """Any of them."""
    name = chance.choice(list(DEEDS))
    number = chance.randrange(1 << 30)
    command = f"timeout -s KILL {LONGEST_S} python3 -I {DEEDS_PLACE} {DEEDS[name]} {number} 2>&1"
    return Deed(name, command, DEEDS[name] == "move")
