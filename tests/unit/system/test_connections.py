# SPDX-License-Identifier: Apache-2.0
"""Which of the sockets of the process that calls PAM is the login's."""

from __future__ import annotations

import pytest

from slurm_adopt.system.kernel.carrier import choose_connection
from slurm_adopt.system.tasks.sockets import with_link
from slurm_adopt.wire.login_exchange import Connection

LDAP = Connection(3, 4, "10.0.0.1", 50123, "10.0.0.53", 636)
SSH = Connection(5, 4, "10.0.0.1", 22, "10.0.9.9", 40000)
MAPPED = Connection(5, 6, "::ffff:10.0.0.1", 22, "::ffff:10.0.9.9", 40000)
V6 = Connection(6, 6, "2001:db8::1", 22, "2001:db8:0:0::9", 40000)
LINK = Connection(7, 6, "fe80::1%2", 22, "fe80::9%2", 40000)


@pytest.mark.parametrize(
    ("connections", "rhost", "chosen"),
    [
        ((LDAP, SSH), "10.0.9.9", SSH),
        ((LDAP, MAPPED), "10.0.9.9", MAPPED),
        ((LDAP, SSH), "::ffff:10.0.9.9", SSH),
        ((LDAP, V6), "2001:db8::9", V6),
        ((LDAP, V6), "2001:DB8:0::9", V6),
        ((LDAP, LINK), "fe80::9%eth0", LINK),
        ((SSH, LDAP), "login.example.org", SSH),
        # a unix socket, vsock, pipes, cron, su: what is open is a directory service's, or a database's
        ((LDAP,), "UNKNOWN", None),
        ((LDAP,), "", None),
        ((LDAP, SSH), "192.0.2.1", None),
        ((), "login", None),
    ],
)
def test_connections__the_logins_own(
    connections: tuple[Connection, ...], rhost: str, chosen: Connection | None
) -> None:
    assert choose_connection(connections, rhost) is chosen


def test_connections__a_link_has_a_place_of_its_own() -> None:
    assert with_link("fe80::1%3", 6818) == ("fe80::1", 6818, 0, 3)
    assert with_link("10.0.0.1", 6818) == ("10.0.0.1", 6818)
    assert with_link("fe80::1%eth0", 6818) == ("fe80::1%eth0", 6818)
