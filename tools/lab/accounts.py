# SPDX-License-Identifier: Apache-2.0
"""The people of a machine: alice, bob and carol, their passwords and keys."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from lab.machine import Machine

USERS: Mapping[str, int] = {"alice": 1501, "bob": 1502, "carol": 1503}

_MAKE = """
set -e
{useradd}
chpasswd -c SHA512 -s 1000 <<'END'
{passwords}
END
install -d -m 700 /root/.ssh
for user in root {names}; do
    ssh-keygen -q -t ed25519 -N '' -C $user -f /run/lab/key-$user
done
"""
# chpasswd: a hash that is cheap to make and to compare, for passwords that are no secret


def password(user: str) -> str:
    return f"pw-{user}"


@dataclass(frozen=True)
class Keys:
    """Private and public OpenSSH keys by user name, "root" among them."""

    private: Mapping[str, str]
    public: Mapping[str, str]


def make_accounts(machine: Machine, keys: Keys | None = None) -> Keys:
    """Make the users, each with a key of its own; root's key is accepted by all. keys: those of another machine."""
    useradd = "\n".join(f"useradd -m -u {uid} -s /bin/bash {user}" for user, uid in USERS.items())
    passwords = "\n".join(f"{user}:{password(user)}" for user in USERS)
    machine.run(_MAKE.format(useradd=useradd, passwords=passwords, names=" ".join(USERS)))
    if keys is None:
        names = ("root", *USERS)
        keys = Keys(
            {name: machine.read(f"/run/lab/key-{name}") for name in names},
            {name: machine.read(f"/run/lab/key-{name}.pub") for name in names},
        )
    for name in ("root", *USERS):
        folder = "/root/.ssh" if name == "root" else f"/home/{name}/.ssh"
        machine.write(f"{folder}/id_ed25519", keys.private[name], 0o600)
        machine.write(f"{folder}/id_ed25519.pub", keys.public[name])
        machine.write(f"{folder}/authorized_keys", keys.public["root"] + keys.public[name], 0o600)
    machine.run(
        "for u in " + " ".join(USERS) + "; do chmod 700 /home/$u/.ssh; chown -R $u: /home/$u/.ssh; done"
        "; rm -f /run/lab/key-*"
    )
    # every machine of a release has the host key of the private root, known to all
    host_key = machine.read("/etc/ssh/ssh_host_ed25519_key.pub")
    machine.write("/etc/ssh/ssh_known_hosts", f"* {host_key}")
    return keys
